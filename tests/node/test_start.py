"""How soon a node that starts again, or for the first time, is at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio

from learnae.ids import Address, compute_cid
from learnae.learning.synthetic import SyntheticLearner
from learnae.node import work
from learnae.ports import Chain
from learnae.protocol import events as ev
from learnae.protocol.calls import ChainView
from tests.node.bed import Bed, run_fast

STEPS = 1000  # Of trio's scheduler, without a moment passing.


class SlowChain:
    """A chain that answers when it is told to."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.answers, self.was_asked = trio.Event(), trio.Event()

    async def read(self, session: Address) -> ChainView:
        self.was_asked.set()
        await self.answers.wait()
        return await self._chain.read(session)

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)


async def comes_at_once(condition: Callable[[], bool]) -> bool:
    """Whether it holds before the clock has moved."""
    since_s = trio.current_time()
    for _ in range(STEPS):
        if condition():
            break
        await trio.lowlevel.checkpoint()
    return condition() and trio.current_time() == since_s


def test_restarted_node__works_as_soon_as_the_chain_answers_and_loses_nothing_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue, churn: before the members are known a turn is wasted, and what is heard is refused; so both wait for the chain."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=8)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ada", nursery, learner=SyntheticLearner(0))
            _, scope = await bed.start("ben", nursery, learner=SyntheticLearner(1))
            ben = bed.machines["ben"]
            await bed.wait_for(lambda: bool(ben.events("trained")))
            scope.cancel()

            parts = await bed.parts("ben", learner=SyntheticLearner(1))
            chain = SlowChain(parts.chain)
            node = bed.node(replace(parts, chain=cast(Chain, chain)))
            handled, handle = list[type[ev.Event]](), parts.peer.handle

            def watch(event: ev.Event, now_s: float) -> list[ev.Effect]:
                handled.append(type(event))
                return handle(event, now_s)

            monkeypatch.setattr(parts.peer, "handle", watch)
            nursery.start_soon(node.run)
            await chain.was_asked.wait()
            since_s, known = trio.current_time(), len(node._peer.lane.dag)
            await bed.wait_for(lambda: trio.current_time() > since_s + 2.0)  # What is younger than a second is left to gossip.
            assert len(node._peer.lane.dag) == known and not node._peer.connected, "nothing is heard while nobody is a member"

            chain.answers.set()
            assert await comes_at_once(lambda: node._peer.cycle.is_busy)
            assert await comes_at_once(lambda: len(node._peer.lane.dag) > known), "what ada said meanwhile came with the first sync"
            assert handled.index(ev.PeerConnected) < handled.index(ev.TimerFired), "what to do is asked when it is known who is there"
        await bed.check_settled()

    run_fast(main)


def test_fetch__tells_whether_the_one_who_announced_is_away(tmp_path: Path) -> None:
    """A model of somebody who was killed is left at once; one that is gone from a node that is there was bad luck."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        here, there = await bed.parts("ada", learner=None), await bed.parts("ben", learner=None)
        tools = work.Tools(
            network=here.network,
            blocks=here.blocks,
            chain=here.chain,
            learner=None,
            session=here.session,
            model_bytes_max=99,
            slice_bytes=99,
        )
        cid = compute_cid(b"nobody has it", 0x55)

        async def fetch(*names: str) -> ev.Event:
            return await work.fetch(tools, ev.FetchFile(1, cid, tuple(bed.machines[name].peer_id for name in names), 99))

        lacking = await fetch("ben", "ada")
        await bed.hub.leave(there.network.peer_id)
        gone = await fetch("ben", "ada")

        assert isinstance(lacking, ev.FetchFailed) and not lacking.is_away
        assert isinstance(gone, ev.FetchFailed) and gone.is_away
        assert isinstance(nobody := await fetch(), ev.FetchFailed) and not nobody.is_away

    run_fast(main)
