"""Audits as the laboratory models them, with the parameters of the node's own (`protocol.audits`).

1. After the rows are closed the beacon draws receipts of every row, in proportion to their credits: `rate_permille` of the row's
   receipts, rounded up, so at least one of every row.
2. `jurors` members, other than reporter and helper, re-execute each. A result within `tolerance_credits` of the receipt upholds it.
3. If a juror accuses, every member looks, and the receipt is false if more than half of them say so. So an accusation alone costs
   work and nothing else.
4. A false receipt freezes its reporter's row: it flows along the consensus of the others. What else it costs is up to the rule.

Members of the ring vouch for each other; accusers call every receipt of others false. An honest re-execution differs from an honest
receipt by more than the tolerance with a chance of `disagreement_ppm` (floating point on another machine).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

from learnae.lab.books import Books, Receipt
from learnae.protocol.audits import JURORS, compute_tolerance

VALIDATION_EXAMPLES: Final = 100  # of a reporter in the sessions that docs/accuracy.md measures
CREDITS_PER_ANSWER: Final = 10  # on the scale of section 7, whose mean receipt has 27 credits: an improvement by two or three answers
TOLERANCE_CREDITS: Final = 2 * compute_tolerance(VALIDATION_EXAMPLES) * CREDITS_PER_ANSWER
"""Both counts of a receipt, before and after, may be off by the node's tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTerms:
    """How receipts are re-executed."""

    rate_permille: int = 100
    jurors: int = JURORS
    tolerance_credits: int = TOLERANCE_CREDITS
    disagreement_ppm: int = 1000
    is_jury_final: bool = False  # True: no second look by all members; the laboratory's tests show why there is one


def draw_receipts(row: Sequence[Receipt], terms: AuditTerms, rng: Random) -> list[Receipt]:
    """The receipts of one row that the beacon names: so many points on the line of its credits, as `protocol.audits` draws them."""
    if not row or not terms.rate_permille:
        return []
    ends = list(accumulate(max(1, receipt.credits) for receipt in row))
    points = -(-len(row) * terms.rate_permille // 1000)
    return [row[index] for index in sorted({bisect_right(ends, rng.randrange(ends[-1])) for _ in range(points)})]


def find_liars(books: Books, terms: AuditTerms, rng: Random) -> frozenset[int]:
    """The members whose row an audit freezes."""
    rows: dict[int, list[Receipt]] = {}
    for receipt in books.receipts:
        rows.setdefault(receipt.reporter, []).append(receipt)
    admitted = [member for member in books.present if member not in books.outsiders]
    return frozenset(
        reporter
        for reporter, row in sorted(rows.items())
        if any(_is_called_false(receipt, books, admitted, terms, rng) for receipt in draw_receipts(row, terms, rng))
    )


def _is_called_false(receipt: Receipt, books: Books, admitted: Sequence[int], terms: AuditTerms, rng: Random) -> bool:
    eligible = [member for member in admitted if member not in (receipt.reporter, receipt.helper)]
    jurors = rng.sample(eligible, min(terms.jurors, len(eligible)))
    accused = any(_accuses(juror, receipt, books, terms, rng) for juror in jurors)
    if not accused or terms.is_jury_final:
        return accused
    return 2 * sum(_accuses(member, receipt, books, terms, rng) for member in eligible) > len(eligible)


def _accuses(auditor: int, receipt: Receipt, books: Books, terms: AuditTerms, rng: Random) -> bool:
    """What one auditor says of one receipt, as it suits it."""
    differs = rng.randrange(1_000_000) < terms.disagreement_ppm
    if auditor in books.ring and receipt.reporter in books.ring:
        return False
    if auditor in books.accusers:
        return True
    return differs or receipt.credits > receipt.proven + terms.tolerance_credits
