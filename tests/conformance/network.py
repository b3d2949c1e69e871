"""What every `Network` promises, shown on three nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random

import pytest
import trio

from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, build_blocks
from learnae.errors import BadAddressError, FetchError
from learnae.ids import CODEC_RAW, PeerId, Topic, compute_cid
from learnae.ports import DIRECT_BYTES_MAX, BlockStore, Connected, DirectMessage, Disconnected, Network, NetworkEvent
from learnae.tangle.verdict import Verdict

OpenNetworks = Callable[[Sequence[BlockStore]], AbstractAsyncContextManager[Sequence[Network]]]
"""Opens one unconnected network per store."""

TOPIC = Topic("/learnae/test/control")


async def check_network(open_networks: OpenNetworks) -> None:
    with trio.fail_after(30):
        await _check_events_and_messages(open_networks)
        await _check_gossip(open_networks)
        await _check_fetch(open_networks)
        await _check_fetch_into_a_full_store(open_networks)


async def _check_events_and_messages(open_networks: OpenNetworks) -> None:
    async with open_networks([MemoryBlocks(), MemoryBlocks(), MemoryBlocks()]) as (one, two, three):
        assert len({one.peer_id, two.peer_id, three.peer_id}) == 3
        for bad in ("", "nonsense", "/ip4/127.0.0.1/tcp/1", "/p2p/12D3Koo"):
            with pytest.raises(BadAddressError, match="not an address that can be used here"):
                await one.connect(bad)
        assert one.connected() == frozenset()
        assert not await one.send(two.peer_id, b"nobody knows where it is")

        assert await one.connect(two.addresses[0]) == two.peer_id
        assert await one.connect(two.addresses[0]) == two.peer_id, "connecting twice is connecting once"
        assert one.connected() == {two.peer_id}
        assert await _next(one) == Connected(two.peer_id)
        assert await _next(two) == Connected(one.peer_id)

        large = Random(1).randbytes(DIRECT_BYTES_MAX)
        for content in (b"", b"hello", large):
            assert await one.send(two.peer_id, content)
            assert await _next(two) == DirectMessage(one.peer_id, content)
        assert await two.send(one.peer_id, b"answer")
        assert await _next(one) == DirectMessage(two.peer_id, b"answer")
        for number in range(50):
            assert await one.send(two.peer_id, b"%d" % number)
            assert await _next(two) == DirectMessage(one.peer_id, b"%d" % number), "in order, each once"

        one.learn_addresses(three.peer_id, ["rubbish", *three.addresses])
        assert await one.send(three.peer_id, b"dialled by a learned address")
        assert await _next(three) == Connected(one.peer_id)
        assert await _next(three) == DirectMessage(one.peer_id, b"dialled by a learned address")


async def _check_gossip(open_networks: OpenNetworks) -> None:
    async with open_networks([MemoryBlocks(), MemoryBlocks(), MemoryBlocks()]) as networks:
        one, two, three = networks
        heard: dict[PeerId, list[tuple[PeerId, bytes]]] = {network.peer_id: [] for network in networks}
        arrived = trio.lowlevel.ParkingLot()

        def judge_for(network: Network) -> Callable[[PeerId, bytes], Verdict]:
            def judge(sender: PeerId, content: bytes) -> Verdict:
                heard[network.peer_id].append((sender, content))
                arrived.unpark_all()
                return {b"i": Verdict.IGNORE, b"r": Verdict.REJECT}.get(content[:1], Verdict.ACCEPT)

            return judge

        await one.publish(TOPIC, b"nobody listens, nobody minds")
        for network in networks:
            await network.subscribe(TOPIC, judge_for(network))
        await one.connect(two.addresses[0])  # a line: one - two - three
        await two.connect(three.addresses[0])

        async def until_heard(network: Network, content: bytes) -> None:
            """Publish until it is heard: gossip promises nothing before both sides know who listens."""
            number = 0
            while not any(got.startswith(content) for _, got in heard[network.peer_id]):
                await one.publish(TOPIC, content + b" %d" % number)
                number += 1
                with trio.move_on_after(0.05):
                    await arrived.park()

        await until_heard(three, b"across")
        senders = {sender for sender, content in heard[three.peer_id] if content.startswith(b"across")}
        assert senders == {two.peer_id}, "the sender is the neighbour who brought it"
        assert not heard[one.peer_id], "nobody hears itself"

        for content in (b"ignored here", b"rejected here"):
            await one.publish(TOPIC, content)
        await one.publish(TOPIC, b"last")
        while (two.peer_id, b"last") not in heard[three.peer_id]:
            await arrived.park()
        assert (one.peer_id, b"ignored here") in heard[two.peer_id]
        assert (one.peer_id, b"rejected here") in heard[two.peer_id]
        forwarded = {content for _, content in heard[three.peer_id]}
        assert forwarded.isdisjoint({b"ignored here", b"rejected here"}), "forwarded only if accepted"
        assert len(heard[three.peer_id]) == len(set(heard[three.peer_id])), "each once"


async def _check_fetch(open_networks: OpenNetworks) -> None:
    stores = [MemoryBlocks(), MemoryBlocks(), MemoryBlocks()]
    async with open_networks(stores) as (one, two, three):
        await one.connect(two.addresses[0])
        await one.connect(three.addresses[0])
        both = [two.peer_id, three.peer_id]
        for size in (0, 1, 300_000, 3_000_000):
            content = Random(size).randbytes(size)
            cid = stores[1].put_file(content)
            await one.fetch_file(cid, providers=both, bytes_max=size)
            assert stores[0].get_file(cid, bytes_max=size) == content
            await one.fetch_file(cid, providers=[], bytes_max=size)  # it is here: nobody is needed

        for size in (1000, 1_000_000):
            cid = stores[1].put_file(Random(-size).randbytes(size))
            with pytest.raises(FetchError, match=f"it has {size} bytes, at most {size - 1} were expected"):
                await one.fetch_file(cid, providers=both, bytes_max=size - 1)
            assert not stores[0].has_block(cid), "nothing of a file that is too large is kept"

        absent = compute_cid(b"nobody has this", CODEC_RAW)
        with pytest.raises(FetchError, match="it does not have all blocks"):
            await one.fetch_file(absent, providers=both, bytes_max=100)
        with pytest.raises(FetchError, match="no provider was named"):
            await one.fetch_file(absent, providers=[], bytes_max=100)
        with pytest.raises(FetchError, match="could not be reached"):
            await one.fetch_file(absent, providers=[PeerId(bytes(32))], bytes_max=100)
        private = stores[1].put_file(b"raw data of its owner", public=False)
        with pytest.raises(FetchError, match="it does not have all blocks"):
            await one.fetch_file(private, providers=both, bytes_max=100)

        large = Random(7).randbytes(600_000)  # a root and three leaves
        secret = stores[1].put_file(large, public=False)
        two.open_file(secret, [one.peer_id])
        await one.fetch_file(secret, providers=[two.peer_id], bytes_max=len(large), public=False)
        assert stores[0].get_file(secret, bytes_max=len(large)) == large
        await three.connect(two.addresses[0])
        with pytest.raises(FetchError, match="it does not have all blocks"):
            await three.fetch_file(secret, providers=[one.peer_id, two.peer_id], bytes_max=len(large))
        two.open_file(secret, [three.peer_id])
        await three.fetch_file(secret, providers=[two.peer_id], bytes_max=len(large), public=False)


async def _check_fetch_into_a_full_store(open_networks: OpenNetworks) -> None:
    """What an earlier try left is not removed to make room for the rest, though it was used longest ago."""
    content = Random(8).randbytes(3 * LEAF_BYTES)
    blocks = list(build_blocks(content))
    stores = [MemoryBlocks(quota_bytes=5 * LEAF_BYTES), MemoryBlocks()]
    stores[0].put_blocks(blocks[:2])
    other = stores[0].put_file(Random(9).randbytes(2 * LEAF_BYTES))
    cid = stores[1].put_file(content)
    async with open_networks(stores) as (one, two):
        await one.connect(two.addresses[0])
        await one.fetch_file(cid, providers=[two.peer_id], bytes_max=len(content))
    assert stores[0].get_file(cid, bytes_max=len(content)) == content
    assert not stores[0].has_file(other), "there was room for one of them"


async def _next(network: Network) -> NetworkEvent:
    event = await network.events.receive()
    assert not isinstance(event, Disconnected)
    return event
