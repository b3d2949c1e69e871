"""Publishing: readings of sensors become signed messages of their channels, attached by one issuer to the sensors lane (4.2).

A publisher is a device that speaks for itself, or a gateway that speaks for many. It needs no torch, no libp2p and no chain: its
vertices may travel over any line to any node of the session. What is to be published comes back from `publish` together with the
records that say how far it went; both are on disk, in one transaction, before the first byte leaves.
Pure. Source: paper 4.2; docs/sensors.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.sensor_errors import AdmissionError, ReadingError
from learnae.sensors.judge import LaneRules, SensorEntry
from learnae.sensors.lane import SensorLane
from learnae.sensors.link import WHY_CHARS_MAX, Odd, compute_odd
from learnae.sensors.messages import (
    MESSAGES_MAX,
    SENSOR_CHARS_MAX,
    Admission,
    ChannelMessages,
    SensorHead,
    SensorKind,
    parse_sensor_message,
)
from learnae.sensors.readings import FIELDS_MAX, Reading, SensorField, encode_readings, find_fault
from learnae.sensors.slices import RowType, compute_rows_per_slice, split_rows
from learnae.tangle import cbor
from learnae.tangle.channel import (
    ChannelMessage,
    ChannelMode,
    ChannelWriter,
    Opening,
    Succession,
    WriterState,
    create_succession,
    decode_state,
)
from learnae.tangle.stream import ReadVertex
from learnae.tangle.vertex import SIGNATURE_BYTES, VERTEX_BYTES_MAX, Sign

VERTEX_ROOM_BYTES: Final = 56 * 1024  # Messages of one vertex, together with what stands around them.
HEAD_BYTES_MAX: Final = VERTEX_BYTES_MAX - 1024  # Leaves room for parents, issuer and signature.
MESSAGE_ROOM_BYTES: Final = 160  # What a message adds to its body.
MESSAGE_READINGS_MAX: Final = 1024  # As many as a row may have; they fit at any values.


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorPlan:
    """One sensor that a publisher speaks for. `channel_key` and `sign` are its channel's; `first_key` is k_1 of a new channel."""

    sensor: str
    fields: tuple[SensorField, ...]
    channel_key: bytes
    sign: Sign
    first_key: bytes
    mode: ChannelMode = ChannelMode.PUBLIC
    side_key: bytes = b""
    row_type: RowType = RowType.F32


@dataclass(frozen=True, slots=True)
class Commit:
    """What must be on disk before it is published: vertices, and the records that go with them."""

    vertices: tuple[tuple[Cid, bytes], ...]
    records: tuple[tuple[str, bytes | None], ...]


@dataclass(slots=True)
class _Channel:
    plan: SensorPlan
    head: SensorHead
    writer: ChannelWriter
    rows_since: int  # rows since the last beginning of a dataslice
    rows_max: int


class SensorPublisher:
    """One issuer's sensors, its log and the state of its channels."""

    def __init__(
        self,
        *,
        rules: LaneRules,
        me: PeerId,
        sign: Sign,
        rng: Random,
        admission: Admission,
        slice_bytes: int,
        read: ReadVertex | None = None,
    ) -> None:
        self.lane = SensorLane(rules=rules, me=me, sign=sign, rng=rng, read=read)
        self.lane.members = frozenset((admission.member,))
        self._me = me
        self._sign = sign
        self._admission = admission
        self._slice_bytes = slice_bytes
        self._channels: dict[str, _Channel] = {}
        self._records: Mapping[str, bytes] = {}

    def restore(self, vertices: Iterable[bytes], records: Mapping[str, bytes]) -> None:
        """Take back the own log and the channels' states."""
        self.lane.restore(vertices)
        self._records = dict(records)

    @property
    def channels_max(self) -> int:
        """For how many sensors a member admitted this issuer."""
        return self._admission.channels_max

    def count_old_keys(self, sensor: str) -> int:
        """How many keys a sensor had before its present one: the generation of that one in its folder."""
        return sum(stream.ended for stream in self.lane.streams.values() if stream.head.sensor == sensor)

    def compute_opening(self, sensor: str) -> Opening:
        """What to give to somebody who may read this sensor from its next message on."""
        return self._channels[sensor].writer.compute_opening()

    def compute_wait_ms(self, *, now_ms: int) -> int:
        """How long the issuer's budget asks to wait; meanwhile readings pile up with the caller."""
        return self.lane.compute_wait_ms(now_ms=now_ms)

    def create_odd(self, texts: Iterable[str], *, now_ms: int) -> Odd:
        """Sentences for the users of the node and its viewers."""
        said = tuple("".join(letter if letter.isprintable() else "?" for letter in text[:WHY_CHARS_MAX]) for text in texts)
        signature = self._sign(compute_odd(self.lane.rules.net, self._me, now_ms, said))
        return Odd(time_ms=now_ms, texts=said, signature=signature)

    def open(self, plan: SensorPlan, *, now_ms: int) -> Commit:
        """Begin a sensor's stream, or go on with it after a restart.

        Raises: ReadingError: others could not read its head, or it began with other fields or in another mode. AdmissionError: it is
            one sensor more than a member admitted. Nothing was done.
        """
        stream = next((s for s in self.lane.streams.values() if s.head.channel_key == plan.channel_key and not s.ended), None)
        head = stream.head if stream is not None else self._make_head(plan, first=1, now_ms=now_ms)
        if stream is not None and (stream.head.fields, stream.head.row_type) != (plan.fields, plan.row_type):
            raise ReadingError(
                f"sensor {plan.sensor!r} began with fields {_tell_fields(stream.head.fields)}, and now has {_tell_fields(plan.fields)}",
                "give the changed sensor another name",
            )
        if stream is not None and stream.head.mode is not plan.mode:
            raise ReadingError(
                f"sensor {plan.sensor!r} began in mode {stream.head.mode.name.lower()}, and now has {plan.mode.name.lower()}",
                "go on in its mode, or change its key with the mode (`learnae sensor publish --new-key`)",
            )
        running = sum(not s.ended for s in self.lane.streams.values())
        if stream is None and running >= self.channels_max:
            raise AdmissionError(f"sensor {plan.sensor!r} is one more than the {self.channels_max} that a member admitted here")
        content = self._records.get(_record_name(head))
        state, rows_since = _decode_record(content) if content else (WriterState(head.first, plan.first_key), 0)
        writer = ChannelWriter(state, mode=plan.mode, sign=plan.sign, side_key=plan.side_key)
        rows_max = compute_rows_per_slice(len(plan.fields), self._slice_bytes, plan.row_type)
        channel = self._channels[plan.sensor] = _Channel(plan, head, writer, rows_since, rows_max)
        if stream is not None:
            return Commit((), ())
        entry = self.lane.issue(head, now_ms=now_ms)
        return _commit([entry], [channel])

    def publish(self, readings: Sequence[tuple[str, Sequence[Reading]]], *, now_ms: int) -> Commit:
        """Attach readings: (sensor, its readings) one message each, as many as fit together in a vertex of each channel.

        Raises: ReadingError: a reading does not fit its sensor's fields; nothing was done.
        """
        for sensor, part in readings:
            for reading in part:
                if fault := find_fault(reading, len(self._channels[sensor].plan.fields)):
                    raise ReadingError(fault, f"check the fields and values of sensor {sensor!r}")
        entries: list[SensorEntry] = []
        for sensor in dict.fromkeys(sensor for sensor, _ in readings):
            channel = self._channels[sensor]
            parts = (cut for name, part in readings if name == sensor for cut in _cut(part, channel))
            messages = (self._create(channel, part) for part in parts)
            entries += [self._attach(channel, page, now_ms) for page in _fill_vertices(messages)]
        return _commit(entries, [self._channels[sensor] for sensor in dict.fromkeys(sensor for sensor, _ in readings)])

    def publish_bodies(self, sensor: str, bodies: Sequence[bytes], *, now_ms: int) -> Commit:
        """Attach bodies that are no readings, one message each."""
        channel = self._channels[sensor]
        pages = _fill_vertices(channel.writer.create(body) for body in bodies)
        return _commit([self._attach(channel, page, now_ms) for page in pages], [channel])

    def rotate(self, plan: SensorPlan, *, now_ms: int) -> Commit:
        """Go on with a sensor under a new channel key (and mode, side key): the old key hands over and speaks no more."""
        old = self._channels[plan.sensor]
        last = old.writer.state.sequence - 1
        succession = create_succession(
            channel_key=old.plan.channel_key, last=last, successor=plan.channel_key, sign=old.plan.sign
        )
        head = self._make_head(plan, first=last + 1, now_ms=now_ms, succession=succession)
        writer = ChannelWriter(
            replace(WriterState(last + 1, plan.first_key), previous=old.writer.state.previous),
            mode=plan.mode,
            sign=plan.sign,
            side_key=plan.side_key,
        )
        entry = self.lane.issue(head, now_ms=now_ms)
        self._channels[plan.sensor] = _Channel(plan, head, writer, 0, old.rows_max)
        commit = _commit([entry], [self._channels[plan.sensor]])
        return Commit(commit.vertices, (*commit.records, (_record_name(old.head), None)))

    def _make_head(self, plan: SensorPlan, *, first: int, now_ms: int, succession: Succession | None = None) -> SensorHead:
        head = SensorHead(
            sensor=plan.sensor,
            created_ms=now_ms,
            channel_key=plan.channel_key,
            mode=plan.mode,
            first=first,
            fields=plan.fields,
            row_type=plan.row_type,
            admission=self._admission,
            succession=succession,
            signature=bytes(SIGNATURE_BYTES),
        )
        if fault := _find_head_fault(head):
            raise ReadingError(f"sensor {plan.sensor[:80]!r} {fault}", "give it another name, or fields that a head can hold")
        return replace(head, signature=plan.sign(head.compute_signed(self.lane.rules.net, self._me)))

    def _create(self, channel: _Channel, readings: Sequence[Reading]) -> ChannelMessage:
        """The next message; a dataslice begins with it if the rows so far and these do not fit into one together."""
        rows = sum(1 for _ in split_rows(readings))
        begins = channel.writer.state.sequence == channel.head.first or channel.rows_since + rows > channel.rows_max
        channel.rows_since = rows if begins else channel.rows_since + rows
        return channel.writer.create(encode_readings(readings, channel.plan.fields, begins=begins))

    def _attach(self, channel: _Channel, messages: tuple[ChannelMessage, ...], now_ms: int) -> SensorEntry:
        return self.lane.issue(ChannelMessages(channel=channel.head.channel, messages=messages), now_ms=now_ms)


def _find_head_fault(head: SensorHead) -> str:
    """What would keep others from reading a head, or an empty string: one that they refuse ends its issuer's log for ever."""
    if parse_sensor_message(SensorKind.SENSOR_HEAD, head.to_body()) != head:
        return (
            f"or its {len(head.fields)} fields cannot be told to others: expected 1 to {SENSOR_CHARS_MAX} printable letters, "
            f"and 1 to {FIELDS_MAX} different fields with printable names and units"
        )
    size = len(cbor.encode(head.to_body()))
    return f"has a head of {size} bytes, at most {HEAD_BYTES_MAX} fit" if size > HEAD_BYTES_MAX else ""


def _cut(readings: Sequence[Reading], channel: _Channel) -> Iterator[Sequence[Reading]]:
    """Pieces that fit into a message each; rows stay together, and a piece ends where a dataslice is full."""
    piece: list[Reading] = []
    rows = 0
    for row in split_rows(readings):
        is_full = channel.rows_max and (channel.rows_since % channel.rows_max + rows) == channel.rows_max
        if piece and (is_full or len(piece) + len(row) > MESSAGE_READINGS_MAX):
            yield piece
            piece, rows = [], 0
        piece += row
        rows += 1
    if piece:
        yield piece


def _fill_vertices(messages: Iterable[ChannelMessage]) -> Iterator[tuple[ChannelMessage, ...]]:
    """As many messages as fit into a vertex, again and again."""
    page: list[ChannelMessage] = []
    size = 0
    for message in messages:
        size += len(message.ciphertext) + MESSAGE_ROOM_BYTES
        if page and (len(page) == MESSAGES_MAX or size > VERTEX_ROOM_BYTES):
            yield tuple(page)
            page, size = [], len(message.ciphertext) + MESSAGE_ROOM_BYTES
        page.append(message)
    if page:
        yield tuple(page)


def _commit(entries: Iterable[SensorEntry], channels: Iterable[_Channel]) -> Commit:
    records = [
        (_record_name(channel.head), cbor.encode([1, channel.writer.state.encode(), channel.rows_since])) for channel in channels
    ]
    return Commit(tuple((entry.vertex.cid, entry.vertex.encoded) for entry in entries), tuple(records))


def _record_name(head: SensorHead) -> str:
    return f"channel {head.channel.hex()}"


def _decode_record(content: bytes) -> tuple[WriterState, int]:
    version, state, rows_since = cbor.decode(content)
    decoded = decode_state(state)
    assert version == 1 and decoded is not None, "the journal holds only states that were written here"
    return decoded, rows_since


def _tell_fields(fields: Sequence[SensorField]) -> str:
    return ", ".join(f"{field.name} ({field.unit or 'no unit'})" for field in fields)
