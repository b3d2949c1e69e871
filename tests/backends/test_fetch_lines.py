"""Fetching over bad lines from processes that are killed, stall and lie (issue: a provider costs seconds, not the model).

Judged are bytes, and whether anything was waited for; how many seconds a provider or a line costs is told by
`python -m benchmarks transfer`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from learnae.backends import fetch_plan, libp2p_fetch
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, compute_root
from learnae.errors import FetchError
from learnae.ids import PeerId
from tests.backends.provider import SIZES, Provider, make_content, open_providers
from tests.lossy_link import Line, LossyLink, open_lossy_link

SMALL, LARGE = SIZES
NOT_WAITED_S = libp2p_fetch.SILENT_S - libp2p_fetch.STALL_S
"""A fetch that takes longer has waited for a provider that is gone; the lines carry the file in a tenth of it."""


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, list[Provider]]]:
    """Four honest ones, one that stalls, one that lies."""
    with open_providers(100, "honest", "honest", "honest", "honest", "stall", "lie") as found:
        yield {"honest": found[:4], "stall": found[4:5], "lie": found[5:]}


@dataclass(frozen=True, slots=True)
class Bed:
    """A node with a line to each provider."""

    network: Libp2pNetwork
    store: MemoryBlocks
    links: list[LossyLink]
    peers: list[PeerId]

    async def fetch(self, size_bytes: int = LARGE) -> float:
        """Fetch the file from all of them; the seconds that it took."""
        content = make_content(size_bytes)
        cid = compute_root(content)
        began_s = trio.current_time()
        await self.network.fetch_file(cid, providers=self.peers, bytes_max=size_bytes)
        assert self.store.get_file(cid, bytes_max=size_bytes) == content
        return trio.current_time() - began_s

    @property
    def carried_bytes(self) -> int:
        return sum(link.answered_bytes for link in self.links)

    async def until_carried(self, size_bytes: int) -> None:
        while self.carried_bytes < size_bytes:
            await trio.testing.wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def open_bed(providers: Sequence[Provider], lines: Sequence[Line]) -> AsyncIterator[Bed]:
    store = MemoryBlocks()
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(open_lossy_link(provider.port, line)) for provider, line in zip(providers, lines, strict=True)
        ]
        network = await stack.enter_async_context(open_libp2p_network(seed=bytes(32), listen=(), blocks=store))
        peers = [await network.connect(provider.address_through(link.port)) for provider, link in zip(providers, links, strict=True)]
        yield Bed(network, store, links, peers)


def run_on(providers: Sequence[Provider], lines: Sequence[Line], play: Callable[[Bed], Awaitable[None]], *, rate: float = 1.0) -> None:
    async def run() -> None:
        with trio.fail_after(120 * rate):
            async with open_bed(providers, lines) as bed:
                await play(bed)

    trio.run(run, clock=trio.testing.MockClock(rate=rate))


def test_fetch__a_killed_provider_is_replaced(providers: dict[str, list[Provider]]) -> None:
    """kill -9 in the middle: what is left comes from the other at the speed of its line."""
    with open_providers(200, "honest") as (victim,):

        async def play(bed: Bed) -> None:
            async def kill() -> None:
                await bed.until_carried(LARGE // 4)
                victim.process.kill()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                took_s = await bed.fetch()
            assert took_s < NOT_WAITED_S
            assert bed.links[0].answered_bytes > 4096, "it had given something"

        run_on([victim, providers["honest"][0]], [Line(bandwidth_bytes_s=2e6)] * 2, play)


def test_fetch__a_provider_that_vanished_without_a_word_is_replaced(providers: dict[str, list[Provider]]) -> None:
    """A half-open line: nothing says that it is dead."""

    async def play(bed: Bed) -> None:
        async def freeze() -> None:
            await bed.until_carried(LARGE // 4)
            bed.links[0].freeze()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(freeze)
            assert await bed.fetch() < NOT_WAITED_S

    run_on(providers["honest"][:2], [Line(bandwidth_bytes_s=2e6)] * 2, play)


@pytest.mark.parametrize("fault", ["stall", "lie"])
def test_fetch__a_provider_that_stalls_or_lies_is_replaced(fault: str, providers: dict[str, list[Provider]]) -> None:
    async def play(bed: Bed) -> None:
        assert await bed.fetch() < NOT_WAITED_S
        score = bed.network.scores.compute(bed.peers[0], trio.current_time())
        assert (score < -30) == (fault == "lie")
        assert bed.links[0].answered_bytes > LEAF_BYTES

    run_on([*providers[fault], providers["honest"][0]], [Line(bandwidth_bytes_s=2e6)] * 2, play)


def test_fetch__a_slow_provider_slows_nobody(providers: dict[str, list[Provider]]) -> None:
    """Hedging: what the slow one still owes at the end is asked of the fast one."""

    async def play(bed: Bed) -> None:
        assert await bed.fetch() < NOT_WAITED_S
        assert bed.links[1].answered_bytes > LARGE - 2 * LEAF_BYTES

    run_on(providers["honest"][:2], [Line(bandwidth_bytes_s=20_000), Line(bandwidth_bytes_s=2e6)], play)


@pytest.fixture
def never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the fetch were always busy with what arrives."""
    monkeypatch.setattr(fetch_plan, "WAIT_S", math.inf)
    monkeypatch.setattr(fetch_plan, "BUSY_BYTES", 0)


@pytest.mark.usefixtures("never_waits")
def test_fetch__that_is_busy_asks_one_provider(providers: dict[str, list[Provider]]) -> None:
    """The others would only take processor time from it; they are not even dialled again."""

    async def play(bed: Bed) -> None:
        before = bed.links[1].answered_bytes
        await bed.fetch()
        assert bed.links[0].answered_bytes > LARGE
        assert bed.links[1].answered_bytes - before < 1000

    run_on(providers["honest"][:2], [Line(bandwidth_bytes_s=2e6)] * 2, play)


@pytest.mark.usefixtures("never_waits")
def test_fetch__who_leaves_is_replaced_by_one_that_was_not_asked(providers: dict[str, list[Provider]]) -> None:
    async def play(bed: Bed) -> None:
        await bed.fetch()
        assert min(link.answered_bytes for link in bed.links) > LEAF_BYTES

    run_on([providers["lie"][0], providers["honest"][0]], [Line(bandwidth_bytes_s=2e6)] * 2, play)


def test_fetch__four_providers_share_the_work(providers: dict[str, list[Provider]]) -> None:
    """Each line carries its part, and little comes twice."""

    async def play(bed: Bed) -> None:
        await bed.fetch()
        assert bed.carried_bytes < 1.4 * LARGE
        assert all(link.answered_bytes > LARGE / 8 for link in bed.links)

    run_on(providers["honest"], [Line(bandwidth_bytes_s=5e5, delay_s=0.02)] * 4, play)


def test_fetch__goes_on_after_a_break(providers: dict[str, list[Provider]]) -> None:
    """The line breaks and comes back: the fetch dials again by itself, and only what was under way comes twice."""

    async def play(bed: Bed) -> None:
        async def cut() -> None:
            await bed.until_carried(LARGE // 2)
            bed.links[0].cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            await bed.fetch()
        assert bed.carried_bytes < 1.2 * LARGE

    run_on(providers["honest"][:1], [Line(bandwidth_bytes_s=2e6)], play)


def test_fetch__a_flipped_bit_breaks_the_connection_and_not_the_file(providers: dict[str, list[Provider]]) -> None:
    """Noise authenticates every byte: the connection ends, another is made, and nobody is blamed for the line."""

    async def play(bed: Bed) -> None:
        async def flip() -> None:
            await bed.until_carried(LARGE // 2)
            bed.links[0].flip_bit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flip)
            await bed.fetch()
        assert bed.network.scores.compute(bed.peers[0], trio.current_time()) > -30

    run_on(providers["honest"][:1], [Line(bandwidth_bytes_s=2e6)], play)


def test_fetch__a_line_that_is_dead_for_long_ends_it_and_the_next_goes_on(providers: dict[str, list[Provider]]) -> None:
    """Alone with a silent line, a fetch waits for half a minute; what it had is kept, and not asked for again."""

    async def play(bed: Bed) -> None:
        async def freeze() -> None:
            await bed.until_carried(LARGE // 2)
            bed.links[0].freeze()

        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(freeze)
            with pytest.raises(FetchError, match="it stalled"):
                await bed.fetch()
        assert trio.current_time() - began_s > libp2p_fetch.SILENT_S
        bed.links[0].thaw()
        bed.links[0].cut()
        kept = bed.store.used_bytes
        assert kept > LARGE // 4
        before = bed.carried_bytes
        await bed.fetch()
        assert bed.carried_bytes - before < LARGE - kept + 2 * LEAF_BYTES

    run_on(providers["honest"][:1], [Line(bandwidth_bytes_s=2e5)], play, rate=8.0)


def test_fetch__over_a_line_that_loses_a_third_waits_and_carries_nothing_twice(providers: dict[str, list[Provider]]) -> None:
    """30 % loss and 100 ms each way: TCP stops for seconds. The fetch waits for it, so it carries nothing twice."""

    async def play(bed: Bed) -> None:
        bed.links[0].line = Line(delay_s=0.1, loss=0.3)
        before = bed.carried_bytes
        took_s = await bed.fetch(SMALL)
        assert took_s > 10.0, "the line was as bad as it should be"
        assert bed.carried_bytes - before < 1.02 * SMALL + 1000

    run_on(providers["honest"][:1], [Line()], play, rate=12.0)
