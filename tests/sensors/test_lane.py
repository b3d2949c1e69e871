"""Paper 2.2 and 4.2: the sensors lane. Who is heard, in what order, how losses are repaired, what may be forgotten."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.ids import Cid
from learnae.protocol.sync import SYNC_VERTICES_MAX, decode_sync
from learnae.sensors import judge
from learnae.sensors.judge import SensorCodec, SensorEntry
from learnae.sensors.lane import KEEP_MIN, SensorLane
from learnae.sensors.messages import ChannelMessages, SensorKind, SliceReceipt, parse_sensor_message
from learnae.sensors.readings import SensorField
from learnae.sensors.waiting import PATIENCE_MS
from learnae.tangle.channel import ChannelMode, ChannelWriter, WriterState, create_succession
from learnae.tangle.stream import WINDOW
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex, create_vertex
from tests.sensors.builders import (
    FIELDS,
    MEMBER,
    MEMBERS,
    NET,
    OTHER_MEMBER,
    RULES,
    STARTS_MS,
    FakeSensor,
    Key,
    make_admission,
    make_head,
    make_lane,
    sign_head,
)

LATER_MS = STARTS_MS + 3_600_000


def feed(lane: SensorLane, *vertices: bytes, now_ms: int = LATER_MS) -> list[str]:
    """Receive vertices; what was said of each, empty if it entered."""
    return [lane.receive(encoded, now_ms=now_ms).ruling.why for encoded in vertices]


def make_vertex(issuer: Key, message: object, **changes: Any) -> bytes:
    lane = make_lane(issuer)
    values = {
        "net": NET,
        "parents": (lane.tangle.genesis,),
        "issuer": issuer.peer,
        "sequence": 1,
        "time_ms": STARTS_MS + 10,
        "kind": int(SensorKind.SENSOR_HEAD),
        "body": message.to_body(),  # type: ignore[attr-defined]
        "sign": issuer.sign,
        "tag": RULES.tag,
    }
    return create_vertex(**{**values, **changes}).encoded


# --- who is heard -----------------------------------------------------------------------------------------------


def test_sensor__with_a_members_countersignature_is_heard() -> None:
    sensor, lane = FakeSensor("a"), make_lane()
    assert feed(lane, sensor.begin(), sensor.measure(STARTS_MS + 100).vertex.encoded) == ["", ""]

    stream = lane.streams[sensor.head.channel]
    assert (stream.head.sensor, stream.last, stream.issuer) == ("channel a", 1, sensor.issuer.peer)


def test_sensor__of_no_member_is_ignored_and_costs_nobody_score() -> None:
    lane = make_lane(members=frozenset({OTHER_MEMBER.peer}))
    heard = lane.receive(FakeSensor("a").begin(), now_ms=LATER_MS)

    assert (heard.ruling.verdict, heard.ruling.why) == (Verdict.IGNORE, "no member admitted this sensor")


def test_sensor__with_a_countersignature_for_another_issuer_or_lane_is_rejected() -> None:
    issuer, channel = Key("issuer"), Key("channel")
    own = make_admission(issuer)
    for admission in (make_admission(Key("somebody else")), make_admission(issuer, net=b"other ne"), replace(own, rate_per_s=9)):
        head = sign_head(replace(make_head(issuer, channel), admission=admission), channel, issuer)
        heard = make_lane().receive(make_vertex(issuer, head), now_ms=LATER_MS)
        assert heard.ruling.verdict is Verdict.REJECT and "countersignature" in heard.ruling.why


def test_stranger__without_head_is_ignored_before_its_signature_is_checked() -> None:
    stranger = Key("stranger")
    receipt = SliceReceipt(dataslice=make_lane().tangle.genesis, channel=b"c" * 16, first=1, last=2, rows=1)
    spam = make_vertex(stranger, receipt, kind=int(SensorKind.SLICE_RECEIPT), tag=b"", sign=lambda signed: bytes(64))
    assert "not admitted" in feed(make_lane(), spam)[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"net": b"another "}, "another session or lane"),
        ({"tag": b""}, "a tag that is not this kind's"),
        ({"kind": int(SensorKind.CHANNEL_MESSAGES), "tag": b""}, "not a body of kind 17"),
        ({"kind": 99, "tag": b""}, "not a body of kind 99"),
        ({"time_ms": STARTS_MS - 1}, "older than the session"),
        ({"time_ms": LATER_MS + 121_000}, "its clock is more than two minutes ahead"),
        ({"sign": lambda signed: bytes(64)}, "wrong signature"),
        ({"sequence": 2}, "its number does not follow"),
    ],
)
def test_vertex__that_breaks_a_rule_does_not_enter(changes: dict[str, object], why: str) -> None:
    issuer = Key("issuer")
    lane = make_lane()

    assert why in feed(lane, make_vertex(issuer, make_head(issuer, Key("channel")), **changes))[0]
    assert len(lane.tangle) == 0 and lane.streams == {}


def test_head__is_signed_by_the_channels_own_key() -> None:
    """Nobody begins a stream in another's name."""
    issuer, channel = Key("issuer"), Key("channel")
    head = replace(make_head(issuer, channel), signature=Key("thief").sign(b""))
    assert "its channel's key did not sign" in feed(make_lane(), make_vertex(issuer, head))[0]


def test_issuer__opens_no_more_channels_than_it_was_given() -> None:
    sensor, lane = FakeSensor("a"), make_lane()
    feed(lane, sensor.begin())
    heads = [make_head(sensor.issuer, Key(f"channel {n}"), admission=sensor.head.admission) for n in range(4)]
    vertices = []
    previous = sensor.lane.tangle.head(sensor.issuer.peer)
    for number, head in enumerate(heads):
        encoded = make_vertex(sensor.issuer, head, sequence=2 + number, parents=(previous,), time_ms=STARTS_MS + 100 + number)
        decoded = SensorCodec().decode(encoded)
        assert isinstance(decoded, Vertex)
        previous = decoded.cid
        vertices.append(encoded)

    said = feed(lane, *vertices)
    assert said[:3] == ["", "", ""] and "its admission allows 4" in said[3]


# --- what a sensor says -----------------------------------------------------------------------------------------


def test_replayed_and_forked_messages__are_refused() -> None:
    """Issue: forks of a stream, replays. The number of a message acts once."""
    sensor, lane = FakeSensor("a"), make_lane()
    first = sensor.writer.state
    feed(lane, sensor.begin())
    entry = sensor.measure(STARTS_MS + 100)
    feed(lane, entry.vertex.encoded)
    sensor.writer._state = first
    other = sensor.writer.create(b"another body under number 1")
    attached = entry.message
    assert isinstance(attached, ChannelMessages)
    for message in (attached.messages[0], other):
        again = ChannelMessages(channel=sensor.head.channel, messages=(message,))
        vertex = make_vertex(
            sensor.issuer, again, sequence=3, parents=(entry.vertex.cid,), time_ms=STARTS_MS + 200, kind=17, tag=b""
        )
        assert "a replay or a fork of the stream" in feed(lane, vertex)[0]


def test_message__of_another_key_or_channel_is_refused() -> None:
    sensor, thief, lane = FakeSensor("a"), FakeSensor("b"), make_lane()
    begin = sensor.begin()
    feed(lane, begin, thief.begin())
    decoded = SensorCodec().decode(begin)
    assert isinstance(decoded, Vertex)
    for channel, issuer, why in (
        (sensor.head.channel, sensor.issuer, "the channel's key did not sign"),
        (sensor.head.channel, thief.issuer, "a channel that its issuer did not begin"),
        (b"n" * 16, sensor.issuer, "a channel that its issuer did not begin"),
    ):
        message = ChannelMessages(channel=channel, messages=(thief.writer.create(b"x"),))
        parents = (lane.tangle.head(issuer.peer),)
        vertex = make_vertex(issuer, message, sequence=2, parents=parents, time_ms=STARTS_MS + 50, kind=17, tag=b"")
        assert why in feed(lane, vertex)[0]


def test_key__is_rotated_by_the_channel_itself() -> None:
    """A new key takes over where the old one stands; the old channel then ends."""
    sensor, lane = FakeSensor("a"), make_lane()
    feed(lane, sensor.begin(), sensor.measure(STARTS_MS + 100).vertex.encoded)
    new = Key("new channel")
    succession = create_succession(channel_key=sensor.channel.peer, last=1, successor=new.peer, sign=sensor.channel.sign)
    stolen = create_succession(channel_key=sensor.channel.peer, last=1, successor=new.peer, sign=Key("thief").sign)
    early = create_succession(channel_key=sensor.channel.peer, last=0, successor=new.peer, sign=sensor.channel.sign)

    def rotate(statement: object, fields: tuple[SensorField, ...] = FIELDS) -> str:
        head = make_head(sensor.issuer, new, first=2, succession=statement, fields=fields, admission=sensor.head.admission)
        parents = (lane.tangle.head(sensor.issuer.peer),)
        return feed(lane, make_vertex(sensor.issuer, head, sequence=3, parents=parents, time_ms=STARTS_MS + 200))[0]

    assert "did not hand over" in rotate(stolen)
    assert "stands elsewhere" in rotate(early)
    assert "did not hand over" in rotate(succession, FIELDS[:1])
    assert rotate(succession) == ""
    assert lane.streams[sensor.head.channel].ended
    assert "that ended" in feed(lane, sensor_message_after(sensor, lane))[0]


def test_rotated_channel__counts_no_more_and_rotations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "SUCCESSIONS_MAX", 2)
    sensor, lane = FakeSensor("a"), make_lane()
    admission = make_admission(sensor.issuer, channels_max=1)
    head = make_head(sensor.issuer, sensor.channel, admission=admission)
    feed(lane, sensor.lane.issue(head, now_ms=STARTS_MS).vertex.encoded)
    old, said = sensor.channel, []
    for number in range(3):
        new = Key(f"channel {number}")
        statement = create_succession(channel_key=old.peer, last=0, successor=new.peer, sign=old.sign)
        head = make_head(sensor.issuer, new, succession=statement, admission=admission)
        parents, time_ms = (lane.tangle.head(sensor.issuer.peer),), STARTS_MS + 100 + number
        said += feed(lane, make_vertex(sensor.issuer, head, sequence=2 + number, parents=parents, time_ms=time_ms))
        old = new
    assert said == ["", "", "its issuer changed keys more than 2 times"]
    second = make_head(sensor.issuer, Key("another sensor"), admission=admission)
    parents = (lane.tangle.head(sensor.issuer.peer),)
    vertex = make_vertex(sensor.issuer, second, sequence=4, parents=parents, time_ms=STARTS_MS + 900)
    assert "its admission allows 1" in feed(lane, vertex)[0]


def sensor_message_after(sensor: FakeSensor, lane: SensorLane) -> bytes:
    message = ChannelMessages(channel=sensor.head.channel, messages=(sensor.writer.create(b"late"),))
    parents = (lane.tangle.head(sensor.issuer.peer),)
    return make_vertex(sensor.issuer, message, sequence=4, parents=parents, time_ms=STARTS_MS + 300, kind=17, tag=b"")


def test_budget__holds_a_flooding_sensor_to_its_rate() -> None:
    """Issue: a sensor that floods. By the vertices' own times, so equal in gossip and sync."""
    sensor, lane = FakeSensor("a", rate_per_s=10), make_lane()
    feed(lane, sensor.begin())
    previous, said = sensor.lane.tangle.head(sensor.issuer.peer), []
    for number in range(2, 2 * WINDOW):
        message = ChannelMessages(channel=sensor.head.channel, messages=(sensor.writer.create(b"x"),))
        encoded = make_vertex(
            sensor.issuer, message, sequence=number, parents=(previous,), time_ms=STARTS_MS + 10 + number, kind=17, tag=b""
        )
        decoded = SensorCodec().decode(encoded)
        assert isinstance(decoded, Vertex)
        previous = decoded.cid
        said += feed(lane, encoded)

    assert said[: WINDOW - 1] == [""] * (WINDOW - 1)
    assert "says more than 10 things a second" in said[WINDOW - 1]
    assert lane.tangle.length(sensor.issuer.peer) == WINDOW


def test_budget__is_kept_by_whoever_issues() -> None:
    """A publisher is told to wait, and dates its vertices so that others take them."""
    sensor, lane = FakeSensor("a", rate_per_s=10), make_lane()
    feed(lane, sensor.begin())
    for _ in range(3 * WINDOW):
        assert feed(lane, sensor.measure(STARTS_MS + 100).vertex.encoded) == [""]
    assert sensor.lane.compute_wait_ms(now_ms=STARTS_MS + 100) > 6_000


def test_issuer__never_signs_what_others_could_not_read() -> None:
    sensor = FakeSensor("a")
    head = sign_head(replace(sensor.head, sensor="two\nlines"), sensor.channel, sensor.issuer)
    with pytest.raises(AssertionError, match="others cannot read"):
        sensor.lane.issue(head, now_ms=STARTS_MS)
    assert sensor.lane.tangle.length(sensor.issuer.peer) == 0


def test_admission__dates_a_sensors_past() -> None:
    """A sensor cannot fill the past, for which nobody budgeted it."""
    issuer = Key("issuer")
    head = make_head(issuer, Key("channel"), admission=make_admission(issuer, from_ms=STARTS_MS + 1000))
    assert "older than its issuer's admission" in feed(make_lane(), make_vertex(issuer, head))[0]


def test_clock__stands_still_for_nobody() -> None:
    sensor, lane = FakeSensor("a"), make_lane()
    begin = sensor.begin(STARTS_MS + 50)
    decoded = SensorCodec().decode(begin)
    assert isinstance(decoded, Vertex)
    message = ChannelMessages(channel=sensor.head.channel, messages=(sensor.writer.create(b"x"),))
    vertex = make_vertex(sensor.issuer, message, sequence=2, parents=(decoded.cid,), time_ms=STARTS_MS + 50, kind=17, tag=b"")
    assert "not later than its issuer's previous vertex" in feed(lane, begin, vertex)[1]


# --- forks ------------------------------------------------------------------------------------------------------


def make_fork() -> tuple[FakeSensor, bytes, bytes, bytes]:
    sensor = FakeSensor("a")
    begin = sensor.begin()
    state, twin = sensor.writer.state, FakeSensor("a")
    twin.lane.restore([begin])
    twin.lane.members = MEMBERS
    twin.writer._state = state
    return sensor, begin, sensor.measure(STARTS_MS + 100).vertex.encoded, twin.measure(STARTS_MS + 101).vertex.encoded


def test_equivocating_sensor__is_frozen_and_proved_to_all() -> None:
    """Issue: an equivocating sensor is proved on all nodes."""
    sensor, begin, one, other = make_fork()
    lane, remote = make_lane(), make_lane(OTHER_MEMBER)
    assert feed(lane, begin, one) == ["", ""]
    assert lane.receive(other, now_ms=LATER_MS).forked == (sensor.issuer.peer,)
    assert feed(remote, begin, other) == ["", ""]

    proof = lane.find_unproved_fork()
    assert proof is not None
    heard = remote.receive(lane.issue(proof, now_ms=LATER_MS).vertex.encoded, now_ms=LATER_MS)

    assert heard.forked == (sensor.issuer.peer,)
    assert lane.find_unproved_fork() is None and remote.find_unproved_fork() is None
    assert "forked" in feed(remote, sensor.measure(STARTS_MS + 300).vertex.encoded)[0]
    assert remote.tangle.forks[sensor.issuer.peer].sequence == 2


def test_fork_proof__that_is_invented_is_rejected() -> None:
    _, begin, one, other = make_fork()
    liar = make_lane(OTHER_MEMBER)
    feed(liar, begin, one, other)
    proof = liar.find_unproved_fork()
    assert proof is not None
    invented = replace(proof, issuer=Key("victim").peer)
    vertex = make_vertex(OTHER_MEMBER, invented, kind=int(SensorKind.FORK_PROVED), tag=b"")
    lane = make_lane()

    assert "a fork proof with a wrong signature" in feed(lane, vertex)[0]
    assert lane.tangle.forks == {}


# --- losses -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.0, 0.9))
def test_losses__are_repaired_by_sync_and_nothing_enters_twice(seed: int, loss: float) -> None:
    """Issue: gossip dropped; every node holds every message, none twice."""
    rng = Random(seed)
    sensors = [FakeSensor(name) for name in "abc"]
    lanes = [make_lane(MEMBER), make_lane(OTHER_MEMBER)]
    said = [sensor.begin() for sensor in sensors]
    for number in range(30):
        sensor = rng.choice(sensors)
        for other in sensors:  # They hear one another, so that they name one another's tips.
            if other is not sensor:
                other.lane.receive(said[-1], now_ms=LATER_MS)
        said.append(sensor.measure(STARTS_MS + 100 + number).vertex.encoded)
    entered: list[list[bytes]] = [[], []]
    order = list(said)
    rng.shuffle(order)
    feed(lanes[0], *said)
    for encoded in order:
        if rng.random() >= loss:
            entered[1] += [e.vertex.cid for e in lanes[1].receive(encoded, now_ms=LATER_MS).entered]
    exchange(lanes[0], lanes[1], entered)

    assert len(entered[1]) == len(set(entered[1])) == len(said)
    assert lanes[0].tangle.have_vector() == lanes[1].tangle.have_vector()
    assert {c: s.last_hash for c, s in lanes[0].streams.items()} == {c: s.last_hash for c, s in lanes[1].streams.items()}


def exchange(one: SensorLane, other: SensorLane, entered: list[list[bytes]], *, rounds: int = 12) -> int:
    """Sync two lanes until they have nothing to say; how many pages it took."""
    pages = 0
    for _ in range(rounds):
        for asker, answerer, place in ((other, one, 1), (one, other, 0)):
            asked = decode_sync(asker.ask().encode())
            assert asked is not None
            for answer in answerer.answer(asked):
                message = decode_sync(answer.encode())
                assert message is not None
                pages += bool(message.vertices)
                for encoded in message.vertices:
                    entered[place] += [e.vertex.cid for e in asker.receive(encoded, now_ms=LATER_MS).entered]
    return pages


def test_catching_up__takes_pages_not_steps() -> None:
    """protocol.md: an offline minute would cost hundreds of rounds if parents were walked."""
    sensor, lane, late = FakeSensor("a", rate_per_s=1000), make_lane(), make_lane(OTHER_MEMBER)
    feed(lane, sensor.begin())
    for number in range(700):
        feed(lane, sensor.measure(STARTS_MS + 10 * number).vertex.encoded)

    assert exchange(lane, late, [[], []]) == -(-701 // SYNC_VERTICES_MAX)
    assert late.tangle.length(sensor.issuer.peer) == 701


def test_strangers_parent__that_never_comes_holds_nobody_up() -> None:
    sensor, lane = FakeSensor("a"), make_lane()
    begin = sensor.begin()
    decoded = SensorCodec().decode(begin)
    assert isinstance(decoded, Vertex)
    nowhere = type(decoded.cid)(decoded.cid[:-1] + bytes([decoded.cid[-1] ^ 1]))
    message = ChannelMessages(channel=sensor.head.channel, messages=(sensor.writer.create(b"x"),))
    vertex = make_vertex(sensor.issuer, message, sequence=2, parents=(decoded.cid, nowhere), time_ms=STARTS_MS + 50, kind=17, tag=b"")

    assert "waits" in feed(lane, begin, vertex, now_ms=STARTS_MS + 100)[1]
    assert lane.ask().want == (nowhere,)
    assert lane.settle(now_ms=STARTS_MS + 100 + PATIENCE_MS - 1).entered == ()
    assert len(lane.settle(now_ms=STARTS_MS + 100 + PATIENCE_MS).entered) == 1
    assert lane.ask().want == ()


def test_tips__never_exceed_the_number_of_issuers() -> None:
    """tangle.md: the self-parent caps the tips at the number of issuers, also when all are lazy."""
    sensors, lane = [FakeSensor(str(n)) for n in range(8)], make_lane()
    for sensor in sensors:
        feed(lane, sensor.begin())
    for number in range(100):
        feed(lane, sensors[number % 8].measure(STARTS_MS + 100 + number).vertex.encoded)
        assert len(lane.tangle.tips) <= 8


# --- forgetting -------------------------------------------------------------------------------------------------


def prune(lane: SensorLane, *, keep: int) -> list[Cid]:
    lane.prune(keep=keep)
    return lane.take_forgotten()


def make_long_lane(count: int) -> tuple[FakeSensor, SensorLane, list[bytes]]:
    sensor, lane = FakeSensor("a", rate_per_s=1000), make_lane()
    said = [sensor.begin(), *(sensor.measure(STARTS_MS + 10 * n).vertex.encoded for n in range(1, count))]
    feed(lane, *said)
    return sensor, lane, said


def test_pruning__ends_at_a_members_checkpoint_and_keeps_the_newest() -> None:
    sensor, lane, _ = make_long_lane(200)
    assert prune(lane, keep=100) == []
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    assert prune(lane, keep=100) == []
    for number in range(110):
        feed(lane, sensor.measure(STARTS_MS + 5000 + number).vertex.encoded)
    dropped = prune(lane, keep=100)

    assert len(dropped) == 199  # All up to the checkpoint but the head, which everybody needs.
    assert lane.tangle.base(sensor.issuer.peer) == 200
    assert len(lane.tangle) == 111  # and the checkpoint
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 9000)
    assert prune(lane, keep=0) == []
    assert lane.tangle.length(sensor.issuer.peer) - lane.tangle.base(sensor.issuer.peer) >= KEEP_MIN


def test_newcomer__begins_a_forgotten_log_at_the_checkpoint() -> None:
    """Issue: checkpoints and pruning. Who comes later gets what is kept, and understands it."""
    sensor, lane, _ = make_long_lane(200)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    for number in range(110):
        feed(lane, sensor.measure(STARTS_MS + 5000 + number).vertex.encoded)
    lane.prune(keep=100)
    late = make_lane(OTHER_MEMBER)
    entered: list[list[bytes]] = [[], []]
    exchange(lane, late, entered)
    assert late.tangle.length(sensor.issuer.peer) == 1  # The head is kept for ever.
    late.settle(now_ms=LATER_MS)
    assert late.settle(now_ms=LATER_MS + PATIENCE_MS - 1).entered == ()
    late.settle(now_ms=LATER_MS + PATIENCE_MS)
    exchange(lane, late, entered)

    assert (late.tangle.base(sensor.issuer.peer), late.tangle.length(sensor.issuer.peer)) == (200, 310)
    assert late.streams[sensor.head.channel].last == lane.streams[sensor.head.channel].last
    assert feed(late, sensor.measure(LATER_MS).vertex.encoded) == [""]


@pytest.mark.parametrize("early", [True, False])
def test_head_before_what_is_kept__enters_is_kept_on_disk_and_known_after_a_restart(early: bool) -> None:
    """A head in the forgotten part of a log; it comes before or after its log began at a checkpoint."""
    sensor, lane, _ = make_long_lane(100)
    second = Key("second channel")
    head = make_head(sensor.issuer, second, admission=sensor.head.admission)
    feed(lane, sensor.lane.issue(head, now_ms=STARTS_MS + 2000).vertex.encoded)
    for number in range(100):
        feed(lane, sensor.measure(STARTS_MS + 3000 + number).vertex.encoded)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    for number in range(110):
        feed(lane, sensor.measure(STARTS_MS + 5000 + number).vertex.encoded)
    lane.prune(keep=100)
    late = make_lane(OTHER_MEMBER)
    saved: list[SensorEntry] = []
    old = lane.find_old_heads({})
    for encoded in [*(old if early else old[:1]), *lane.tangle.lacking({}, vertices_max=1000)]:
        saved += late.receive(encoded, now_ms=LATER_MS).entered
    late.settle(now_ms=LATER_MS)
    saved += late.settle(now_ms=LATER_MS + PATIENCE_MS).entered
    saved += [entry for encoded in old for entry in late.receive(encoded, now_ms=LATER_MS).entered]

    assert [entry.message for entry in saved].count(head) == 1
    again = make_lane(OTHER_MEMBER)
    again.restore([entry.vertex.encoded for entry in saved])
    assert set(again.streams) == set(late.streams) == set(lane.streams)
    writer = ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PUBLIC, sign=second.sign)
    message = ChannelMessages(channel=head.channel, messages=(writer.create(b"x"),))
    assert feed(again, sensor.lane.issue(message, now_ms=LATER_MS).vertex.encoded) == [""]


def test_newcomer__takes_no_strangers_word_for_where_a_log_begins() -> None:
    sensor, _, said = make_long_lane(100)
    late = make_lane(OTHER_MEMBER, members=frozenset({OTHER_MEMBER.peer, MEMBER.peer}))
    feed(late, *said[80:])
    for step in range(4):
        late.settle(now_ms=LATER_MS + step * PATIENCE_MS)
    assert late.tangle.length(sensor.issuer.peer) == 0


@pytest.mark.parametrize("cut", [0, 1, 2, 57, 119])
def test_restart__goes_on_where_the_disk_ended(cut: int) -> None:
    sensor, lane, said = make_long_lane(120)
    again = make_lane()
    again.restore(said[:cut])
    feed(again, *said)

    assert again.tangle.have_vector() == lane.tangle.have_vector()
    assert again.streams == lane.streams
    assert feed(again, sensor.measure(LATER_MS).vertex.encoded) == [""]


# --- bodies -----------------------------------------------------------------------------------------------------


def make_bodies() -> list[tuple[int, list[object]]]:
    sensor, _, _ = make_long_lane(3)
    succession = create_succession(channel_key=sensor.channel.peer, last=1, successor=Key("new").peer, sign=sensor.channel.sign)
    head = make_head(sensor.issuer, Key("new"), succession=succession, mode=ChannelMode.RESTRICTED)
    entry = sensor.measure(STARTS_MS + 5000)
    lane = make_lane()
    lane.receive(FakeSensor("z").begin(), now_ms=LATER_MS)
    receipt = SliceReceipt(dataslice=lane.tangle.genesis, channel=b"c" * 16, first=1, last=2, rows=1)
    fork_lane = make_lane(OTHER_MEMBER)
    feed(fork_lane, *make_fork()[1:])
    proof = fork_lane.find_unproved_fork()
    assert proof is not None and isinstance(entry.message, ChannelMessages)
    messages = [(16, head), (17, entry.message), (18, receipt), (19, lane.compute_checkpoint()), (7, proof)]
    return [(kind, message.to_body()) for kind, message in messages]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "body"), make_bodies(), ids=["head", "messages", "receipt", "checkpoint", "proof"])
def test_body__is_read_back_and_nothing_near_it(kind: int, body: list[object]) -> None:
    """A parser accepts what its type writes, and nothing else."""
    message = parse_sensor_message(kind, body)
    assert message is not None and message.to_body() == body
    for place in range(len(body)):
        wrongs: tuple[object, ...] = (None, True, -1, "x", b"x", [], 2**60, [[]])
        for wrong in wrongs:
            if wrong != body[place] or type(wrong) is not type(body[place]):
                changed = [*body[:place], wrong, *body[place + 1 :]]
                found = parse_sensor_message(kind, changed)
                assert found is None or found.to_body() == changed
    assert parse_sensor_message(kind, body[:-1]) is None
    assert parse_sensor_message(kind, {}) is None
    assert parse_sensor_message(99, body) is None


@given(st.binary(max_size=200))
def test_hostile_bytes__get_a_verdict(content: bytes) -> None:
    lane = make_lane()
    assert lane.receive(content, now_ms=LATER_MS).ruling.verdict is Verdict.REJECT
    assert len(lane.tangle) == 0


def test_lanes__in_other_orders_hold_the_same() -> None:
    """Honest peers that know the same vertices hold the same state."""
    sensors = [FakeSensor(name, mode=ChannelMode.PRIVATE) for name in "ab"]
    said = [sensor.begin() for sensor in sensors]
    said += [sensors[n % 2].measure(STARTS_MS + 100 + n).vertex.encoded for n in range(20)]
    source, folded = make_lane(OTHER_MEMBER), set()
    feed(source, *said)
    for seed in range(6):
        order, lane = list(said), make_lane()
        Random(seed).shuffle(order)
        feed(lane, *order)
        exchange(source, lane, [[], []])
        folded.add(hashlib.sha256(repr(sorted((c, s.last, s.last_hash) for c, s in lane.streams.items())).encode()).hexdigest())
    assert len(folded) == 1
