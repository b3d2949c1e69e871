"""Signed claims and ballots on the control lane: their bodies, and rules 7 and 13 (section 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import Checkpoint, Kind, Message, parse_message
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import CLAIMING_ENDS_S, RULES, TRAINING_ENDS_S, VOTING_ENDS_S, Author, announce, feed, make_lane

SIGNATURE = b"s" * 64
CLAIM_MS = (TRAINING_ENDS_S + 10) * 1000
BALLOT_MS = (CLAIMING_ENDS_S + 10) * 1000
LATE_MS = VOTING_ENDS_S * 1000
SEAL = Checkpoint(closing=False, heads=())


def make_claim(sealed: Vertex, points: int = 5) -> ClaimSigned:
    return ClaimSigned(points=points, evidence=sealed.cid[4:], signature=SIGNATURE)


def make_ballot(*nays: int) -> BallotSigned:
    return BallotSigned(nays=nays, signature=SIGNATURE)


def judge(lane: ControlLane, vertex: Vertex) -> tuple[Verdict, str]:
    ruling = lane.receive(vertex.encoded, now_ms=LATE_MS).ruling
    return ruling.verdict, ruling.why


@pytest.mark.parametrize("nays", [(), (0,), (7, 8), (0, 255, 4094)])
def test_ballot__is_read_back_as_it_was_written(nays: tuple[int, ...]) -> None:
    message = make_ballot(*nays)

    assert parse_message(Kind.BALLOT_SIGNED, message.to_body()) == message


@pytest.mark.parametrize(
    "body",
    [
        [b"\x01\0", SIGNATURE],
        [b"\0", SIGNATURE],
        [b"\x01" * 513, SIGNATURE],
        [b"\x01", SIGNATURE[1:]],
        [b"\x01", SIGNATURE, 0],
        [[0], SIGNATURE],
        [b"\x01"],
        [SIGNATURE, None],
    ],
)
def test_ballot__in_a_second_form_or_beyond_its_limits_is_refused(body: list[object]) -> None:
    """Rule 3: a byte of zeros at the end would be the same ballot in other bytes; 512 bytes hold all members."""
    assert parse_message(Kind.BALLOT_SIGNED, body) is None
    assert parse_message(Kind.BALLOT_SIGNED, [b"\x01" * 512, SIGNATURE]) is not None


@pytest.mark.parametrize("change", [{"points": 0}, {"points": 2**64}, {"evidence": bytes(31)}, {"signature": bytes(65)}])
def test_claim__beyond_its_limits_is_refused(change: dict[str, object]) -> None:
    claim = ClaimSigned(points=1, evidence=bytes(32), signature=SIGNATURE)

    assert parse_message(Kind.CLAIM_SIGNED, claim.to_body()) == claim
    assert parse_message(Kind.CLAIM_SIGNED, replace(claim, **change).to_body()) is None  # type: ignore[arg-type]
    assert parse_message(Kind.CLAIM_SIGNED, [True, bytes(32), SIGNATURE]) is None


@pytest.mark.parametrize(
    ("message", "at_ms", "why"),
    [
        (ClaimSigned(points=1, evidence=bytes(32), signature=SIGNATURE), TRAINING_ENDS_S * 1000 - 1, "a claim before training is over"),
        (make_ballot(1), CLAIMING_ENDS_S * 1000 - 1, "a ballot before claiming is over"),
        (make_ballot(RULES.members_max), BALLOT_MS, "at most 100 members"),
        (make_ballot(*range(50)), BALLOT_MS, "a ballot with 50 nays"),
    ],
)
def test_rule_7__no_claim_or_ballot_before_its_stage_or_beyond_the_session(message: Message, at_ms: int, why: str) -> None:
    """Fig. 5: first training, then claims, then votes."""
    verdict, said = judge(make_lane(), Author("bob").write(message, time_ms=at_ms))

    assert verdict is Verdict.REJECT and why in said


def test_rule_7__what_is_just_possible_passes() -> None:
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    sealed = bob.write(SEAL, time_ms=TRAINING_ENDS_S * 1000 - 1)
    claimed = bob.write(make_claim(sealed), time_ms=TRAINING_ENDS_S * 1000)
    cast = carol.write(make_ballot(*range(RULES.members_max - 49, RULES.members_max)), time_ms=CLAIMING_ENDS_S * 1000)

    assert len(feed(lane, [sealed, claimed, cast], now_ms=LATE_MS)) == 3


def test_rule_7__where_tips_are_paid_nobody_claims() -> None:
    """4.3: in `tips` mode each receipt is paid at once."""
    rules = replace(RULES, reward_mode="tips")
    verdict, why = judge(make_lane(rules=rules), Author("bob", rules).write(make_ballot(), time_ms=BALLOT_MS))

    assert verdict is Verdict.REJECT and "pays by tips" in why


def test_rule_13a__a_member_signs_one_claim_and_one_ballot() -> None:
    """So nobody makes the others keep or relay more than one of each."""
    lane, bob = make_lane(), Author("bob")
    sealed = bob.write(SEAL, time_ms=CLAIM_MS)
    feed(lane, [sealed, bob.write(make_claim(sealed)), bob.write(make_ballot(), time_ms=BALLOT_MS)], now_ms=LATE_MS)
    head = bob.log[-1]

    for again in (make_claim(sealed, 6), make_ballot(1)):
        verdict, why = judge(lane, bob.write(again, previous=head))
        assert verdict is Verdict.REJECT and "signed one before" in why


@pytest.mark.parametrize("evidence", ["nothing", "another's", "no checkpoint"])
def test_rule_13b__the_evidence_is_a_checkpoint_that_the_claimant_said_before(evidence: str) -> None:
    """6: whoever holds the claim holds what it follows from."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    own, foreign = bob.write(SEAL, time_ms=CLAIM_MS), carol.write(SEAL, time_ms=CLAIM_MS)
    model = bob.write(announce())
    feed(lane, [own, foreign, model], now_ms=LATE_MS)
    named = {"nothing": bytes(32), "another's": foreign.cid[4:], "no checkpoint": model.cid[4:]}[evidence]

    verdict, why = judge(lane, bob.write(ClaimSigned(points=5, evidence=named, signature=SIGNATURE), previous=model))
    assert verdict is Verdict.REJECT and "its evidence is no checkpoint" in why
    assert judge(lane, bob.write(make_claim(own), previous=model))[0] is Verdict.ACCEPT
