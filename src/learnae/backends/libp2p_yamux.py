"""Many streams over one connection: the yamux protocol, bounded on every side a stranger can push.

py-libp2p brings a yamux of its own. This one takes its place in the upgrader because four things there cannot be had by
settings: a receive window is enforced (there, a sender that ignores it fills the memory), the streams that a peer may open
are counted, a task that is cancelled while it writes leaves the connection whole (there, half a frame may have been
encrypted and lost), and nothing polls. One task reads, one task writes, one watches for a peer that is gone.

Source: hashicorp/yamux spec.md, version 0; interoperates with go-yamux and py-libp2p's.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr
from noise.exceptions import NoiseInvalidMessage, NoiseMaxNonceError

logger = logging.getLogger(__name__)

WINDOW_BYTES: Final = 262144  # The spec's first window: what a peer may send on a stream before anyone reads it.
WINDOW_BYTES_MAX: Final = 4 << 20  # A stream that we opened to fetch blocks may be given this much: 100 ms at 40 MB/s.
STREAMS_MAX: Final = 32  # That a peer may have open towards us: gossip, sync, blocks and ping need five.
_PAYLOAD_MAX: Final = 65519 - 12  # One frame with its head fills one Noise message exactly.
_OUTBOX_BYTES: Final = 262144  # Queued for the socket before writers wait: keeps small messages behind at most this much.
_OUTBOX_BYTES_MAX: Final = 1 << 20  # Beyond it a peer asks for answers (pings, refusals) that it does not read: cut off.
_SEND_WINDOW_MAX: Final = 1 << 30  # Credit that a peer may heap up.
_WATCH_S: Final = 15.0  # Between looks at a connection; two without a byte and an unanswered ping mean that it is dead.

_HEAD = struct.Struct("!BBHII")
_DATA, _WINDOW, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8

CONNECTION_ERRORS: Final = (
    IOException,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    NoiseInvalidMessage,
    NoiseMaxNonceError,
)
"""What reading or writing an encrypted connection may raise because of the peer or the line."""


class _ProtocolBreak(Exception):
    """The peer broke the rules of yamux; the connection ends, the text goes to the log."""


class YamuxStream(IMuxedStream):
    """One stream. One task may read while another writes."""

    def __init__(self, conn: Yamux, stream_id: int) -> None:
        self.muxed_conn: Yamux = conn
        self.stream_id = stream_id
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._window_bytes = WINDOW_BYTES  # what we let the peer have on its way
        self._credit_bytes = WINDOW_BYTES  # how much of it the peer has left
        self._send_window_bytes = WINDOW_BYTES
        self._peer_done = self._self_done = self._is_reset = False
        self._readers, self._writers = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte and at most `n` (None or -1: all there is).

        Raises: MuxedStreamEOF: the peer has finished. MuxedStreamReset: the stream or its connection broke.
        """
        while not self._inbox:
            if self._is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._peer_done:
                raise MuxedStreamEOF("the peer has finished this stream")
            await self._readers.park()
        limit = self._inbox_bytes if n is None or n < 0 else n
        if limit >= self._inbox_bytes:
            content = self._inbox[0] if len(self._inbox) == 1 else b"".join(self._inbox)
            self._inbox.clear()
        elif limit < len(self._inbox[0]):
            content, self._inbox[0] = self._inbox[0][:limit], self._inbox[0][limit:]
        else:
            content = self._inbox.popleft()
        self._inbox_bytes -= len(content)
        self._give_credit()
        return content

    async def write(self, data: bytes) -> None:
        """Hand `data` to the connection; returns when it is queued. A cancelled write may have sent a part.

        Raises: MuxedStreamReset, MuxedStreamError: the stream is over.
        """
        view = memoryview(data)
        while view:
            await self.muxed_conn.wait_for_room()
            while self._send_window_bytes <= 0 and not (self._is_reset or self._self_done):
                await self._writers.park()
            if self._is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._self_done:
                raise MuxedStreamError("the stream is closed for writing")
            size_bytes = min(len(view), self._send_window_bytes, _PAYLOAD_MAX)
            self._send_window_bytes -= size_bytes
            self.muxed_conn.queue(_DATA, 0, self.stream_id, size_bytes, view[:size_bytes])
            view = view[size_bytes:]

    def widen(self, window_bytes: int) -> None:
        """Let the peer send this much ahead of the reader, for long lines."""
        more_bytes = min(window_bytes, WINDOW_BYTES_MAX) - self._window_bytes
        if more_bytes > 0 and not self._peer_done:
            self._window_bytes += more_bytes
            self._credit_bytes += more_bytes
            self.muxed_conn.queue(_WINDOW, 0, self.stream_id, more_bytes)

    async def close(self) -> None:
        """Say that nothing more will be written; the peer may still write."""
        await trio.lowlevel.checkpoint()
        if not (self._self_done or self._is_reset):
            self._self_done = True
            self.muxed_conn.queue(_WINDOW, _FIN, self.stream_id, 0)
            self._writers.unpark_all()
            if self._peer_done:
                self.muxed_conn.forget(self)

    async def reset(self) -> None:
        """Drop the stream in both directions."""
        await trio.lowlevel.checkpoint()
        self.reset_now()

    def reset_now(self) -> None:
        if not self._is_reset:
            self.muxed_conn.queue(_WINDOW, _RST, self.stream_id, 0)
        self.break_off()
        self.muxed_conn.forget(self)

    def finish(self) -> None:
        """Say that nothing more will be written, and read nothing more; what was written still arrives."""
        if not (self._self_done or self._is_reset):
            self._self_done = True
            self.muxed_conn.queue(_WINDOW, _FIN, self.stream_id, 0)
        self.break_off()
        self.muxed_conn.forget(self)

    def break_off(self) -> None:
        """The stream is over without anything said to the peer; what was not read is dropped."""
        self._is_reset = True
        self._inbox.clear()
        self._inbox_bytes = 0
        self._readers.unpark_all()
        self._writers.unpark_all()

    def handle_data(self, content: bytes) -> None:
        self._credit_bytes -= len(content)
        if self._credit_bytes < 0:
            raise _ProtocolBreak(f"more bytes on stream {self.stream_id} than its window allows")
        if content and not self._peer_done and not self._is_reset:
            self._inbox.append(content)
            self._inbox_bytes += len(content)
            self._readers.unpark_all()

    def handle_flags(self, flags: int) -> None:
        if flags & _RST:
            self.break_off()
            self.muxed_conn.forget(self)
        elif flags & _FIN:
            self._peer_done = True
            self._readers.unpark_all()
            if self._self_done:
                self.muxed_conn.forget(self)

    def handle_credit(self, size_bytes: int) -> None:
        self._send_window_bytes = min(self._send_window_bytes + size_bytes, _SEND_WINDOW_MAX)
        self._writers.unpark_all()

    def _give_credit(self) -> None:
        used_bytes = self._window_bytes - self._inbox_bytes - self._credit_bytes
        if used_bytes * 2 >= self._window_bytes and not self._peer_done and not self._is_reset:
            self._credit_bytes += used_bytes
            self.muxed_conn.queue(_WINDOW, 0, self.stream_id, used_bytes)

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("cancel scopes bound the time of a read or write")

    async def __aenter__(self) -> YamuxStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class Yamux(IMuxedConn):
    """One connection. `start` runs it until either side ends it; everything else may be called from any task."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.on_close: Callable[[], Awaitable[Any]] | None = None  # set by the swarm
        self.event_started, self.event_closed = trio.Event(), trio.Event()
        self._scope = trio.CancelScope()
        self._streams: dict[int, YamuxStream] = {}
        self._next_id = 1 if conn.is_initiator else 2
        self._accepted_send, self._accepted = trio.open_memory_channel[YamuxStream](STREAMS_MAX)
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._writer, self._room = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._received_bytes = self._sent_bytes = 0

    @property
    def is_initiator(self) -> bool:
        return bool(self.secured_conn.is_initiator)

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
        except* CONNECTION_ERRORS as group:
            logger.debug("connection to %s ended: %r", self.peer_id, group.exceptions[0])
        except* _ProtocolBreak as group:
            logger.warning("connection to %s cut off: %s", self.peer_id, group.exceptions[0])
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
        self.queue(_WINDOW, _SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
        try:
            return await self._accepted.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise MuxedConnUnavailable("the connection has ended") from error

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    # --- for the streams ----------------------------------------------------------------------------------------

    def queue(self, kind: int, flags: int, stream_id: int, length: int, payload: memoryview | bytes = b"") -> None:
        """Put one frame into the outbox: all of it or, after the end of the connection, nothing."""
        if self.is_closed or self._scope.cancel_called:
            return
        frame = b"".join((_HEAD.pack(0, kind, flags, stream_id, length), payload))
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        self._writer.unpark_all()

    async def wait_for_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._outbox_bytes > _OUTBOX_BYTES and not self.is_closed:
            await self._room.park()

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
            while self._outbox and size_bytes + len(self._outbox[0]) <= _PAYLOAD_MAX + _HEAD.size:
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
            message = await self.secured_conn.read()
            self._received_bytes += len(message)
            at = 0
            while at < len(message):
                if left:
                    piece = message[at : at + left]
                    at, left = at + len(piece), left - len(piece)
                    if stream is not None:
                        stream.handle_data(piece)
                        if not left:
                            stream.handle_flags(flags)
                    continue
                part = message[at : at + _HEAD.size - len(head)]
                head += part
                at += len(part)
                if len(head) == _HEAD.size:
                    version, kind, flags, stream_id, length = _HEAD.unpack(head)
                    head.clear()
                    if version != 0 or kind > _GO_AWAY:
                        raise _ProtocolBreak(f"a frame of version {version} and type {kind}")
                    if kind == _GO_AWAY:
                        return
                    stream = self._handle_head(kind, flags, stream_id, length)
                    left = length if kind == _DATA else 0
            if self._outbox_bytes > _OUTBOX_BYTES_MAX:
                raise _ProtocolBreak("the peer asks for answers and does not read them")

    def _handle_head(self, kind: int, flags: int, stream_id: int, length: int) -> YamuxStream | None:
        if kind == _PING:
            if flags & _SYN:
                self.queue(_PING, _ACK, 0, length)
            return None
        stream = self._handle_new(stream_id) if flags & _SYN else self._streams.get(stream_id)
        if stream is None:
            return None  # of a stream that was reset here: its last frames are on their way and are skipped
        if kind == _DATA and length > WINDOW_BYTES_MAX:
            raise _ProtocolBreak(f"a frame of {length} bytes")
        if kind == _WINDOW:
            stream.handle_credit(length)
        if kind == _WINDOW or length == 0:
            stream.handle_flags(flags)
        return stream

    def _handle_new(self, stream_id: int) -> YamuxStream | None:
        if stream_id == 0 or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise _ProtocolBreak(f"a new stream with the number {stream_id}")
        theirs = sum(1 for number in self._streams if number % 2 != self._next_id % 2)
        stream = YamuxStream(self, stream_id)
        try:
            if theirs >= STREAMS_MAX:
                raise trio.WouldBlock
            self._accepted_send.send_nowait(stream)
        except trio.WouldBlock:
            self.queue(_WINDOW, _RST, stream_id, 0)
            return None
        self._streams[stream_id] = stream
        self.queue(_WINDOW, _ACK, stream_id, 0)
        return stream

    async def _watch(self) -> None:
        silent = 0
        while True:
            received_bytes, sent_bytes, waiting = self._received_bytes, self._sent_bytes, bool(self._outbox_bytes)
            await trio.sleep(_WATCH_S)
            if waiting and self._sent_bytes == sent_bytes:
                raise _ProtocolBreak(f"nothing could be sent for {_WATCH_S:.0f} s")
            silent = 0 if self._received_bytes != received_bytes else silent + 1
            if silent == 1:
                self.queue(_PING, _SYN, 0, 0)
            elif silent > 2:
                raise _ProtocolBreak(f"nothing was heard for {_WATCH_S * silent:.0f} s")

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
