"""Stages that the members put off (5.2, Table 1): every peer follows the chain, not what the rules said at first."""

from __future__ import annotations

from dataclasses import replace

from learnae.protocol.calls import Stage, SubmitClaim
from learnae.protocol.cycle import Phase
from learnae.protocol.deadlines import Deadlines, compute_deadlines
from learnae.protocol.identity import judge_members
from learnae.protocol.settlement import Settlement
from tests.protocol.builders import ALICE, BOB, CLAIMING_ENDS_S, FINAL_S, RULES, TRAINING_ENDS_S, VOTING_ENDS_S, Player, make_view
from tests.protocol.test_settlement import EVIDENCE, make_books

LATER_S = 500
PUT_OFF = {
    "training_ends_s": TRAINING_ENDS_S + LATER_S,
    "claiming_ends_s": CLAIMING_ENDS_S + LATER_S,
    "voting_ends_s": VOTING_ENDS_S + LATER_S,
}


def test_deadlines__are_the_rules_until_the_chain_says_more() -> None:
    agreed = Deadlines(TRAINING_ENDS_S, CLAIMING_ENDS_S, VOTING_ENDS_S)
    assert compute_deadlines(RULES, None) == compute_deadlines(RULES, make_view()) == agreed
    assert compute_deadlines(RULES, make_view(**PUT_OFF)) == Deadlines(*PUT_OFF.values())
    assert agreed.compute_part_s(Stage.VOTING, 500) == (CLAIMING_ENDS_S + VOTING_ENDS_S) / 2


def test_training__goes_on_when_it_was_put_off() -> None:
    player = Player()
    view = make_view(Stage.TRAINING, time_s=TRAINING_ENDS_S + 10, **PUT_OFF)
    player.peer.dao.read(view, view.time_s)
    assert player.peer.dao.compute_phase(view.time_s) is Phase.TRAINING
    assert player.peer.dao.compute_phase(TRAINING_ENDS_S + LATER_S - FINAL_S) is Phase.FINAL
    assert player.peer.dao.compute_phase(TRAINING_ENDS_S + LATER_S) is Phase.CLOSED


def test_dataslices_of_streams__are_taken_until_training_is_over() -> None:
    """Fig. 1: also before the chain was read after a restart, when only the rules are known; and longer when training was put off."""
    player = Player()
    dao = player.peer.dao
    dao.view = None
    assert dao.takes_data(TRAINING_ENDS_S - FINAL_S - 1) and not dao.takes_data(TRAINING_ENDS_S - FINAL_S)
    view = make_view(Stage.TRAINING, time_s=TRAINING_ENDS_S + 10, **PUT_OFF)
    dao.read(view, view.time_s)
    assert dao.takes_data(TRAINING_ENDS_S + LATER_S - FINAL_S - 1) and not dao.takes_data(TRAINING_ENDS_S + LATER_S - FINAL_S)


def test_claim__waits_as_long_as_the_stage_really_lasts() -> None:
    """With open logs a member claims after 60 % of the stage: of the stage as it is now."""
    settlement = Settlement(RULES, ALICE)
    view = make_view(Stage.CLAIMING, time_s=TRAINING_ENDS_S + LATER_S, **PUT_OFF)
    settlement.deadlines = compute_deadlines(RULES, view)
    books = make_books(closed=False, rows={BOB: {ALICE: 10}})  # type: ignore[dict-item]

    def step(now_s: float) -> object:
        return settlement.step(replace(view, time_s=int(now_s)), judge_members(view.members), books, now_s=now_s)

    assert step(TRAINING_ENDS_S + LATER_S + 1) is None
    assert step(TRAINING_ENDS_S + LATER_S + 59) is None
    assert isinstance(step(TRAINING_ENDS_S + LATER_S + 61), SubmitClaim)
    assert books.evidence == EVIDENCE
