"""What a lane that forgets owes to those who come later, or come back: heads, where channels stood, a place to begin (2.2, 4.2)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from learnae.ids import Cid, PeerId
from learnae.protocol import events as ev
from learnae.protocol.sync import SYNC_VERTICES_MAX, SyncMessage, decode_sync
from learnae.sensors import lane as lane_module
from learnae.sensors.follower import ANSWERS_BURST, DropVertices, FollowSettings, SensorFollower, decode_lane_sync, encode_lane_sync
from learnae.sensors.judge import SensorCodec
from learnae.sensors.lane import SensorLane
from learnae.sensors.messages import ChannelMessages
from learnae.sensors.readings import Reading, encode_readings
from learnae.sensors.waiting import LOST_MS, PATIENCE_MS
from learnae.tangle.channel import ChannelMode, ChannelWriter, WriterState, create_succession
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex
from tests.sensors.builders import (
    FIELDS,
    MEMBER,
    MEMBERS,
    OTHER_MEMBER,
    RULES,
    STARTS_MS,
    FakeSensor,
    Key,
    make_admission,
    make_head,
    make_lane,
)

LATER_MS = STARTS_MS + 3_600_000
NEIGHBOUR = OTHER_MEMBER.peer


def feed(lane: SensorLane, *vertices: bytes, now_ms: int = LATER_MS) -> list[str]:
    return [lane.receive(encoded, now_ms=now_ms).ruling.why for encoded in vertices]


def sync(asker: SensorLane, answerer: SensorLane, *, now_ms: int = LATER_MS) -> list[Verdict]:
    """One question and its answers, as bytes; what was said of each vertex."""
    asked = decode_sync(asker.ask().encode())
    assert asked is not None
    pages = [decode_sync(answer.encode()) for answer in answerer.answer(asked)]
    return [asker.receive(encoded, now_ms=now_ms).ruling.verdict for page in pages if page for encoded in page.vertices]


def measure(sensor: FakeSensor, lane: SensorLane, count: int, at_ms: int) -> None:
    for number in range(count):
        assert feed(lane, sensor.measure(at_ms + 10 * number).vertex.encoded) == [""]


def forget(lane: SensorLane) -> list[Cid]:
    lane.prune(keep=64)
    return lane.take_forgotten()


def catch_up(late: SensorLane, lane: SensorLane, *, rounds: int = 12) -> list[Verdict]:
    """Sync every three seconds."""
    said: list[Verdict] = []
    for number in range(rounds):
        now_ms = LATER_MS + 3000 * number
        said += sync(late, lane, now_ms=now_ms)
        late.settle(now_ms=now_ms)
    return said


def rotate(sensor: FakeSensor, name: str, at_ms: int) -> bytes:
    """The sensor goes on under another key; the vertex of its new head."""
    last, new = sensor.writer.state.sequence - 1, Key(name)
    statement = create_succession(channel_key=sensor.channel.peer, last=last, successor=new.peer, sign=sensor.channel.sign)
    sensor.head = make_head(sensor.issuer, new, first=last + 1, succession=statement, admission=sensor.head.admission)
    state = WriterState(last + 1, bytes(32), sensor.writer.state.previous)
    sensor.channel, sensor.writer = new, ChannelWriter(state, mode=ChannelMode.PUBLIC, sign=new.sign)
    return sensor.lane.issue(sensor.head, now_ms=at_ms).vertex.encoded


def test_successor_of_a_forgotten_channel__is_followed_by_a_newcomer() -> None:
    """4.2: a sensor that changed its key twice, long ago. Of its first channels a newcomer sees the heads alone."""
    sensor, lane, late = FakeSensor("a", rate_per_s=1000), make_lane(), make_lane(OTHER_MEMBER)
    feed(lane, sensor.begin())
    measure(sensor, lane, 100, STARTS_MS + 10)
    assert feed(lane, rotate(sensor, "second", STARTS_MS + 2000)) == [""]
    measure(sensor, lane, 10, STARTS_MS + 2010)
    assert feed(lane, rotate(sensor, "third", STARTS_MS + 3000)) == [""]
    measure(sensor, lane, 10, STARTS_MS + 3010)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    measure(sensor, lane, 100, STARTS_MS + 5000)
    assert forget(lane)

    assert Verdict.REJECT not in catch_up(late, lane)
    assert {c: (s.last, s.ended) for c, s in late.streams.items()} == {c: (s.last, s.ended) for c, s in lane.streams.items()}
    assert late.streams[sensor.head.channel].last == 220


def test_heads_of_many_forgotten_channels__all_come_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway's hundred sensors do not fit into one page; without its head no channel can be followed."""
    gateway, lane, late = FakeSensor("a", rate_per_s=1000), make_lane(), make_lane(OTHER_MEMBER)
    admission = make_admission(gateway.issuer, rate_per_s=1000, channels_max=20)
    keys = [Key(f"channel {n}") for n in range(12)]
    heads = [make_head(gateway.issuer, key, admission=admission) for key in keys]
    writers = [ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PUBLIC, sign=key.sign) for key in keys]
    body = encode_readings([Reading(STARTS_MS, 0, 20.0)], FIELDS)

    def say(place: int, at_ms: int) -> str:
        message = ChannelMessages(channel=heads[place].channel, messages=(writers[place].create(body),))
        return feed(lane, gateway.lane.issue(message, now_ms=at_ms).vertex.encoded)[0]

    for number, head in enumerate(heads):  # Each after a message, so that it stands alone when that is forgotten.
        feed(lane, gateway.lane.issue(head, now_ms=STARTS_MS + 2 * number).vertex.encoded)
        assert say(0, STARTS_MS + 2 * number + 1) == ""
    assert {say(number % 12, STARTS_MS + 100 + 10 * number) for number in range(100)} == {""}
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    assert {say(number % 12, STARTS_MS + 5000 + 10 * number) for number in range(100)} == {""}
    assert forget(lane)
    monkeypatch.setattr(lane_module, "HEADS_PAGE_BYTES", 1000)  # Two heads.

    assert Verdict.REJECT not in catch_up(late, lane, rounds=20)
    assert late.tangle.length(gateway.issuer.peer) == lane.tangle.length(gateway.issuer.peer)
    assert {c: s.last_hash for c, s in late.streams.items()} == {c: s.last_hash for c, s in lane.streams.items()}
    have = late.ask().have
    assert have is not None and have[gateway.issuer.peer] == lane.tangle.length(gateway.issuer.peer)


def make_silent_channel() -> tuple[SensorLane, bytes, bytes]:
    """A forgotten log of two channels, one of which said ten messages long ago; that one, and a vertex with its first message again."""
    sensor, lane = FakeSensor("a", rate_per_s=1000), make_lane()
    feed(lane, sensor.begin(), sensor.measure(STARTS_MS + 1).vertex.encoded)
    busy = sensor.channel, sensor.head, sensor.writer
    sensor.channel = Key("second")
    old = sensor.head = make_head(sensor.issuer, sensor.channel, admission=sensor.head.admission)
    sensor.writer = ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PUBLIC, sign=sensor.channel.sign)
    feed(lane, sensor.begin(STARTS_MS + 2))
    first = sensor.measure(STARTS_MS + 5)
    feed(lane, first.vertex.encoded)
    measure(sensor, lane, 9, STARTS_MS + 10)
    sensor.channel, sensor.head, sensor.writer = busy
    measure(sensor, lane, 100, STARTS_MS + 1010)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    measure(sensor, lane, 100, STARTS_MS + 5000)
    assert forget(lane) and isinstance(first.message, ChannelMessages)
    sensor.lane.streams[old.channel] = replace(sensor.lane.streams[old.channel], last=0)
    return lane, old.channel, sensor.lane.issue(first.message, now_ms=STARTS_MS + 9000).vertex.encoded


@pytest.mark.parametrize("restart", [False, True])
def test_replay_of_a_forgotten_message__is_refused_by_newcomers_too(restart: bool) -> None:
    """All come to one verdict: where a channel stood says the checkpoint with which its log begins. Nobody is blamed for it."""
    lane, channel, replayed = make_silent_channel()
    assert "a replay or a fork" in feed(lane, replayed)[0]
    late = make_lane(OTHER_MEMBER)
    catch_up(late, lane)
    if restart:
        vertices = [*late.find_old_heads({}), *late.tangle.lacking({}, vertices_max=1000)]
        late = make_lane(OTHER_MEMBER)
        late.restore(vertices)

    heard = late.receive(replayed, now_ms=LATER_MS)
    assert (late.streams[channel].last, late.streams[channel].last_hash) == (10, lane.streams[channel].last_hash)
    assert "a replay or a fork" in heard.ruling.why and heard.ruling.verdict is Verdict.IGNORE
    assert heard.entered == ()
    follower = make_follower()
    follower.lane = late
    told = [effect.text for effect in follower.receive(NEIGHBOUR, replayed, LATER_MS / 1000) if isinstance(effect, ev.Tell)]
    assert len(told) == 1 and "was refused: message 1 was attached before" in told[0]


def make_gap() -> tuple[FakeSensor, SensorLane, SensorLane, list[bytes]]:
    """A lane that forgot nothing and whose checkpoint names a vertex in the middle, and one that was away."""
    sensor, lane, late = FakeSensor("a", rate_per_s=1000), make_lane(), make_lane(OTHER_MEMBER)
    feed(lane, sensor.begin())
    measure(sensor, lane, 600, STARTS_MS + 10)
    checkpoint = lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 7000).vertex.encoded
    said = lane.tangle.lacking({MEMBER.peer: 1}, vertices_max=1000)
    after = sensor.measure(STARTS_MS + 8000).vertex.encoded
    feed(lane, after)
    feed(late, said[0], checkpoint, after)
    return sensor, lane, late, said


def test_log__begins_at_no_checkpoint_while_sync_still_brings_what_is_before_it() -> None:
    """Who was away for ten minutes is slower than five seconds; nothing may be skipped that a neighbour still has."""
    sensor, _, late, said = make_gap()
    for step in range(5):  # A vertex every four seconds, and every second nothing.
        feed(late, said[1 + step], now_ms=LATER_MS + 4000 * step)
        for wait_ms in (0, 3999):
            late.settle(now_ms=LATER_MS + 4000 * step + wait_ms)
    late.waiting.note_page(LATER_MS + 20_000)  # A full page, of other sensors' vertices.
    assert late.settle(now_ms=LATER_MS + 20_000 + PATIENCE_MS - 1).entered == ()
    assert late.tangle.base(sensor.issuer.peer) == 0

    assert len(late.settle(now_ms=LATER_MS + 20_000 + PATIENCE_MS).entered) == 1
    assert late.tangle.base(sensor.issuer.peer) == 601


def make_follower(key: Key = OTHER_MEMBER) -> SensorFollower:
    settings = FollowSettings(slice_bytes=1024)
    follower = SensorFollower(rules=RULES, me=key.peer, sign=key.sign, rng=Random(1), settings=settings)
    follower.lane.members = MEMBERS
    return follower


def test_newcomer__begins_whatever_else_was_lost_since() -> None:
    """Gossip loses much meanwhile: every loss is a gap of its own, and none hides the one where the log begins."""
    sensor, lane, late = FakeSensor("a", rate_per_s=1000), make_lane(), make_lane(OTHER_MEMBER)
    feed(lane, sensor.begin())
    measure(sensor, lane, 100, STARTS_MS + 10)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    measure(sensor, lane, 100, STARTS_MS + 5000)
    assert forget(lane)
    sync(late, lane)
    for number in range(40):  # The rest comes by gossip, every second one.
        encoded = sensor.measure(STARTS_MS + 8000 + 10 * number).vertex.encoded
        feed(lane, encoded)
        if number % 2:
            feed(late, encoded)
    late.settle(now_ms=LATER_MS)
    late.settle(now_ms=LATER_MS + PATIENCE_MS)
    assert late.tangle.base(sensor.issuer.peer) == 101 and late.tangle.length(sensor.issuer.peer) == 201
    catch_up(late, lane, rounds=2)
    assert late.tangle.length(sensor.issuer.peer) == 241


def test_vertices_before_an_adopted_beginning__leave_the_disk() -> None:
    sensor, lane, _, said = make_gap()
    late = make_follower()
    checkpoint, after = lane.tangle.lacking({sensor.issuer.peer: 601}, vertices_max=9)
    for encoded in (*said[:3], checkpoint, after):
        late.receive(NEIGHBOUR, encoded, LATER_MS / 1000)
    late.tick(LATER_MS / 1000)
    effects = late.tick((LATER_MS + PATIENCE_MS) / 1000)

    dropped = [cid for effect in effects if isinstance(effect, DropVertices) for cid in effect.cids]
    vertices = [SensorCodec().decode(encoded) for encoded in said[:3]]
    assert dropped == [vertex.cid for vertex in vertices[1:] if isinstance(vertex, Vertex)]  # The head stays.


def test_page__of_sync_postpones_beginnings() -> None:
    """A page that is full means that there is more: clocks of gaps begin anew."""
    sensor, lane, _, said = make_gap()
    late = make_follower()
    later_s = LATER_MS / 1000
    checkpoint, after = lane.tangle.lacking({sensor.issuer.peer: 601}, vertices_max=9)
    for encoded in (said[0], checkpoint, after):
        late.receive(NEIGHBOUR, encoded, later_s)
    other = FakeSensor("b", rate_per_s=1000)
    page = [other.begin(), *(other.measure(STARTS_MS + 10 * n).vertex.encoded for n in range(SYNC_VERTICES_MAX - 1))]
    late.receive_sync(NEIGHBOUR, encode_lane_sync(SyncMessage(vertices=tuple(page))), later_s + 4)
    late.tick(later_s + 6)
    assert late.lane.tangle.base(sensor.issuer.peer) == 0
    late.tick(later_s + 9.5)
    assert late.lane.tangle.base(sensor.issuer.peer) == 601


def test_settling__looks_at_each_waiting_vertex_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool may hold a hundred thousand vertices; a turn of the clock must not walk through them."""
    sensor, lane = FakeSensor("a", rate_per_s=1000), make_lane()
    feed(lane, sensor.begin())
    said = [sensor.measure(STARTS_MS + 10 * n).vertex.encoded for n in range(1, 301)]
    feed(lane, *said[1:])
    looks: list[Cid] = []
    peek = lane.tangle.orphans.peek

    def count(cid: Cid) -> Vertex | None:
        looks.append(cid)
        return peek(cid)

    monkeypatch.setattr(lane.tangle.orphans, "peek", count)
    for step in range(10):
        assert lane.settle(now_ms=LATER_MS + PATIENCE_MS + step).entered == ()
    assert len(looks) == 299

    assert len(lane.receive(said[0], now_ms=LATER_MS + 2 * PATIENCE_MS).entered) == 300
    assert len(lane.tangle.orphans) == 0


def test_overdue_vertex__enters_as_soon_as_its_own_parent_does() -> None:
    """A stranger's parent was waited for long enough already; after ten minutes the vertex itself is let go."""
    sensor, lane = FakeSensor("a"), make_lane()
    feed(lane, sensor.begin())
    first = sensor.measure(STARTS_MS + 50).vertex
    stranger = FakeSensor("b")
    nowhere = SensorCodec().decode(stranger.begin())
    assert isinstance(nowhere, Vertex)
    sensor.lane.tangle.note_tips({nowhere.cid: (STARTS_MS + 50, PeerId(bytes(32)))})
    second = sensor.measure(STARTS_MS + 100).vertex
    assert nowhere.cid in second.parents
    feed(lane, second.encoded, now_ms=LATER_MS)
    lane.settle(now_ms=LATER_MS + PATIENCE_MS)
    assert len(lane.receive(first.encoded, now_ms=LATER_MS + PATIENCE_MS).entered) == 2

    third, fourth = (sensor.measure(STARTS_MS + 200 + n).vertex for n in range(2))
    assert third.cid in fourth.parents
    feed(lane, fourth.encoded, now_ms=LATER_MS)
    lane.settle(now_ms=LATER_MS + PATIENCE_MS)
    lane.settle(now_ms=LATER_MS + 600_000)
    assert len(lane.tangle.orphans) == 0


def test_sync__is_answered_within_a_budget_for_each_member_and_one_for_all_strangers() -> None:
    """A question of a few bytes brings up to half a megabyte: who asks without end is not answered without end."""
    sensor, follower = FakeSensor("a"), make_follower(MEMBER)
    follower.receive(NEIGHBOUR, sensor.begin(), LATER_MS / 1000)
    question = encode_lane_sync(SyncMessage(have={}))

    def ask(sender: PeerId, now_s: float) -> int:
        effects = follower.receive_sync(sender, question, now_s)
        return sum(isinstance(effect, ev.SendSync) for effect in effects)

    assert sum(ask(OTHER_MEMBER.peer, LATER_MS / 1000) for _ in range(int(ANSWERS_BURST) + 50)) == ANSWERS_BURST
    assert sum(ask(Key(f"stranger {number}").peer, LATER_MS / 1000) for number in range(int(ANSWERS_BURST) + 50)) == ANSWERS_BURST
    assert ask(OTHER_MEMBER.peer, LATER_MS / 1000 + 1) == 1
    answer = follower.receive_sync(OTHER_MEMBER.peer, question, LATER_MS / 1000 + 2)[-1]
    assert isinstance(answer, ev.SendSync)
    page = decode_lane_sync(answer.content)
    assert page is not None and len(page.vertices) == 1

    unheard = encode_lane_sync(SyncMessage(vertices=(FakeSensor("b").begin(),)))
    assert follower.receive_sync(Key("stranger").peer, unheard, LATER_MS / 1000) == [], "what strangers send is not read"
    assert follower.receive_sync(OTHER_MEMBER.peer, unheard, LATER_MS / 1000)


def test_past_that_nobody_has__is_given_up_by_a_member_which_says_so() -> None:
    """The only node lost its disk, and the publisher keeps the newest alone: the stream goes on where it can."""
    sensor, lane, late, third = FakeSensor("a", rate_per_s=1000), make_lane(), make_follower(), make_lane()
    feed(lane, sensor.begin())
    measure(sensor, lane, 100, STARTS_MS + 10)
    feed(lane, rotate(sensor, "second", STARTS_MS + 1500))
    measure(sensor, lane, 99, STARTS_MS + 2000)
    lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 4000)
    measure(sensor, lane, 100, STARTS_MS + 5000)
    forget(lane)
    kept = [*lane.find_old_heads({}), *lane.tangle.lacking({MEMBER.peer: 9}, vertices_max=1000)]  # Nobody has the checkpoint.
    later_s = LATER_MS / 1000
    for encoded in kept:
        late.receive(NEIGHBOUR, encoded, later_s)
    late.tick(later_s + LOST_MS / 1000 - 1)
    assert late.lane.tangle.base(sensor.issuer.peer) == 0
    effects = late.tick(later_s + LOST_MS / 1000)

    assert late.lane.tangle.length(sensor.issuer.peer) == lane.tangle.length(sensor.issuer.peer)
    assert late.lane.streams[sensor.head.channel].last == 299
    told = [effect.text for effect in effects if isinstance(effect, ev.Tell) and effect.topic is ev.Topic.TROUBLE]
    assert len(told) == 1 and "in its first 201 vertices any more: its sensors begin after them" in told[0]
    said = [effect.encoded for effect in effects if isinstance(effect, ev.PublishVertex)]
    feed(third, *said, *kept)
    third.settle(now_ms=LATER_MS)
    third.settle(now_ms=LATER_MS + PATIENCE_MS)
    assert third.tangle.have_vector() == late.lane.tangle.have_vector()


def test_past_of_a_sensor_that_was_followed__is_never_given_up() -> None:
    """Whoever has some of its measurements waits for the rest, or for a checkpoint: nothing is skipped in silence."""
    sensor, _, _, said = make_gap()
    late = make_follower()
    for encoded in (*said[:2], said[-1]):
        late.receive(NEIGHBOUR, encoded, LATER_MS / 1000)
    for step in range(5):
        late.tick((LATER_MS + step * LOST_MS) / 1000)
    assert late.lane.tangle.base(sensor.issuer.peer) == 0


def test_sensors__many_or_slow_are_bounded_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sensors share the room, and a slow one, of whose log little lies between recent checkpoints, is forgotten too."""
    monkeypatch.setattr(lane_module, "KEEP_IN_ALL", 4 * 80)
    lane, sensors = make_lane(), [FakeSensor(str(n), rate_per_s=1000) for n in range(4)]
    feed(lane, *(sensor.begin() for sensor in sensors))
    kept: list[int] = []
    for number in range(2000):
        sensor = sensors[3] if number % 12 == 0 else sensors[number % 3]
        feed(lane, sensor.measure(STARTS_MS + 10 * number).vertex.encoded)
        if number % 50 == 49:
            lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 10 * number + 1)
            lane.prune(keep=4096)
            kept.append(sum(lane.tangle.length(s.issuer.peer) - lane.tangle.base(s.issuer.peer) for s in sensors))
    assert max(kept) < 4 * 3 * 80
    assert lane.tangle.base(sensors[3].issuer.peer) > 40
    assert len(lane.checkpoints[MEMBER.peer]) < 50


def test_checkpoints__of_long_ago_are_kept_ever_more_sparsely() -> None:
    lane = make_lane()
    for number in range(300):
        lane.issue(lane.compute_checkpoint(), now_ms=STARTS_MS + 1000 * number)
    numbers = list(lane.checkpoints[MEMBER.peer])
    assert numbers[-8:] == list(range(292, 300)) and numbers[0] == 0 and len(numbers) < 40
    assert all(later - earlier <= max(2, (300 - earlier) / 3) for earlier, later in pairwise(numbers))
