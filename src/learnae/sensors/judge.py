"""Judges of what a vertex of the sensors lane claims, as numbered rules, cheapest first (4.2).

Every rule depends on the vertex, the session and its issuer's own log only, so all honest peers come to the same verdict and cut
the same dataslices. Local, and therefore never a reason to blame anybody, are the clock (4) and membership (6).
Pure. Source: docs/sensors.md; protocol.md, reading order of checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.messages import ForkProved
from learnae.protocol.validation import TIME_AHEAD_MAX_MS, VERTEX_RATE_PER_S
from learnae.sensors.messages import (
    Admission,
    ChannelMessages,
    LaneCheckpoint,
    SensorHead,
    SensorKind,
    SensorMessage,
    SliceReceipt,
    parse_sensor_message,
)
from learnae.tangle.stream import WINDOW
from learnae.tangle.verdict import ACCEPTED, Ruling, ignore, reject
from learnae.tangle.vertex import Vertex, VertexCodec, verify_statement

SUCCESSIONS_MAX: Final = 1024  # Of one issuer's channels, together: heads are kept for ever, by everybody.
REPLAYED: Final = "a replay or a fork of the stream"
MEMBERS_KINDS: Final = (SliceReceipt, LaneCheckpoint, ForkProved)  # What only members say.


class Source(IntEnum):
    """How this participant knows where a channel stands."""

    READ = 0  # from all that its issuer's log says of it
    TOLD = 1  # from the member's checkpoint where the kept part of the log begins
    UNKNOWN = 2  # its head is all that is here: it stands at `last`, or later


@dataclass(frozen=True, slots=True)
class Stream:
    """One channel as its issuer's log tells it: its head, and the last message that was attached."""

    head: SensorHead
    issuer: PeerId
    vertex: Cid  # of the head
    last: int  # number of the last message; first - 1 if there is none
    last_hash: bytes = b""
    ended: bool = False  # another key took over
    source: Source = Source.READ

    def stands_at(self, last: int) -> bool:
        """Whether this may be its last message, as far as it is known here."""
        return last >= self.last if self.source is Source.UNKNOWN else last == self.last


@dataclass(frozen=True, slots=True)
class SensorEntry:
    """A vertex that entered the lane, and its message."""

    vertex: Vertex
    message: SensorMessage


@dataclass(frozen=True, slots=True)
class Heard:
    """What one vertex from outside did: the ruling for its sender, what entered because of it, who turned out to fork."""

    ruling: Ruling
    entered: tuple[SensorEntry, ...] = ()
    forked: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRules:
    """What all participants of a lane agree on: the lane's net, the tag of heads, when the session began."""

    net: bytes
    tag: bytes
    starts_ms: int


class SensorCodec(VertexCodec):
    """The codec of the sensors lane: also reads what a vertex says."""

    def parse(self, vertex: Vertex) -> SensorMessage | None:
        """The message of a vertex, None if its body is not one of its kind."""
        return parse_sensor_message(vertex.kind, vertex.body)


def validate_alone(
    vertex: Vertex, message: SensorMessage | None, *, net: bytes, tag: bytes, starts_ms: int, now_ms: int
) -> SensorMessage | Ruling:
    """Judge a vertex by itself, without its signature; its message if nothing speaks against it."""
    # 1. It belongs to this session and lane, and heads, and only they, carry the codename's tag (4.2).
    if vertex.net != net:
        return reject("another session or lane")
    if vertex.tag != (tag if vertex.kind == SensorKind.SENSOR_HEAD else b""):
        return reject("a tag that is not this kind's in this session")
    # 2. Its body is what its kind writes.
    if message is None:
        return reject(f"not a body of kind {vertex.kind}")
    # 3. It is not older than the session.
    if vertex.time_ms < starts_ms:
        return reject("older than the session")
    # 4. Its clock is not far ahead of ours. Ours may be the wrong one: nobody is blamed.
    if vertex.time_ms > now_ms + TIME_AHEAD_MAX_MS:
        return ignore("its clock is more than two minutes ahead")
    return message


def validate_issuer(
    vertex: Vertex, message: SensorMessage, *, members: frozenset[PeerId], admission: Admission | None, net: bytes
) -> Ruling:
    """Judge who speaks. `admission`: what the issuer's log said so far."""
    # 5. Receipts, checkpoints and proofs are members' business.
    if isinstance(message, MEMBERS_KINDS):
        return ACCEPTED if vertex.issuer in members else ignore("its issuer is not a member")
    # 6. A head brings a member's countersignature. We may lag behind the chain: nobody is blamed for an unknown member.
    if isinstance(message, SensorHead):
        if message.admission == admission:
            return ACCEPTED
        if message.admission.member not in members:
            return ignore("no member admitted this sensor")
        return ACCEPTED if message.admission.admits(vertex.issuer, net) else reject("a countersignature that the member did not give")
    # 7. Everything else comes after a head.
    return ACCEPTED if admission is not None or vertex.sequence > 1 else reject("its issuer has no head")


def validate_place(
    vertex: Vertex, *, head: tuple[int, Cid], previous_ms: int | None, admission: Admission | None, window_ms: int | None
) -> Ruling:
    """Judge where a vertex stands. `head`: number and CID of its issuer's newest one, `previous_ms`: its time, if it is known."""
    # 8. It continues its issuer's log by one.
    if (vertex.sequence - 1, vertex.parents[0]) != head:
        return reject("its number does not follow its issuer's previous vertex")
    # 9. It is later than its issuer's previous one and its admission. Of other parents some peers may know the time and some not.
    if previous_ms is not None and vertex.time_ms <= previous_ms:
        return reject("not later than its issuer's previous vertex")
    if admission is not None and vertex.time_ms < admission.from_ms:
        return reject("older than its issuer's admission")
    # 10. Its issuer stays within its budget, by the vertices' own times, so that it holds in gossip and in sync alike.
    if vertex.time_ms < compute_allowed_ms(admission, window_ms):
        return reject(f"its issuer says more than {compute_rate(admission)} things a second")
    return ACCEPTED


def compute_rate(admission: Admission | None) -> int:
    """Vertices a second of an issuer: what its admission gives, a member's own rate without one."""
    return VERTEX_RATE_PER_S if admission is None else admission.rate_per_s


def compute_allowed_ms(admission: Admission | None, window_ms: int | None) -> int:
    """The earliest time of an issuer's next vertex: `WINDOW` of them take at least the time that their rate gives them."""
    return 0 if window_ms is None else window_ms + WINDOW * 1000 // compute_rate(admission)


def validate_head(head: SensorHead, issuer: PeerId, *, net: bytes, streams: Mapping[bytes, Stream], count: int) -> Ruling:
    """Judge a new stream. `count`: how many channels its issuer began already."""
    # 11. The channel's own key signed it, it is new, and its issuer may have one more. One that another took over counts no more.
    if not head.is_signed(net, issuer):
        return reject("a head that its channel's key did not sign")
    if head.channel in streams:
        return reject("a second head of one channel")
    ended = sum(s.ended for s in streams.values() if s.issuer == issuer) + (head.succession is not None)
    if count - ended >= head.admission.channels_max:
        return reject(f"its issuer has {count - ended} channels, its admission allows {head.admission.channels_max}")
    if count >= head.admission.channels_max + SUCCESSIONS_MAX:
        return reject(f"its issuer changed keys more than {SUCCESSIONS_MAX} times")
    # 12. A key takes over only from a channel of this issuer that handed over to it, where that one stands.
    if head.succession is not None:
        before = next((s for s in streams.values() if s.head.channel_key == head.succession.channel_key), None)
        if before is None or before.issuer != issuer or before.ended or not before.stands_at(head.succession.last):
            return reject("it continues a channel that is not there, or stands elsewhere")
        if not head.succession.names(head.channel_key) or (before.head.fields, before.head.row_type) != (head.fields, head.row_type):
            return reject("the channel that it continues did not hand over to it")
    return ACCEPTED


def validate_messages(message: ChannelMessages, issuer: PeerId, stream: Stream | None) -> Ruling:
    """Judge attached messages against their channel."""
    # 13. The channel is this issuer's, and goes on.
    if stream is None or stream.issuer != issuer or stream.ended:
        return reject("a channel that its issuer did not begin, or that ended")
    # 14. Numbers rise: a number that was used before is a replay, or another message under it.
    if message.messages[0].sequence <= stream.last:
        why = f"message {message.messages[0].sequence} was attached before: {REPLAYED}"
        return reject(why) if stream.source is Source.READ else ignore(why)  # The checkpoint may be wrong, and not the sender.
    # 15. Each has the channel's mode and signature.
    for part in message.messages:
        if part.mode is not stream.head.mode or not part.is_signed_by(stream.head.channel_key):
            return reject("a message that the channel's key did not sign")
    return ACCEPTED


def validate_fork(proof: ForkProved, net: bytes) -> Ruling:
    """16. Both statements of a fork proof are signed by the issuer, for this lane and number."""
    for statement in (proof.first, proof.second):
        if not verify_statement(statement, net=net, issuer=proof.issuer, sequence=proof.sequence):
            return reject("a fork proof with a wrong signature")
    return ACCEPTED


def advance(stream: Stream, message: ChannelMessages) -> Stream:
    """The stream after messages were attached."""
    last = message.messages[-1]
    return Stream(stream.head, stream.issuer, stream.vertex, last.sequence, last.compute_hash(), stream.ended)
