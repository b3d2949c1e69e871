"""A member that can be reached carries connections to members that cannot: circuit relay v2, the relay's side.

A peer asks for a *reservation* and keeps its connection; others then ask to be connected with it, and what both send is passed
on, encrypted between them, so that a relay reads nothing. Reservations are for members; both are few, and every circuit has
an end: by bytes, by time, by silence, by rate, and for all circuits together by rate. Strangers get a small part and give way
to members. Relayed connections get no reservation.

py-libp2p 0.8.1 has a relay, `relay/circuit_v2/protocol.py`, which is not used: its `_handle_reserve` believes the peer id in the
message, so anybody takes or refreshes anybody's reservation; `_active_relays` has one entry a peer, so a second circuit hides
the first; the bounds per address of `HopConfig` are read by nobody; and its pipe knows the end of mplex streams only.
Source: libp2p specs, relay/circuit-v2 (messages and status codes; vouchers are left out, as they are optional for relays).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from libp2p.abc import INetStream
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb
from multiaddr import Multiaddr

from learnae.backends.libp2p_address import libp2p_id, peer_of
from learnae.backends.libp2p_direct import ByteBudget, read_exactly, read_varint
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of
from learnae.backends.unixfs import encode_varint
from learnae.ids import PeerId

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
RESERVATIONS_MAX: Final = 16
RESERVATION_S: Final = 600.0  # Renewed after half of it.
CIRCUITS_MAX: Final = 32
CIRCUITS_PER_PEER_MAX: Final = 8  # At either end.
CIRCUITS_PER_PAIR_MAX: Final = 2  # As many connections as a peer keeps with another.
STRANGERS_CIRCUITS_MAX: Final = 8  # Newcomers whose ticket names a relay; the newest gives way to a member.
STRANGERS_PER_PEER_MAX: Final = 2  # At either end.
CIRCUIT_BYTES_MAX: Final = 1 << 30  # Both directions; hundreds of models of a few megabytes.
CIRCUIT_S_MAX: Final = 7200.0
CIRCUIT_RATE_BYTES_S: Final = 2 << 20
TOTAL_RATE_BYTES_S: Final = 4 << 20
STRANGERS_RATE_BYTES_S: Final = 1 << 20  # Of that, for all strangers together: a newcomer catches up with a few megabytes.
CIRCUIT_IDLE_S: Final = 120.0  # Without a byte in either direction; the two ends ask each other for a sign of life more often.
BURST_BYTES: Final = 4 << 20
MESSAGE_BYTES_MAX: Final = 4096
ANSWER_S: Final = 10.0
_PIECE_BYTES: Final = 65536

Read = TypeVar("Read", bound=Message)


class RelayMessageError(Exception):
    """The other side of a hop or stop stream sent what is not allowed there."""


async def read_message(stream: INetStream, kind: type[Read]) -> Read:
    """One protobuf message behind its length. Raises: RelayMessageError, STREAM_ERRORS."""
    size_bytes = await read_varint(stream)
    if size_bytes > MESSAGE_BYTES_MAX:
        raise RelayMessageError(f"a message of {size_bytes} bytes")
    try:
        return kind.FromString(await read_exactly(stream, size_bytes))
    except DecodeError as error:
        raise RelayMessageError("bytes that are no message") from error


async def write_message(stream: INetStream, message: Message) -> None:
    content = bytes(message.SerializeToString())
    assert len(content) <= MESSAGE_BYTES_MAX, "addresses and names are short"
    await stream.write(encode_varint(len(content)) + content)


def is_relayed(stream: INetStream) -> bool:
    """Whether the connection below this stream is a circuit itself."""
    return muxed_stream_of(stream).get_remote_address() is None


@dataclass(slots=True, eq=False)
class _Circuit:
    source: PeerId
    target: PeerId
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Relay:
    """The relay of one node. `offers`: whether it carries for others at the moment."""

    def __init__(self, host: Host, *, offers: Callable[[], bool]) -> None:
        self._host, self._offers = host, offers
        self._reserved: dict[PeerId, float] = {}  # until when, by the monotonic clock
        self._circuits: list[_Circuit] = []  # oldest first
        self._total = ByteBudget(TOTAL_RATE_BYTES_S, BURST_BYTES)
        self._strangers = ByteBudget(STRANGERS_RATE_BYTES_S, BURST_BYTES)
        host.handle_streams(HOP, self._serve)

    @property
    def count(self) -> int:
        """Circuits that are carried now."""
        return len(self._circuits)

    @property
    def reserved(self) -> frozenset[PeerId]:
        """Peers that can be reached through this node now."""
        now_s, connected = trio.current_time(), self._host.connected()
        self._reserved = {peer: until_s for peer, until_s in self._reserved.items() if until_s > now_s and peer in connected}
        return frozenset(self._reserved)

    async def _serve(self, peer: PeerId, stream: INetStream) -> None:
        asked: pb.HopMessage | None = None
        with trio.move_on_after(ANSWER_S), suppress(RelayMessageError):
            asked = await read_message(stream, pb.HopMessage)
        if asked is None:
            return await _refuse(stream, pb.MALFORMED_MESSAGE)
        if is_relayed(stream) or not self._offers():
            return await _refuse(stream, pb.PERMISSION_DENIED)
        if asked.type == pb.HopMessage.RESERVE:
            await self._reserve(peer, stream)
        elif asked.type == pb.HopMessage.CONNECT:
            await self._connect(peer, peer_of(ID(asked.peer.id)), stream)
        else:
            await _refuse(stream, pb.UNEXPECTED_MESSAGE)

    async def _reserve(self, peer: PeerId, stream: INetStream) -> None:
        """For the peer of the connection, whatever the message says."""
        if peer not in self._host.members:
            return await _refuse(stream, pb.PERMISSION_DENIED)
        if peer not in self.reserved and len(self._reserved) >= RESERVATIONS_MAX:
            return await _refuse(stream, pb.RESERVATION_REFUSED)
        self._reserved[peer] = trio.current_time() + RESERVATION_S
        addresses = [Multiaddr(address).to_bytes() for address in self._host.addresses[:8]]
        reservation = pb.Reservation(expire=int(time.time() + RESERVATION_S), addrs=addresses)
        await write_message(stream, _answer(pb.OK, reservation=reservation))

    async def _connect(self, source: PeerId, target: PeerId | None, stream: INetStream) -> None:
        if target is None or target not in self.reserved:
            return await _refuse(stream, pb.NO_RESERVATION)
        if not self._has_room(source, target):
            return await _refuse(stream, pb.RESOURCE_LIMIT_EXCEEDED)
        circuit = _Circuit(source, target)
        self._circuits.append(circuit)
        try:
            with circuit.scope:
                await self._carry(source, target, stream)
        finally:
            if circuit in self._circuits:
                self._circuits.remove(circuit)

    def _has_room(self, source: PeerId, target: PeerId) -> bool:
        """Whether one more circuit may be carried; strangers' circuits end where a member needs their place."""
        if sum((source, target) == (other.source, other.target) for other in self._circuits) >= CIRCUITS_PER_PAIR_MAX:
            return False
        strangers = [circuit for circuit in self._circuits if circuit.source not in self._host.members]
        if source not in self._host.members:
            fullest = max(_count(strangers, source), _count(strangers, target))
            if len(strangers) >= STRANGERS_CIRCUITS_MAX or fullest >= STRANGERS_PER_PEER_MAX:
                return False
            return not self._find_full(source, target)
        while (full := self._find_full(source, target)) and (found := [circuit for circuit in full if circuit in strangers]):
            self._circuits.remove(found[-1])
            found[-1].scope.cancel()
        return not full

    def _find_full(self, source: PeerId, target: PeerId) -> list[_Circuit]:
        """The circuits of which one must end before another from `source` to `target` may begin; none if there is room."""
        if len(self._circuits) >= CIRCUITS_MAX:
            return list(self._circuits)
        for end in (source, target):
            if _count(self._circuits, end) >= CIRCUITS_PER_PEER_MAX:
                return [circuit for circuit in self._circuits if end in (circuit.source, circuit.target)]
        return []

    async def _carry(self, source: PeerId, target: PeerId, stream: INetStream) -> None:
        onward: INetStream | None = None
        try:
            with trio.move_on_after(ANSWER_S):
                onward = await self._open_onward(source, target)
            if onward is None:
                return await _refuse(stream, pb.CONNECTION_FAILED)
            await write_message(stream, _answer(pb.OK))
            budgets = [ByteBudget(CIRCUIT_RATE_BYTES_S, BURST_BYTES), self._total]
            if source not in self._host.members:
                budgets.append(self._strangers)
            left = [CIRCUIT_BYTES_MAX]
            with trio.move_on_after(CIRCUIT_S_MAX), trio.move_on_after(CIRCUIT_IDLE_S) as idle:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pass_on, stream, onward, budgets, left, idle)
                    nursery.start_soon(_pass_on, onward, stream, budgets, left, idle)
        finally:
            if onward is not None:
                drop_stream(onward)

    async def _open_onward(self, source: PeerId, target: PeerId) -> INetStream | None:
        """A stop stream to the target, which agreed; None if it did not."""
        onward: INetStream | None = None
        agreed = False
        try:
            onward = await self._host.open_stream(target, [STOP])
            limit = pb.Limit(duration=int(CIRCUIT_S_MAX), data=CIRCUIT_BYTES_MAX)
            peer = pb.PeerId(id=libp2p_id(source).to_bytes())
            await write_message(onward, pb.StopMessage(type=pb.StopMessage.CONNECT, peer=peer, limit=limit))
            answer = await read_message(onward, pb.StopMessage)
            agreed = answer.type == pb.StopMessage.STATUS and answer.status == pb.OK
        except (RelayMessageError, *STREAM_ERRORS):
            return None
        finally:
            if onward is not None and not agreed:
                drop_stream(onward)
        return onward if agreed else None


def _count(circuits: list[_Circuit], end: PeerId) -> int:
    return sum(end in (circuit.source, circuit.target) for circuit in circuits)


async def _pass_on(source: INetStream, target: INetStream, budgets: list[ByteBudget], left: list[int], both: trio.CancelScope) -> None:
    """Until either side ends, is silent for too long, or the bytes are used up; then the other direction ends too."""
    try:
        while left[0] > 0:
            piece = await source.read(_PIECE_BYTES)
            left[0] -= len(piece)
            for budget in budgets:
                await budget.spend(len(piece))
            await target.write(piece)
            both.deadline = trio.current_time() + CIRCUIT_IDLE_S
    except STREAM_ERRORS:
        pass  # an end like any other
    both.cancel()


def _answer(status: pb.Status.ValueType, reservation: pb.Reservation | None = None) -> pb.HopMessage:
    limit = pb.Limit(duration=int(CIRCUIT_S_MAX), data=CIRCUIT_BYTES_MAX)
    return pb.HopMessage(type=pb.HopMessage.STATUS, status=status, reservation=reservation, limit=limit)


async def _refuse(stream: INetStream, status: pb.Status.ValueType) -> None:
    await write_message(stream, pb.HopMessage(type=pb.HopMessage.STATUS, status=status))
