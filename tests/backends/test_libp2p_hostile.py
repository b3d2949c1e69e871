"""Hostile peers on real sockets: what they send is bounded, never kept, costs score, and others take their place."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from random import Random

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from learnae.backends import libp2p_direct, libp2p_fetch, libp2p_places
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_blocks import ABSENT, STREAMS_PER_PEER_MAX, encode_request
from learnae.backends.libp2p_blocks import PROTOCOL as BLOCKS
from learnae.backends.libp2p_direct import PROTOCOL as SYNC
from learnae.backends.libp2p_direct import ByteBudget, PeerBudgets, read_exactly
from learnae.backends.libp2p_host import STREAM_ERRORS, open_host
from learnae.backends.libp2p_yamux import Yamux
from learnae.backends.libp2p_yamux_stream import DATA, SYN, WINDOW_BYTES_MAX
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, build_blocks, compute_root, encode_node
from learnae.errors import FetchError, UnreachableError
from learnae.ids import CODEC_DAG_PB, CODEC_RAW, Cid, PeerId, compute_cid
from learnae.ports import Connected, DirectMessage
from tests.backends.hostile import LOOPBACK, Handler, open_attacker, open_victim, until
from tests.processes import HANGS_S


async def read_request(stream: INetStream) -> list[Cid]:
    count = (await read_exactly(stream, 1))[0]
    raw = await read_exactly(stream, 36 * count)
    return [Cid(raw[at : at + 36]) for at in range(0, len(raw), 36)]


def encode_answer(block: bytes | None) -> bytes:
    """A block as `/learnae/blocks/1` gives it, or that there is none."""
    return ABSENT.to_bytes(4, "big") if block is None else len(block).to_bytes(4, "big") + block


async def send_wrong_bytes(peer: PeerId, stream: INetStream) -> None:
    while True:
        for _ in await read_request(stream):
            await stream.write((1000).to_bytes(4, "big") + bytes(1000))


async def send_too_large(peer: PeerId, stream: INetStream) -> None:
    await read_request(stream)
    await stream.write((1 << 30).to_bytes(4, "big") + bytes(100_000))
    await trio.sleep_forever()


async def send_endlessly(peer: PeerId, stream: INetStream) -> None:
    while True:
        await stream.write(bytes(65536))


async def send_nothing(peer: PeerId, stream: INetStream) -> None:
    await trio.sleep_forever()


async def send_slowly(peer: PeerId, stream: INetStream) -> None:
    await read_request(stream)
    await stream.write((10_000).to_bytes(4, "big"))
    while True:
        await stream.write(b"x")
        await trio.sleep(0.02)


async def hang_up(peer: PeerId, stream: INetStream) -> None:
    await read_request(stream)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests wait for the same reasons as a node does, and less long."""
    monkeypatch.setattr(libp2p_fetch, "STALL_S", 0.2)
    monkeypatch.setattr(libp2p_fetch, "BLOCK_S", 0.6)
    monkeypatch.setattr(libp2p_direct, "FRAME_S", 0.3)


LIARS = [send_wrong_bytes, send_too_large, send_endlessly]
SLUGGARDS = [send_nothing, send_slowly, hang_up]


@pytest.mark.parametrize("attack", [*LIARS, *SLUGGARDS], ids=lambda attack: attack.__name__)
def test_fetch__from_a_hostile_and_an_honest_provider_completes(attack: Handler) -> None:
    """threats.md, blocks: wrong, unwanted or endless blocks are never kept; the provider is switched."""
    content = Random(3).randbytes(10 * LEAF_BYTES)

    async def run() -> None:
        store, honest_store = MemoryBlocks(), MemoryBlocks()
        cid = honest_store.put_file(content)
        async with (
            open_victim(store) as victim,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=honest_store) as honest,
            open_attacker(victim, attack) as attacker,
        ):
            await victim.connect(honest.addresses[0])
            with trio.fail_after(HANGS_S):
                await victim.fetch_file(cid, providers=[attacker.peer_id, honest.peer_id], bytes_max=len(content))
            assert store.get_file(cid, bytes_max=len(content)) == content
            assert store.used_bytes == honest_store.used_bytes, "nothing else was kept"

    trio.run(run)


@pytest.mark.parametrize("attack", [*LIARS, *SLUGGARDS], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("codec", [CODEC_RAW, CODEC_DAG_PB])
def test_fetch__from_a_hostile_provider_alone_ends_soon_and_keeps_nothing(attack: Handler, codec: int) -> None:
    async def run() -> None:
        store = MemoryBlocks()
        async with open_victim(store) as victim, open_attacker(victim, attack) as attacker:
            with trio.fail_after(HANGS_S), pytest.raises(FetchError, match=r"could not fetch .*: it (sent|stalled)|the connection broke"):
                await victim.fetch_file(compute_cid(b"wanted", codec), providers=[attacker.peer_id], bytes_max=1 << 30)
            assert store.used_bytes == 0
            score = victim.scores.compute(attacker.peer_id, trio.current_time())
            assert (score < -30) == (attack in LIARS), "lies cost score, bad lines do not"

    trio.run(run)


def test_fetch__of_a_file_that_lies_about_a_block_blames_nobody_who_sends_the_true_one() -> None:
    """A hostile root names an honest peer's public leaf as a last leaf of ten bytes: the file is at fault, not who serves the leaf."""

    async def run() -> None:
        store, theirs, liars = MemoryBlocks(), MemoryBlocks(), MemoryBlocks()
        leaves = [theirs.put_file(Random(number).randbytes(LEAF_BYTES)) for number in range(2)]
        root = encode_node(leaves, LEAF_BYTES + 10, 1)
        cid = compute_cid(root, CODEC_DAG_PB)
        liars.put_block(cid, root)
        async with (
            open_victim(store) as victim,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=theirs) as honest,
            open_libp2p_network(seed=bytes([3]) * 32, listen=LOOPBACK, blocks=liars) as liar,
        ):
            for other in (honest, liar):
                await victim.connect(other.addresses[0])
            with pytest.raises(FetchError, match="it does not have all blocks"):
                await victim.fetch_file(cid, providers=[liar.peer_id], bytes_max=LEAF_BYTES + 10)
            with pytest.raises(FetchError, match=f"a block of it has {LEAF_BYTES} bytes, at most 10 were expected"):
                await victim.fetch_file(cid, providers=[honest.peer_id], bytes_max=LEAF_BYTES + 10)
            assert victim.scores.compute(honest.peer_id, trio.current_time()) >= 0
            assert not store.has_block(leaves[1])

    trio.run(run)


def test_fetch__a_provider_that_dies_in_the_middle_is_replaced() -> None:
    content = Random(4).randbytes(20 * LEAF_BYTES)

    async def run() -> None:
        store, half_store, whole_store = MemoryBlocks(), MemoryBlocks(), MemoryBlocks()
        cid = whole_store.put_file(content)
        half_store.put_file(content)
        async with open_victim(store) as victim, open_attacker(victim) as dying:
            served = 0

            async def serve_some(peer: PeerId, stream: INetStream) -> None:
                nonlocal served
                while True:
                    for wanted in await read_request(stream):
                        block = half_store.get_block(wanted)
                        assert block is not None
                        await stream.write(len(block).to_bytes(4, "big") + block)
                        served += 1
                        if served > 5:
                            dying.abort()

            dying.handle_streams(BLOCKS, serve_some)
            async with open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=whole_store) as other:
                victim.learn_addresses(other.peer_id, other.addresses)
                with trio.fail_after(HANGS_S):
                    await victim.fetch_file(cid, providers=[dying.peer_id, other.peer_id], bytes_max=len(content))
            assert store.get_file(cid, bytes_max=len(content)) == content
            assert served

    trio.run(run)


def test_fetch__goes_on_with_a_provider_whose_line_stalls_now_and_then() -> None:
    """A line with loss stalls for seconds; as long as each stream brings something, the file is worth waiting for."""
    content = Random(5).randbytes(8 * LEAF_BYTES)

    async def run() -> None:
        store, whole = MemoryBlocks(), MemoryBlocks()
        cid = whole.put_file(content)

        async def serve_two_then_stall(peer: PeerId, stream: INetStream) -> None:
            for wanted in (await read_request(stream))[:2]:
                block = whole.get_block(wanted)
                assert block is not None
                await stream.write(len(block).to_bytes(4, "big") + block)
            await trio.sleep_forever()

        async with open_victim(store) as victim, open_attacker(victim, serve_two_then_stall) as flaky:
            with trio.fail_after(HANGS_S):
                await victim.fetch_file(cid, providers=[flaky.peer_id], bytes_max=len(content))
        assert store.get_file(cid, bytes_max=len(content)) == content

    trio.run(run)


def test_fetch__who_lacks_a_block_stays_for_what_others_owe() -> None:
    """The first lacks one block, the second stalls with what it owes, the third has only that block: together they have all."""
    content = Random(3).randbytes(12 * LEAF_BYTES)
    blocks = dict(build_blocks(content))
    rare = next(iter(blocks))
    stalled = trio.Event()

    async def lack_one(peer: PeerId, stream: INetStream) -> None:
        while True:
            for cid in await read_request(stream):
                if cid[1] == CODEC_RAW:
                    await stalled.wait()
                await stream.write(encode_answer(None if cid == rare else blocks[cid]))

    async def have_one(peer: PeerId, stream: INetStream) -> None:
        while True:
            for cid in await read_request(stream):
                await stream.write(encode_answer(blocks[cid] if cid == rare else None))

    async def stall(peer: PeerId, stream: INetStream) -> None:
        await read_request(stream)
        stalled.set()
        await trio.sleep_forever()

    async def run() -> None:
        store = MemoryBlocks()
        async with AsyncExitStack() as stack:
            victim = await stack.enter_async_context(open_victim(store))
            peers = []
            for number, handler in enumerate((lack_one, stall, have_one), 66):
                attacker = await stack.enter_async_context(open_attacker(victim, handler, number=number))
                peers.append(attacker.peer_id)
            cid = compute_root(content)
            with trio.fail_after(HANGS_S):
                await victim.fetch_file(cid, providers=peers, bytes_max=len(content))
            assert store.get_file(cid, bytes_max=len(content)) == content

    trio.run(run)


def test_fetch__asks_as_many_as_it_takes_one_after_the_other() -> None:
    """More have nothing than are asked at a time: who has it comes last, and is still asked."""

    async def have_nothing(peer: PeerId, stream: INetStream) -> None:
        while True:
            for _ in await read_request(stream):
                await stream.write(encode_answer(None))

    async def run() -> None:
        store, honest_store = MemoryBlocks(), MemoryBlocks()
        cid = honest_store.put_file(b"rare")
        async with AsyncExitStack() as stack:
            victim = await stack.enter_async_context(open_victim(store))
            peers = []
            for number in range(66, 66 + libp2p_fetch.PROVIDERS_MAX + 1):
                attacker = await stack.enter_async_context(open_attacker(victim, have_nothing, number=number))
                peers.append(attacker.peer_id)
            opening = open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=honest_store)
            honest = await stack.enter_async_context(opening)
            peers.append(await victim.connect(honest.addresses[0]))
            with trio.fail_after(HANGS_S):
                await victim.fetch_file(cid, providers=peers, bytes_max=4)
            assert store.has_file(cid)

    trio.run(run)


def test_fetch__goes_on_where_it_was_left() -> None:
    """What was verified is kept: after a failed fetch only the rest is asked for."""
    content = Random(6).randbytes(8 * LEAF_BYTES)

    async def run() -> None:
        store, whole = MemoryBlocks(), MemoryBlocks()
        cid = whole.put_file(content)
        asked: list[Cid] = []
        left = 4

        async def serve_some(peer: PeerId, stream: INetStream) -> None:
            nonlocal left
            while True:
                for wanted in await read_request(stream):
                    asked.append(wanted)
                    block = whole.get_block(wanted)
                    if left == 0 or block is None:
                        await stream.write(b"\xff" * 4)
                    else:
                        left -= 1
                        await stream.write(len(block).to_bytes(4, "big") + block)

        async with open_victim(store) as victim, open_attacker(victim, serve_some) as provider:
            with trio.fail_after(HANGS_S), pytest.raises(FetchError, match="does not have all blocks"):
                await victim.fetch_file(cid, providers=[provider.peer_id], bytes_max=len(content))
            kept = {block for block in asked if store.has_block(block)}
            assert len(kept) == 4
            left = 100
            asked.clear()
            await victim.fetch_file(cid, providers=[provider.peer_id], bytes_max=len(content))
            assert kept.isdisjoint(asked)
            assert store.get_file(cid, bytes_max=len(content)) == content

    trio.run(run)


def test_fetch__goes_on_with_the_stream_of_the_one_before() -> None:
    """A new stream costs a round trip; one that the provider has closed meanwhile is replaced."""

    async def run() -> None:
        store, whole = MemoryBlocks(), MemoryBlocks()
        contents = [Random(number).randbytes(2 * LEAF_BYTES) for number in range(3)]
        served: list[int] = []

        async def serve_six(peer: PeerId, stream: INetStream) -> None:
            served.append(0)
            while served[-1] < 6:
                for wanted in await read_request(stream):
                    block = whole.get_block(wanted)
                    assert block is not None
                    await stream.write(len(block).to_bytes(4, "big") + block)
                    served[-1] += 1

        async with open_victim(store) as victim, open_attacker(victim, serve_six) as provider:
            for content in contents:
                cid = whole.put_file(content)
                await victim.fetch_file(cid, providers=[provider.peer_id], bytes_max=len(content))
                assert store.get_file(cid, bytes_max=len(content)) == content
        assert served == [6, 3], "a root and two leaves each"

    trio.run(run)


def test_serving__is_bounded_per_peer_and_ends_at_nonsense() -> None:
    async def run() -> None:
        store = MemoryBlocks()
        cid = store.put_file(b"shared")
        async with open_victim(store) as victim, open_attacker(victim) as attacker:
            streams = [await attacker.open_stream(victim.peer_id, [BLOCKS]) for _ in range(STREAMS_PER_PEER_MAX + 1)]
            for stream in streams[:-1]:
                await stream.write(encode_request([cid]))
                assert await read_exactly(stream, 10) == (6).to_bytes(4, "big") + b"shared"
            with pytest.raises(STREAM_ERRORS):
                await streams[-1].write(encode_request([cid]))
                await read_exactly(streams[-1], 10)
            for stream, nonsense in zip(streams, (b"\0", b"\xff", b"\1" + bytes(36)), strict=False):
                await stream.write(nonsense)
                with pytest.raises(STREAM_ERRORS):
                    await read_exactly(stream, 1)

    trio.run(run)


def test_direct__oversized_and_dripping_frames_end_the_stream_and_cost_score() -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker:
            for attack in ((1 << 20 | 1).to_bytes(4, "big"), b"\0\0", (100).to_bytes(4, "big") + b"part"):
                before = victim.scores.compute(attacker.peer_id, trio.current_time())
                stream = await attacker.open_stream(victim.peer_id, [SYNC])
                await stream.write(attack)
                with trio.fail_after(HANGS_S), pytest.raises(STREAM_ERRORS):
                    await read_exactly(stream, 1)
                assert victim.scores.compute(attacker.peer_id, trio.current_time()) < before - 30

    trio.run(run)


def test_direct__a_sender_that_nobody_reads_is_made_to_wait() -> None:
    """No unbounded buffer: what a peer can put into this node is the event queue and one window."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker, trio.open_nursery() as nursery:
            stream = await attacker.open_stream(victim.peer_id, [SYNC])
            frame = (100_000).to_bytes(4, "big") + bytes(100_000)
            sent, all_sent = 0, trio.Event()

            async def send() -> None:
                nonlocal sent
                for _ in range(1000):
                    await stream.write(frame)
                    sent += 1
                all_sent.set()

            nursery.start_soon(send)
            await until(lambda: sent > 10)
            with trio.move_on_after(1.0):
                await all_sent.wait()
            assert sent < 80, "64 events, one window of 256 KiB here and one outbox there"
            assert await victim.events.receive() == Connected(attacker.peer_id)
            assert await victim.events.receive() == DirectMessage(attacker.peer_id, bytes(100_000))
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_direct__a_flood_of_small_messages_is_slowed_down() -> None:
    """threats.md, one hostile peer: handling a message costs more than its bytes, so it counts for more."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker, trio.open_nursery() as nursery:
            heard = 0

            async def drain() -> None:
                nonlocal heard
                async for event in victim.events:
                    heard += isinstance(event, DirectMessage)

            nursery.start_soon(drain)
            stream = await attacker.open_stream(victim.peer_id, [SYNC])
            began_s, all_sent = trio.current_time(), trio.Event()

            async def send() -> None:
                for _ in range(1000):
                    await stream.write(bytes(4) * 1000)
                all_sent.set()

            nursery.start_soon(send)
            await until(lambda: heard > 20)
            with trio.move_on_after(1.0):
                await all_sent.wait()
            allowed_bytes = libp2p_direct.STRANGER_BURST_BYTES + (trio.current_time() - began_s + 1) * libp2p_direct.RATE_BYTES_S
            assert heard <= allowed_bytes / libp2p_direct.MESSAGE_COST_BYTES
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_budget__makes_a_fast_peer_wait() -> None:
    async def run() -> None:
        budget = ByteBudget(rate_bytes_s=100, burst_bytes=1000)
        began_s = trio.current_time()
        await budget.spend(1000)
        assert trio.current_time() == began_s
        await budget.spend(500)
        assert trio.current_time() == pytest.approx(began_s + 5)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_budgets__of_all_strangers_together_are_one_peers() -> None:
    """Threats, many strangers: sixteen that gossip as fast as each may took half a core. A member does not wait for them."""

    async def run() -> None:
        spent: Counter[bool] = Counter()
        member = PeerId(bytes([1]) * 32)
        async with open_host(seed=bytes(32), listen=[], rng=Random(1)) as host, trio.open_nursery() as nursery:
            budgets = PeerBudgets(host, rate_bytes_s=100, burst_bytes=1000, stranger_bytes=200)

            async def flood(peer: PeerId) -> None:
                while True:
                    await budgets.spend(peer, 50)
                    spent[peer == member] += 50

            for knows_members in (False, True):
                host.keep_places(frozenset({member} if knows_members else ()))
                spent.clear()
                with trio.move_on_after(100.0):
                    async with trio.open_nursery() as flooding:
                        for number in range(1, 21):
                            flooding.start_soon(flood, PeerId(bytes([number]) * 32))
                assert spent[True] >= 9_900
                assert (spent[False] <= 1000 + 100 * 100) == knows_members
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_handshakes__beyond_the_budget_are_refused_before_they_cost_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim:
            places = victim._host.swarm.places
            monkeypatch.setattr(places._all, "_left", 0.0)
            with pytest.raises(UnreachableError):
                async with open_attacker(victim):
                    pass
            monkeypatch.setattr(places._all, "_left", 1.0)
            async with open_attacker(victim) as attacker:
                assert victim.connected() == {attacker.peer_id}

    monkeypatch.setattr(libp2p_places, "HANDSHAKES_RATE_S", 0.0)
    trio.run(run)


@pytest.mark.parametrize("answer", [b"\x04\xff\xfe\xfd\n", b"\x13/multistream/1.0.0\n\x04\xff\xfe\xfd\n"])
def test_streams__answered_with_a_protocol_that_is_no_text_end_no_node(answer: bytes) -> None:
    """A node opens a stream with everybody who connects, for gossip."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker, open_attacker(victim, number=67) as witness:
            asked = 0

            async def babble(communicator: MultiselectCommunicator, timeout_s: float) -> None:
                nonlocal asked
                asked += 1
                await communicator.read_writer.write(answer)
                await trio.sleep_forever()

            attacker.libp2p.multiselect.negotiate = babble  # type: ignore[assignment]
            attacker.disconnect(victim.peer_id)
            await until(lambda: attacker.peer_id not in victim.connected())
            await attacker.connect(victim.addresses[0])
            await until(lambda: asked > 0)
            with pytest.raises(STREAM_ERRORS):
                await victim._host.open_stream(attacker.peer_id, [BLOCKS])
            with pytest.raises(FetchError):
                await victim.fetch_file(compute_root(b"a file"), providers=[attacker.peer_id], bytes_max=100)
            assert witness.peer_id in victim.connected()

    trio.run(run)


def test_muxer__breaking_its_rules_costs_score() -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker:
            (conn,) = attacker.swarm.get_connections()
            assert isinstance(conn.muxed_conn, Yamux)
            conn.muxed_conn.queue(DATA, SYN, 9999, WINDOW_BYTES_MAX + 1)
            await until(lambda: victim.scores.compute(attacker.peer_id, trio.current_time()) < -30)

    trio.run(run)
