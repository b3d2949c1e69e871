"""The numbered rules of `protocol.validation`, each with what just passes and what just does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learnae.ids import CODEC_DAG_CBOR, Cid, PeerId, compute_cid
from learnae.protocol.lane import ControlLane, Received
from learnae.protocol.messages import (
    KIND_OF,
    AuditVerdict,
    Checkpoint,
    DatasliceConsumed,
    Departed,
    Finding,
    ForkProved,
    HashlistPublished,
    Joined,
    Kind,
    Message,
    ModelAnnounced,
    Origin,
    ValidationCommitted,
    parse_message,
)
from learnae.protocol.signed import ClaimSigned
from learnae.protocol.validation import HASHLIST_SLICES_MAX, TIME_AHEAD_MAX_MS, VERTEX_BURST, VERTEX_RATE_PER_S, compute_model_bytes_max
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Statement, Vertex, create_vertex
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    EPOCH_S,
    EVERYBODY,
    NET,
    NOW_MS,
    RULES,
    Author,
    announce,
    feed,
    genesis,
    introduce,
    make_cid,
    make_lane,
    make_sign,
    report,
)

STATEMENT = Statement(digest=bytes(32), signature=bytes(64))
MESSAGES: tuple[Message, ...] = (
    Joined(poid=bytes(20), addresses=("/ip4/1.2.3.4/tcp/5",)),
    HashlistPublished(hashlist=make_cid("list"), slices=3),
    DatasliceConsumed(slices=(make_cid("s1"), make_cid("s2"))),
    announce(),
    report(BOB, make_cid("announcement"), owed=10),
    Departed(reason="bye"),
    ForkProved(issuer=BOB, sequence=3, first=STATEMENT, second=replace(STATEMENT, digest=b"\x01" * 32)),
    Checkpoint(closing=True, heads=((min(ALICE, BOB), 1, make_cid("a")), (max(ALICE, BOB), 2, make_cid("b")))),
    ValidationCommitted(slice=make_cid("validation"), total=100),
    AuditVerdict(subject=make_cid("receipt"), finding=Finding.WRONG_COUNTS, correct_before=1, correct_after=2, total=3),
    ClaimSigned(points=2**64 - 1, evidence=b"e" * 32, signature=bytes(64)),
)


def judge(vertex: Vertex, *, lane: ControlLane | None = None, now_ms: int = NOW_MS + 100_000) -> Received:
    return (lane or make_lane()).receive(vertex.encoded, now_ms=now_ms)


def is_rejected(received: Received, why: str) -> bool:
    return received.ruling.verdict is Verdict.REJECT and why in received.ruling.why and not received.entered


def is_ignored(received: Received, why: str) -> bool:
    return received.ruling.verdict is Verdict.IGNORE and why in received.ruling.why and not received.entered


def make_raw(kind: int, body: object, *, net: bytes = NET, tag: bytes = b"", time_ms: int = NOW_MS) -> Vertex:
    return create_vertex(
        net=net, parents=(genesis(net),), issuer=BOB, sequence=1, time_ms=time_ms, kind=int(kind), body=body, sign=make_sign("bob"), tag=tag
    )


BAD_VALUES: tuple[object, ...] = (None, 1.5, -1, "x\n", b"", [None], [[]], 2**64)


# --- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message__is_read_back_as_it_was_written(message: Message) -> None:
    """Every kind turns itself into plain values and back."""
    assert parse_message(KIND_OF[type(message)], message.to_body()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message__of_another_kind_is_refused(message: Message) -> None:
    """Threats, signatures: no use across kinds. No body fits another kind's shape."""
    others = set(Kind) - {KIND_OF[type(message)]}

    assert [kind for kind in (*others, 0, 13, 255) if parse_message(kind, message.to_body()) is not None] == []


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message__with_any_field_missing_added_or_of_another_type_is_refused(message: Message) -> None:
    """Rule 3: a body is exactly what its kind writes."""
    kind, body = KIND_OF[type(message)], message.to_body()
    wrong: list[object] = [None, 1, b"", [], body[:-1], [*body, 0], [body]]
    for index in range(len(body)):
        wrong += [[*body[:index], bad, *body[index + 1 :]] for bad in BAD_VALUES]

    assert [bad for bad in wrong if parse_message(kind, bad) is not None] == []


def test_parser__bounds_lists_texts_and_counts() -> None:
    """Limits: every list and text of a body has a longest length, every count a largest value."""
    cids = [make_cid(str(number)) for number in range(1025)]
    assert parse_message(Kind.JOINED, [bytes(20), ["/a"] * 8]) is not None
    assert parse_message(Kind.JOINED, [bytes(20), ["/a"] * 9]) is None
    assert parse_message(Kind.JOINED, [bytes(20), ["/" + "a" * 256]]) is None
    assert parse_message(Kind.DATASLICE_CONSUMED, [cids[:1024]]) is not None
    assert parse_message(Kind.DATASLICE_CONSUMED, [cids]) is None
    assert parse_message(Kind.DEPARTED, ["x" * 200]) is not None
    assert parse_message(Kind.DEPARTED, ["x" * 201]) is None
    assert parse_message(Kind.HASHLIST_PUBLISHED, [cids[0], 2**40]) is not None
    assert parse_message(Kind.HASHLIST_PUBLISHED, [cids[0], 2**40 + 1]) is None
    assert parse_message(Kind.HASHLIST_PUBLISHED, [cids[0], True]) is None
    heads = [[bytes([number // 256, number % 256]) + bytes(30), 1, cids[0]] for number in range(701)]
    assert parse_message(Kind.CHECKPOINT, [True, heads[:700]]) is not None
    assert parse_message(Kind.CHECKPOINT, [True, heads]) is None
    assert parse_message(Kind.CHECKPOINT, [True, [heads[1], heads[0]]]) is None
    assert parse_message(Kind.CHECKPOINT, [True, [heads[0], heads[0]]]) is None


def test_checkpoint__of_the_most_heads_fits_into_a_vertex() -> None:
    heads = tuple((PeerId(bytes([n // 256, n % 256]) + bytes(30)), 2**40, make_cid("x")) for n in range(700))

    assert len(Author("alice").write(Checkpoint(closing=True, heads=heads)).encoded) <= 64 * 1024


def test_consumed__one_slice_twice_in_a_message_is_refused() -> None:
    """4.1, overuse threshold: otherwise one message could use a slice up for everybody."""
    slices = (make_cid("s"), make_cid("s"))

    assert is_rejected(judge(Author("bob").write(DatasliceConsumed(slices=slices))), "not a body")


# --- rules 1 to 7: a vertex by itself -------------------------------------------------------------------------------


def test_rule_1__another_session_or_lane_is_rejected() -> None:
    """Threats: no use across sessions or lanes."""
    other_session = Author("bob", replace(RULES, name="another")).write(announce())
    other_lane = make_raw(Kind.DEPARTED, ["bye"], net=RULES.compute_net("sensors"))

    assert is_rejected(judge(other_session), "another session or lane")
    assert is_rejected(judge(other_lane), "another session or lane")


def test_rule_2__a_tag_is_rejected() -> None:
    assert is_rejected(judge(make_raw(Kind.DEPARTED, ["bye"], tag=bytes(16))), "tag")


def test_rule_3__a_body_of_no_kind_is_rejected() -> None:
    assert is_rejected(judge(make_raw(77, ["bye"])), "not a body of kind 77")


def test_rule_4__older_than_the_session_is_rejected() -> None:
    assert is_rejected(judge(Author("bob").write(announce(), time_ms=EPOCH_S * 1000 - 1)), "older than the session")
    assert judge(Author("bob").write(announce(), time_ms=EPOCH_S * 1000)).entered


def test_rule_5__far_ahead_is_ignored_without_blame() -> None:
    """Threats, clocks: ours may be the wrong one."""
    ahead = Author("bob").write(announce(), time_ms=NOW_MS + TIME_AHEAD_MAX_MS + 1)
    lane = make_lane()

    assert is_ignored(judge(ahead, lane=lane, now_ms=NOW_MS), "two minutes ahead")
    assert judge(ahead, lane=lane, now_ms=NOW_MS + 1).entered


def test_rule_6__strangers_are_ignored_until_the_chain_shows_them() -> None:
    """4.4: only members are heard; we may lag behind the chain."""
    lane, vertex = make_lane(members=EVERYBODY - {BOB}), Author("bob").write(announce())

    assert is_ignored(judge(vertex, lane=lane), "not a member")
    lane.members = EVERYBODY
    assert judge(vertex, lane=lane).entered


def test_signature__of_somebody_else_is_rejected() -> None:
    """Nothing unsigned acts."""
    vertex = Author("bob").write(announce())
    forged = vertex.encoded[:-64] + bytes(64)
    lane = make_lane()

    assert is_rejected(lane.receive(forged, now_ms=NOW_MS), "wrong signature")
    assert len(lane.dag) == 0 and len(lane.dag.orphans) == 0


def make_checkpoint(*, heads: int) -> Checkpoint:
    return Checkpoint(closing=False, heads=tuple((PeerId(n.to_bytes(32, "big")), 1, make_cid(str(n))) for n in range(heads)))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (announce(correct=101), "more correct answers"),
        (announce(correct=0, total=0), "more correct answers"),
        (announce(size=0), "a model of 0 bytes"),
        (announce(size=compute_model_bytes_max(RULES) + 1), "a model of"),
        (report(BOB, make_cid("a"), owed=10), "help from itself"),
        (report(ALICE, make_cid("a"), owed=10, before=51, after=51), "not an improvement"),
        (report(ALICE, make_cid("a"), owed=10, before=52, after=51, credits=1), "not an improvement"),
        (report(ALICE, make_cid("a"), owed=10, before=50, after=101), "not an improvement"),
        (report(ALICE, make_cid("a"), owed=10, credits=11), "Eq. 1 gives 10"),
        (report(ALICE, make_cid("a"), owed=10, credits=9), "Eq. 1 gives 10"),
        (HashlistPublished(hashlist=make_cid("h"), slices=HASHLIST_SLICES_MAX + 1), "at most 16384"),
        (DatasliceConsumed(slices=tuple(make_cid(str(n)) for n in range(5))), "the session allows 4"),
        (make_checkpoint(heads=RULES.members_max + 1), "the session has at most"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_rule_7__the_impossible_is_rejected(message: Message, why: str) -> None:
    """Counts, sizes and credits (Eq. 1) are computed, never believed."""
    assert is_rejected(judge(Author("bob").write(message)), why)


@pytest.mark.parametrize(
    "message",
    [
        announce(correct=100),
        announce(correct=0, total=1),
        announce(size=compute_model_bytes_max(RULES)),
        HashlistPublished(hashlist=make_cid("h"), slices=HASHLIST_SLICES_MAX),
        DatasliceConsumed(slices=tuple(make_cid(str(n)) for n in range(4))),
        make_checkpoint(heads=RULES.members_max),
    ],
)
def test_rule_7__what_is_just_possible_passes(message: Message) -> None:
    assert judge(Author("bob").write(message)).entered


# --- rules 8 to 10: its place ----------------------------------------------------------------------------------------


def test_rule_8__the_number_follows_the_issuers_previous_vertex() -> None:
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    (first, carols) = introduce(bob, carol, lane=lane)

    assert is_rejected(judge(bob.write(announce(), sequence=3), lane=lane), "does not follow")
    assert is_rejected(judge(Author("bob").write(announce(), sequence=2), lane=lane), "does not follow")
    assert is_rejected(judge(bob.write(announce(), previous=carols), lane=lane), "another issuer's")
    assert judge(bob.write(announce(), previous=first), lane=lane).entered


def test_rule_9__later_than_all_that_it_has_seen() -> None:
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    (first, carols) = introduce(bob, carol, lane=lane)

    assert is_rejected(judge(bob.write(announce(), previous=first, time_ms=first.time_ms), lane=lane), "not later")
    assert is_rejected(judge(bob.write(announce(), previous=first, parents=[carols], time_ms=carols.time_ms), lane=lane), "not later")
    assert judge(bob.write(announce(), previous=first, parents=[carols], time_ms=carols.time_ms + 1), lane=lane).entered


def test_rule_10__five_a_second_after_a_burst_of_fifty() -> None:
    """Limits: by the vertices' own times, so that gossip and sync judge alike."""
    lane, bob = make_lane(), Author("bob")
    for number in range(VERTEX_BURST):
        assert judge(bob.write(announce(str(number)), time_ms=NOW_MS + number), lane=lane).entered
    last = bob.log[-1]
    pause_ms = 1000 // VERTEX_RATE_PER_S

    assert is_rejected(judge(bob.write(announce("x"), previous=last, time_ms=NOW_MS + pause_ms - 1), lane=lane), "5 things a second")
    assert judge(bob.write(announce("y"), previous=last, time_ms=NOW_MS + pause_ms), lane=lane).entered


# --- rule 11: receipts ------------------------------------------------------------------------------------------------


def test_rule_11__a_right_receipt_credits_the_helper() -> None:
    """6, Fig. 3: the row of the reporter grows by Eq. 1."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    (first, second) = feed(lane, [carol.write(announce("one")), carol.write(announce("two"))])
    feed(lane, [bob.write(report(CAROL, first.vertex.cid, owed=10), time_ms=NOW_MS + 500)])
    feed(lane, [bob.write(report(CAROL, second.vertex.cid, owed=40, after=53))])

    assert lane.ledger.rows() == {BOB: {CAROL: 40}}


def test_rule_11a__the_announcement_is_a_model_of_the_helper_and_older() -> None:
    """A receipt names what helped."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    joined, model = carol.write(Joined(poid=bytes(20), addresses=())), carol.write(announce())
    own = bob.write(announce())
    feed(lane, [joined, model, own])

    assert is_rejected(judge(bob.write(report(CAROL, joined.cid, owed=10), previous=own), lane=lane), "not a model of the helper")
    assert is_rejected(judge(bob.write(report(ALICE, model.cid, owed=10), previous=own), lane=lane), "not a model of the helper")
    assert is_rejected(judge(bob.write(report(CAROL, own.cid, owed=10), previous=own), lane=lane), "not a model of the helper")
    same_time = bob.write(report(CAROL, model.cid, owed=10), previous=own, time_ms=model.time_ms)
    assert is_rejected(judge(same_time, lane=lane), "")
    assert lane.ledger.rows() == {}


def test_rule_11a__an_announcement_that_is_not_here_is_waited_for() -> None:
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    model = carol.write(announce())
    receipt = bob.write(report(CAROL, model.cid, owed=10), time_ms=NOW_MS + 500)

    assert is_ignored(judge(receipt, lane=lane), "waits")
    assert lane.ask().want == (model.cid,)
    assert [entry.vertex for entry in judge(model, lane=lane).entered] == [model, receipt]
    assert lane.ledger.value(BOB, CAROL) == 10


def test_rule_11b__one_announcement_earns_one_receipt_of_one_issuer() -> None:
    """Credit cannot be printed from a single model."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    model = carol.write(announce())
    feed(lane, [model, bob.write(report(CAROL, model.cid, owed=10), time_ms=NOW_MS + 500)])

    assert is_rejected(judge(bob.write(report(CAROL, model.cid, owed=20)), lane=lane), "credited before")
    dave = Author("dave").write(report(CAROL, model.cid, owed=10), time_ms=NOW_MS + 500)
    assert judge(dave, lane=lane).entered
    assert lane.ledger.profile(CAROL) == 20


@pytest.mark.parametrize("owed", [9, 11, 20, 0])
def test_rule_11c__the_running_total_adds_up(owed: int) -> None:
    """The row is a fold, never an assertion."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    (model,) = feed(lane, [carol.write(announce())])

    assert is_rejected(judge(bob.write(report(CAROL, model.vertex.cid, owed=owed), time_ms=NOW_MS + 500), lane=lane), "does not add up")
    assert lane.ledger.rows() == {}


# --- rule 12: proofs of forks -----------------------------------------------------------------------------------------


def prove(first: Vertex, second: Vertex) -> ForkProved:
    return ForkProved(issuer=first.issuer, sequence=first.sequence, first=first.compute_statement(), second=second.compute_statement())


def test_rule_12__a_proof_freezes_its_issuer_wherever_it_is_heard() -> None:
    """Protocol: one proof for everyone who signs two different vertices with one number."""
    lane, mallory = make_lane(), Author("mallory")
    (first,) = introduce(mallory, lane=lane)
    second, rival = mallory.write(announce("a")), mallory.write(announce("b"), previous=first)
    feed(lane, [second])

    received = judge(Author("bob").write(prove(second, rival)), lane=lane)

    assert received.forked == (mallory.me,)
    assert list(lane.dag.chain(mallory.me)) == [first]
    assert lane.find_unproved_fork() is None


def test_rule_12__what_proves_nothing_is_rejected() -> None:
    """Nobody is frozen by a false accusation."""
    lane, carol, bob = make_lane(), Author("carol"), Author("bob")
    (first,) = introduce(carol, lane=lane)
    second, third = carol.write(announce("a")), carol.write(announce("b"))
    honest = prove(second, third)
    foreign = Author("carol", replace(RULES, name="another"))
    elsewhere = foreign.write(announce("z"))

    for proof in (
        honest,
        replace(prove(first, second), sequence=1),
        replace(honest, issuer=BOB),
        prove(first, elsewhere),
        replace(prove(first, second), second=STATEMENT),
    ):
        assert is_rejected(judge(Author("bob").write(proof), lane=lane), "wrong signature")
    assert not is_rejected(judge(bob.write(announce()), lane=lane), "")
    assert parse_message(Kind.FORK_PROVED, prove(first, first).to_body()) is None
    assert not lane.dag.forks


def test_origin__other_numbers_are_refused() -> None:
    body = announce().to_body()
    body[6] = 4

    assert parse_message(Kind.MODEL_ANNOUNCED, body) is None
    assert isinstance(parse_message(Kind.MODEL_ANNOUNCED, [*body[:6], int(Origin.ADOPTED), body[7]]), ModelAnnounced)
    assert Cid(compute_cid(b"", CODEC_DAG_CBOR)) != make_cid("")
