"""Fetching a file from several providers at once: bounded, verified block by block, never waiting for a provider that stalls.

What is wanted of whom is decided by `fetch_plan`. Here each provider gets a stream and a task that asks for a window of
blocks ahead of what arrives (`libp2p_lines`). A provider that breaks the connection, lacks blocks, or sends bytes that are not
what was asked loses its blocks to the others. What a provider that is silent for 2 s owes may be had from the others too, and
the last blocks of a slow one from an idle one. Whether a silent provider or the line is at fault tells a ping: an answer to it
arrives behind all that was sent before, so who answers and still sends nothing is left; a line that loses much is waited for.
What was verified is kept even if the fetch fails, so the next try goes on from there. How long it may take in all is the
caller's decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio
from libp2p.abc import INetStream

from learnae.backends.bare_errors import find_first
from learnae.backends.bitswap_messages import PROTOCOLS as BITSWAP
from learnae.backends.fetch_plan import HEDGE_S, FetchPlan, Need
from learnae.backends.idle_clock import IdleClock
from learnae.backends.libp2p_bitswap import Bitswap
from learnae.backends.libp2p_blocks import PROTOCOL
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of
from learnae.backends.libp2p_lines import BitswapLine, Lied, Line, OwnLine
from learnae.backends.libp2p_yamux_stream import WINDOW_BYTES_MAX
from learnae.errors import FetchError, LearnaeError
from learnae.ids import Cid, PeerId, cid_text, compute_cid, short_name
from learnae.ports import BlockStore

STALL_S: Final = 2.0  # Without a byte: what the provider owes may be had from others, and it is asked whether it lives.
SILENT_S: Final = 30.0  # Without a byte nor an answer: the provider is left. Six time-outs of TCP, which double, take 25 s.
BLOCK_S: Final = 300.0  # For one block, however it drips: 0.9 kB/s is the slowest line that is waited for.
REACH_S: Final = 10.0
PROVIDERS_MAX: Final = 8  # Asked at the same time; a line is full with two or three.
AHEAD_BLOCKS: Final = 16  # Asked for ahead of what arrives: 4 MiB, the window of the stream.
AHEAD_FIRST: Final = 4  # At first, and one more for each block that came: a slow provider does not get what others could bring.
BATCH_BYTES: Final = 4 << 20  # Verified blocks that are stored together; while one batch is stored, two more at most fill.
ATTEMPTS_MAX: Final = 3  # Streams that brought nothing, per provider: a line with loss stalls now and then, a dead one always.


T = TypeVar("T")
Keep = Callable[[list[tuple[Cid, bytes]]], None]
"""Stores verified blocks."""


class _Stalled(Exception):
    """Nothing of use came from a provider for too long; `is_final` if another try would be no better."""

    def __init__(self, *, is_final: bool = False) -> None:
        self.is_final = is_final


class Fetcher:
    """Fetches files into a store."""

    def __init__(self, host: Host, blocks: BlockStore, blame: Callable[[PeerId, str], None], bitswap: Bitswap) -> None:
        self.host, self.blame, self.bitswap, self._blocks = host, blame, bitswap, blocks
        self.streams: dict[PeerId, INetStream] = {}  # on which nothing is asked

    async def fetch_file(self, cid: Cid, *, providers: Sequence[PeerId], bytes_max: int, public: bool = True) -> None:
        """See `Network.fetch_file`. Raises: FetchError; DiskFullError from the store."""
        peers = [peer for peer in dict.fromkeys(providers) if peer != self.host.peer_id]
        for peer in [peer for peer, stream in self.streams.items() if not muxed_stream_of(stream).is_open]:
            drop_stream(self.streams.pop(peer))
        with self._blocks.hold() as keep:
            plan = FetchPlan(cid, bytes_max, keep, self._blocks.get_block)
            job = _Job(self, partial(self._blocks.put_blocks, public=public, hashed=True, synced=False), plan)
            try:
                if not plan.is_done:
                    await job.run(peers)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(job.keep_rest)
        if plan.fault or not plan.is_done:
            reasons = plan.fault or "; ".join(job.reasons) or "no provider was named"
            raise FetchError(cid_text(cid), reasons)


class _Job:
    """One fetch: its tasks, what they verified and did not store yet, and why providers were left."""

    def __init__(self, fetcher: Fetcher, keep: Keep, plan: FetchPlan) -> None:
        self._host, self._blame, self._bitswap, self._streams = fetcher.host, fetcher.blame, fetcher.bitswap, fetcher.streams
        self._keep, self._plan = keep, plan
        self._batch: list[tuple[Cid, bytes]] = []
        self._batch_bytes = 0
        self._received: dict[PeerId, int] = {}  # blocks, by who sent them
        self._received_bytes = 0
        self._clock = IdleClock()
        self._left = trio.lowlevel.ParkingLot()  # somebody who was asked
        self._asked = 0  # providers
        self._is_storing = False
        self._stored = trio.lowlevel.ParkingLot()  # a batch
        self._moved = trio.lowlevel.ParkingLot()  # something arrived or was given back
        self.reasons: list[str] = []

    async def run(self, peers: list[PeerId]) -> None:
        fault: LearnaeError | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                with self._clock.run():
                    await self._ask_as_needed(peers)
        except* LearnaeError as group:
            fault = find_first(group)
        if fault is not None:
            raise fault

    async def _ask_as_needed(self, peers: list[PeerId]) -> None:
        need = Need()
        held = deque(peers)
        while held:
            for _ in range(min(max(1, self._asked), PROVIDERS_MAX - self._asked, len(held))):
                self._asked += 1
                self._nursery.start_soon(self._work, held.popleft())
            while held and self._asked and (pause_s := need.compute_pause_s(self._clock.read(), self._received_bytes)):
                with trio.move_on_after(pause_s):
                    await self._left.park()

    def keep_rest(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._keep(batch)

    async def _work(self, peer: PeerId) -> None:
        reason = "it could not be reached"
        failures = 0
        while failures < ATTEMPTS_MAX and not self._plan.is_done:
            with trio.move_on_after(REACH_S):
                if not await self._host.reach(peer):
                    break
            received = self._received.get(peer, 0)
            try:
                reason = await self._work_once(peer)
                break
            except Lied as error:
                reason = f"it sent {error}"
                self._blame(peer, str(error))
                break
            except _Stalled as error:
                reason = "it stalled"
                if error.is_final:
                    break
            except STREAM_ERRORS as error:
                reason = f"the connection broke ({error})" if str(error) else "the connection broke"
            finally:
                self._plan.handle_lost(peer)
                self._moved.unpark_all()
            failures = 1 if self._received.get(peer, 0) > received else failures + 1
        self.reasons.append(f"{short_name(peer)}: {reason}")
        self._asked -= 1
        self._left.unpark_all()

    async def _work_once(self, peer: PeerId) -> str:
        """Ask until the plan is done or this provider is of no more use; why, in words."""
        stream = await self._take_stream(peer)
        if stream.get_protocol() != PROTOCOL:
            return await self._work_by_bitswap(peer, stream)
        line = OwnLine(stream)
        try:
            return await self._ask(peer, stream, line)
        finally:
            if line.pending or not muxed_stream_of(stream).is_open or peer in self._streams:
                drop_stream(stream)
            else:
                self._streams[peer] = stream  # between two requests: the next fetch goes on with it

    async def _work_by_bitswap(self, peer: PeerId, stream: INetStream) -> str:
        try:
            with self._bitswap.open_answers(peer) as answers:
                line = BitswapLine(stream, answers)
                try:
                    return await self._ask(peer, stream, line)
                finally:
                    await line.cancel()
        finally:
            drop_stream(stream)

    async def _take_stream(self, peer: PeerId) -> INetStream:
        """One that an earlier fetch left, or a new one. Raises: _Stalled."""
        left = self._streams.pop(peer, None)
        if left is not None:
            if muxed_stream_of(left).is_open:
                return left
            drop_stream(left)
        with trio.move_on_after(SILENT_S) as opening:  # nothing is owed meanwhile
            stream = await self._host.open_stream(peer, [PROTOCOL, *BITSWAP])
        if opening.cancelled_caught:
            raise _Stalled(is_final=True)
        if stream.get_protocol() == PROTOCOL:
            muxed_stream_of(stream).widen(WINDOW_BYTES_MAX)
        return stream

    async def _ask(self, peer: PeerId, stream: INetStream, line: Line) -> str:
        ahead = AHEAD_FIRST
        while not self._plan.is_done:
            if line.pending <= ahead // 2:
                more = self._plan.take(peer, ahead - line.pending, trio.current_time(), is_idle=not line.pending)
                if more:
                    await line.ask(more)
            if not line.pending:
                if not self._plan.may_bring(peer):
                    return "it does not have all blocks"
                with trio.move_on_after(HEDGE_S):
                    await self._moved.park()
                continue
            cid, block = await self._receive(peer, stream, line)
            ahead = min(ahead + 1, AHEAD_BLOCKS)
            if block is None:
                self._plan.handle_absent(peer, cid)
            else:
                await self._take_in(cid, block)
                self._received[peer] = self._received.get(peer, 0) + 1
            self._moved.unpark_all()
        self._nursery.cancel_scope.cancel()
        return ""

    async def _receive(self, peer: PeerId, stream: INetStream, line: Line) -> tuple[Cid, bytes | None]:
        """One block, or None if the provider has none to give. Raises: _Stalled, Lied."""
        whole_s = trio.current_time() + BLOCK_S

        async def wait(read: Callable[[], Awaitable[T]]) -> T:
            return await self._wait(peer, stream, read, whole_s)

        return await line.receive(wait)

    async def _wait(self, peer: PeerId, stream: INetStream, read: Callable[[], Awaitable[T]], whole_s: float) -> T:
        """What `read` gives. Raises: _Stalled."""
        now_s = heard_s = trio.current_time()
        muxed = muxed_stream_of(stream)
        arrived_bytes = muxed.arrived_bytes
        pong: trio.Event | None = None
        while now_s < whole_s:
            with trio.move_on_after(STALL_S) as silence:
                found = await read()
            if not silence.cancelled_caught:
                return found
            now_s = trio.current_time()
            if muxed.arrived_bytes != arrived_bytes:  # a part
                arrived_bytes, heard_s, pong = muxed.arrived_bytes, now_s, None
                continue
            if pong is not None and pong.is_set():
                raise _Stalled(is_final=False)
            if now_s - heard_s >= SILENT_S:
                break
            if pong is None:
                pong = muxed.muxed_conn.ping()
            self._plan.handle_late(peer)
            self._moved.unpark_all()
        raise _Stalled(is_final=True)

    async def _take_in(self, cid: Cid, block: bytes) -> None:
        if compute_cid(block, cid[1]) != cid:
            raise Lied("bytes that are not the block asked for")
        self._received_bytes += len(block)
        if self._plan.handle_block(cid, block):
            self._batch.append((cid, block))
            self._batch_bytes += len(block)
            if self._batch_bytes >= BATCH_BYTES and not self._is_storing:
                batch, self._batch, self._batch_bytes = self._batch, [], 0
                self._is_storing = True
                self._nursery.start_soon(self._store, batch)
            elif self._batch_bytes >= 2 * BATCH_BYTES:
                with self._clock.paused():
                    await self._stored.park()

    async def _store(self, batch: list[tuple[Cid, bytes]]) -> None:
        """Beside the receiving; also if the fetch is over meanwhile."""
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._keep, batch)
        finally:
            self._is_storing = False
            self._stored.unpark_all()
