"""A bad line between two processes: a TCP proxy on loopback that behaves as TCP does over a link with delay, loss and little bandwidth.

A proxy passes a stream of bytes and can lose none of them: what a lossy link does to TCP is that bytes come late and few. So each
direction of a connection is carried by a model of a TCP sender: segments of 1,448 bytes, each lost with the same chance; a window that
starts at 10 segments, doubles each round trip, grows by one after a loss, is cut to 0.7 by a loss that three later segments reveal
(repaired one round trip later) and to one segment by any other (repaired after a time-out of a round trip plus 200 ms, doubled
while the repair is lost too). What follows a lost segment waits for it, as in TCP.

Modelled besides: delay and jitter each way, a bottleneck with 50 ms of queue, a line that goes silent without a word (half-open), one
that breaks with a reset, and single bits that flip. Not modelled: loss of acknowledgements, bursts of loss, probes of the tail and new
segments during a repair (both help real senders a little), the time and loss of the handshake of TCP itself, and several
connections that share one line: each has the line for itself.

Time is trio's, so a test may let it run faster: `trio.testing.MockClock(rate=20)`.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

SEGMENT_BYTES: Final = 1448
_WINDOW_FIRST: Final = 10.0
_WINDOW_MAX: Final = 4096.0  # 6 MB, what Linux allows a receiver by default.
_RTO_MORE_S: Final = 0.2
_RTO_MAX_S: Final = 120.0
_QUEUE_S: Final = 0.05
_SOCKET_BYTES: Final = 65536  # What the machine's own buffers hide from the model.


@dataclass(slots=True)
class Line:
    """What a link is like, each way; may be changed while it is used."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # more than `delay_s` at most
    loss: float = 0.0  # chance of a segment
    bandwidth_bytes_s: float = math.inf


class _Sender:
    """One direction: what TCP would do with the bytes that wait in `source`."""

    def __init__(self, link: LossyLink, source: trio.SocketStream, sink: trio.SocketStream, *, is_answer: bool) -> None:
        self._link, self._source, self._sink, self._is_answer = link, source, sink, is_answer
        self._window, self._threshold = _WINDOW_FIRST, _WINDOW_MAX
        self._acks: deque[tuple[float, int]] = deque()  # when, segments
        self._flying = 0  # segments
        self._busy_s = 0.0  # the bottleneck, until
        self._out_send, self._out = trio.open_memory_channel[tuple[float, bytes]](math.inf)  # bounded by the window

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            with self._out_send:
                while content := await self._source.receive_some(max(1, int(self._window) - self._flying) * SEGMENT_BYTES):
                    await self._link.wait_until_open()
                    await self._send(content)
                    while self._acks and (self._acks[0][0] <= trio.current_time() or self._flying >= int(self._window)):
                        await self._take_ack()
                    await trio.sleep_until(self._busy_s - _QUEUE_S)

    async def _take_ack(self) -> None:
        at_s, count = self._acks.popleft()
        await trio.sleep_until(at_s)
        self._flying -= count
        for _ in range(count):
            self._window += 1.0 if self._window < self._threshold else 1.0 / self._window
        self._window = min(self._window, _WINDOW_MAX)

    async def _send(self, content: bytes) -> None:
        """One burst: delivered after the delay, or after the repair of what it lost."""
        line, rng = self._link.line, self._link.rng
        count = -(-len(content) // SEGMENT_BYTES)
        now_s = trio.current_time()
        self._busy_s = max(self._busy_s, now_s) + len(content) / line.bandwidth_bytes_s
        arrival_s = self._busy_s + line.delay_s + rng.uniform(0.0, line.jitter_s)
        lost = [number for number in range(count) if rng.random() < line.loss]
        if not lost:
            self._out_send.send_nowait((arrival_s, content))
            self._acks.append((arrival_s + line.delay_s, count))
            self._flying += count
            return
        whole = lost[0] * SEGMENT_BYTES
        if whole:
            self._out_send.send_nowait((arrival_s, content[:whole]))
        repaired_s = self._repair(arrival_s - line.delay_s, len(lost), later=count - lost[0] - len(lost))
        self._out_send.send_nowait((repaired_s + line.delay_s, content[whole:]))
        self._acks.clear()
        self._flying = 0
        await trio.sleep_until(repaired_s + 2 * line.delay_s)

    def _repair(self, sent_s: float, lost: int, *, later: int) -> float:
        """When the last of `lost` segments was sent so that it arrives, if they were sent first at `sent_s`."""
        line, rng = self._link.line, self._link.rng
        trip_s = 2 * line.delay_s + line.jitter_s
        timeout_s = trip_s + _RTO_MORE_S
        self._threshold = max(2.0, 0.7 * self._window)
        if later >= 3:
            sent_s += trip_s
            self._window = self._threshold
            lost = sum(rng.random() < line.loss for _ in range(lost))
        while lost:  # time-outs: the window is one segment, and doubles with each round trip that brings something
            sent_s += timeout_s
            self._window = 1.0
            if rng.random() < line.loss:
                timeout_s = min(2 * timeout_s, _RTO_MAX_S)
                continue
            lost -= 1
            timeout_s = trip_s + _RTO_MORE_S
            while lost:
                sent_s += trip_s
                self._window = min(2 * self._window, self._threshold)
                tried = min(lost, int(self._window))
                arrived = sum(rng.random() >= line.loss for _ in range(tried))
                lost -= arrived
                if arrived < tried:
                    break
        return sent_s

    async def _deliver(self) -> None:
        async for arrival_s, content in self._out:
            await trio.sleep_until(arrival_s)
            await self._link.wait_until_open()
            await self._sink.send_all(self._link.pass_on(content, is_answer=self._is_answer))
        await self._sink.send_eof()


class LossyLink:
    """A bad line to one port of this machine; made by `open_lossy_link`. Dial `port` instead."""

    def __init__(self, target: int, line: Line, rng: Random) -> None:
        self.line, self.rng = line, rng
        self.port = 0
        self.answered_bytes = 0  # carried from the target to whoever dialled
        self._target = target
        self._flip = False
        self._open = trio.Event()
        self._open.set()
        self._scopes: set[trio.CancelScope] = set()

    def freeze(self) -> None:
        """From now on nothing passes, and nobody is told."""
        if self._open.is_set():
            self._open = trio.Event()

    def thaw(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Break all connections; both ends are told. New ones may be made."""
        for scope in self._scopes:
            scope.cancel()

    def flip_bit(self) -> None:
        """Change one bit of the next bytes that the target answers."""
        self._flip = True

    async def wait_until_open(self) -> None:
        await self._open.wait()

    def pass_on(self, content: bytes, *, is_answer: bool) -> bytes:
        if not is_answer:
            return content
        self.answered_bytes += len(content)
        if self._flip:
            self._flip = False
            place = self.rng.randrange(len(content))
            content = content[:place] + bytes((content[place] ^ 1 << self.rng.randrange(8),)) + content[place + 1 :]
        return content

    async def serve(self, near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with near, await trio.open_tcp_stream("127.0.0.1", self._target) as far:
                    for stream in (near, far):
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed means reset
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_Sender(self, near, far, is_answer=False).run)
                        nursery.start_soon(_Sender(self, far, near, is_answer=True).run)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # either end broke the connection: so does the line
            finally:
                self._scopes.discard(scope)


@asynccontextmanager
async def open_lossy_link(target: int, line: Line, *, seed: int = 1) -> AsyncIterator[LossyLink]:
    """A line to the TCP port `target` of 127.0.0.1, until the block is left; the same seed loses the same segments."""
    link = LossyLink(target, line, Random(seed))
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        link.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, link.serve, listeners)
        yield link
        nursery.cancel_scope.cancel()
