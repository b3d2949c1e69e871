"""What vertices of the sensors lane say, as frozen types that turn into plain values and back (4.2).

`SensorHead` starts a stream: the paper's head message, found by the session's codename in the vertex's tag. It carries a member's
countersignature (`Admission`), without which nobody hears the sensor, and the sensor's own signature by the channel key.
`ChannelMessages` attaches messages of a channel, `SliceReceipt` says which of them became a dataslice, `LaneCheckpoint` how far
a member has folded the lane, so that what is before may be forgotten. `ForkProved` is the control lane's.
Pure. What a message may claim is judged in `sensors.lane`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from learnae.ids import PEER_ID_BYTES, Cid, PeerId, is_cid
from learnae.protocol.messages import ForkProved
from learnae.protocol.messages import Kind as ControlKind
from learnae.protocol.messages import parse_message as parse_control
from learnae.sensors.readings import FIELDS_MAX, SensorField, parse_field
from learnae.sensors.slices import RowType
from learnae.tangle import cbor
from learnae.tangle.channel import (
    CHANNEL_ID_BYTES,
    HASH_BYTES,
    KEY_BYTES,
    ChannelMessage,
    ChannelMode,
    Succession,
    compute_channel_id,
    parse_message,
)
from learnae.tangle.vertex import DIGEST_BYTES, NET_BYTES, SEQUENCE_MAX, SIGNATURE_BYTES, TAG_BYTES, TIME_MS_MAX, Sign

SENSOR_CHARS_MAX: Final = 64
RATE_MAX: Final = 1000  # Vertices a second of one issuer: a gateway of a large building.
CHANNELS_MAX: Final = 1024  # Of one issuer.
MESSAGES_MAX: Final = 256  # In one vertex.
HEADS_MAX: Final = 500  # Issuers, and channels, in one checkpoint: it fits into a vertex.

_ADMISSION_DOMAIN = b"learnae sensor admission 1\n"
_HEAD_DOMAIN = b"learnae sensor head 1\n"


class SensorKind(IntEnum):
    """Kinds of the sensors lane."""

    FORK_PROVED = 7
    SENSOR_HEAD = 16
    CHANNEL_MESSAGES = 17
    SLICE_RECEIPT = 18
    LANE_CHECKPOINT = 19


def compute_tag(codename: str) -> bytes:
    """The tag of every head of a session, 16 bytes: by it sensors are found (4.2)."""
    return hashlib.sha256(b"learnae codename\n" + codename.encode()).digest()[:TAG_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A member's countersignature: this issuer may attach so many vertices a second, of so many channels, in this lane.

    `from_ms`: nothing of the issuer is older, so it cannot invent a past that was never budgeted.
    """

    member: PeerId
    rate_per_s: int
    channels_max: int
    from_ms: int
    signature: bytes

    def to_body(self) -> list[object]:
        return [self.member, self.rate_per_s, self.channels_max, self.from_ms, self.signature]

    def admits(self, issuer: PeerId, net: bytes) -> bool:
        """Whether the member really signed this, for this issuer and lane."""
        signed = _compute_admission(net, issuer, self.rate_per_s, self.channels_max, self.from_ms)
        return _verify(self.signature, signed, self.member)


def create_admission(
    *, net: bytes, issuer: PeerId, member: PeerId, sign: Sign, rate_per_s: int = 10, channels_max: int = 1, from_ms: int
) -> Admission:
    """Countersign an issuer; `sign` signs with the member's key."""
    assert len(net) == NET_BYTES and 1 <= rate_per_s <= RATE_MAX and 1 <= channels_max <= CHANNELS_MAX
    signed = _compute_admission(net, issuer, rate_per_s, channels_max, from_ms)
    return Admission(member=member, rate_per_s=rate_per_s, channels_max=channels_max, from_ms=from_ms, signature=sign(signed))


def _compute_admission(net: bytes, issuer: PeerId, rate_per_s: int, channels_max: int, from_ms: int) -> bytes:
    return _ADMISSION_DOMAIN + net + issuer + b"".join(n.to_bytes(8, "big") for n in (rate_per_s, channels_max, from_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorHead:
    """The start of a sensor's stream (4.2): who it is, when it was created, what it measures, under which key it speaks."""

    sensor: str
    created_ms: int
    channel_key: bytes  # Ed25519
    mode: ChannelMode
    first: int  # number of its first message here; 1, unless a key is taken over
    fields: tuple[SensorField, ...]
    admission: Admission
    row_type: RowType = RowType.F32  # of the dataslices that its readings fill
    succession: Succession | None = None  # the channel that this one continues
    signature: bytes = b""  # by the channel key: nobody starts a stream in another's name

    @property
    def channel(self) -> bytes:
        return compute_channel_id(self.channel_key)

    def to_body(self) -> list[object]:
        return [*self._signed_values(), self.signature]

    def _signed_values(self) -> list[object]:
        follows = self.succession
        return [
            self.sensor,
            self.created_ms,
            self.channel_key,
            int(self.mode),
            self.first,
            [field.to_body() for field in self.fields],
            int(self.row_type),
            self.admission.to_body(),
            None if follows is None else [follows.channel_key, follows.last, follows.signature],
        ]

    def compute_signed(self, net: bytes, issuer: PeerId) -> bytes:
        return _HEAD_DOMAIN + net + issuer + hashlib.sha256(cbor.encode(self._signed_values())).digest()

    def is_signed(self, net: bytes, issuer: PeerId) -> bool:
        return _verify(self.signature, self.compute_signed(net, issuer), self.channel_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMessages:
    """Messages of one channel, in order."""

    channel: bytes
    messages: tuple[ChannelMessage, ...]

    def to_body(self) -> list[object]:
        return [self.channel, [message.to_body() for message in self.messages]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReceipt:
    """I made this dataslice of a channel's messages `first` to `last`; whoever has them gets the same bytes."""

    dataslice: Cid
    channel: bytes
    first: int
    last: int
    rows: int

    def to_body(self) -> list[object]:
        return [self.dataslice, self.channel, self.first, self.last, self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCheckpoint:
    """How far I have folded the lane: per issuer its number and vertex, per channel its number and message hash, and a Merkle root."""

    heads: tuple[tuple[PeerId, int, Cid], ...]  # sorted by issuer
    channels: tuple[tuple[bytes, int, bytes], ...]  # sorted by channel
    root: bytes

    def to_body(self) -> list[object]:
        return [[list(head) for head in self.heads], [list(channel) for channel in self.channels], self.root]

    def find_head(self, issuer: PeerId) -> tuple[int, Cid] | None:
        """Where an issuer's log stood."""
        place = bisect_left(self.heads, issuer, key=itemgetter(0))
        found = self.heads[place] if place < len(self.heads) else None
        return None if found is None or found[0] != issuer else (found[1], found[2])

    def find_channel(self, channel: bytes) -> tuple[int, bytes] | None:
        """Number and hash of a channel's last message; None if there was none, or this checkpoint does not tell."""
        place = bisect_left(self.channels, channel, key=itemgetter(0))
        found = self.channels[place] if place < len(self.channels) else None
        return None if found is None or found[0] != channel else (found[1], found[2])


SensorMessage = SensorHead | ChannelMessages | SliceReceipt | LaneCheckpoint | ForkProved

SENSOR_KIND_OF: Final[dict[type, SensorKind]] = {
    SensorHead: SensorKind.SENSOR_HEAD,
    ChannelMessages: SensorKind.CHANNEL_MESSAGES,
    SliceReceipt: SensorKind.SLICE_RECEIPT,
    LaneCheckpoint: SensorKind.LANE_CHECKPOINT,
    ForkProved: SensorKind.FORK_PROVED,
}


def create_checkpoint(heads: Iterable[tuple[PeerId, int, Cid]], channels: Iterable[tuple[bytes, int, bytes]]) -> LaneCheckpoint:
    """A checkpoint of as many issuers and channels as fit."""
    kept, streams = tuple(sorted(heads)[:HEADS_MAX]), tuple(sorted(channels)[:HEADS_MAX])
    return LaneCheckpoint(heads=kept, channels=streams, root=_compute_root(kept, streams))


def _compute_root(heads: Sequence[tuple[PeerId, int, Cid]], channels: Sequence[tuple[bytes, int, bytes]]) -> bytes:
    leaves = [hashlib.sha256(b"\0" + cbor.encode(list(entry))).digest() for entry in (*heads, *channels)]
    while len(leaves) > 1:
        pairs = [leaves[i : i + 2] for i in range(0, len(leaves), 2)]
        leaves = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return leaves[0] if leaves else hashlib.sha256(b"").digest()


# --- reading ----------------------------------------------------------------------------------------------------


def parse_sensor_message(kind: int, body: object) -> SensorMessage | None:
    """Read a body of the sensors lane; None if it is not exactly what that kind writes."""
    match kind:
        case SensorKind.SENSOR_HEAD:
            return _parse_head(body)
        case SensorKind.CHANNEL_MESSAGES:
            return _parse_messages(body)
        case SensorKind.SLICE_RECEIPT:
            return _parse_receipt(body)
        case SensorKind.LANE_CHECKPOINT:
            return _parse_checkpoint(body)
        case SensorKind.FORK_PROVED:
            parsed = parse_control(ControlKind.FORK_PROVED, body)
            return parsed if isinstance(parsed, ForkProved) else None
    return None


def _parse_head(body: Any) -> SensorHead | None:
    match body:
        case [str() as sensor, created, bytes() as key, mode, first, list() as fields, rows, admission, follows, bytes() as signature]:
            admitted, succession = parse_admission(admission), None if follows is None else _parse_succession(follows)
            parsed = [parse_field(field) for field in fields[: FIELDS_MAX + 1]]
            if admitted is None or (follows is not None and succession is None) or None in parsed:
                return None
            if not 1 <= len(fields) <= FIELDS_MAX or len({field.name for field in parsed if field}) < len(fields):
                return None
            if not 1 <= len(sensor) <= SENSOR_CHARS_MAX or not sensor.isprintable() or not _is_whole(created, TIME_MS_MAX):
                return None
            if type(mode) is not int or not 0 <= mode <= ChannelMode.RESTRICTED or not _is_whole(first, SEQUENCE_MAX, least=1):
                return None
            if (len(key), len(signature)) != (KEY_BYTES, SIGNATURE_BYTES) or type(rows) is not int or not 0 <= rows <= RowType.U8:
                return None
            return SensorHead(
                sensor=sensor,
                created_ms=created,
                channel_key=key,
                mode=ChannelMode(mode),
                first=first,
                fields=tuple(field for field in parsed if field),
                row_type=RowType(rows),
                admission=admitted,
                succession=succession,
                signature=signature,
            )
    return None


def parse_admission(body: Any) -> Admission | None:
    match body:
        case [bytes() as member, rate, channels, from_ms, bytes() as signature]:
            sizes = (len(member), len(signature)) == (PEER_ID_BYTES, SIGNATURE_BYTES)
            counts = _is_whole(rate, RATE_MAX, least=1) and _is_whole(channels, CHANNELS_MAX, least=1) and _is_whole(from_ms, TIME_MS_MAX)
            if sizes and counts:
                return Admission(
                    member=PeerId(member), rate_per_s=rate, channels_max=channels, from_ms=from_ms, signature=signature
                )
    return None


def _parse_succession(body: Any) -> Succession | None:
    match body:
        case [bytes() as key, last, bytes() as signature] if (len(key), len(signature)) == (KEY_BYTES, SIGNATURE_BYTES):
            return Succession(channel_key=key, last=last, signature=signature) if _is_whole(last, SEQUENCE_MAX) else None
    return None


def _parse_messages(body: Any) -> ChannelMessages | None:
    match body:
        case [bytes() as channel, list() as messages] if len(channel) == CHANNEL_ID_BYTES and 1 <= len(messages) <= MESSAGES_MAX:
            parsed = [message for message in map(parse_message, messages) if message is not None]
            rising = all(a.sequence < b.sequence for a, b in pairwise(parsed))
            if len(parsed) == len(messages) and rising:
                return ChannelMessages(channel=channel, messages=tuple(parsed))
    return None


def _parse_receipt(body: Any) -> SliceReceipt | None:
    match body:
        case [cid, bytes() as channel, first, last, rows] if is_cid(cid) and len(channel) == CHANNEL_ID_BYTES:
            if _is_whole(first, SEQUENCE_MAX, least=1) and _is_whole(last, SEQUENCE_MAX, least=1) and _is_whole(rows, 2**40, least=1):
                return SliceReceipt(dataslice=cid, channel=channel, first=first, last=last, rows=rows) if first <= last else None
    return None


def _parse_checkpoint(body: Any) -> LaneCheckpoint | None:
    match body:
        case [list() as heads, list() as channels, bytes() as root] if len(root) == DIGEST_BYTES:
            if max(len(heads), len(channels)) > HEADS_MAX:
                return None
            kept = [_parse_entry(head, PEER_ID_BYTES) for head in heads]
            streams = [_parse_entry(channel, CHANNEL_ID_BYTES) for channel in channels]
            if any(entry is None or not is_cid(entry[2]) for entry in kept):
                return None
            if any(entry is None or len(entry[2]) != HASH_BYTES for entry in streams):
                return None
            checkpoint = create_checkpoint(
                [(PeerId(e[0]), e[1], Cid(e[2])) for e in kept if e], [(e[0], e[1], e[2]) for e in streams if e]
            )
            unique = len({e[0] for e in kept if e}) == len(kept) and len({e[0] for e in streams if e}) == len(streams)
            return checkpoint if unique and checkpoint.root == root and checkpoint.to_body() == body else None
    return None


def _parse_entry(entry: Any, name_bytes: int) -> tuple[bytes, int, bytes] | None:
    match entry:
        case [bytes() as name, sequence, bytes() as digest] if len(name) == name_bytes and _is_whole(sequence, SEQUENCE_MAX, least=1):
            return name, sequence, digest
    return None


def _is_whole(value: object, most: int, least: int = 0) -> bool:
    return type(value) is int and least <= value <= most


def _verify(signature: bytes, signed: bytes, key: bytes) -> bool:
    try:
        crypto_sign_open(signature + signed, key)
    except BadSignatureError:
        return False
    return True
