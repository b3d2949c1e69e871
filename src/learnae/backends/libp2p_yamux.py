"""Many streams over one connection: the yamux protocol, bounded on every side a stranger can push.

py-libp2p brings a yamux of its own. This one takes its place in the upgrader because four things there cannot be had by
settings: a receive window is enforced (there, a sender that ignores it fills the memory), the streams that a peer may open
are counted, a task that is cancelled while it writes leaves the connection whole (there, half a frame may have been
encrypted and lost), and nothing polls. One task reads, one task writes, one watches for a peer that is gone.

Source: hashicorp/yamux spec.md, version 0; interoperates with go-yamux and py-libp2p's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr
from noise.exceptions import NoiseInvalidMessage, NoiseMaxNonceError

from learnae.backends.libp2p_patience import Patience
from learnae.backends.libp2p_yamux_stream import (
    ACK,
    DATA,
    GO_AWAY,
    HEAD,
    PAYLOAD_MAX,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_BYTES_MAX,
    ProtocolBreak,
    YamuxStream,
)

logger = logging.getLogger(__name__)

STREAMS_MAX: Final = 32  # That a peer may have open towards us: gossip, sync, blocks and ping need five.
_OUTBOX_BYTES: Final = 262144  # Queued for the socket before writers wait: keeps small messages behind at most this much.
_OUTBOX_BYTES_MAX: Final = 1 << 20  # Beyond it a peer asks for answers (pings, refusals) that it does not read: cut off.
_PING_NUMBER: Final = 1  # Of a ping that somebody waits for; the watch sends 0.
_WATCH_S: Final = 15.0  # Between looks at a connection; two without a byte and an unanswered ping mean that it is dead.

CONNECTION_ERRORS: Final = (
    IOException,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    NoiseInvalidMessage,
    NoiseMaxNonceError,
)
"""What reading or writing an encrypted connection may raise because of the peer or the line."""


class _LineDied(Exception):
    """Nothing goes through any more: nobody's fault, so the peer is not blamed."""


PUNCHED: Final = ConnectionType.UNKNOWN
"""Marks the TCP connections that came about by hole punching; the library has no name for them."""


class Way(IntEnum):
    """How a connection leads to its peer, the best first."""

    DIRECT = 0
    PUNCHED = 1  # Through two routers at the same moment: says nothing about who can be dialled.
    RELAYED = 2


class Yamux(IMuxedConn):
    """One connection. `start` runs it until either side ends it; everything else may be called from any task."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.on_close: Callable[[], Awaitable[Any]] | None = None  # set by the swarm
        self.event_started, self.event_closed = trio.Event(), trio.Event()
        self.since_s = trio.current_time()
        self.broken_rule = ""  # why the peer was cut off, if it was
        self._scope = trio.CancelScope()
        self._streams: dict[int, YamuxStream] = {}
        self._next_id = 1 if conn.is_initiator else 2
        self._accepted_send, self._accepted = trio.open_memory_channel[YamuxStream](STREAMS_MAX)
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._writer, self._room = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._received_bytes = self._sent_bytes = 0
        self._pong: trio.Event | None = None  # of a ping that is not answered yet
        self._patience = Patience(trio.current_time())

    @property
    def is_initiator(self) -> bool:
        return bool(self.secured_conn.is_initiator)

    @property
    def is_relayed(self) -> bool:
        return self.get_remote_address() is None

    @property
    def way(self) -> Way:
        if self.is_relayed:
            return Way.RELAYED
        return Way.PUNCHED if self.secured_conn.get_connection_type() is PUNCHED else Way.DIRECT

    @property
    def was_dialled(self) -> bool:
        """Whether the peer was found at an address where others can dial it, too."""
        return self.is_initiator and self.way is Way.DIRECT

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self._scope.cancel_called

    async def start(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_all)
                    nursery.start_soon(self._watch)
                    self.event_started.set()
                    await self._read_all()
                    nursery.cancel_scope.cancel()
        except* (*CONNECTION_ERRORS, _LineDied) as group:
            logger.debug("connection to %s ended: %r", self.peer_id, group.exceptions[0])
        except* ProtocolBreak as group:
            self.broken_rule = str(group.exceptions[0])
        finally:
            self._end()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                try:
                    await self.secured_conn.close()
                except CONNECTION_ERRORS as error:
                    logger.debug("closing the socket of %s: %r", self.peer_id, error)
        if self.on_close is not None:
            await self.on_close()

    async def close(self) -> None:
        """End the connection; what was queued has 200 ms to leave."""
        if self.event_started.is_set() and not self.is_closed:
            with trio.move_on_after(0.2):
                while self._outbox_bytes:
                    await self._room.park()
            self._scope.cancel()
        else:
            self._end()
            await self.secured_conn.close()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """End the connection at once."""
        self._scope.cancel()

    async def open_stream(self) -> YamuxStream:
        await self.wait_for_room()
        if self.is_closed or self._scope.cancel_called:
            raise MuxedConnUnavailable("the connection has ended")
        stream = YamuxStream(self, self._next_id)
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self.queue(WINDOW, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
        try:
            return await self._accepted.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise MuxedConnUnavailable("the connection has ended") from error

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.RELAYED if self.is_relayed else ConnectionType.DIRECT

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    # --- for the streams ----------------------------------------------------------------------------------------

    def queue(self, kind: int, flags: int, stream_id: int, length: int, payload: memoryview | bytes = b"") -> None:
        """Put one frame into the outbox: all of it or, after the end of the connection, nothing."""
        if self.is_closed or self._scope.cancel_called:
            return
        frame = b"".join((HEAD.pack(0, kind, flags, stream_id, length), payload))
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        self._writer.unpark_all()

    async def wait_for_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._outbox_bytes > _OUTBOX_BYTES and not self.is_closed:
            await self._room.park()

    def ping(self) -> trio.Event:
        """Ask the peer to answer; the event is set when it has, and what it had sent before is here."""
        if self._pong is None:
            self._pong = trio.Event()
            self.queue(PING, SYN, 0, _PING_NUMBER)
        return self._pong

    def forget(self, stream: YamuxStream) -> None:
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]

    # --- the three tasks ----------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        while True:
            while not self._outbox:
                await self._writer.park()
            frames = [self._outbox.popleft()]
            size_bytes = len(frames[0])
            while self._outbox and size_bytes + len(self._outbox[0]) <= PAYLOAD_MAX + HEAD.size:
                frames.append(self._outbox.popleft())
                size_bytes += len(frames[-1])
            await self.secured_conn.write(frames[0] if len(frames) == 1 else b"".join(frames))
            self._outbox_bytes -= size_bytes
            self._sent_bytes += size_bytes
            self._room.unpark_all()

    async def _read_all(self) -> None:
        head = bytearray()
        stream: YamuxStream | None = None
        flags = left = 0
        while True:
            message = memoryview(await self.secured_conn.read())
            self._received_bytes += len(message)
            self._patience.note_message(len(message), self._sent_bytes)
            at = 0
            while at < len(message):
                if left:
                    piece = message[at : at + left]
                    at, left = at + len(piece), left - len(piece)
                    if stream is not None:
                        # A view keeps the whole message: a small piece of it is copied.
                        stream.handle_data(piece if 2 * len(piece) > len(message) else memoryview(bytes(piece)))
                        if not left:
                            stream.handle_flags(flags)
                    continue
                part = message[at : at + HEAD.size - len(head)]
                head += part
                at += len(part)
                if len(head) == HEAD.size:
                    version, kind, flags, stream_id, length = HEAD.unpack(head)
                    head.clear()
                    self._patience.note_frame(kind, flags, length)
                    if version != 0 or kind > GO_AWAY:
                        raise ProtocolBreak(f"a frame of version {version} and type {kind}")
                    if kind == GO_AWAY:
                        return
                    stream = self._handle_head(kind, flags, stream_id, length)
                    left = length if kind == DATA else 0
            if self._outbox_bytes > _OUTBOX_BYTES_MAX:
                raise ProtocolBreak("the peer asks for answers and does not read them")
            wait_s = self._patience.compute_wait_s(trio.current_time())
            if wait_s > 0:
                await trio.sleep(wait_s)

    def _handle_head(self, kind: int, flags: int, stream_id: int, length: int) -> YamuxStream | None:
        if kind == PING:
            if flags & SYN:
                self.queue(PING, ACK, 0, length)
            elif length == _PING_NUMBER and self._pong is not None:
                self._pong.set()
                self._pong = None
            return None
        stream = self._handle_new(stream_id) if flags & SYN else self._streams.get(stream_id)
        if stream is None:
            return None  # of a stream that was reset here: its last frames are on their way and are skipped
        if kind == DATA and length > WINDOW_BYTES_MAX:
            raise ProtocolBreak(f"a frame of {length} bytes")
        if kind == WINDOW:
            stream.handle_credit(length)
        if kind == WINDOW or length == 0:
            stream.handle_flags(flags)
        return stream

    def _handle_new(self, stream_id: int) -> YamuxStream | None:
        if stream_id == 0 or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise ProtocolBreak(f"a new stream with the number {stream_id}")
        theirs = sum(1 for number in self._streams if number % 2 != self._next_id % 2)
        stream = YamuxStream(self, stream_id)
        try:
            if theirs >= STREAMS_MAX:
                raise trio.WouldBlock
            self._accepted_send.send_nowait(stream)
        except trio.WouldBlock:
            self.queue(WINDOW, RST, stream_id, 0)
            return None
        self._streams[stream_id] = stream
        self.queue(WINDOW, ACK, stream_id, 0)
        return stream

    def grant_opening(self) -> None:
        """Let the peer open one stream more: it was asked for something that comes on a stream of its own."""
        self._patience.grant_stream()

    async def _watch(self) -> None:
        silent = 0
        while True:
            received_bytes, sent_bytes, waiting = self._received_bytes, self._sent_bytes, bool(self._outbox_bytes)
            await trio.sleep(_WATCH_S)
            if waiting and self._sent_bytes == sent_bytes:
                raise _LineDied(f"nothing could be sent for {_WATCH_S:.0f} s")
            silent = 0 if self._received_bytes != received_bytes else silent + 1
            if silent == 1:
                self.queue(PING, SYN, 0, 0)
            elif silent > 2:
                raise _LineDied(f"nothing was heard for {_WATCH_S * silent:.0f} s")

    def _end(self) -> None:
        self.event_closed.set()
        self.event_started.set()
        self._accepted_send.close()
        self._accepted.close()
        for stream in list(self._streams.values()):
            stream.break_off()
        self._streams.clear()
        self._outbox.clear()
        self._outbox_bytes = 0
        self._room.unpark_all()
