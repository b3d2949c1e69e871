"""What help is worth: Eq. 1, the two reward rules, the claim check. Integers only; every sum is conserved.

`raw` is the paper's rule: a member's points are its column sum of the Shared Contribution Ledger. `budgeted` lets every
member's deposit flow along its own row, so that a row can move no more than its own deposit whatever numbers it holds;
rows that are silent or frozen flow along what all the others report.
Source: paper 4.3 (Eq. 1), 6, 7; deviation D5: `budgeted` is not in the paper (docs/attacks.md says why it is the default).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from learnae.ids import Credits, PeerId, Wei

POINTS_PER_ROW: Final = 10**9
"""What one row of the ledger distributes under `budgeted`; fine enough that rounding costs less than a gas unit."""

Rows = Mapping[PeerId, Mapping[PeerId, Credits]]
"""The Shared Contribution Ledger: reporter -> helper -> credits owed in total."""


def compute_credits(*, reward_factor: int, correct_before: int, correct_after: int, total: int) -> Credits:
    """Eq. 1 in integers, rounded down: `reward_factor * (achieved - current)`; 0 if there is no improvement."""
    return Credits(max(0, reward_factor * (correct_after - correct_before) // total))


def compute_tip(amount: Credits, *, wei_per_credit: int, budget_wei: Wei, spent_wei: Wei) -> Wei:
    """The direct payment for one receipt (4.3, Eq. 1), never more than what is left of the budget."""
    return Wei(max(0, min(amount * wei_per_credit, budget_wei - spent_wei)))


def compute_raw_points(rows: Rows, members: Sequence[PeerId]) -> dict[PeerId, int]:
    """The paper's rule (section 6): column sums over the rows of members; nobody is credited by its own row."""
    known = set(members)
    points = dict.fromkeys(members, 0)
    for reporter in members:
        for helper, credits in rows.get(reporter, {}).items():
            if helper in known and helper != reporter:
                points[helper] += credits
    return points


def compute_budgeted_points(rows: Rows, members: Sequence[PeerId]) -> dict[PeerId, int]:
    """Row-normalised: every member's row distributes exactly `POINTS_PER_ROW`; empty rows follow the others' consensus.

    The consensus is the sum of all distributed rows, without the part of the silent member itself. If nobody reports
    anything, nobody has points.
    """
    known = sorted(members)
    points = dict.fromkeys(known, 0)
    silent = []
    for reporter in known:
        row = {h: c for h, c in rows.get(reporter, {}).items() if h in points and h != reporter and c > 0}
        if not row:
            silent.append(reporter)
            continue
        for helper, share in divide_exactly(POINTS_PER_ROW, row).items():
            points[helper] += share
    consensus = dict(points)
    for reporter in silent:
        weights = {helper: weight for helper, weight in consensus.items() if helper != reporter and weight > 0}
        if weights:
            for helper, share in divide_exactly(POINTS_PER_ROW, weights).items():
                points[helper] += share
    return points


REWARD_RULES: Final[Mapping[str, Callable[[Rows, Sequence[PeerId]], dict[PeerId, int]]]] = {
    "raw": compute_raw_points,
    "budgeted": compute_budgeted_points,
}


def divide_exactly(amount: int, weights: Mapping[PeerId, int]) -> dict[PeerId, int]:
    """Divide an amount in proportion to positive weights; the rounding rest goes to the largest remainders, ties by id."""
    total = sum(weights.values())
    shares = {}
    rests = []
    for name, weight in weights.items():
        shares[name], rest = divmod(amount * weight, total)
        rests.append((-rest, name))
    for _, name in sorted(rests)[: amount - sum(shares.values())]:
        shares[name] += 1
    return shares


def compute_payouts(fund_wei: Wei, approved_points: Mapping[PeerId, int]) -> dict[PeerId, Wei]:
    """The release (section 6): `floor(fund * points / approved points)` each; the dust is less than the number of claims."""
    total = sum(approved_points.values())
    return {name: Wei(fund_wei * points // total) for name, points in approved_points.items()} if total else {}


def compute_quorum(*, tokens: int, divisor: int, transfer_wei: Wei, received_wei: Wei) -> int:
    """Eq. 2: the fewest tokens that must vote, rounded up (rounded down it would be 0 below `divisor` members).

    `received_wei` is all that the DAO ever received: its balance and its rewards, the sum in the denominator.
    """
    received = 3 * received_wei
    numerator = tokens * received + transfer_wei * tokens * divisor
    return -(-numerator // (divisor * received)) if received else -(-tokens // divisor)
