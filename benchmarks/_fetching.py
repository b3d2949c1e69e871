"""A node that fetches files from provider processes (`_provider`)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks._provider import Provider, encode_wish
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.ids import Cid, PeerId
from learnae.ports import BlockStore, DirectMessage


class Fetching:
    """One node, its store, and the providers that it is connected to; made by `open_fetching`."""

    def __init__(self, network: Libp2pNetwork, blocks: BlockStore, providers: Sequence[PeerId]) -> None:
        self.network, self.blocks, self.providers = network, blocks, providers

    async def fetch(self, size_bytes: int, number: int, *, count: int | None = None) -> float:
        """Seconds from asking the first `count` providers until the file is in the store. All of them make it first and tell its CID."""
        cid = await self.wish_of_all(size_bytes, number)
        began_s = time.perf_counter()
        await self.network.fetch_file(cid, providers=self.providers[:count], bytes_max=size_bytes)
        took_s = time.perf_counter() - began_s
        assert self.blocks.has_file(cid)
        return took_s

    async def wish_of_all(self, size_bytes: int, number: int) -> Cid:
        """The file of this size and number, once every provider has it."""
        cids = {await self._wish(provider, size_bytes, number) for provider in self.providers}
        assert len(cids) == 1, "the same file"
        return cids.pop()

    async def _wish(self, provider: PeerId, size_bytes: int, number: int) -> Cid:
        await self.network.send(provider, encode_wish(size_bytes, number))
        async for event in self.network.events:
            if isinstance(event, DirectMessage):
                return Cid(event.content)
        raise RuntimeError("the network ended")


async def open_fetching(stack: AsyncExitStack, blocks: BlockStore, providers: Sequence[Provider]) -> Fetching:
    network = await stack.enter_async_context(open_libp2p_network(seed=os.urandom(32), listen=(), blocks=blocks))
    return Fetching(network, blocks, [await network.connect(provider.address) for provider in providers])
