"""Direct messages, `/learnae/sync/1`: one long-lived stream per direction, each message behind its length.

A frame is a length of 4 bytes, big-endian, and the message. Who sends is known from the connection. What arrives waits in
the stream's window until the node reads it, so a peer that sends faster than it may only slows itself down.
Nothing is acknowledged: `send` says that the message was handed to the connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from libp2p.abc import INetStream

from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream
from learnae.ids import PeerId
from learnae.ports import DIRECT_BYTES_MAX

PROTOCOL: Final = "/learnae/sync/1"
SEND_S: Final = 5.0  # "a few seconds": dialling included
FRAME_S: Final = 30.0  # A frame that takes longer to arrive comes from a slow drip: a megabyte at 35 kB/s would make it.
RATE_BYTES_S: Final = 8 << 20  # Per peer; a sync of 256 vertices of 4 KiB is one megabyte.
BURST_BYTES: Final = 32 << 20  # A peer that comes back after a day may catch up at full speed for this much.
STRANGER_BURST_BYTES: Final = 1 << 20  # Of who comes for the first time: identities cost nothing.
MESSAGE_COST_BYTES: Final = 262144  # A message counts this much more than its bytes: 32 a second, however small they are.
PEERS_MAX: Final = 1024  # Whose budgets are kept while they are away.
_INBOUND_MAX: Final = 2  # A peer needs one; the second is there while it replaces the first.


class FrameError(Exception):
    """A peer sent a frame that is not allowed; its stream ends and it loses score."""


class ByteBudget:
    """A token bucket in bytes: `spend` waits until the peer may go on."""

    def __init__(self, rate_bytes_s: float = RATE_BYTES_S, burst_bytes: float = BURST_BYTES, *, first_bytes: float | None = None) -> None:
        self._rate, self._burst = rate_bytes_s, burst_bytes
        self._left, self._at_s = burst_bytes if first_bytes is None else first_bytes, trio.current_time()

    async def spend(self, size_bytes: int) -> None:
        now_s = trio.current_time()
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate) - size_bytes
        self._at_s = now_s
        if self._left < 0:
            await trio.sleep(-self._left / self._rate)


class PeerBudgets:
    """A budget for each peer, kept while it is away, so that coming back brings no new burst; strangers begin with little."""

    def __init__(self, host: Host, *, rate_bytes_s: float, burst_bytes: float, stranger_bytes: float) -> None:
        self._host, self._rate, self._burst, self._stranger = host, rate_bytes_s, burst_bytes, stranger_bytes
        self._budgets: OrderedDict[PeerId, ByteBudget] = OrderedDict()
        self._strangers = ByteBudget(rate_bytes_s, burst_bytes)

    async def spend(self, peer: PeerId, size_bytes: int) -> None:
        """Wait until a peer may go on; where the members are known, a stranger waits for what all strangers together may do."""
        await self.of(peer).spend(size_bytes)
        if self._host.members and peer not in self._host.members:
            await self._strangers.spend(size_bytes)

    def of(self, peer: PeerId) -> ByteBudget:
        budget = self._budgets.get(peer)
        if budget is None:
            first_bytes = self._burst if peer in self._host.members else self._stranger
            budget = self._budgets[peer] = ByteBudget(self._rate, self._burst, first_bytes=first_bytes)
        self._budgets.move_to_end(peer)
        if len(self._budgets) > PEERS_MAX:
            self._budgets.popitem(last=False)
        return budget


async def read_exactly(stream: INetStream, size_bytes: int) -> bytes:
    """Raises: one of STREAM_ERRORS: the stream ended first."""
    content = await stream.read(size_bytes) if size_bytes else b""
    if len(content) == size_bytes:
        return content
    parts = [content]
    left = size_bytes - len(content)
    while left:
        parts.append(await stream.read(left))
        left -= len(parts[-1])
    return b"".join(parts)


async def read_varint(stream: INetStream) -> int:
    """The length before a message, as other libp2p programs write it; larger than any message if it is longer than 32 bits.

    Raises: one of STREAM_ERRORS: the stream ended first.
    """
    value = shift = 0
    while shift <= 28:
        byte = (await read_exactly(stream, 1))[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
    return 1 << 35


class DirectMessages:
    """Sends to and receives from all connected peers."""

    def __init__(self, host: Host, deliver: Callable[[PeerId, bytes], Awaitable[None]], blame: Callable[[PeerId, str], None]) -> None:
        self._host, self._deliver, self._blame = host, deliver, blame
        self._outgoing: dict[PeerId, INetStream] = {}
        self._locks: dict[PeerId, trio.Lock] = {}
        self._incoming: dict[PeerId, int] = {}
        self._budgets = PeerBudgets(host, rate_bytes_s=RATE_BYTES_S, burst_bytes=BURST_BYTES, stranger_bytes=STRANGER_BURST_BYTES)
        host.handle_streams(PROTOCOL, self._receive)

    async def send(self, peer: PeerId, content: bytes) -> bool:
        """Whether `content` was handed to a connection with `peer` within a few seconds."""
        assert len(content) <= DIRECT_BYTES_MAX, "the core splits pages"
        lock = self._locks.setdefault(peer, trio.Lock())
        with trio.move_on_after(SEND_S):
            async with lock:
                for _ in range(2):  # a stream from before the connection was lost fails once
                    if not await self._host.reach(peer):
                        break
                    if await self._send_on(peer, content):
                        return True
        return False

    async def _send_on(self, peer: PeerId, content: bytes) -> bool:
        stream: INetStream | None = None
        try:
            stream = self._outgoing.pop(peer, None) or await self._host.open_stream(peer, [PROTOCOL])
            await stream.write(len(content).to_bytes(4, "big") + content)
        except (trio.Cancelled, *STREAM_ERRORS) as error:
            if stream is not None:
                drop_stream(stream)  # half a frame may be out
            if isinstance(error, trio.Cancelled):
                raise
            return False
        self._outgoing[peer] = stream
        return True

    def forget(self, peer: PeerId) -> None:
        """The last connection with `peer` is gone."""
        self._outgoing.pop(peer, None)
        lock = self._locks.get(peer)
        if lock is not None and not lock.locked():
            del self._locks[peer]

    async def _receive(self, peer: PeerId, stream: INetStream) -> None:
        if self._incoming.get(peer, 0) >= _INBOUND_MAX:
            return
        self._incoming[peer] = self._incoming.get(peer, 0) + 1
        try:
            while True:
                content = await self._read_frame(stream)
                await self._budgets.spend(peer, len(content) + MESSAGE_COST_BYTES)
                await self._deliver(peer, content)
        except FrameError as error:
            self._blame(peer, str(error))
        finally:
            self._incoming[peer] -= 1
            if not self._incoming[peer]:
                del self._incoming[peer]

    async def _read_frame(self, stream: INetStream) -> bytes:
        head = await stream.read(4)
        with trio.move_on_after(FRAME_S):
            head += await read_exactly(stream, 4 - len(head))
            size_bytes = int.from_bytes(head, "big")
            if size_bytes > DIRECT_BYTES_MAX:
                raise FrameError(f"a direct message of {size_bytes} bytes, at most {DIRECT_BYTES_MAX} are allowed")
            return await read_exactly(stream, size_bytes)
        raise FrameError(f"a direct message was not complete after {FRAME_S:.0f} s")
