"""One yamux stream: what arrived and was not read, what may still be sent, and how it ends.

Source: hashicorp/yamux spec.md, version 0. The connection around it is `libp2p_yamux`.
"""

from __future__ import annotations

import struct
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

if TYPE_CHECKING:
    from learnae.backends.libp2p_yamux import Yamux

WINDOW_BYTES: Final = 262144  # The spec's first window: what a peer may send on a stream before anyone reads it.
WINDOW_BYTES_MAX: Final = 4 << 20  # A stream that we opened to fetch blocks may be given this much: 100 ms at 40 MB/s.
SEND_WINDOW_MAX: Final = 1 << 30  # Credit that a peer may heap up.
PAYLOAD_MAX: Final = 65519 - 12  # One frame with its head fills one Noise message exactly.

HEAD: Final = struct.Struct("!BBHII")
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class ProtocolBreak(Exception):
    """The peer broke the rules of yamux; the connection ends, the text goes to the log."""


class YamuxStream(IMuxedStream):
    """One stream. One task may read while another writes."""

    def __init__(self, conn: Yamux, stream_id: int) -> None:
        self.muxed_conn: Yamux = conn
        self.stream_id = stream_id
        self._inbox: deque[memoryview] = deque()  # views, so that small reads do not copy what stays
        self._inbox_bytes = 0
        self._window_bytes = WINDOW_BYTES  # what we let the peer have on its way
        self._credit_bytes = WINDOW_BYTES  # how much of it the peer has left
        self._send_window_bytes = WINDOW_BYTES
        self.arrived_bytes = 0  # in all
        self._wanted_bytes = 1  # a reader waits for
        self._peer_done = self._self_done = self._is_reset = False
        self._readers, self._writers = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte and at most `n` (None or -1: all there is).

        Raises: MuxedStreamEOF: the peer has finished. MuxedStreamReset: the stream or its connection broke.
        """
        await self._wait_for(1)
        return self._take(self._inbox_bytes if n is None or n < 0 else n)

    async def read_whole(self, size_bytes: int) -> bytes:
        """Exactly so many bytes, at most half of the window. Wakes its task once; cancelled, it has read nothing.

        Raises: as `read`, also if the peer finished before.
        """
        assert size_bytes * 2 <= self._window_bytes, "what the window does not let in never arrives"
        await self._wait_for(size_bytes)
        parts: list[bytes] = []
        while size_bytes:
            parts.append(self._take(size_bytes))
            size_bytes -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait_for(self, size_bytes: int) -> None:
        while self._inbox_bytes < size_bytes:
            if self._is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._peer_done:
                raise MuxedStreamEOF("the peer has finished this stream")
            self._wanted_bytes = size_bytes
            await self._readers.park()

    def _take(self, limit: int) -> bytes:
        """What there is, up to `limit` bytes; it is not empty."""
        if limit >= self._inbox_bytes:
            content = b"".join(self._inbox)
            self._inbox.clear()
        elif limit < len(self._inbox[0]):
            content, self._inbox[0] = bytes(self._inbox[0][:limit]), self._inbox[0][limit:]
        else:
            content = bytes(self._inbox.popleft())
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
            size_bytes = min(len(view), self._send_window_bytes, PAYLOAD_MAX)
            self._send_window_bytes -= size_bytes
            self.muxed_conn.queue(DATA, 0, self.stream_id, size_bytes, view[:size_bytes])
            view = view[size_bytes:]

    def widen(self, window_bytes: int) -> None:
        """Let the peer send this much ahead of the reader, for long lines."""
        more_bytes = min(window_bytes, WINDOW_BYTES_MAX) - self._window_bytes
        if more_bytes > 0 and not self._peer_done:
            self._window_bytes += more_bytes
            self._credit_bytes += more_bytes
            self.muxed_conn.queue(WINDOW, 0, self.stream_id, more_bytes)

    async def close(self) -> None:
        """Say that nothing more will be written; the peer may still write."""
        await trio.lowlevel.checkpoint()
        if not (self._self_done or self._is_reset):
            self._self_done = True
            self.muxed_conn.queue(WINDOW, FIN, self.stream_id, 0)
            self._writers.unpark_all()
            if self._peer_done:
                self.muxed_conn.forget(self)

    async def reset(self) -> None:
        """Drop the stream in both directions."""
        await trio.lowlevel.checkpoint()
        self.reset_now()

    def reset_now(self) -> None:
        if not self._is_reset:
            self.muxed_conn.queue(WINDOW, RST, self.stream_id, 0)
        self.break_off()
        self.muxed_conn.forget(self)

    def finish(self) -> None:
        """Say that nothing more will be written, and read nothing more; what was written still arrives."""
        if not (self._self_done or self._is_reset):
            self._self_done = True
            self.muxed_conn.queue(WINDOW, FIN, self.stream_id, 0)
        self.break_off()
        self.muxed_conn.forget(self)

    def break_off(self) -> None:
        """The stream is over without anything said to the peer; what was not read is dropped."""
        self._is_reset = True
        self._inbox.clear()
        self._inbox_bytes = 0
        self._readers.unpark_all()
        self._writers.unpark_all()

    def handle_data(self, content: memoryview) -> None:
        self._credit_bytes -= len(content)
        if self._credit_bytes < 0:
            raise ProtocolBreak(f"more bytes on stream {self.stream_id} than its window allows")
        if content and not self._peer_done and not self._is_reset:
            self._inbox.append(content)
            self._inbox_bytes += len(content)
            self.arrived_bytes += len(content)
            if self._inbox_bytes >= self._wanted_bytes:
                self._readers.unpark_all()

    @property
    def is_open(self) -> bool:
        """Whether both sides may still write."""
        return not (self._is_reset or self._peer_done or self._self_done)

    def handle_flags(self, flags: int) -> None:
        if flags & RST:
            self.break_off()
            self.muxed_conn.forget(self)
        elif flags & FIN:
            self._peer_done = True
            self._readers.unpark_all()
            if self._self_done:
                self.muxed_conn.forget(self)

    def handle_credit(self, size_bytes: int) -> None:
        self._send_window_bytes = min(self._send_window_bytes + size_bytes, SEND_WINDOW_MAX)
        self._writers.unpark_all()

    def _give_credit(self) -> None:
        used_bytes = self._window_bytes - self._inbox_bytes - self._credit_bytes
        if used_bytes * 2 >= self._window_bytes and not self._peer_done and not self._is_reset:
            self._credit_bytes += used_bytes
            self.muxed_conn.queue(WINDOW, 0, self.stream_id, used_bytes)

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("cancel scopes bound the time of a read or write")

    async def __aenter__(self) -> YamuxStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
