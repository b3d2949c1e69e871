"""The model of section 7: its ranges, its ledger, its two ways of paying."""

from __future__ import annotations

from learnae.ids import Credits
from learnae.lab.swarm import (
    CREDIT_WEI,
    DEPOSIT_CREDITS,
    DEPOSIT_WEI,
    SwarmDraws,
    compute_rows,
    draw_swarm,
    name_peers,
    settle_fund,
    settle_tips,
    to_credits,
)
from learnae.protocol.rewards import compute_raw_points

# Peer 0 is helped by 1 twice and by 2 once; peer 1 fails; peer 2 is helped by 0.
SMALL = SwarmDraws(seed=0, peers=3, cycles=2, factors=(1, 2, 3), helpers=(1, 0, 0, 1, 2, 1), changes=(6, -5, 4, 2, 9, 0))


def test_draws__stay_in_the_ranges_of_section_7() -> None:
    """Section 7: factors 1 to 9, levels -10 to 10 times the helper's factor, never with oneself; every value occurs."""
    draws = draw_swarm(3)

    assert draws.peers == 100 and draws.cycles == 50 and len(draws.helpers) == len(draws.changes) == 5000
    assert set(draws.factors) == set(range(1, 10))
    levels = [change // draws.factors[helper] for helper, change in zip(draws.helpers, draws.changes, strict=True)]
    assert all(level * draws.factors[helper] == change for level, helper, change in zip(levels, draws.helpers, draws.changes, strict=True))
    assert set(levels) == set(range(-10, 11))
    assert all(helper != attempt % 100 for attempt, helper in enumerate(draws.helpers))
    assert {draws.helpers[cycle * 100] for cycle in range(50)} <= set(range(1, 100))
    assert set(draws.helpers) == set(range(100))


def test_draws__are_the_same_for_a_seed_and_others_for_another() -> None:
    """7.3: "we used the same randomization seed"; the digits are those of every machine and every Python."""
    assert draw_swarm(7) == draw_swarm(7)
    assert draw_swarm(7) != draw_swarm(8)
    assert draw_swarm(7).changes[:5] == (30, -15, 14, -15, -54)


def test_rows__add_up_what_each_peer_was_helped() -> None:
    """Section 6, Fig. 3: only successes are owed, to the one who helped."""
    zero, one, two = name_peers(3)

    assert compute_rows(SMALL) == {zero: {one: 8}, one: {two: 9}, two: {zero: 4}}


def test_rows__of_a_silent_peer_are_empty() -> None:
    """7.2: a malicious peer refuses to broadcast its vector; what others say of it stays."""
    zero, one, two = name_peers(3)

    assert compute_rows(SMALL, silent={0}) == {zero: {}, one: {two: 9}, two: {zero: 4}}


def test_tips__are_deposit_less_given_plus_received() -> None:
    """4.3: balances under tips, with their sum conserved."""
    names = name_peers(3)
    balances = settle_tips(compute_rows(SMALL), names)

    assert to_credits(balances, names) == [1000 - 8 + 4, 1000 - 9 + 8, 1000 - 4 + 9]
    assert sum(balances.values()) == 3 * DEPOSIT_WEI


def test_tips__may_take_a_balance_below_zero() -> None:
    """Section 7 sets no budget: a peer that was helped a lot owes more than its deposit."""
    zero, one = name_peers(2)
    balances = settle_tips({zero: {one: Credits(DEPOSIT_CREDITS + 1)}}, (zero, one))

    assert balances[zero] == -CREDIT_WEI


def test_tips__reach_members_only() -> None:
    """Who is no member has no wallet: nothing is paid to it, and nothing is lost."""
    zero, one, stranger = name_peers(3)
    balances = settle_tips({zero: {one: Credits(5), stranger: Credits(9)}, stranger: {one: Credits(9)}}, (zero, one))

    assert to_credits(balances, (zero, one)) == [995, 1005]


def test_fund__is_divided_by_column_sums_and_rounded_down() -> None:
    """Section 6: "distributed proportionally"; points are those of the node's own rule."""
    names = name_peers(3)
    rows = compute_rows(SMALL)
    points = compute_raw_points(rows, names)
    payouts = settle_fund(rows, names)

    assert points == dict(zip(names, (4, 8, 9), strict=True))
    assert payouts == {name: 3 * DEPOSIT_WEI * points[name] // 21 for name in names}
    assert 0 <= 3 * DEPOSIT_WEI - sum(payouts.values()) < 3


def test_fund__goes_by_the_rule_that_is_named() -> None:
    names = name_peers(3)
    rows = {names[0]: {names[1]: Credits(1_000_000)}, names[1]: {names[2]: Credits(1)}, names[2]: {names[0]: Credits(1)}}

    assert settle_fund(rows, names, rule="raw")[names[1]] > 2.9 * DEPOSIT_WEI
    assert settle_fund(rows, names, rule="budgeted")[names[1]] == DEPOSIT_WEI


def test_fund__without_reports_is_refunded() -> None:
    names = name_peers(3)

    assert settle_fund({}, names) == dict.fromkeys(names, DEPOSIT_WEI)
