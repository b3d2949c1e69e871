"""A network with the user's own IPFS daemon beside it: what no provider gives is looked for there, and gossip goes both ways.

Connections and direct messages are the inner network's, and so is its gossip; what is published here goes to the daemon's PubSub as well
(`kubo_pubsub`), and what comes from there and is accepted goes on through the inner network. What others of the inner network publish
is not published there again: all who have a daemon would do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import trio

from learnae.backends.errors import KuboError
from learnae.backends.fetch_plan import FetchPlan
from learnae.backends.kubo_pubsub import KuboPubSub
from learnae.backends.kubo_rpc import KuboRpc
from learnae.errors import FetchError
from learnae.ids import Cid, PeerId, Topic, cid_text, compute_cid
from learnae.ports import BlockStore, Network, NetworkEvent, Ways
from learnae.tangle.verdict import Verdict

SEARCH_S: Final = 10.0  # For one block: a look-up in the DHT and a dial.
_AT_ONCE: Final = 8  # Blocks asked of the daemon at the same time: 2 MiB under way.
_DAEMON: Final = PeerId(bytes(32))  # How the plan calls the daemon; no peer has this key.


class KuboNetwork:
    """`Network`: `inner`, the daemon `rpc` as the last provider of public files, and its `pubsub`, if it has any."""

    def __init__(
        self, inner: Network, blocks: BlockStore, rpc: KuboRpc, *, pubsub: KuboPubSub | None = None, search_s: float = SEARCH_S
    ) -> None:
        self._pubsub = pubsub
        self._inner, self._blocks, self._rpc, self._search_s = inner, blocks, rpc, search_s
        self._places = trio.CapacityLimiter(_AT_ONCE)

    @property
    def peer_id(self) -> PeerId:
        return self._inner.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._inner.addresses

    @property
    def extra_addresses(self) -> tuple[str, ...]:
        return self._inner.extra_addresses

    @property
    def is_reachable(self) -> bool | None:
        return self._inner.is_reachable

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        return self._inner.events

    def connected(self) -> frozenset[PeerId]:
        return self._inner.connected()

    def count_ways(self) -> Ways:
        return self._inner.count_ways()

    def learn_addresses(self, peer: PeerId, addresses: Iterable[str]) -> None:
        self._inner.learn_addresses(peer, addresses)

    def keep_places(self, members: frozenset[PeerId]) -> None:
        self._inner.keep_places(members)

    def blame(self, peer: PeerId, why: str) -> None:
        self._inner.blame(peer, why)

    async def connect(self, address: str) -> PeerId:
        return await self._inner.connect(address)

    async def subscribe(self, topic: Topic, judge: Callable[[PeerId, bytes], Verdict]) -> None:
        pubsub = self._pubsub
        if pubsub is None:
            await self._inner.subscribe(topic, judge)
            return

        def judge_inner(sender: PeerId, content: bytes) -> Verdict:
            verdict = judge(sender, content)
            if verdict is Verdict.ACCEPT:
                pubsub.note(topic, content)
            return verdict

        await self._inner.subscribe(topic, judge_inner)
        pubsub.subscribe(topic, judge, on_accepted=partial(self._inner.publish, topic))

    async def publish(self, topic: Topic, content: bytes) -> None:
        if self._pubsub is not None:
            self._pubsub.publish(topic, content)
        await self._inner.publish(topic, content)

    async def send(self, peer: PeerId, content: bytes) -> bool:
        return await self._inner.send(peer, content)

    def open_file(self, cid: Cid, peers: Iterable[PeerId]) -> None:
        self._inner.open_file(cid, peers)

    async def fetch_file(self, cid: Cid, *, providers: Sequence[PeerId], bytes_max: int, public: bool = True) -> None:
        try:
            await self._inner.fetch_file(cid, providers=providers, bytes_max=bytes_max, public=public)
        except FetchError as error:
            if not public:  # Its CID would tell the daemon's peers what this node reads, and none of them may have it.
                raise
            with self._blocks.hold() as keep:
                plan = FetchPlan(cid, bytes_max, keep, self._blocks.get_block)
                why = await self._search(plan)
            if plan.fault or not plan.is_done:
                raise FetchError(cid_text(cid), f"{error.reason}; IPFS: {plan.fault or why}") from error

    async def _search(self, plan: FetchPlan) -> str:
        """Bring what the plan wants from the daemon; why it ended, if it did not bring all."""
        faults: list[str] = []
        while not faults and (cids := plan.take(_DAEMON, _AT_ONCE, trio.current_time())):
            async with trio.open_nursery() as nursery:
                for cid in cids:
                    nursery.start_soon(self._bring, plan, cid, faults)
        return faults[0] if faults else "it does not have all blocks"

    async def _bring(self, plan: FetchPlan, cid: Cid, faults: list[str]) -> None:
        ask = partial(self._rpc.get_block, cid, search_s=self._search_s)
        try:
            block = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._places)  # type: ignore[call-arg]
        except KuboError as error:
            faults.append(str(error))
            return
        if block is None:
            plan.handle_absent(_DAEMON, cid)
            faults.append(f"nobody gave {cid_text(cid)} within {self._search_s:g} s")
        elif compute_cid(block, cid[1]) != cid:
            faults.append("the daemon gave bytes that are not the block asked for")
        elif plan.handle_block(cid, block):
            await trio.to_thread.run_sync(self._blocks.put_blocks, [(cid, block)])
