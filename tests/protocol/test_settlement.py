"""What a member does in each stage of the DAO (Fig. 5), branch by branch, and the identity rule before it (4.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, ChainView, Claim, DeployPoid, Join, Release, Stage, SubmitClaim, Tally, Withdraw
from learnae.protocol.identity import judge_members
from learnae.protocol.known import Known
from learnae.protocol.rewards import Rows
from learnae.protocol.rules import SessionRules
from learnae.protocol.settlement import (
    RETRY_MAX_S,
    TURN_S,
    Books,
    Settlement,
    compute_expected_points,
    compute_nays,
    keep_poid,
)
from learnae.tangle import cbor
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    CLAIMING_ENDS_S,
    DAVE,
    ERIN,
    RULES,
    TRAINING_ENDS_S,
    make_claim,
    make_member,
    make_view,
)

ROWS: Rows = {ALICE: {BOB: 30, CAROL: 10}, BOB: {CAROL: 5}}  # type: ignore[dict-item]
EARLY_S = TRAINING_ENDS_S + 10.0
DUE_S = TRAINING_ENDS_S + 60.0
EVIDENCE = b"e" * 32


def no_evidence(claim: Claim) -> None:
    """No claim commits anything that helps it."""


def make_books(*, closed: bool = True, missing: bool = False, rows: Rows = ROWS) -> Books:
    return Books(read_rows=lambda: rows, is_closed=lambda: closed, evidence=EVIDENCE, lacks_evidence=lambda: missing)


def step(settlement: Settlement, view: ChainView, *, books: Books | None = None, now_s: float | None = None) -> object:
    return settlement.step(view, judge_members(view.members), books, now_s=view.time_s if now_s is None else now_s)


# --- funding ------------------------------------------------------------------------------------------------------


def test_funding__deploys_its_identity_then_joins_then_waits() -> None:
    """4.4 and 6: the proof of identity first, then the deposit; a member has nothing more to do."""
    settlement, stranger = Settlement(RULES, ALICE), make_view(Stage.FUNDING, peers=(BOB,))

    assert step(settlement, stranger) == DeployPoid()
    settlement.poid = Address("0x1")
    assert step(settlement, stranger) == Join(Address("0x1"))
    assert step(settlement, make_view(Stage.FUNDING)) is None


def test_any_stage__one_transaction_at_a_time() -> None:
    settlement, view = Settlement(RULES, ALICE), make_view(Stage.FUNDING, peers=())
    settlement.submitted()
    assert step(settlement, view) is None
    settlement.confirmed()
    assert step(settlement, view) == DeployPoid()


def test_failure__waits_twice_as_long_each_time() -> None:
    """A chain that refuses is not asked again at once, and never given up."""
    settlement, view = Settlement(RULES, ALICE), make_view(Stage.FUNDING, peers=())
    pauses = []
    for _ in range(7):
        settlement.submitted()
        settlement.failed(now_s=view.time_s)
        pauses.append(settlement.retry_at_s - view.time_s)

    assert pauses == [2, 4, 8, 16, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S]
    assert step(settlement, view, now_s=view.time_s + RETRY_MAX_S - 1) is None
    assert step(settlement, view, now_s=view.time_s + RETRY_MAX_S) == DeployPoid()


def test_training__asks_nothing_of_the_chain() -> None:
    assert step(Settlement(RULES, ALICE), make_view(Stage.TRAINING)) is None


# --- claiming -----------------------------------------------------------------------------------------------------


def test_claim__is_what_the_rule_gives_on_the_ledger() -> None:
    """6: participants claim by their contribution; by hand: Carol gets a quarter of Alice's row and all of Bob's."""
    settlement = Settlement(RULES, CAROL)

    assert step(settlement, make_view(Stage.CLAIMING), books=make_books()) == SubmitClaim(1_250_000_000, EVIDENCE)


def test_claim__waits_for_open_logs_until_it_is_due() -> None:
    """With any one peer gone for good the session still settles: at 60 % of the stage members claim anyway."""
    settlement, view, books = Settlement(RULES, CAROL), make_view(Stage.CLAIMING), make_books(closed=False)

    assert step(settlement, view, books=books, now_s=EARLY_S) is None
    assert step(settlement, view, books=books, now_s=DUE_S - 1) is None
    assert isinstance(step(settlement, view, books=books, now_s=DUE_S), SubmitClaim)


def test_claim__of_one_who_comes_back_late_waits_until_it_heard_what_it_missed() -> None:
    """A claim on half of the ledger would be rejected: a tenth of the stage for catching up, unless all logs are here before."""
    settlement, view, books = Settlement(RULES, CAROL), make_view(Stage.CLAIMING), make_books(closed=False)

    assert step(settlement, view, books=books, now_s=DUE_S + 5) is None
    assert step(settlement, view, books=books, now_s=DUE_S + 14) is None
    assert isinstance(step(settlement, view, books=books, now_s=DUE_S + 15), SubmitClaim)
    assert isinstance(step(Settlement(RULES, CAROL), view, books=make_books(), now_s=DUE_S + 5), SubmitClaim)


@pytest.mark.parametrize("change", ["claimed", "nothing", "tips", "stranger", "no books"])
def test_claim__is_not_made(change: str) -> None:
    """Claimed before (also before a restart), no points, tips mode, no member, no books."""
    view, me = make_view(Stage.CLAIMING), ALICE if change == "nothing" else DAVE if change == "stranger" else CAROL
    if change == "claimed":
        view = replace(view, claims=(make_claim(2, 5),))
    rules = replace(RULES, reward_mode="tips") if change == "tips" else RULES

    assert step(Settlement(rules, me), view, books=None if change == "no books" else make_books(), now_s=DUE_S) is None


def test_claim__stays_the_same_over_restarts_and_late_rows() -> None:
    """Kill at any point: what was due is on disk, so a second try claims the same."""
    settlement, view = Settlement(RULES, CAROL), make_view(Stage.CLAIMING)
    first = step(settlement, view, books=make_books())
    back = Settlement(RULES, CAROL)
    back.restore(settlement.encode())

    assert step(back, view, books=make_books(rows={})) == first
    assert back.poid is None


def test_rule__raw_and_budgeted_are_the_sessions_choice() -> None:
    members = judge_members(make_view().members)
    raw: SessionRules = replace(RULES, reward_rule="raw")

    assert compute_expected_points(raw, ROWS, members) == {ALICE: 0, BOB: 30, CAROL: 15}
    assert compute_expected_points(RULES, ROWS, members)[CAROL] == 1_250_000_000


# --- voting -------------------------------------------------------------------------------------------------------


def test_vote__is_for_consistent_claims_and_against_all_others() -> None:
    """6: peers vote in favour of every consistent proposal and against all others."""
    right = {ALICE: 0, BOB: 1_750_000_000, CAROL: 1_250_000_000}
    view = make_view(Stage.VOTING, peers=(ALICE, BOB, CAROL, DAVE, ERIN))
    expected = compute_expected_points(RULES, ROWS, judge_members(view.members))
    claims = (make_claim(1, expected[BOB]), make_claim(2, expected[CAROL] + 1), make_claim(3, 5))

    assert step(Settlement(RULES, ALICE), replace(view, claims=claims), books=make_books()) == CastBallot((2, 3))
    assert right[BOB] < expected[BOB]


def test_vote__too_little_is_as_wrong_as_too_much() -> None:
    """Claims are deterministic: an honest one is exactly right."""
    view = make_view(Stage.VOTING)

    assert step(Settlement(RULES, ALICE), replace(view, claims=(make_claim(1, 7),)), books=make_books()) == CastBallot((1,))


def test_vote__accepts_the_ledger_of_the_claims_time_and_of_now() -> None:
    """A row that came in between makes nobody a liar."""
    settlement = Settlement(RULES, ALICE)
    step(settlement, make_view(Stage.CLAIMING), books=make_books())
    later: Rows = {ALICE: {BOB: 1}}  # type: ignore[dict-item]
    now = compute_expected_points(RULES, later, judge_members(make_view().members))
    view = make_view(Stage.VOTING, claims=(make_claim(1, 1_750_000_000), make_claim(2, now[CAROL])))

    assert step(settlement, view, books=make_books(rows=later)) == CastBallot(())


def test_vote__waits_for_evidence_until_it_is_due() -> None:
    settlement, view = Settlement(RULES, ALICE), make_view(Stage.VOTING, claims=(make_claim(1, 5),))

    assert step(settlement, view, books=make_books(missing=True), now_s=CLAIMING_ENDS_S + 20) is None
    assert step(settlement, view, books=make_books(missing=True), now_s=CLAIMING_ENDS_S + 59) is None
    assert isinstance(step(settlement, view, books=make_books(missing=True), now_s=CLAIMING_ENDS_S + 60), CastBallot)


def test_vote__is_decided_once() -> None:
    """What is signed once stays the ballot of this member, whatever it hears later, and over restarts."""
    settlement, view = Settlement(RULES, ALICE), make_view(Stage.VOTING, claims=(make_claim(1, 5),))
    assert step(settlement, view, books=make_books()) == CastBallot((1,))
    back = Settlement(RULES, ALICE)
    back.restore(settlement.encode())
    honest: Rows = {ALICE: {}, BOB: {}}
    fresh = step(Settlement(RULES, ALICE), replace(view, claims=(make_claim(1, 0),)), books=make_books(rows=honest))

    assert fresh == CastBallot(()), "it would decide otherwise now"
    for same in (settlement, back):
        assert step(same, replace(view, claims=(make_claim(1, 0),)), books=make_books(rows=honest)) == CastBallot((1,))


@pytest.mark.parametrize(("stage", "from_s"), [(Stage.CLAIMING, TRAINING_ENDS_S), (Stage.VOTING, CLAIMING_ENDS_S)])
def test_own_transaction__is_due_when_four_fifths_of_the_stage_are_over(stage: Stage, from_s: int) -> None:
    assert Settlement(RULES, ALICE).compute_own_due_s(stage) == from_s + 80


def test_vote__is_not_cast_twice_nor_without_claims() -> None:
    view = make_view(Stage.VOTING, claims=(make_claim(1, 5),))

    assert step(Settlement(RULES, ALICE), replace(view, ballots=frozenset({0})), books=make_books()) is None
    assert step(Settlement(RULES, ALICE), replace(view, claims=()), books=make_books()) is None


def test_nays__never_on_the_own_claim_and_at_most_half_of_the_others() -> None:
    """dao.md: a ballot holds floor((members - 1) / 2) nays; the largest excess goes first."""
    members = judge_members(make_view(peers=(ALICE, BOB, CAROL, DAVE, ERIN)).members)
    claims = tuple(make_claim(index, points) for index, points in enumerate((99, 10, 30, 20, 40)))

    assert compute_nays(claims, members, ({},), no_evidence, me=0, members=5) == (2, 4)
    assert compute_nays(claims, members, ({},), no_evidence, me=4, members=5) == (0, 2)
    assert compute_nays(claims, members, ({},), no_evidence, me=0, members=2) == ()


def test_nays__a_member_whose_identity_is_refused_may_claim_nothing() -> None:
    """4.4: the fraud's deposit does not buy it another's contribution."""
    view = make_view(peers=(ALICE, BOB, CAROL))
    thief = make_member(3, BOB, position=(9, 9))
    members = judge_members((*view.members, thief))
    points = dict.fromkeys((ALICE, BOB, CAROL), 100)

    assert compute_nays((make_claim(3, 100),), members, (points,), no_evidence, me=0, members=4) == (3,)
    assert compute_nays((make_claim(1, 100), make_claim(3, 0)), members, (points,), no_evidence, me=0, members=4) == ()


# --- settling and after ---------------------------------------------------------------------------------------------


def test_tally__is_made_by_the_next_member_if_the_first_is_gone() -> None:
    """With any one peer gone for good the session still settles."""
    view = make_view(Stage.SETTLING)
    first, third = Settlement(RULES, ALICE), Settlement(RULES, CAROL)

    assert step(first, view) == Tally()
    assert step(third, view) is None
    assert step(third, view, now_s=view.time_s + 2 * TURN_S) == Tally()
    assert step(Settlement(RULES, DAVE), view, now_s=view.time_s + 100) is None


def test_turns__are_longer_where_a_block_takes_longer() -> None:
    """A transaction of the one before must have had the time to be seen, or both pay for the same."""
    view = make_view(Stage.SETTLING)
    third = Settlement(RULES, CAROL, turn_s=24.0)

    assert step(third, view) is None
    assert step(third, view, now_s=view.time_s + 47.9) is None
    assert step(third, view, now_s=view.time_s + 48) == Tally()


def test_release__pushes_to_all_that_are_due_and_pulls_what_did_not_arrive() -> None:
    """6: the fund is released by a call that anybody may make; everyone can always get out."""
    view = make_view(Stage.RELEASED)
    wallets = [member.wallet for member in view.members]
    due = replace(view, due_wei={wallets[0]: Wei(5), wallets[1]: Wei(0), wallets[2]: Wei(7)})
    first, second, third = (Settlement(RULES, peer) for peer in (ALICE, BOB, CAROL))
    membership = judge_members(view.members)

    assert step(first, due) == Release(tuple(sorted([wallets[0], wallets[2]])))
    assert step(third, due) is None
    assert step(third, due, now_s=view.time_s + 2 * TURN_S) == Release(tuple(sorted([wallets[0], wallets[2]])))
    assert step(third, due, now_s=view.time_s + 4 * TURN_S) == Withdraw()
    assert second.is_over(due, membership) and not first.is_over(due, membership)
    assert first.is_over(replace(due, due_wei={}), membership)
    assert step(first, replace(due, due_wei={})) is None


def test_over__only_after_the_release_and_the_last_answer() -> None:
    settlement, view = Settlement(RULES, ALICE), make_view(Stage.REFUNDED)
    membership = judge_members(view.members)
    assert not settlement.is_over(make_view(Stage.VOTING), membership)
    settlement.submitted()
    assert not settlement.is_over(view, membership)
    settlement.confirmed()
    assert settlement.is_over(view, membership)


# --- identity -------------------------------------------------------------------------------------------------------


def test_identity__of_two_that_claim_one_peer_the_later_is_fraud() -> None:
    """4.4: the contract with the later timestamp is rejected; later by its place in the chain, in any order of reading."""
    honest, thief = make_member(5, BOB, position=(1, 0)), make_member(0, BOB, position=(1, 1))

    for order in ([honest, thief], [thief, honest]):
        membership = judge_members(order)
        assert membership.by_peer == {BOB: honest}
        assert [member for member, _ in membership.rejected] == [thief]
        assert "the later record is fraud" in membership.rejected[0][1]


def test_identity__faulty_records_and_foreign_deposits_do_not_count() -> None:
    faulty = make_member(0, ALICE, fault="its code is not ours")
    stranger = replace(make_member(1, BOB), wallet=Address("0x" + "9" * 40))
    membership = judge_members([faulty, stranger, make_member(2, CAROL)])

    assert membership.peers == {CAROL}
    assert "its code is not ours" in membership.rejected[0][1]
    assert "names the wallet" in membership.rejected[1][1]


def test_identity__a_faulty_earlier_record_takes_no_name_away() -> None:
    """Hijack by front-running: an earlier record without the peer's signature is no claim on its name."""
    front_runner = make_member(0, BOB, fault="not signed by the peer", position=(0, 0))
    honest = make_member(1, BOB, position=(5, 0))

    assert judge_members([front_runner, honest]).by_peer == {BOB: honest}


def test_record__keeps_all_that_was_decided_and_older_ones_are_read() -> None:
    decided = Settlement(RULES, ALICE, Address("0x" + "1" * 40), {BOB: 5}, (1, 2), Known({ALICE: 3, BOB: 0}, frozenset({BOB}), {CAROL: 7}))
    back, older = Settlement(RULES, ALICE), Settlement(RULES, ALICE)
    back.restore(decided.encode())
    older.restore(cbor.encode([None, None, [1]]))

    assert back == decided
    assert older == Settlement(RULES, ALICE, ballot=(1,))


def test_identity_of_an_interrupted_peer__is_kept_beside_what_it_decided() -> None:
    settlement, back = Settlement(RULES, ALICE), Settlement(RULES, ALICE)
    settlement.snapshot, settlement.ballot, settlement.least = {BOB: 3}, (1,), Known({BOB: 4})
    back.restore(keep_poid(settlement.encode(), Address("0x1")))
    assert (back.poid, back.snapshot, back.ballot, back.least) == (Address("0x1"), {BOB: 3}, (1,), Known({BOB: 4}))
    back.restore(keep_poid(None, Address("0x2")))
    assert (back.poid, back.snapshot, back.ballot, back.least) == (Address("0x2"), None, None, None)
