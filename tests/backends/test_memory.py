"""The backends that live in memory keep the promises of their ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_journal import MemoryJournal
from learnae.backends.memory_network import MemoryHub
from learnae.ids import PeerId
from learnae.ports import BlockStore, Connected, Disconnected, Network
from tests.conformance.block_store import check_block_store
from tests.conformance.journal import check_journal
from tests.conformance.network import check_network


def test_memory_blocks__keep_the_promises_of_the_port() -> None:
    check_block_store(lambda quota_bytes: MemoryBlocks(quota_bytes=quota_bytes))


def test_memory_journal__keeps_the_promises_of_the_port() -> None:
    check_journal(MemoryJournal())


def test_memory_network__keeps_the_promises_of_the_port() -> None:
    @asynccontextmanager
    async def open_networks(stores: Sequence[BlockStore]) -> AsyncIterator[Sequence[Network]]:
        hub = MemoryHub()
        yield [hub.join(PeerId(bytes([number]) * 32), store) for number, store in enumerate(stores, 1)]

    trio.run(check_network, open_networks)


def test_memory_hub__cut_tells_both_sides_and_loss_is_seeded() -> None:
    async def run() -> list[bool]:
        hub = MemoryHub(rng=Random(7), loss=0.5)
        one, two = (hub.join(PeerId(bytes([number]) * 32), MemoryBlocks()) for number in (1, 2))
        await one.connect(two.addresses[0])
        await hub.cut(one.peer_id, two.peer_id)
        assert one.connected() == two.connected() == frozenset()
        assert [one.events.receive_nowait(), one.events.receive_nowait()] == [Connected(two.peer_id), Disconnected(two.peer_id)]
        return [hub.loses() for _ in range(20)]

    losses = trio.run(run)
    assert losses == trio.run(run)
    assert 0 < sum(losses) < 20
