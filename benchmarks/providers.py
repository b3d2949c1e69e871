"""What several providers of one file bring: against one of them, on loopback and over limited lines, and where one goes in the middle.

On loopback the node that fetches is the limit: there the others must cost nothing. Over limited lines (`tests/lossy_link.py`) they are.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack

import trio

from benchmarks import Result
from benchmarks._fetching import open_fetching
from benchmarks._provider import Provider, start_provider
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import Cid
from tests.lossy_link import Line, open_lossy_link

ROUNDS = 9
SIZES_BYTES = (1_000_000, 10_000_000, 100_000_000)
PROVIDERS = 4
LINE = Line(delay_s=0.005, bandwidth_bytes_s=2e6)
LINE_BYTES = 4_000_000
LINE_ROUNDS = 3
GONE_BYTES = 100_000_000
GONE_ROUNDS = 3
GONE_AIM_S = 2.0
_KEPT_BYTES = 250_000_000  # Of the store: two files.


def run() -> list[Result]:
    with ExitStack() as stack:
        providers = [stack.enter_context(start_provider()) for _ in range(PROVIDERS)]
        results = trio.run(_measure_loopback, providers)
        results += trio.run(_measure_lines, providers)
    results.append(trio.run(_measure_gone, "is killed", signal.SIGKILL))
    results.append(trio.run(_measure_gone, "falls silent", signal.SIGSTOP))
    return results


async def _measure_loopback(providers: Sequence[Provider]) -> list[Result]:
    async with AsyncExitStack() as stack:
        fetching = await open_fetching(stack, MemoryBlocks(quota_bytes=_KEPT_BYTES), providers)
        results = []
        for size_bytes in SIZES_BYTES:
            times: dict[str, list[float]] = {"one": [], "four": []}
            for number in range(2 * ROUNDS + 2):
                name = ("one", "four")[(number + number // 2) % 2]  # each first in every second round
                took_s = await fetching.fetch(size_bytes, number, count=1 if name == "one" else PROVIDERS)
                if number > 1:  # the first two are to warm up
                    times[name].append(took_s)
            results.append(_compare(f"fetch {size_bytes // 1_000_000} MB from four, verify", size_bytes, times))
        return results


async def _measure_lines(providers: Sequence[Provider]) -> list[Result]:
    """Each provider behind a line of its own."""
    times: dict[str, list[float]] = {"one": [], "four": []}
    for number in range(LINE_ROUNDS):
        for name, some in (("one", providers[:1]), ("four", providers)):
            async with AsyncExitStack() as stack:
                links = [await stack.enter_async_context(open_lossy_link(provider.port, Line())) for provider in some]
                through = [provider.through(link.port) for provider, link in zip(some, links, strict=True)]
                fetching = await open_fetching(stack, MemoryBlocks(), through)
                await fetching.wish_of_all(LINE_BYTES, 1_000_000 + number)
                for link in links:
                    link.line = LINE
                times[name].append(await fetching.fetch(LINE_BYTES, 1_000_000 + number))
    case = f"fetch {LINE_BYTES // 1_000_000} MB from four over lines of {LINE.bandwidth_bytes_s / 1e6:.0f} MB/s, verify"
    return [_compare(case, LINE_BYTES, times)]


def _compare(case: str, size_bytes: int, times: dict[str, list[float]]) -> Result:
    rates = {name: size_bytes / 1e6 / statistics.median(some) for name, some in times.items()}
    return Result(case=case, value=rates["four"], unit="MB/s", reference="from one", reference_value=rates["one"])


class _Trap(MemoryBlocks):
    """Sends a signal to a process when a quarter of the file is stored."""

    def __init__(self, victim: int, number: signal.Signals) -> None:
        super().__init__()
        self._victim, self._number = victim, number
        self.sprung_s = 0.0

    def put_blocks(
        self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False, synced: bool = True
    ) -> None:
        super().put_blocks(blocks, public=public, hashed=hashed, synced=synced)
        if not self.sprung_s and self.used_bytes >= GONE_BYTES // 4:
            os.kill(self._victim, self._number)
            self.sprung_s = time.perf_counter()


async def _measure_gone(what: str, number: signal.Signals) -> Result:
    """From the moment at which the provider that is asked goes until the file is whole, with one other that has it."""
    times = []
    for _ in range(GONE_ROUNDS):
        async with AsyncExitStack() as stack:
            providers = [stack.enter_context(start_provider()) for _ in range(2)]
            victim = providers[0].process_id
            store = _Trap(victim, number)
            stack.callback(os.kill, victim, signal.SIGKILL)  # whoever was stopped does not end by itself
            fetching = await open_fetching(stack, store, providers)
            cid = await fetching.wish_of_all(GONE_BYTES, 0)
            await fetching.network.fetch_file(cid, providers=fetching.providers, bytes_max=GONE_BYTES)
            times.append(time.perf_counter() - store.sprung_s)
            assert store.has_file(cid)
    case = f"fetch {GONE_BYTES // 1_000_000} MB from two, one {what} after a quarter: until it is whole"
    return Result(case=case, value=statistics.median(times), unit="s", reference="the aim", reference_value=GONE_AIM_S)
