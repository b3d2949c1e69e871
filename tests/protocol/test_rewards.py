"""Eq. 1, the two reward rules, the release and Eq. 2, with numbers worked out by hand; sums are conserved whatever the ledger holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.ids import Credits, PeerId, Wei
from learnae.protocol.rewards import (
    POINTS_PER_ROW,
    compute_budgeted_points,
    compute_credits,
    compute_payouts,
    compute_quorum,
    compute_raw_points,
    compute_tip,
    divide_exactly,
)
from tests.protocol.builders import ALICE, BOB, CAROL, DAVE

Ledger = dict[PeerId, dict[PeerId, Credits]]
PEERS = [ALICE, BOB, CAROL, DAVE]
ledgers = st.dictionaries(
    st.sampled_from(PEERS), st.dictionaries(st.sampled_from(PEERS), st.integers(0, 10**12).map(Credits), max_size=4), max_size=4
)


def make_ledger(rows: dict[PeerId, dict[PeerId, int]]) -> Ledger:
    return {reporter: {helper: Credits(credits) for helper, credits in row.items()} for reporter, row in rows.items()}


@pytest.mark.parametrize(
    ("before", "after", "total", "factor", "credits"),
    [
        (50, 51, 100, 1000, 10),
        (50, 50, 100, 1000, 0),
        (51, 50, 100, 1000, 0),
        (0, 100, 100, 1000, 1000),
        (0, 1, 3, 1000, 333),
        (0, 1, 3, 2, 0),
    ],
)
def test_credits__follow_eq_1_rounded_down(before: int, after: int, total: int, factor: int, credits: int) -> None:
    """4.3, Eq. 1: RewardFactor * (AchievedAccuracy - CurrentAccuracy), never negative."""
    assert compute_credits(reward_factor=factor, correct_before=before, correct_after=after, total=total) == credits


def test_tip__never_passes_the_budget() -> None:
    """Threats, wallet: a node can spend its tips' budget, nothing more."""
    assert compute_tip(Credits(10), wei_per_credit=7, budget_wei=Wei(1000), spent_wei=Wei(0)) == 70
    assert compute_tip(Credits(10), wei_per_credit=7, budget_wei=Wei(1000), spent_wei=Wei(950)) == 50
    assert compute_tip(Credits(10), wei_per_credit=7, budget_wei=Wei(1000), spent_wei=Wei(1000)) == 0
    assert compute_tip(Credits(10), wei_per_credit=7, budget_wei=Wei(1000), spent_wei=Wei(2000)) == 0


def test_raw__is_the_column_sum() -> None:
    """6, Fig. 4: the value in row X and column Y is the help offered to X by Y."""
    rows = make_ledger({ALICE: {BOB: 30, CAROL: 10}, BOB: {CAROL: 5}})

    assert compute_raw_points(rows, [ALICE, BOB, CAROL]) == {ALICE: 0, BOB: 30, CAROL: 15}


def test_raw__own_column_and_strangers_do_not_count() -> None:
    rows = make_ledger({ALICE: {ALICE: 1000, BOB: 30, DAVE: 7}, DAVE: {ALICE: 99}})

    assert compute_raw_points(rows, [ALICE, BOB]) == {ALICE: 0, BOB: 30}


def test_budgeted__every_row_distributes_the_same_and_silent_rows_follow_the_others() -> None:
    """Deviation D5, by hand: Alice's billion goes 3 : 1 to Bob and Carol, Bob's to Carol; Carol is silent.

    Without Carol the consensus is Bob's 0.75: all of her billion flows to Bob, because nobody is paid by its own silence.
    """
    rows = make_ledger({ALICE: {BOB: 30, CAROL: 10}, BOB: {CAROL: 5}})

    assert compute_budgeted_points(rows, [ALICE, BOB, CAROL]) == {ALICE: 0, BOB: 1_750_000_000, CAROL: 1_250_000_000}


def test_budgeted__nobody_reports_and_nobody_has_points() -> None:
    assert compute_budgeted_points({}, PEERS) == dict.fromkeys(PEERS, 0)


def test_budgeted__a_row_moves_no_more_than_its_own_deposit() -> None:
    """Attack, ring inflated: a report of a million credits moves what a report of one moves."""
    modest = make_ledger({ALICE: {BOB: 1}, BOB: {CAROL: 3}, CAROL: {BOB: 3}, DAVE: {CAROL: 1}})
    inflated = {**modest, ALICE: {BOB: Credits(10**12)}}

    assert compute_budgeted_points(inflated, PEERS) == compute_budgeted_points(modest, PEERS)
    assert compute_raw_points(inflated, PEERS)[BOB] > 10**11


@given(rows=ledgers, other=ledgers, changed=st.sampled_from(PEERS))
def test_budgeted__changing_one_row_moves_at_most_two_rows_worth(rows: Ledger, other: Ledger, changed: PeerId) -> None:
    """One reporter moves its own billion, and the silent ones' billions follow the consensus only in proportion; nothing is created."""
    before = compute_budgeted_points(rows, PEERS)
    lying = {**rows, changed: other.get(changed, {})}
    after = compute_budgeted_points(lying, PEERS)
    silent = sum(not any(c > 0 for h, c in lying.get(p, {}).items() if h != p) for p in PEERS if p != changed)

    assert sum(max(0, after[p] - before[p]) for p in PEERS) <= POINTS_PER_ROW * (1 + silent) or sum(before.values()) == 0


@given(rows=ledgers)
def test_budgeted__sum_is_the_rows_that_could_be_distributed(rows: Ledger) -> None:
    """Amounts are integers, the sum is conserved: every row gives exactly its billion, or nothing if there is nobody to give it to."""
    points = compute_budgeted_points(rows, PEERS)

    assert sum(points.values()) % POINTS_PER_ROW == 0
    assert sum(points.values()) <= len(PEERS) * POINTS_PER_ROW
    assert min(points.values()) >= 0


@given(rows=ledgers, order=st.permutations(PEERS))
def test_rules__do_not_depend_on_the_order(rows: Ledger, order: list[PeerId]) -> None:
    """The same numbers on every honest peer."""
    turned = {reporter: dict(reversed(row.items())) for reporter, row in reversed(rows.items())}

    assert compute_raw_points(turned, order) == compute_raw_points(rows, PEERS)
    assert compute_budgeted_points(turned, order) == compute_budgeted_points(rows, PEERS)


@given(amount=st.integers(0, 10**30), weights=st.dictionaries(st.sampled_from(PEERS), st.integers(1, 10**20), min_size=1))
def test_divide__gives_out_exactly_the_amount(amount: int, weights: dict[PeerId, int]) -> None:
    shares = divide_exactly(amount, weights)
    total = sum(weights.values())

    assert sum(shares.values()) == amount
    assert all(abs(shares[name] - amount * weight // total) <= 1 for name, weight in weights.items())


def test_divide__rest_goes_to_the_largest_remainder_then_by_name() -> None:
    first, second = sorted([ALICE, BOB])

    assert divide_exactly(10, {first: 1, second: 2}) == {first: 3, second: 7}
    assert divide_exactly(1, {second: 1, first: 1}) == {first: 1, second: 0}


@given(fund=st.integers(0, 10**27), points=st.dictionaries(st.sampled_from(PEERS), st.integers(0, 2**64 - 1)))
def test_payouts__leave_less_dust_than_there_are_claims(fund: int, points: dict[PeerId, int]) -> None:
    """6: the DAO releases the whole amount, in proportion to all approved proposals."""
    payouts = compute_payouts(Wei(fund), points)

    if sum(points.values()):
        assert 0 <= fund - sum(payouts.values()) < max(1, len(points))
    else:
        assert payouts == {}


def test_quorum__is_the_papers_example() -> None:
    """5.2, Eq. 2: for d = 5 a fifth of all tokens; 53.33 % if everything that was ever received is asked for; rounded up."""
    assert compute_quorum(tokens=300, divisor=5, transfer_wei=Wei(0), received_wei=Wei(1000)) == 60
    assert compute_quorum(tokens=300, divisor=5, transfer_wei=Wei(1000), received_wei=Wei(1000)) == 160
    assert compute_quorum(tokens=3, divisor=5, transfer_wei=Wei(0), received_wei=Wei(1000)) == 1
    assert compute_quorum(tokens=7, divisor=5, transfer_wei=Wei(0), received_wei=Wei(0)) == 2
