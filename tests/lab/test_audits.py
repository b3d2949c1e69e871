"""Audits as the laboratory models them: which receipts are drawn, who is frozen, and that accusations alone freeze nobody."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from learnae.lab.audits import CREDITS_PER_ANSWER, AuditTerms, draw_receipts, find_liars
from learnae.lab.books import INVENTED, Books, Receipt
from learnae.lab.swarm import name_peers
from learnae.protocol.audits import JURORS, compute_tolerance

TERMS = AuditTerms(disagreement_ppm=0)
MEMBERS = 100


def make_books(receipts: list[Receipt], *, ring: frozenset[int] = frozenset(), accusers: frozenset[int] = frozenset()) -> Books:
    return Books(names=name_peers(MEMBERS), receipts=receipts, present=tuple(range(MEMBERS)), ring=ring, accusers=accusers)


def make_row(reporter: int, true: int, false: int, *, credits: int = 10) -> list[Receipt]:
    whom = [member for member in range(MEMBERS) if member != reporter]
    return [Receipt(n, reporter, whom[n], credits, credits if n < true else INVENTED) for n in range(true + false)]


def freeze_rate(books: Books, terms: AuditTerms, member: int, runs: int = 200) -> float:
    return sum(member in find_liars(books, terms, Random(run)) for run in range(runs)) / runs


# --- what is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receipts", "rate", "drawn"),
    [(25, 100, 3), (20, 100, 2), (3, 100, 1), (1, 100, 1), (0, 100, 0), (25, 0, 0), (5, 1000, 5), (2, 500, 1)],
)
def test_draw__is_the_rate_rounded_up_and_at_least_one(receipts: int, rate: int, drawn: int) -> None:
    """So many points on the line of credits: two of them may fall on one receipt."""
    row = make_row(0, receipts, 0)
    counts = [len(draw_receipts(row, replace(TERMS, rate_permille=rate), Random(run))) for run in range(100)]

    assert max(counts) == drawn and min(counts) >= min(1, drawn)


def test_draw__is_in_proportion_to_credits() -> None:
    """A row that is one large receipt and many small ones is mostly the large one: that one is looked at."""
    row = [*make_row(0, 9, 0, credits=1), Receipt(9, 0, 50, 91, 91)]

    seen = Counter(draw_receipts(row, TERMS, Random(run))[0].credits for run in range(500))

    assert seen[91] / 500 == pytest.approx(0.91, abs=0.05)


# --- who is frozen --------------------------------------------------------------------------------------------------


def test_false_row__is_always_found_and_a_true_one_never() -> None:
    books = make_books(make_row(0, 0, 20) + make_row(1, 20, 0))

    assert all(find_liars(books, TERMS, Random(run)) == {0} for run in range(50))


def test_one_large_lie__does_not_hide_behind_the_rate() -> None:
    """At 10 % a row of one receipt would go free nine times of ten; at least one receipt of every row is drawn."""
    assert freeze_rate(make_books(make_row(0, 0, 1)), TERMS, 0) == 1.0
    assert freeze_rate(make_books(make_row(0, 0, 1)), replace(TERMS, rate_permille=0), 0) == 0.0


def test_partly_false_row__is_found_as_often_as_its_part_says() -> None:
    """Three of thirty receipts are drawn, a third of the row is false: found with a chance of 1 - (2/3)^3, about 0.7."""
    assert freeze_rate(make_books(make_row(0, 20, 10)), TERMS, 0, runs=600) == pytest.approx(0.72, abs=0.06)


def test_tolerance__lets_small_differences_pass_and_no_larger_ones() -> None:
    within = [Receipt(0, 0, 1, 30, 10)]
    beyond = [Receipt(0, 0, 1, 31, 10)]

    assert freeze_rate(make_books(within), TERMS, 0) == 0.0
    assert freeze_rate(make_books(beyond), TERMS, 0) == 1.0


def test_accusations__of_30_per_cent_freeze_nobody() -> None:
    """A juror that accuses never freezes alone: more than half of all must say so."""
    ring = frozenset(range(30))
    books = make_books([receipt for member in range(MEMBERS) for receipt in make_row(member, 5, 0)], ring=ring, accusers=ring)

    frozen = sum(len(find_liars(books, TERMS, Random(run))) for run in range(20))

    assert frozen / (20 * MEMBERS) <= 0.001


def test_accusations__would_freeze_if_one_auditor_were_enough() -> None:
    """The neighbour: without the second look the same ring freezes many."""
    ring = frozenset(range(30))
    books = make_books([receipt for member in range(MEMBERS) for receipt in make_row(member, 5, 0)], ring=ring, accusers=ring)

    assert len(find_liars(books, replace(TERMS, is_jury_final=True), Random(1)) - ring) > 5


def test_ring__vouches_for_its_own_but_is_not_drawn_alone() -> None:
    """All three jurors are of a ring of 30 % about once in forty draws: then a lie passes."""
    ring = frozenset(range(30))
    books = make_books([Receipt(0, 0, 1, 10, INVENTED)], ring=ring)

    assert freeze_rate(books, TERMS, 0, runs=1000) == pytest.approx(1 - 28 * 27 * 26 / (98 * 97 * 96), abs=0.02)


def test_parameters__are_the_nodes() -> None:
    """protocol/audits.py: three jurors; both counts of a receipt on 100 examples may be off by one answer."""
    assert (TERMS.jurors, TERMS.tolerance_credits) == (JURORS, 2 * compute_tolerance(100) * CREDITS_PER_ANSWER) == (3, 20)


def test_honest_disagreement__costs_work_and_freezes_nobody() -> None:
    """Floating point on other machines: one re-execution in ten differs, and no honest member is frozen."""
    books = make_books([receipt for member in range(MEMBERS) for receipt in make_row(member, 10, 0)])

    assert all(find_liars(books, AuditTerms(disagreement_ppm=100_000), Random(run)) == set() for run in range(10))
