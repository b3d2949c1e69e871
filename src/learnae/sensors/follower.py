"""Following sensors: find them by the codename's tag, read their channels, fill buffers, emit dataslices, purge (4.2, Fig. 1).

A node runs one follower beside its `Peer`, on the sensors lane. It answers events with effects of the same kinds; its own are
`StoreSlice`, answered by `slice_stored` or `slice_dropped`. Whatever is odd about a stream is told, and stops nothing: gaps,
forks, replays, bodies that cannot be read, clocks far off.
Pure. Source: paper 4.2; docs/sensors.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId, cid_text, short_name
from learnae.protocol import events as ev
from learnae.protocol.sync import SENSORS_LANE, STRANGERS, SYNC_VERTICES_MAX, AnswerBudget, SyncMessage, decode_sync, is_sensor_sync
from learnae.sensors.intake import WAITS
from learnae.sensors.judge import REPLAYED, Heard, LaneRules, SensorCodec, SensorEntry
from learnae.sensors.lane import SensorLane
from learnae.sensors.messages import ChannelMessages, SensorHead, SensorMessage, SliceReceipt
from learnae.sensors.readings import BODIES_OTHER, Batch, decode_readings
from learnae.sensors.slices import Origin, SensorBuffer, compute_rows_per_slice
from learnae.tangle import cbor
from learnae.tangle.channel import ChannelMessage, ChannelReader, Opening, Refused, find_public_opening
from learnae.tangle.stream import ReadVertex
from learnae.tangle.verdict import Ruling, Verdict
from learnae.tangle.vertex import Sign

SYNC_EVERY_S: Final = 3.0
SYNC_SOON_S: Final = 0.3  # When something shows that something else was lost.
CHECKPOINT_EVERY: Final = 4096  # Vertices; a restart or a newcomer reads a few seconds beyond the newest.
KEEP_VERTICES: Final = 4096  # Of each issuer, below a checkpoint.
CLOCK_OFF_MS: Final = 3_600_000  # A reading's time against its vertex's; batteries fail, and clocks start in 1970.
ANSWERS_BURST: Final = 256.0  # Pages for one neighbour at once: ten minutes at 100 vertices a second; ten a second after that.


@dataclass(frozen=True, slots=True)
class StoreSlice:
    """Keep a dataslice that a stream filled; `slice_stored` brings its CID."""

    number: int
    content: bytes


@dataclass(frozen=True, slots=True)
class DropVertices:
    """Vertices that were forgotten may leave the disk."""

    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class SliceReady:
    """A dataslice from a stream is in the block store: training takes it like any other."""

    dataslice: Cid


Observe = Callable[[SensorHead, SensorEntry, ChannelMessage, Batch], None]
"""Hears of every message that was read: of which sensor, in which vertex."""

FollowEffect = ev.Effect | StoreSlice | DropVertices | SliceReady


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowSettings:
    """What this node's user chose: keys of private channels by sensor's name, side keys of restricted ones."""

    slice_bytes: int
    openings: Mapping[str, Opening] = field(default_factory=dict)
    side_keys: tuple[bytes, ...] = ()


@dataclass(slots=True)
class _Tail:
    """How far one channel was read."""

    head: SensorHead
    issuer: PeerId
    buffer: SensorBuffer
    reader: ChannelReader | None = None
    last: int = 0
    last_hash: bytes = b""
    needed: int = 0  # number of the vertex in which the unfinished dataslice begins


@dataclass(frozen=True, slots=True)
class _Pending:
    """A dataslice on its way to the disk; its bytes are there, or with whoever stores them."""

    channel: bytes
    origins: tuple[Origin, ...]


class SensorFollower:
    """One node's view of the sensors lane, and its buffers."""

    def __init__(
        self,
        *,
        rules: LaneRules,
        me: PeerId,
        sign: Sign,
        rng: Random,
        settings: FollowSettings,
        read: ReadVertex | None = None,
        codec: SensorCodec | None = None,
    ) -> None:
        self.lane = SensorLane(rules=rules, me=me, sign=sign, rng=rng, read=read, codec=codec)
        self.observe: Observe = lambda head, entry, message, batch: None
        self.observe_other: Callable[[SensorHead, bytes], None] = lambda head, body: None
        self.connected: set[PeerId] = set()
        self.cuts = True  # whether full buffers become dataslices: not when the training stage is over
        self.slices: dict[tuple[bytes, int, int], Cid] = {}  # (channel, number of its first message, row of it) -> dataslice
        self._me = me
        self._rng = rng
        self._settings = settings
        self._tails: dict[bytes, _Tail] = {}
        self._stored: dict[int, _Pending] = {}
        self._number = 0
        self._answers = AnswerBudget(burst=ANSWERS_BURST)
        self._synced_at_s = 0.0
        self._since_checkpoint = 0

    def restore(self, vertices: Iterable[bytes], records: Mapping[str, bytes]) -> Iterator[FollowEffect]:
        """Take back what the journal kept. Buffers fill again from the same messages, to the same rows.

        Step by step, so that dataslices that were not stored yet are cut one at a time and fit into memory, however many they are:
        nothing else may be asked of this follower before the last step.
        """
        for name, content in records.items():
            if name.startswith("slice "):
                channel, dataslice, ((_, first, start, _), *_) = cbor.decode(content)
                self.slices[channel, first, start] = Cid(dataslice)
        yield from [SliceReady(cid) for cid in self.slices.values()]
        for entry in self.lane.restore(vertices):
            yield from [effect for effect in self._on_entry(entry) if isinstance(effect, StoreSlice)]

    # --- events ---------------------------------------------------------------------------------------------

    def receive(self, sender: PeerId, encoded: bytes, now_s: float) -> list[FollowEffect]:
        """Gossip brought a vertex; the answer holds a `PassVerdict`."""
        heard = self.lane.receive(encoded, now_ms=_to_ms(now_s))
        told = _tell_refused(heard.ruling, sender)
        asked = self._ask(now_s) if heard.ruling is WAITS and now_s - self._synced_at_s >= SYNC_SOON_S else []
        return [ev.PassVerdict(sender, heard.ruling), *told, *self._take_in([heard]), *asked]

    def receive_sync(self, sender: PeerId, content: bytes, now_s: float) -> list[FollowEffect]:
        sync = decode_lane_sync(content)
        if sync is None:
            return [ev.PassVerdict(sender, Ruling(Verdict.REJECT, "not a sync message"))]
        is_member = sender in self.lane.members
        results = [self.lane.receive(encoded, now_ms=_to_ms(now_s)) for encoded in (sync.vertices if is_member else ())]
        effects = self._take_in(results)
        bad = next((heard.ruling for heard in results if heard.ruling.verdict is Verdict.REJECT), None)
        if bad is not None:
            effects += [ev.PassVerdict(sender, bad), *_tell_refused(bad, sender)]
        asks = sync.have is not None or bool(sync.want)
        answers = self.lane.answer(sync) if asks and self._answers.take(sender if is_member else STRANGERS, now_s) else []
        if len(sync.vertices) >= SYNC_VERTICES_MAX // 2 and any(heard.entered for heard in results):
            self.lane.waiting.note_page(_to_ms(now_s))
            answers.append(self.lane.ask(answer=True))  # A full page: there may be more.
        return effects + [ev.SendSync(sender, encode_lane_sync(answer)) for answer in answers]

    def connect(self, peer: PeerId) -> list[FollowEffect]:
        self.connected.add(peer)
        return [ev.SendSync(peer, encode_lane_sync(self.lane.ask()))]

    def disconnect(self, peer: PeerId) -> None:
        self.connected.discard(peer)

    def slice_stored(self, number: int, dataslice: Cid, now_s: float) -> list[FollowEffect]:
        """A dataslice is on disk: write down where its rows come from, tell the others, and let it be trained on."""
        pending = self._stored.pop(number)
        first, last, rows = pending.origins[0], pending.origins[-1], sum(origin.rows for origin in pending.origins)
        is_new = (pending.channel, first.sequence, first.start) not in self.slices
        self.slices[pending.channel, first.sequence, first.start] = dataslice
        if not is_new:
            return []
        origins: list[object] = [[o.vertex, o.sequence, o.start, o.rows] for o in pending.origins]
        record = cbor.encode([pending.channel, dataslice, origins])
        name = f"slice {pending.channel.hex()} {first.sequence} {first.start}"
        effects: list[FollowEffect] = [ev.SaveRecord(name, record), SliceReady(dataslice)]
        if self._me in self.lane.members:
            receipt = SliceReceipt(
                dataslice=dataslice, channel=pending.channel, first=first.sequence, last=last.sequence, rows=rows
            )
            effects += self._say(receipt, now_s)
        sensor = self._tails[pending.channel].head.sensor
        text = f"{sensor}: {rows} rows became dataslice {cid_text(dataslice)}"
        values = {"event": "slice", "sensor": sensor, "dataslice": cid_text(dataslice), "rows": rows}
        return [*effects, ev.Tell(ev.Topic.SENSORS, text, values)]

    def slice_dropped(self, number: int) -> None:
        """There was no room for a dataslice. After a restart it is cut again, as long as its vertices are kept."""
        del self._stored[number]

    def tick(self, now_s: float) -> list[FollowEffect]:
        """The clock's turn, once a second or so: repair, prove forks, set checkpoints, forget."""
        effects = self._take_in([self.lane.settle(now_ms=_to_ms(now_s))])
        effects += self._begin_lost(now_s)
        if self._me in self.lane.members:
            proof = self.lane.find_unproved_fork()
            effects += [] if proof is None else self._say(proof, now_s)
            if self._since_checkpoint >= CHECKPOINT_EVERY:
                self._since_checkpoint = 0
                effects += self._say(self.lane.compute_checkpoint(), now_s)
                self.lane.prune(keep=KEEP_VERTICES, needed=self._find_needed())
        if dropped := self.lane.take_forgotten():
            effects.append(DropVertices(tuple(dropped)))
        if now_s - self._synced_at_s >= SYNC_EVERY_S or now_s < self._synced_at_s:
            effects += self._ask(now_s)
        return effects

    def _begin_lost(self, now_s: float) -> list[FollowEffect]:
        """Follow sensors again whose past is lost: this node, and who has no more of it than it has, begins where they go on."""
        heard, lost = self.lane.begin_lost(now_ms=_to_ms(now_s))
        effects = self._take_in([heard])
        for issuer, sequence, _ in lost:
            text = f"nobody has what {short_name(issuer)} said in its first {sequence} vertices any more: its sensors begin after them"
            effects.append(ev.Tell(ev.Topic.TROUBLE, text, {"event": "lost"}))
        if lost and self._me in self.lane.members:
            effects += self._say(self.lane.compute_checkpoint(lost), now_s)
        return effects

    def _ask(self, now_s: float) -> list[FollowEffect]:
        """Ask a neighbour what it has, or three of them if something is known to be missing."""
        self._synced_at_s = now_s
        partners = sorted(self.connected & self.lane.members) or sorted(self.connected)
        chosen = self._rng.sample(partners, min(3 if self.lane.tangle.orphans else 1, len(partners)))
        content = encode_lane_sync(self.lane.ask())
        return [ev.SendSync(partner, content) for partner in chosen]

    # --- streams --------------------------------------------------------------------------------------------

    def _take_in(self, results: Iterable[Heard]) -> list[FollowEffect]:
        saved: list[tuple[Cid, bytes]] = []
        effects: list[FollowEffect] = []
        for heard in results:
            for entry in heard.entered:
                saved.append((entry.vertex.cid, entry.vertex.encoded))
                effects += self._on_entry(entry)
            for issuer in heard.forked:
                text = f"{short_name(issuer)} signed two different vertices with one number: its sensors are frozen there"
                effects.append(ev.Tell(ev.Topic.TROUBLE, text))
        return [ev.SaveVertices(tuple(saved)), *effects] if saved else effects

    def _on_entry(self, entry: SensorEntry) -> list[FollowEffect]:
        self._since_checkpoint += 1
        match entry.message:
            case SensorHead() as head:
                return self._begin(head, entry.vertex.issuer)
            case ChannelMessages() as attached:
                tail = self._tails.get(attached.channel)
                return [] if tail is None else [effect for m in attached.messages for effect in self._read(tail, m, entry)]
            case _:
                return []

    def _begin(self, head: SensorHead, issuer: PeerId) -> list[FollowEffect]:
        features = len(head.fields)
        rows_max = compute_rows_per_slice(features, self._settings.slice_bytes, head.row_type)
        buffer = SensorBuffer(features, rows_max, head.row_type)
        tail = _Tail(head, issuer, buffer, last=head.first - 1)
        opening = self._settings.openings.get(head.sensor)
        if opening is not None:
            tail.reader = ChannelReader(opening, self._settings.side_keys)
        self._tails[head.channel] = tail
        values = {"event": "sensor", "sensor": head.sensor, "mode": head.mode.name.lower(), "issuer": issuer}
        fields = ", ".join(f"{f.name} in {f.shown_unit}" if f.shown_unit else f.name for f in head.fields[:8])
        said = f"found sensor {head.sensor} ({head.mode.name.lower()}): {fields}{', ...' if features > 8 else ''}"
        told: list[FollowEffect] = [ev.Tell(ev.Topic.SENSORS, said, values)]
        if not tail.buffer.rows_max:
            told.append(_trouble(head, f"one row of {features} fields does not fit into a dataslice of this session"))
        return told

    def _read(self, tail: _Tail, message: ChannelMessage, entry: SensorEntry) -> list[FollowEffect]:
        effects: list[FollowEffect] = []
        head = tail.head
        if message.sequence > tail.last + 1 and tail.last_hash:
            effects.append(_trouble(head, f"messages {tail.last + 1} to {message.sequence - 1} were lost before they were attached"))
        elif tail.last_hash and message.previous != tail.last_hash:
            effects.append(_trouble(head, f"message {message.sequence} follows another one than {tail.last}: a fork of the stream"))
        tail.last, tail.last_hash = message.sequence, message.compute_hash()
        if tail.reader is None:
            opening = find_public_opening((message,))
            if opening is None:
                return effects  # Nobody gave us a key: it passes by sealed.
            tail.reader = ChannelReader(opening)
        body = tail.reader.read(message)
        if isinstance(body, Refused):
            return [*effects, _trouble(head, body.why)]
        if body[:1] and body[0] in BODIES_OTHER:
            self.observe_other(head, body)
            return effects
        batch = decode_readings(body, head.fields)
        if batch is None:
            return [*effects, _trouble(head, f"message {message.sequence} does not hold readings of its fields")]
        self.observe(head, entry, message, batch)
        off_ms = max(abs(reading.time_ms - entry.vertex.time_ms) for reading in batch.readings)
        if off_ms > CLOCK_OFF_MS:
            effects.append(_trouble(head, f"its clock is off by up to {off_ms // 60_000} minutes"))
        tail.needed = entry.vertex.sequence if batch.begins else tail.needed
        dropped = tail.buffer.dropped
        for made in tail.buffer.add(batch, vertex=entry.vertex.cid, sequence=message.sequence):
            if not self.cuts or (head.channel, made.origins[0].sequence, made.origins[0].start) in self.slices:
                continue
            self._number += 1
            self._stored[self._number] = _Pending(head.channel, made.origins)
            effects.append(StoreSlice(self._number, made.content))
        if tail.buffer.dropped > dropped and dropped == 0:
            effects.append(_trouble(head, "a row lacks a field or a label, and cannot be learnt from"))
        return effects

    def _find_needed(self) -> dict[PeerId, int]:
        """Of each issuer the oldest vertex in which an unfinished dataslice begins."""
        needed: dict[PeerId, int] = {}
        for tail in self._tails.values():
            if len(tail.buffer):
                needed[tail.issuer] = min(tail.needed, needed.get(tail.issuer, tail.needed))
        return needed

    def _say(self, message: SensorMessage, now_s: float) -> list[FollowEffect]:
        entry = self.lane.issue(message, now_ms=_to_ms(now_s))
        return [ev.PublishVertex(entry.vertex.cid, entry.vertex.encoded)]

    def describe(self) -> list[dict[str, object]]:
        """Each stream in plain values, for a status or a live view."""
        return [
            {
                "sensor": tail.head.sensor,
                "mode": tail.head.mode.name.lower(),
                "messages": tail.last,
                "rows_waiting": len(tail.buffer),
                "rows_dropped": tail.buffer.dropped,
                "slices": sum(1 for channel, *_ in self.slices if channel == tail.head.channel),
            }
            for tail in self._tails.values()
        ]


def encode_lane_sync(sync: SyncMessage) -> bytes:
    """A sync message of the sensors lane: as on the control lane, but its first value is 2."""
    encoded = sync.encode()
    return encoded[:1] + bytes((SENSORS_LANE,)) + encoded[2:]


def decode_lane_sync(content: bytes) -> SyncMessage | None:
    """Read it back; None if it is not one, or is the control lane's."""
    return decode_sync(content[:1] + b"\x01" + content[2:]) if is_sensor_sync(content) else None


def _trouble(head: SensorHead, what: str) -> ev.Tell:
    return ev.Tell(ev.Topic.TROUBLE, f"sensor {head.sensor}: {what}", {"event": "odd", "sensor": head.sensor})


def _tell_refused(ruling: Ruling, sender: PeerId) -> list[FollowEffect]:
    if ruling.verdict is not Verdict.REJECT and not ruling.why.endswith(REPLAYED):
        return []
    return [ev.Tell(ev.Topic.TROUBLE, f"a sensor vertex from {short_name(sender)} was refused: {ruling.why}", {"event": "refused"})]


def _to_ms(now_s: float) -> int:
    return int(now_s * 1000)
