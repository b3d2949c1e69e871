"""The network over real sockets on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
import trio

from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.errors import BadAddressError, ListenError, UnreachableError
from learnae.ids import PeerId, peer_text
from learnae.ports import BlockStore, Connected, Disconnected
from tests.conformance.network import check_network
from tests.processes import HANGS_S

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]


@asynccontextmanager
async def open_networks(stores: Sequence[BlockStore]) -> AsyncIterator[Sequence[Libp2pNetwork]]:
    async with AsyncExitStack() as stack:
        networks = []
        for number, store in enumerate(stores, 1):
            opening = open_libp2p_network(seed=bytes([number]) * 32, listen=LOOPBACK, blocks=store, rng=Random(number))
            networks.append(await stack.enter_async_context(opening))
        yield networks


def test_libp2p_network__keeps_the_promises_of_the_port() -> None:
    trio.run(check_network, open_networks)


def test_libp2p_identity__is_the_ed25519_key_of_the_seed() -> None:
    """protocol.md: the issuer of a vertex is the libp2p identity."""
    from nacl.signing import SigningKey

    async def run() -> None:
        async with open_networks([MemoryBlocks()]) as (network,):
            assert network.peer_id == bytes(SigningKey(bytes([1]) * 32).verify_key)
            assert network.addresses[0].endswith("/p2p/" + peer_text(network.peer_id))

    trio.run(run)


def test_libp2p_addresses__of_a_wildcard_are_those_of_the_interfaces() -> None:
    """Others must be able to dial what is announced: 0.0.0.0 is no place."""

    async def run() -> None:
        async with open_libp2p_network(seed=bytes(32), listen=["/ip4/0.0.0.0/tcp/0"], blocks=MemoryBlocks()) as network:
            assert network.addresses
            assert not any("/0.0.0.0/" in address or "/tcp/0/" in address for address in network.addresses)
            async with open_networks([MemoryBlocks()]) as (other,):
                assert await other.connect(network.addresses[0]) == network.peer_id

    trio.run(run)


def test_libp2p_listen__taken_port_and_bad_address_are_one_sentence() -> None:
    async def open_on(address: str) -> None:
        async with open_libp2p_network(seed=bytes(32), listen=[address], blocks=MemoryBlocks()):
            raise AssertionError("it must not open")

    async def run() -> None:
        async with open_networks([MemoryBlocks()]) as (network,):
            taken = network.addresses[0].split("/p2p/")[0]
            with pytest.raises(ListenError, match=f"cannot listen on {taken}: the port is in use; stop the program"):
                await open_on(taken)
        for bad in ("127.0.0.1:4001", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/300.0.0.1/tcp/1"):
            with pytest.raises(BadAddressError, match="expected a multiaddr such as /ip4/"):
                await open_on(bad)
        with pytest.raises(ListenError, match="cannot assign requested address; choose an address of this machine"):
            await open_on("/ip4/192.0.2.1/tcp/0")

    trio.run(run)


def test_libp2p_connect__dead_port_and_foreign_identity_are_unreachable() -> None:
    async def run() -> None:
        async with open_networks([MemoryBlocks(), MemoryBlocks()]) as (one, two):
            place, name = two.addresses[0].split("/p2p/")
            with pytest.raises(UnreachableError, match=r"no peer answered at .*check that it runs"):
                await one.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{name}")
            with pytest.raises(UnreachableError, match="another peer answers there"):
                await one.connect(f"{place}/p2p/{peer_text(PeerId(bytes(range(32))))}")
            assert one.connected() == frozenset()

    trio.run(run)


def test_libp2p_events__end_with_the_network() -> None:
    async def run() -> None:
        async with open_networks([MemoryBlocks()]) as (network,):
            events = network.events
        with trio.fail_after(HANGS_S), pytest.raises(trio.EndOfChannel):
            await events.receive()

    trio.run(run)


def test_libp2p_redial__a_lost_peer_is_found_again() -> None:
    """A peer that was reached once is dialled again with back-off when it is lost."""

    async def run() -> None:
        async with open_networks([MemoryBlocks()]) as (one,):
            place = ""
            for turn in range(2):
                listen = [place] if place else LOOPBACK
                async with open_libp2p_network(seed=bytes([9]) * 32, listen=listen, blocks=MemoryBlocks()) as two:
                    place = two.addresses[0].split("/p2p/")[0]
                    if not turn:
                        await one.connect(two.addresses[0])
                    with trio.fail_after(HANGS_S):
                        assert await one.events.receive() == Connected(two.peer_id)
                with trio.fail_after(HANGS_S):
                    assert await one.events.receive() == Disconnected(two.peer_id)

    trio.run(run)


def test_libp2p_bootstrap__waits_for_a_peer_that_is_not_there_yet() -> None:
    async def run() -> None:
        async with open_networks([MemoryBlocks()]) as (late,):
            entry = late.addresses[0]
        async with open_libp2p_network(seed=bytes([7]) * 32, listen=[], blocks=MemoryBlocks(), bootstrap=[entry]) as early:
            place = entry.split("/p2p/")[0]
            async with open_libp2p_network(seed=bytes([1]) * 32, listen=[place], blocks=MemoryBlocks()) as late:
                with trio.fail_after(HANGS_S):
                    assert await early.events.receive() == Connected(late.peer_id)
            assert early.addresses == ()

    trio.run(run)


def test_libp2p_network__ends_within_a_second_when_cancelled() -> None:
    """Ctrl+C at any time: in the middle of fetching, sending and dialling."""

    async def run() -> None:
        stores = [MemoryBlocks(), MemoryBlocks()]
        cid = stores[1].put_file(Random(1).randbytes(40 << 20))
        with trio.CancelScope() as scope:
            async with open_networks(stores) as (one, two), trio.open_nursery() as nursery:
                await one.connect(two.addresses[0])
                nursery.start_soon(lambda: one.fetch_file(cid, providers=[two.peer_id], bytes_max=40 << 20))

                async def send_all() -> None:
                    while True:
                        await one.send(two.peer_id, bytes(1 << 20))  # nobody reads: the sender waits

                nursery.start_soon(send_all)
                while stores[0].used_bytes == 0:
                    await trio.lowlevel.checkpoint()
                at_s = trio.current_time()
                scope.cancel()
        assert trio.current_time() - at_s < 1.0
        assert stores[0].used_bytes > 0, "what had arrived is kept for the next try"

    trio.run(run)
