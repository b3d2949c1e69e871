"""The reward rules of the laboratory: by hand on small books, and the figures that were measured before on section 7."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from learnae.lab.audits import AuditTerms
from learnae.lab.books import INVENTED, Books, Receipt, draw_truth, open_books
from learnae.lab.measure import Measure
from learnae.lab.registry import find_attack, find_rule, list_rules
from learnae.lab.rule import Settled
from learnae.lab.rules.yuma import SCALE, Yuma
from learnae.lab.rules.yuma_sparse import YumaSparse
from learnae.lab.swarm import CREDIT_WEI, DEPOSIT_CREDITS, DEPOSIT_WEI, name_peers, settle_fund, settle_tips
from learnae.lab.table import Plan, TrialJob, run_plan
from learnae.lab.trial import Setting

CELLS = tuple[tuple[int, int, int], ...]


def make_books(cells: CELLS, members: int = 4) -> Books:
    """Books with one true receipt for each (reporter, helper, credits)."""
    receipts = [Receipt(0, reporter, helper, credits, credits) for reporter, helper, credits in cells]
    return Books(names=name_peers(members), receipts=receipts, present=tuple(range(members)))


def settle(name: str, books: Books, audits: AuditTerms | None = None) -> Settled:
    return find_rule(name).settle(books, audits=audits or AuditTerms(), rng=Random(1))


def shares(name: str, cells: CELLS, members: int = 4) -> list[float]:
    books = make_books(cells, members)
    return [wei / books.fund_wei for wei in settle(name, books).payouts_wei]


def play(attack: str, rules: Sequence[str], *, share_permille: int = 100, seeds: int = 20) -> dict[str, Measure]:
    setting = Setting(share_permille=share_permille)
    plan = Plan(
        attacks=(attack,), rules=tuple(rules), shares_permille=(share_permille,), setting=setting, protocol_setting=setting, seeds=seeds
    )
    return {cell.rule: cell for cell in run_plan(plan)}


# --- every rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_rules())
def test_rule__gives_away_the_fund_and_no_more(name: str) -> None:
    """6: the whole fund is released; less than one wei for each member stays behind."""
    _, truth = draw_truth(3, 30, 20)
    books = open_books(truth, 30)

    left = books.fund_wei - sum(settle(name, books).payouts_wei)

    assert 0 <= left < 30


@pytest.mark.parametrize("name", list_rules())
def test_rule__refunds_everybody_if_nobody_reports(name: str) -> None:
    assert settle(name, make_books(())).payouts_wei == [DEPOSIT_WEI] * 4


@pytest.mark.parametrize("name", [name for name in list_rules() if name not in ("tips", "yuma")])
def test_rule__pays_nothing_for_a_claim_that_was_voted_down(name: str) -> None:
    books = make_books(((0, 1, 5), (1, 2, 5), (2, 3, 5), (3, 0, 5)))
    without = Books(names=books.names, receipts=books.receipts, present=books.present, rejected=frozenset({2}))

    assert settle(name, books).payouts_wei[2] > 0
    assert settle(name, without).payouts_wei[2] == 0


def test_rules__raw_budgeted_and_tips_are_the_nodes_own_code() -> None:
    """The figures of the laboratory are about what a node pays: same rows, same wei."""
    _, truth = draw_truth(5, 40, 30)
    books = open_books(truth, 40)
    names = books.names

    for rule in ("raw", "budgeted"):
        expected = settle_fund(books.rows, names, rule=rule)
        assert settle(rule, books).payouts_wei == [expected[name] for name in names]
    expected = settle_tips(books.rows, names)
    assert settle("tips", books).payouts_wei == [expected[name] for name in names]


# --- one by one -----------------------------------------------------------------------------------------------------


def test_tips__move_what_is_reported_and_nothing_else() -> None:
    books = make_books(((0, 1, 30), (2, 1, 10)))

    assert [wei / CREDIT_WEI for wei in settle("tips", books).payouts_wei] == [970, 1040, 990, 1000]


def test_raw__divides_by_column_sums() -> None:
    assert shares("raw", ((0, 1, 30), (2, 1, 10), (1, 2, 60))) == pytest.approx([0, 0.4, 0.6, 0], abs=1e-9)


def test_budgeted__gives_every_row_the_same_weight() -> None:
    """A row of 1,000,000 moves no more than a row of 1."""
    assert shares("budgeted", ((0, 1, 1), (1, 0, 1), (2, 3, 1_000_000), (3, 2, 1))) == pytest.approx([0.25] * 4)


def test_eigentrust__is_a_stationary_distribution() -> None:
    """Trust is 85 % of what flows in along rows and 15 % spread evenly: a chain 0 -> 1 -> 2 -> 2's silent row spreads."""
    found = shares("eigentrust", ((0, 1, 7), (1, 2, 3)), members=3)

    spread = found[2] / 3
    for index, inflow in enumerate((spread, found[0] + spread, found[1] + spread)):
        assert found[index] == pytest.approx(0.85 * inflow + 0.05, abs=1e-4)


def test_eigentrust__does_not_depend_on_the_size_of_a_row() -> None:
    small, large = (shares("eigentrust", ((0, 1, size), (1, 0, 1), (2, 0, 1), (3, 1, 1))) for size in (1, 10**9))

    assert small == pytest.approx(large)


def test_maxflow__counts_two_steps_and_is_limited_by_the_narrow_one() -> None:
    """0 owes 1 ten and 1 owes 2 four: seen from 0, member 2 helped with four, by way of 1."""
    points = shares("maxflow", ((0, 1, 10), (1, 2, 4)))

    assert points == pytest.approx([0, 10 / 18, 8 / 18, 0], abs=1e-9)


def test_yuma__is_the_median_over_all_rows() -> None:
    """Two of three rows must reach a weight; unnamed is 0."""
    yuma = Yuma()

    assert yuma.compute_limit([SCALE // 2, SCALE // 4], 3) == SCALE // 4
    assert yuma.compute_limit([SCALE], 3) == 0
    assert YumaSparse().compute_limit([SCALE], 3) == SCALE


def test_yuma__gives_equal_shares_on_a_sparse_ledger() -> None:
    """Known before: as published it degenerates."""
    _, truth = draw_truth(0, 100, 50)

    assert len(set(settle("yuma", open_books(truth, 100)).payouts_wei)) == 1


def test_yuma__holds_a_ring_to_what_the_honest_rows_say() -> None:
    """On a dense ledger the published rule works: two of eight that praise only each other get no more than what the honest say."""
    honest = tuple((a, b, 10) for a in range(6) for b in range(8) if a != b)
    ring = ((6, 7, 10**9), (7, 6, 10**9))

    dense = shares("yuma", honest + ring, members=8)
    raw = shares("raw", honest + ring, members=8)

    assert dense[6] == dense[7] == pytest.approx(7 / (6 * 5 + 2 * 7))
    assert raw[6] > 0.49


def test_audited__void_claims_flow_to_the_others() -> None:
    """A false receipt: the row flows along the consensus, and the liar's own claim is void; the milder rule keeps the claim."""
    receipts = [Receipt(0, 0, 1, 50, INVENTED), Receipt(0, 1, 0, 5, 5), Receipt(0, 2, 0, 5, 5), Receipt(0, 3, 2, 5, 5)]
    books = Books(names=name_peers(4), receipts=receipts, present=(0, 1, 2, 3))

    strict, mild = settle("audited-void", books), settle("audited", books)

    assert strict.frozen == mild.frozen == frozenset({0})
    assert strict.payouts_wei[0] == 0 < mild.payouts_wei[0]
    assert strict.payouts_wei[1] == mild.payouts_wei[1] == 0  # nobody but the liar credited it
    assert strict.payouts_wei[2] > mild.payouts_wei[2]


# --- measured figures -----------------------------------------------------------------------------------------------


def test_sybil__nets_exactly_nothing_under_the_row_normalised_rule() -> None:
    """What must hold: the deposits of sybils that praise one member come back to it, to the wei but for rounding down."""
    attack, setting = find_attack("sybil-split"), Setting()
    trials = TrialJob(attack=attack.name, rules=("budgeted", "raw"), setting=setting, seed=0, seeds=5).run()

    for trial in trials:
        if trial.rule == "budgeted":
            assert abs(trial.ring_wei - trial.ring_honest_wei) <= 2 * len(setting.ring)
        else:
            assert trial.ring_wei > 3 * trial.ring_honest_wei


def test_ring__takes_at_most_twice_its_share_under_the_row_normalised_rule() -> None:
    """What must hold: a ring of 10 % takes at most 20 % of the fund; under raw one that inflates takes all."""
    for attack in ("ring", "ring-inflated", "stealth-ring", "camouflaged-ring"):
        cells = play(attack, ["budgeted"])
        assert cells["budgeted"].fund_share <= 0.20, attack
        assert not cells["budgeted"].broken
    assert play("ring-inflated", ["raw"])["raw"].fund_share > 0.99


def test_figures__measured_before_come_out_again() -> None:
    """Known figures for 10 % in a ring (net credits of a member, part of the fund): raw inflated +8,945 and 99.5 %, budgeted +903 and
    19.1 %, EigenTrust +3,278 and 42.7 %, plausible sizes under raw +907 and 19.2 %."""
    inflated = play("ring-inflated", ["raw", "budgeted", "eigentrust"])
    plausible = play("ring", ["raw", "budgeted", "eigentrust"])

    def net(cell: Measure) -> float:
        return cell.fund_share * 10 * DEPOSIT_CREDITS - DEPOSIT_CREDITS

    assert net(inflated["raw"]) == pytest.approx(8945, abs=100)
    assert inflated["raw"].fund_share == pytest.approx(0.995, abs=0.006)
    assert net(plausible["raw"]) == pytest.approx(907, abs=150)
    for cells in (inflated, plausible):
        assert net(cells["budgeted"]) == pytest.approx(903, abs=100)
        assert cells["budgeted"].fund_share == pytest.approx(0.191, abs=0.01)
        assert net(cells["eigentrust"]) == pytest.approx(3278, abs=250)
        assert cells["eigentrust"].fund_share == pytest.approx(0.427, abs=0.03)


def test_audited_void__no_false_report_pays_up_to_30_per_cent() -> None:
    """What must hold: with 10 % audits every lie of the catalogue loses, honest loss at most 1 %, nobody honest frozen."""
    lies = ("ring", "ring-inflated", "stealth-ring", "camouflaged-ring", "on-and-off", "false-accusations", "free-rider", "sybil-split")
    for attack in lies:
        cell = play(attack, ["audited-void"], share_permille=300, seeds=10)["audited-void"]
        assert cell.gain <= 1.0 + 1e-9, attack
        assert cell.honest_loss <= 0.01, attack
        assert cell.false_rejection == 0.0, attack


def test_audited__a_little_lying_pays_and_the_table_marks_it() -> None:
    """docs/lab.md: if the liar keeps its own claim, a third of false receipts is worth the risk of a frozen row."""
    cells = play("camouflaged-ring", ["audited", "audited-void"], seeds=40)

    assert 1.02 < cells["audited"].gain < 1.15 and cells["audited"].broken == ("profitable",)
    assert cells["audited-void"].gain < 0.5 and not cells["audited-void"].broken


def test_slander__is_the_promise_that_the_table_marks() -> None:
    """docs/lab.md: leaving out true receipts cannot be audited; the cell says so."""
    cell = play("slander", ["audited"], share_permille=300)["audited"]

    assert cell.gain > 1.02
    assert "profitable" in cell.broken
    assert cell.victim_loss is not None and cell.victim_loss > 0.2


def test_measure__has_no_detection_where_nothing_is_audited() -> None:
    cells = play("ring", ["budgeted", "audited"], seeds=5)

    assert cells["budgeted"].detected == 0.0 and cells["budgeted"].time_to_detect is None
    assert cells["audited"].detected == 1.0
    assert cells["audited"].time_to_detect is not None and 40 < cells["audited"].time_to_detect <= 50
