"""Peers that were lost are dialled again: soon, and ever more rarely while that brings nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from random import Random

import trio
from trio.testing import MockClock

from learnae.backends.libp2p_redial import PAUSE_MAX_S, STAYED_S, Redials
from learnae.ids import PeerId

PEER = PeerId(b"p" * 32)


class Line:
    """A peer that is reached, or not, whenever it is dialled."""

    def __init__(self) -> None:
        self.dials_s: list[float] = []
        self.is_there, self.is_connected = True, False

    async def reach(self, peer: PeerId) -> bool:
        self.dials_s.append(trio.current_time())
        await trio.sleep(0.01)
        self.is_connected = self.is_there
        return self.is_there

    def connected(self) -> frozenset[PeerId]:
        return frozenset({PEER} if self.is_connected else ())


def run_redials(test: Callable[[Redials, Line, trio.Nursery], Awaitable[None]]) -> Line:
    line = Line()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            redials = Redials(line.reach, line.connected, Random(1))
            redials.keep(PEER, nursery)
            await trio.sleep(0.1)
            await test(redials, line, nursery)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))
    return line


async def hang_up(redials: Redials, line: Line, nursery: trio.Nursery, *, after_s: float, until_s: float) -> None:
    end_s = trio.current_time() + until_s
    while trio.current_time() < end_s:
        if line.is_connected:
            await trio.sleep(after_s)
            line.is_connected = False
            redials.handle_lost(PEER, nursery)
        await trio.sleep(0.05)


def test_redial__of_one_who_hangs_up_at_once_becomes_rare() -> None:
    async def test(redials: Redials, line: Line, nursery: trio.Nursery) -> None:
        await hang_up(redials, line, nursery, after_s=0.0, until_s=600)

    dials_s = run_redials(test).dials_s
    pauses_s = [after - before for before, after in pairwise(dials_s)]
    assert 10 < len(dials_s) < 25
    assert pauses_s[0] < 2 and 0.7 * PAUSE_MAX_S <= pauses_s[-1] <= 1.4 * PAUSE_MAX_S


def test_redial__of_one_who_stayed_is_at_once() -> None:
    async def test(redials: Redials, line: Line, nursery: trio.Nursery) -> None:
        await hang_up(redials, line, nursery, after_s=STAYED_S + 0.1, until_s=20 * STAYED_S)

    dials_s = run_redials(test).dials_s
    assert len(dials_s) >= 19
    assert all(after - before < STAYED_S + 0.5 for before, after in pairwise(dials_s))


def test_redial__of_one_who_is_away_goes_on_and_finds_it() -> None:
    async def test(redials: Redials, line: Line, nursery: trio.Nursery) -> None:
        await trio.sleep(STAYED_S)
        line.is_there = line.is_connected = False
        redials.handle_lost(PEER, nursery)
        redials.handle_lost(PEER, nursery)
        await trio.sleep(1000)
        line.is_there = True
        await trio.sleep(1.4 * PAUSE_MAX_S)
        assert line.is_connected
        count = len(line.dials_s)
        redials.forget(PEER)
        line.is_connected = False
        redials.handle_lost(PEER, nursery)
        await trio.sleep(1000)
        assert len(line.dials_s) == count, "forgotten"

    dials_s = run_redials(test).dials_s
    assert 15 < len(dials_s) < 35, "never two at a time, and not less than once a minute or so"
