"""Reaching peers that cannot be dialled, and being reached so: circuit relay v2, the two ends of a circuit.

A node that others cannot dial keeps a reservation at two peers that it dialled itself, so they can be. Whoever wants to talk to
it asks those that both are connected with (or the relay that an address names) to pass bytes on; inside, the two ends shake
hands as always, so a relay can neither read nor pretend. Once connected, the end that was called tries to call back directly:
between a node behind a router and one that can be dialled no relay is needed for long. Between two that cannot, `libp2p_punch`
goes on from there. Source: libp2p specs, relay/circuit-v2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from learnae.backends.libp2p_address import CIRCUIT, libp2p_id, parse_address, peer_of
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of
from learnae.backends.libp2p_relay import (
    ANSWER_S,
    HOP,
    RESERVATION_S,
    STOP,
    RelayMessageError,
    is_relayed,
    read_message,
    write_message,
)
from learnae.backends.libp2p_yamux import Yamux
from learnae.errors import UnreachableError
from learnae.ids import PeerId, peer_text, short_name

logger = logging.getLogger(__name__)

RELAYS_WANTED: Final = 2  # One may go away.
ASKED_MAX: Final = 4  # Connected peers that are asked whether they can pass something on.
LOOK_S: Final = 5.0  # Between looks at the reservations.
CALL_BACK_S: Final = 5.0  # All known addresses of a caller at the same time; some lead into its private network and answer nothing.
REFUSED_S: Final = 20.0  # Before a peer that refused is asked again: it may not have seen yet that this node is a member.
_SOURCE: Final = "circuit"  # Instead of an address, where handshakes are counted.


class CircuitStream(ReadWriteCloser):
    """A stream through a relay as the swarm sees a TCP connection; it has no remote address."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._muxed = muxed_stream_of(stream)
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes; None: what there is."""
        wanted = 1 if n is None else n
        try:
            while len(self._buffer) < wanted:
                self._buffer += await self._muxed.read()
        except MuxedStreamError as error:
            raise ConnectionClosedError(f"the circuit ended: {error}") from error
        size = len(self._buffer) if n is None else n
        content = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return content

    async def write(self, data: bytes) -> None:
        try:
            await self._muxed.write(data)
        except MuxedStreamError as error:
            raise ConnectionClosedError(f"the circuit ended: {error}") from error

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        drop_stream(self._stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


class Circuits:
    """The circuits of one node that end here. `needs_relays`: whether others cannot dial this node."""

    def __init__(self, host: Host, rng: Random, *, needs_relays: Callable[[], bool]) -> None:
        self._host, self._rng, self._needs_relays = host, rng, needs_relays
        self._relays: dict[PeerId, float] = {}  # reservations: until when
        self._refused: dict[PeerId, float] = {}  # until when
        self._called_back: set[PeerId] = set()  # being dialled now
        host.detours = self
        host.handle_streams(STOP, self._serve)

    @property
    def relays(self) -> frozenset[PeerId]:
        """Where this node has a reservation."""
        now_s = trio.current_time()
        return frozenset(peer for peer, until_s in self._relays.items() if until_s > now_s and self._is_direct(peer))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Under which others can reach this node through its relays."""
        me = peer_text(self._host.peer_id)
        ways = [self._host.direct_addresses(peer) for peer in sorted(self.relays)]
        return tuple(f"{way[0]}{CIRCUIT}/p2p/{me}" for way in ways if way)

    # --- calling ------------------------------------------------------------------------------------------------

    async def dial(self, relay: str, peer: PeerId) -> None:
        """Connect with `peer` through the relay at this address. Raises: UnreachableError, STREAM_ERRORS."""
        carrier = parse_address(relay)[1]
        if not self._is_direct(carrier):
            await self._host.dial(relay)
        await self._connect(carrier, peer)

    async def find(self, peer: PeerId) -> bool:
        """Ask connected peers, members first, whether they can reach `peer`."""
        able = [other for other in self._host.connected() if other != peer and self._is_direct(other)]
        self._rng.shuffle(able)
        able.sort(key=lambda other: other not in self._host.members)
        for carrier in able[:ASKED_MAX]:
            with suppress(UnreachableError, *STREAM_ERRORS), trio.move_on_after(2 * ANSWER_S):
                await self._connect(carrier, peer)
                return True
        return False

    async def _connect(self, carrier: PeerId, peer: PeerId) -> None:
        stream = await self._host.open_stream(carrier, [HOP])
        try:
            await write_message(stream, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=libp2p_id(peer).to_bytes())))
            answer = await read_message(stream, pb.HopMessage)
            if answer.type != pb.HopMessage.STATUS or answer.status != pb.OK:
                raise UnreachableError(peer_text(peer), f"the relay {short_name(carrier)} answers {_name_status(answer.status)}")
            await self._host.swarm.upgrade_outbound_raw_conn(RawConnection(CircuitStream(stream), True), libp2p_id(peer))
        except RelayMessageError as error:
            drop_stream(stream)
            raise UnreachableError(peer_text(peer), f"the relay {short_name(carrier)} sent {error}") from error
        except (trio.Cancelled, UnreachableError, *STREAM_ERRORS):
            drop_stream(stream)
            raise

    # --- being called -------------------------------------------------------------------------------------------

    async def _serve(self, carrier: PeerId, stream: INetStream) -> None:
        """A relay tells that somebody wants to talk to this node."""
        asked: pb.StopMessage | None = None
        with trio.move_on_after(ANSWER_S), suppress(RelayMessageError):
            asked = await read_message(stream, pb.StopMessage)
        source = None if asked is None else peer_of(ID(asked.peer.id))
        if asked is None or asked.type != pb.StopMessage.CONNECT or source is None:
            return await _answer(stream, pb.MALFORMED_MESSAGE)
        if is_relayed(stream) or carrier not in self.relays:
            return await _answer(stream, pb.PERMISSION_DENIED)
        places = self._host.swarm.places
        if not places.begin_handshake(_SOURCE, trio.current_time()):
            return await _answer(stream, pb.RESOURCE_LIMIT_EXCEEDED)
        try:
            await _answer(stream, pb.OK)
            raw = RawConnection(CircuitStream(stream), False)
            conn = await self._host.swarm.upgrade_inbound_raw_conn(raw, Multiaddr(f"/p2p/{peer_text(carrier)}{CIRCUIT}"))
        except SwarmException as error:
            logger.debug("a handshake through a relay failed: %r", error)
            return
        finally:
            places.end_handshake(_SOURCE)
        assert isinstance(conn, Yamux), "the only muxer on offer"
        if peer_of(conn.peer_id) != source:
            logger.debug("the relay %s named another peer than the one that called", short_name(carrier))
            return conn.abort()
        self._host.swarm.make_room()
        self._host.nursery.start_soon(self._call_back, source)
        await conn.event_closed.wait()

    def is_settling(self, peer: PeerId) -> bool:
        """Whether a peer that called is still tried directly."""
        return peer in self._called_back

    async def _call_back(self, peer: PeerId) -> None:
        """Replace a circuit by a direct connection, if the caller can be dialled."""
        if peer in self._called_back:
            return
        self._called_back.add(peer)
        try:
            with trio.move_on_after(CALL_BACK_S):
                async with trio.open_nursery() as nursery:
                    for address in self._host.direct_addresses(peer):
                        nursery.start_soon(self._try_directly, peer, address, nursery.cancel_scope)
        finally:
            self._called_back.discard(peer)
            self._host.handle_connected()  # Whoever waits for this looks again.

    async def _try_directly(self, peer: PeerId, address: str, others: trio.CancelScope) -> None:
        with suppress(UnreachableError):
            await self._host.dial(address)
            others.cancel()
            for conn in self._host.connections(peer):
                if conn.is_relayed:
                    conn.abort()

    # --- reservations -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep reservations while others cannot dial this node, until cancelled."""
        while True:
            if self._needs_relays():
                await self._reserve_all()
            with trio.move_on_after(LOOK_S):
                await self._host.wait_for_change()

    async def _reserve_all(self) -> None:
        now_s = trio.current_time()
        self._relays = {peer: until_s for peer, until_s in self._relays.items() if until_s > now_s and self._is_direct(peer)}
        self._refused = {peer: until_s for peer, until_s in self._refused.items() if until_s > now_s}
        due = [peer for peer, until_s in self._relays.items() if until_s - now_s < RESERVATION_S / 2]
        new = [peer for peer in self._find_dialled() if peer not in self._relays and peer not in self._refused]
        for peer in [*due, *new[: max(0, RELAYS_WANTED - len(self._relays))]]:
            if not await self._reserve(peer):
                self._refused[peer] = trio.current_time() + REFUSED_S

    def _find_dialled(self) -> list[PeerId]:
        """Peers that this node dialled, so that others can too, members first."""
        found = [peer for peer in self._host.connected() if any(conn.was_dialled for conn in self._host.connections(peer))]
        self._rng.shuffle(found)
        return sorted(found, key=lambda peer: peer not in self._host.members)

    async def _reserve(self, peer: PeerId) -> bool:
        stream: INetStream | None = None
        try:
            with trio.move_on_after(ANSWER_S):
                stream = await self._host.open_stream(peer, [HOP])
                await write_message(stream, pb.HopMessage(type=pb.HopMessage.RESERVE))
                answer = await read_message(stream, pb.HopMessage)
                if answer.type == pb.HopMessage.STATUS and answer.status == pb.OK:
                    self._relays[peer] = trio.current_time() + RESERVATION_S
                    return True
        except (RelayMessageError, *STREAM_ERRORS) as error:
            logger.debug("no reservation at %s: %r", short_name(peer), error)
        finally:
            if stream is not None:
                drop_stream(stream)
        return False

    def _is_direct(self, peer: PeerId) -> bool:
        return any(not conn.is_relayed for conn in self._host.connections(peer))


def _name_status(status: pb.Status.ValueType) -> str:
    return pb.Status.Name(status).lower().replace("_", " ") if status in pb.Status.values() else str(status)


async def _answer(stream: INetStream, status: pb.Status.ValueType) -> None:
    await write_message(stream, pb.StopMessage(type=pb.StopMessage.STATUS, status=status))
