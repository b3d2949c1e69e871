"""Paper 4.2 and Fig. 1: find sensors by tag, follow them, fill buffers, emit dataslices, purge. Whatever is odd is told."""

from __future__ import annotations

import hashlib
import struct
from random import Random

import pytest

from learnae.ids import compute_cid
from learnae.learning.header import TensorSpec
from learnae.learning.slices import DataManifest, decode_slice
from learnae.protocol import events as ev
from learnae.sensors.follower import (
    CHECKPOINT_EVERY,
    KEEP_VERTICES,
    DropVertices,
    FollowEffect,
    FollowSettings,
    SensorFollower,
    SliceReady,
    StoreSlice,
    decode_lane_sync,
    encode_lane_sync,
)
from learnae.sensors.messages import ChannelMessages, SliceReceipt, parse_sensor_message
from learnae.sensors.readings import Batch, Reading, SensorField, encode_readings
from learnae.sensors.slices import RowType, SensorBuffer, compute_rows_per_slice, encode_rows, pack_row
from learnae.sim.sensors import SensorScenario, SensorWorld
from learnae.tangle import cbor
from learnae.tangle.channel import ChannelMode, ChannelWriter, Opening, WriterState
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex, VertexCodec
from tests.sensors.builders import FIELDS, MEMBER, MEMBERS, RULES, STARTS_MS, FakeSensor, Key, make_head

SLICE_BYTES = 1024
NOW_S = STARTS_MS / 1000 + 3600


def make_follower(key: Key = MEMBER, **settings: object) -> SensorFollower:
    chosen = FollowSettings(**{"slice_bytes": SLICE_BYTES, **settings})  # type: ignore[arg-type]
    follower = SensorFollower(rules=RULES, me=key.peer, sign=key.sign, rng=Random(1), settings=chosen)
    follower.lane.members = MEMBERS
    return follower


def follow(follower: SensorFollower, *vertices: bytes) -> list[FollowEffect]:
    """Receive vertices; store slices at once, as a node does."""
    effects: list[FollowEffect] = []
    for encoded in vertices:
        for effect in follower.receive(MEMBER.peer, encoded, NOW_S):
            effects.append(effect)
            if isinstance(effect, StoreSlice):
                effects += follower.slice_stored(effect.number, compute_cid(effect.content), NOW_S)
    return effects


def find_troubles(effects: list[FollowEffect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, ev.Tell) and effect.topic is ev.Topic.TROUBLE]


def find_slices(effects: list[FollowEffect]) -> list[bytes]:
    return [effect.content for effect in effects if isinstance(effect, StoreSlice)]


def attach(sensor: FakeSensor, batch: bytes, at_ms: int) -> bytes:
    message = ChannelMessages(channel=sensor.head.channel, messages=(sensor.writer.create(batch),))
    return sensor.lane.issue(message, now_ms=at_ms).vertex.encoded


def make_batch(at_ms: int, *, rows: int = 1, label: int | None = 2, begins: bool = False) -> bytes:
    readings = [Reading(at_ms + row, field, row + field / 2, label) for row in range(rows) for field in range(2)]
    return encode_readings(readings, FIELDS, begins=begins)


# --- buffers ----------------------------------------------------------------------------------------------------


def test_buffer__fills_up_to_a_dataslice_that_a_task_reads_and_is_purged() -> None:
    """4.2: readings are buffered until they fill a dataslice; then the buffer is purged."""
    sensor, follower = FakeSensor("a"), make_follower()
    rows = compute_rows_per_slice(2, SLICE_BYTES)
    effects = follow(follower, sensor.begin(), attach(sensor, make_batch(STARTS_MS + 100, begins=True, rows=rows - 1), STARTS_MS + 200))
    assert find_slices(effects) == []
    effects = follow(follower, attach(sensor, make_batch(STARTS_MS + 5000, rows=2), STARTS_MS + 5500))

    (content,) = find_slices(effects)
    assert SLICE_BYTES - 100 < len(content) <= SLICE_BYTES
    manifest = DataManifest(TensorSpec("F32", (2,)), TensorSpec("I64", ()), classes=3)
    x, y = decode_slice(content, manifest, SLICE_BYTES)
    assert x.tolist() == [[row, row + 0.5] for row in [*range(rows - 1), 0]]
    assert y.tolist() == [2] * rows
    assert follower.describe()[0]["rows_waiting"] == 1


def test_row__leads_back_to_its_vertex() -> None:
    """Issue: provenance from row to vertex, a slice receipt in the lane."""
    sensor, follower = FakeSensor("a"), make_follower()
    vertices = [sensor.begin()]
    vertices += [attach(sensor, make_batch(STARTS_MS + 1000 * n, rows=3, begins=n == 1), STARTS_MS + 1000 * n) for n in range(1, 30)]
    effects = follow(follower, *vertices)

    (record,) = [effect for effect in effects if isinstance(effect, ev.SaveRecord)][:1]
    channel, dataslice, origins = cbor.decode(record.content or b"")
    content = find_slices(effects)[0]
    assert (channel, dataslice) == (sensor.head.channel, compute_cid(content))
    assert sum(rows for *_, rows in origins) == compute_rows_per_slice(2, SLICE_BYTES)
    for vertex, sequence, _, _ in origins:
        encoded = follower.lane.tangle.read(vertex)
        decoded = VertexCodec().decode(encoded or b"")
        assert isinstance(decoded, Vertex)
        message = parse_sensor_message(decoded.kind, decoded.body)
        assert isinstance(message, ChannelMessages) and message.messages[0].sequence == sequence
    published = [effect for effect in effects if isinstance(effect, ev.PublishVertex)]
    decoded = VertexCodec().decode(published[0].encoded)
    assert isinstance(decoded, Vertex)
    receipt = parse_sensor_message(decoded.kind, decoded.body)
    assert receipt == SliceReceipt(dataslice=dataslice, channel=channel, first=1, last=origins[-1][1], rows=sum(o[3] for o in origins))
    assert SliceReady(dataslice) in effects


def test_dataslices__are_bit_identical_whatever_the_order_of_arrival() -> None:
    """Issue: bit-identical on every follower; losses, delays, several sensors."""
    world = SensorWorld(SensorScenario(seed=3, sensors=4, rate_per_s=20, duration_s=30, loss=0.3, readings=8, slice_bytes=1024))
    world.run()

    cut = [sorted(dict(node.slices).items()) for node in world.nodes]
    assert len(cut[0]) >= 20
    assert cut[0] == cut[1] == cut[2]
    assert [cid for cid, _ in world.nodes[0].slices] != [cid for cid, _ in world.nodes[1].slices], "they came in another order"
    assert all(node.entered_s.keys() == world.said_s.keys() and node.twice == 0 for node in world.nodes)


def test_message__with_rows_for_several_dataslices_gives_them_all() -> None:
    """A gateway's message may hold more than one slice; none hides another."""
    sensor, follower = FakeSensor("a"), make_follower()
    rows = compute_rows_per_slice(2, SLICE_BYTES)
    vertices = [sensor.begin(), attach(sensor, make_batch(STARTS_MS + 100, begins=True, rows=3 * rows + 5), STARTS_MS + 900)]
    effects = follow(follower, *vertices)

    ready = [effect.dataslice for effect in effects if isinstance(effect, SliceReady)]
    assert len(ready) == len(set(ready)) == len(follower.slices) == 3
    records = {e.name: e.content for e in effects if isinstance(e, ev.SaveRecord) and e.content is not None}
    again = make_follower()
    assert {e.dataslice for e in again.restore(vertices, records) if isinstance(e, SliceReady)} == set(ready)


def test_late_follower__cuts_the_same_dataslices_from_the_next_beginning_on() -> None:
    sensor, early = FakeSensor("a"), make_follower()
    opening, vertices = None, [sensor.begin()]
    for number in range(1, 200):
        if number == 50:
            opening = sensor.writer.compute_opening()
        vertices.append(attach(sensor, make_batch(STARTS_MS + 1000 * number, begins=number % 40 == 1), STARTS_MS + 1000 * number))
    assert opening is not None
    late = make_follower(openings={"channel a": opening})
    all_slices, late_slices = find_slices(follow(early, *vertices)), find_slices(follow(late, *vertices))

    assert len(late_slices) >= 2
    assert late_slices == all_slices[-len(late_slices) :]


def test_restart__repeats_no_dataslice_and_loses_no_row() -> None:
    """Issue: kill in the middle. What is on disk are the vertices and the records of slices."""
    sensor = FakeSensor("a")
    vertices = [sensor.begin()]
    vertices += [attach(sensor, make_batch(STARTS_MS + 1000 * n, rows=3, begins=n % 20 == 1), STARTS_MS + 1000 * n) for n in range(1, 90)]
    whole = find_slices(follow(make_follower(), *vertices))
    for cut in (1, 2, 30, 57, 88):
        before = make_follower()
        effects = follow(before, *vertices[:cut])
        records = {e.name: e.content for e in effects if isinstance(e, ev.SaveRecord) and e.content is not None}
        after = make_follower()
        again = list(after.restore(vertices[:cut], records))
        assert {e.dataslice for e in again if isinstance(e, SliceReady)} == {compute_cid(c) for c in find_slices(effects)}
        assert not [effect for effect in again if isinstance(effect, StoreSlice)]
        rest = find_slices(follow(after, *vertices[cut:]))
        assert find_slices(effects) + rest == whole


def test_unfinished_dataslice__keeps_its_vertices_from_being_forgotten() -> None:
    sensor, follower = FakeSensor("a", rate_per_s=1000), make_follower(slice_bytes=1 << 20)
    follow(follower, sensor.begin(), attach(sensor, make_batch(STARTS_MS + 1, begins=True), STARTS_MS + 2))
    follower._since_checkpoint = CHECKPOINT_EVERY
    follower.tick(NOW_S)
    for number in range(KEEP_VERTICES + 300):
        follower.lane.receive(attach(sensor, make_batch(STARTS_MS + 10 + number), STARTS_MS + 10 + 10 * number), now_ms=int(NOW_S * 1000))
    follower._since_checkpoint = CHECKPOINT_EVERY
    effects = follower.tick(NOW_S + 1)

    assert not [effect for effect in effects if isinstance(effect, DropVertices)]
    follower._tails[sensor.head.channel].buffer._rows.clear()
    follower._since_checkpoint = CHECKPOINT_EVERY
    assert [effect for effect in follower.tick(NOW_S + 2) if isinstance(effect, DropVertices)]


def test_newcomer__follows_a_sensor_whose_head_stands_in_the_forgotten_part() -> None:
    """The head comes by sync with what is kept; it is begun, and on disk like everything else."""
    sensor, follower = FakeSensor("a", rate_per_s=1000), make_follower()
    lane = follower.lane
    follow(follower, sensor.begin())
    follow(follower, attach(sensor, make_batch(STARTS_MS + 1, begins=True), STARTS_MS + 1))
    sensor.channel = Key("second channel")
    sensor.head = make_head(sensor.issuer, sensor.channel, admission=sensor.head.admission)
    sensor.writer = ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PUBLIC, sign=sensor.channel.sign)
    follow(follower, sensor.begin())
    for number in range(1, 150):
        follow(follower, attach(sensor, make_batch(STARTS_MS + 10 * number, begins=True), STARTS_MS + 10 * number))
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    for number in range(110):
        follow(follower, attach(sensor, make_batch(STARTS_MS + 5000 + number, begins=True), STARTS_MS + 5000 + number))
    lane.prune(keep=100)
    late = make_follower(Key("late"))
    effects = follow(late, *lane.find_old_heads({}), *lane.tangle.lacking({}, vertices_max=1000))
    effects += [effect for wait in (0, 10) for effect in late.tick(NOW_S + wait)]

    assert [tail["messages"] for tail in follower.describe()] == [1, 259]
    assert [tail["messages"] for tail in late.describe()] == [0, 259]  # The first one said nothing in what is kept.
    saved = [encoded for effect in effects if isinstance(effect, ev.SaveVertices) for _, encoded in effect.vertices]
    again = make_follower(Key("late"))
    assert all(isinstance(effect, StoreSlice) for effect in again.restore(saved, {}))
    assert [tail["messages"] for tail in again.describe()] == [0, 259]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([Reading(1, 0, 1.0, 4), Reading(1, 1, 2.0, 4)], (struct.pack("<2f", 1.0, 2.0), 4)),
        ([Reading(1, 1, 2.0), Reading(1, 0, 1.0, 4)], (struct.pack("<2f", 1.0, 2.0), 4)),
        ([Reading(1, 0, 1.0, 4)], None),
        ([Reading(1, 0, 1.0, 4), Reading(1, 0, 2.0, 4)], None),
        ([Reading(1, 0, 1.0), Reading(1, 1, 2.0)], None),
        ([Reading(1, 0, 1.0, 4), Reading(1, 1, 2.0, 5)], None),
        ([Reading(1, 0, 1e300, 4), Reading(1, 1, 2.0, 4)], None),
    ],
)
def test_row__is_complete_or_dropped(readings: list[Reading], expected: tuple[bytes, int] | None) -> None:
    assert pack_row(readings, 2) == expected


@pytest.mark.parametrize(
    ("values", "expected"), [((0.0, 255.0), (b"\x00\xff", 4)), ((0.5, 1.0), None), ((-1.0, 1.0), None), ((256.0, 1.0), None)]
)
def test_row__of_bytes_holds_whole_numbers_up_to_255(values: tuple[float, float], expected: tuple[bytes, int] | None) -> None:
    """A task whose examples are bytes, such as pictures, gets them as bytes."""
    assert pack_row([Reading(1, n, value, 4) for n, value in enumerate(values)], 2, RowType.U8) == expected
    full = encode_rows([b"\x00\xff"] * 5, [1] * 5, 2, RowType.U8)
    x, y = decode_slice(full, DataManifest(TensorSpec("U8", (2,)), TensorSpec("I64", ()), classes=3), 1024)
    assert x.tolist() == [[0, 255]] * 5 and y.tolist() == [1] * 5
    assert compute_rows_per_slice(784, 65536, RowType.U8) > 3 * compute_rows_per_slice(784, 65536)


@pytest.mark.parametrize(("features", "slice_bytes"), [(1, 1024), (2, 1024), (64, 4096), (784, 65536), (1024, 262144)])
def test_slice__never_exceeds_its_size_and_wastes_little(features: int, slice_bytes: int) -> None:
    rows = compute_rows_per_slice(features, slice_bytes)
    full = encode_rows([bytes(4 * features)] * rows, [2**31] * rows, features)

    assert slice_bytes - 8 - 4 * features - 100 < len(full) <= slice_bytes
    assert compute_rows_per_slice(100, 256) == 0


def test_buffer__keeps_nothing_before_a_beginning() -> None:
    buffer = SensorBuffer(features=2, rows_max=4)
    batch = Batch((Reading(1, 0, 1.0, 4), Reading(1, 1, 2.0, 4)))
    assert buffer.add(batch, vertex=compute_cid(b""), sequence=1) == []
    assert len(buffer) == 0


# --- what is odd ------------------------------------------------------------------------------------------------


def test_lost_messages__are_told_and_do_not_stop_the_stream() -> None:
    """Issue: gaps, visible and harmless."""
    sensor, follower = FakeSensor("a"), make_follower()
    vertices = [sensor.begin(), attach(sensor, make_batch(STARTS_MS + 10, begins=True), STARTS_MS + 10)]
    for _ in range(3):
        sensor.writer.create(b"lost on the way to its gateway")
    vertices.append(attach(sensor, make_batch(STARTS_MS + 20), STARTS_MS + 20))
    effects = follow(follower, *vertices)

    assert find_troubles(effects) == ["sensor channel a: messages 2 to 4 were lost before they were attached"]
    assert follower.describe()[0]["rows_waiting"] == 2


def test_fork_of_a_stream__is_told() -> None:
    sensor, follower = FakeSensor("a"), make_follower()
    begin, first = sensor.begin(), attach(sensor, make_batch(STARTS_MS + 10, begins=True), STARTS_MS + 10)
    state = sensor.writer.state
    sensor.writer._state = type(state)(state.sequence, state.key, b"another history!")
    effects = follow(follower, begin, first, attach(sensor, make_batch(STARTS_MS + 20), STARTS_MS + 20))

    assert find_troubles(effects) == ["sensor channel a: message 2 follows another one than 1: a fork of the stream"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"malformed", "message 1 does not hold readings of its fields"),
        (encode_readings([Reading(0, 0, 1.0, 1), Reading(0, 1, 1.0, 1)], FIELDS, begins=True), "its clock is off by up to"),
        (encode_readings([Reading(STARTS_MS, 0, 1.0, 1)], FIELDS, begins=True), "a row lacks a field or a label"),
        (encode_readings([Reading(STARTS_MS, 0, 1.0), Reading(STARTS_MS, 1, 1.0)], FIELDS, begins=True), "a row lacks a field or a label"),
    ],
)
def test_odd_message__is_told_and_the_next_one_read(body: bytes, why: str) -> None:
    """Issue: malformed payloads, clocks far off."""
    sensor, follower = FakeSensor("a"), make_follower()
    at_ms = STARTS_MS + 2_700_000  # More than an hour after 1970: a clock at zero is far off.
    effects = follow(follower, sensor.begin(), attach(sensor, body, at_ms if "clock" in why else STARTS_MS + 10))
    assert [why in text for text in find_troubles(effects)] == [True]

    good = follow(follower, attach(sensor, make_batch(at_ms + 1000, begins=True), at_ms + 1000))
    assert find_troubles(good) == []
    assert int(str(follower.describe()[0]["rows_waiting"])) >= 1


def test_refused_vertex__is_told_with_its_sender() -> None:
    """Issue: what is refused is visible; what is only unknown yet blames nobody."""
    follower, stranger = make_follower(), FakeSensor("stranger")
    stranger.begin()
    effects = follow(follower, bytes(10), stranger.measure(STARTS_MS + 5).vertex.encoded)

    assert ["a sensor vertex from" in text and "was refused" in text for text in find_troubles(effects)] == [True]
    verdicts = [effect.ruling.verdict for effect in effects if isinstance(effect, ev.PassVerdict)]
    assert verdicts == [Verdict.REJECT, Verdict.IGNORE]


def test_private_sensor__passes_by_sealed_without_its_key_and_is_read_with_it() -> None:
    sensor = FakeSensor("a", mode=ChannelMode.PRIVATE)
    opening = sensor.writer.compute_opening()
    vertices = [sensor.begin(), attach(sensor, make_batch(STARTS_MS + 10, begins=True), STARTS_MS + 10)]
    stranger, friend = make_follower(), make_follower(openings={"channel a": opening})

    assert find_troubles(follow(stranger, *vertices)) == find_troubles(follow(friend, *vertices)) == []
    assert stranger.describe()[0]["rows_waiting"] == 0
    assert friend.describe()[0]["rows_waiting"] == 1


def test_wrong_key__is_told() -> None:
    sensor = FakeSensor("a", mode=ChannelMode.PRIVATE)
    follower = make_follower(openings={"channel a": Opening(1, hashlib.sha256(b"guess").digest())})
    effects = follow(follower, sensor.begin(), attach(sensor, make_batch(STARTS_MS + 10), STARTS_MS + 10))
    assert "the key is another channel's" in find_troubles(effects)[0]


def test_sensor__whose_row_is_larger_than_a_dataslice_is_told() -> None:
    issuer, channel = Key("issuer a"), Key("channel a")
    sensor, follower = FakeSensor("a"), make_follower(slice_bytes=512)
    fields = tuple(SensorField(f"p{n}", "") for n in range(200))
    head = make_head(issuer, channel, fields=fields, admission=sensor.head.admission)
    effects = follow(follower, sensor.lane.issue(head, now_ms=STARTS_MS + 1).vertex.encoded)
    assert "one row of 200 fields does not fit" in find_troubles(effects)[0]


# --- the swarm --------------------------------------------------------------------------------------------------


def test_equivocation__is_proved_on_all_nodes_within_ten_seconds() -> None:
    """Issue: an equivocating sensor is proved on all nodes within 10 s (simulated)."""
    world = SensorWorld(SensorScenario(seed=5, sensors=3, rate_per_s=6, duration_s=10, loss=0.3))
    world.run()
    liar = world.publishers[0]
    issuer = liar._me
    history = [world.nodes[0].follower.lane.tangle.read(cid) for cid in list(liar.lane.tangle._known)]
    double = SensorWorld(SensorScenario(seed=5, sensors=3, rate_per_s=6, duration_s=10, loss=0.3)).publishers[0]
    double.restore([encoded for encoded in history if encoded], {})
    now_ms = int(world.now_s * 1000)
    for publisher, node in ((liar, world.nodes[0]), (double, world.nodes[1])):
        message = liar._channels["sensor 0"].writer.create(b"x")
        attached = ChannelMessages(channel=next(iter(liar.lane.streams)), messages=(message,))
        world.deliver(node, publisher.lane.issue(attached, now_ms=now_ms).vertex.encoded)
    world.advance(10)

    assert all(issuer in node.follower.lane.tangle.forks for node in world.nodes)
    assert all(node.follower.lane.find_unproved_fork() is None for node in world.nodes)


def test_offline_node__catches_up_and_misses_nothing() -> None:
    """Issue: offline for a while, caught up, none twice."""
    world = SensorWorld(SensorScenario(seed=2, sensors=5, rate_per_s=50, duration_s=20))
    world.nodes[2].online = False
    world.run(settle_s=0)
    assert len(world.nodes[2].entered_s) == 0
    world.nodes[2].online = True
    world.advance(10)

    assert world.nodes[2].entered_s.keys() == world.said_s.keys()
    assert world.nodes[2].twice == 0
    assert {cid for cid, _ in world.nodes[2].slices} == {cid for cid, _ in world.nodes[0].slices}


def test_lazy_issuers__do_not_let_the_tips_grow() -> None:
    """tangle.md: half lazy issuers stay bounded, by the number of issuers."""
    world = SensorWorld(SensorScenario(seed=4, sensors=10, rate_per_s=50, duration_s=20, lazy=True))
    world.run()
    assert world.tips_most <= len(world.publishers) + len(world.nodes)


def test_lane_sync__is_told_from_the_control_lanes() -> None:
    follower = make_follower()
    content = encode_lane_sync(follower.lane.ask())
    assert decode_lane_sync(content) == follower.lane.ask()
    assert decode_lane_sync(follower.lane.ask().encode()) is None
    assert decode_lane_sync(b"") is None
    effects = follower.receive_sync(MEMBER.peer, b"\x85\x02nonsense", NOW_S)
    assert isinstance(effects[0], ev.PassVerdict) and effects[0].ruling.verdict is Verdict.REJECT
