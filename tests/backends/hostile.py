"""A victim and an attacker on real sockets, for the tests of hostile peers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import trio
import trio.testing
from libp2p.abc import INetStream

from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_blocks import PROTOCOL as BLOCKS
from learnae.backends.libp2p_host import Host, open_host
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId
from tests.processes import HANGS_S

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
Handler = Callable[[PeerId, INetStream], Awaitable[None]]


@asynccontextmanager
async def open_victim(store: MemoryBlocks, number: int = 1) -> AsyncIterator[Libp2pNetwork]:
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=LOOPBACK, blocks=store, rng=Random(1)) as network:
        yield network


@asynccontextmanager
async def open_attacker(victim: Libp2pNetwork, blocks: Handler | None = None, *, number: int = 66) -> AsyncIterator[Host]:
    async with open_host(seed=bytes([number]) * 32, listen=LOOPBACK, rng=Random(2)) as attacker:
        if blocks is not None:
            attacker.handle_streams(BLOCKS, blocks)
        await attacker.connect(victim.addresses[0])
        await until(lambda: attacker.peer_id in victim.connected())
        yield attacker


async def until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(HANGS_S):
        while not is_true():
            await trio.testing.wait_all_tasks_blocked(0.005)
