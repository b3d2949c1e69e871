"""Bitswap with strangers on real sockets: what they get, what is kept of what they send, and what a flood may cost."""

from __future__ import annotations

import io
from contextlib import suppress
from random import Random

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.bitswap.pb.bitswap_pb2 import Message as Pb

from learnae.backends import libp2p_bitswap, libp2p_blocks, libp2p_fetch, libp2p_patience
from learnae.backends.bitswap_messages import BLOCKS_MAX, PROTOCOLS, WANTS_MAX, MessageError, Want, encode_wants, parse_message, read_name
from learnae.backends.libp2p_direct import read_exactly, read_varint
from learnae.backends.libp2p_get import get_file
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, open_host
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, encode_varint
from learnae.errors import FetchError
from learnae.ids import CODEC_DAG_PB, Cid, PeerId, compute_cid
from tests.backends.hostile import Handler, open_attacker, open_victim, until
from tests.processes import HANGS_S

BLOCK = b"a public block"


class Ear:
    """What a stranger is told by Bitswap."""

    def __init__(self, host: Host, protocols: tuple[str, ...] = PROTOCOLS) -> None:
        self.told: list[Pb] = []
        self.protocols: list[str] = []
        for protocol in protocols:
            host.handle_streams(protocol, self._listen)

    async def _listen(self, peer: PeerId, stream: INetStream) -> None:
        self.protocols.append(str(stream.get_protocol()))
        while True:
            self.told.append(await read_message(stream))

    @property
    def blocks(self) -> list[bytes]:
        return [block.data for told in self.told for block in told.payload] + [block for told in self.told for block in told.blocks]

    @property
    def presences(self) -> list[tuple[bytes, int]]:
        return [(entry.cid, entry.type) for told in self.told for entry in told.blockPresences]


async def read_message(stream: INetStream) -> Pb:
    return Pb.FromString(await read_exactly(stream, await read_varint(stream)))


async def tell(stream: INetStream, message: Pb | bytes) -> None:
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    await stream.write(encode_varint(len(raw)) + raw)


def make_wants(*entries: Pb.Wantlist.Entry) -> Pb:
    return Pb(wantlist=Pb.Wantlist(entries=entries))


def test_wants__are_answered_with_what_is_public_alone() -> None:
    """Bitswap 1.2: blocks, HAVE and DONT_HAVE under the names asked for, CIDv0 among them; private data is as if it were not there."""

    async def run() -> None:
        store = MemoryBlocks()
        public = store.put_file(BLOCK)
        private, secret = store.put_file(b"raw data", public=False), store.put_file(b"more raw data", public=False)
        node = store.put_file(bytes(LEAF_BYTES + 1))
        async with open_victim(store) as victim, open_attacker(victim) as stranger:
            ear = Ear(stranger)
            stream = await stranger.open_stream(victim.peer_id, [PROTOCOLS[0]])
            entry = Pb.Wantlist.Entry
            asked = [
                entry(block=public, sendDontHave=True),
                entry(block=private, sendDontHave=True),
                entry(block=secret, wantType=Pb.Wantlist.Have, sendDontHave=True),
                entry(block=public[:3] + b"?" + public[4:], sendDontHave=True),
                entry(block=node[2:], wantType=Pb.Wantlist.Have),
            ]
            for one in asked:
                await tell(stream, make_wants(one))
            await until(lambda: len(ear.presences) == 4)
            assert ear.blocks == [BLOCK]
            assert next(told for told in ear.told if told.payload).payload[0].prefix == public[:4]
            no, yes = Pb.DontHave, Pb.Have
            assert sorted(ear.presences) == sorted([(private, no), (secret, no), (asked[3].block, no), (node[2:], yes)])

    trio.run(run)


@pytest.mark.parametrize("version", PROTOCOLS[1:])
def test_wants__of_older_programs_are_answered_as_they_read_it(version: str) -> None:
    """Bitswap 1.1 knows no presences, and 1.0 no prefixes."""

    async def run() -> None:
        store = MemoryBlocks()
        public = store.put_file(BLOCK)
        async with open_victim(store) as victim, open_attacker(victim) as stranger:
            ear = Ear(stranger, (version,))
            stream = await stranger.open_stream(victim.peer_id, [version])
            absent = Pb.Wantlist.Entry(block=compute_cid(b"absent"), sendDontHave=True)
            await tell(stream, make_wants(absent, Pb.Wantlist.Entry(block=public)))
            await until(lambda: len(ear.told) == 1)
            assert ear.blocks == [BLOCK] and not ear.presences
            assert bool(ear.told[0].blocks) == (version == PROTOCOLS[2]), "1.0 has blocks without a prefix"

    trio.run(run)


def test_wants__that_are_taken_back_are_not_served() -> None:
    """A download that was given up costs the giver nothing more."""

    async def run() -> None:
        store = MemoryBlocks()
        cids = [store.put_file(Random(number).randbytes(LEAF_BYTES)) for number in range(40)]
        async with open_victim(store) as victim, open_attacker(victim) as stranger:
            ear = Ear(stranger)
            stream = await stranger.open_stream(victim.peer_id, [PROTOCOLS[0]])
            raw = [encode_wants(cids), encode_wants(cids[1:], is_cancel=True), encode_wants([compute_cid(b"absent")])]
            await stream.write(b"".join(encode_varint(len(message)) + message for message in raw))
            await until(lambda: len(ear.presences) == 1)
            assert len(ear.blocks) <= 4 + 1, "at most the message that was under way"

    trio.run(run)


def test_blocks__that_nobody_asked_for_are_never_kept_and_slow_their_sender_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """py-libp2p's Bitswap keeps them; here a stranger that pushes blocks is read no faster than its budget."""
    monkeypatch.setattr(libp2p_bitswap, "STRANGER_BURST_BYTES", 3 * 50_000)
    monkeypatch.setattr(libp2p_bitswap, "RATE_BYTES_S", 1.0)
    read: list[int] = []
    monkeypatch.setattr(libp2p_bitswap, "parse_message", lambda raw: (read.append(len(raw)), parse_message(raw))[1])

    async def run() -> None:
        store = MemoryBlocks()
        async with open_victim(store) as victim, open_attacker(victim) as attacker:

            async def push() -> None:
                while True:  # a stream for each: opening another renews nothing
                    stream = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                    await tell(stream, Pb(payload=[Pb.Block(prefix=b"\x01\x55\x12\x20", data=Random(1).randbytes(50_000))]))
                    await stream.close()
                    with suppress(*STREAM_ERRORS):
                        await stream.read(1)  # until it has been dealt with

            async with trio.open_nursery() as nursery:
                nursery.start_soon(push)
                await until(lambda: victim._fetcher.bitswap._budgets.of(attacker.peer_id)._left < 0)
                await trio.testing.wait_all_tasks_blocked(0.1)
                nursery.cancel_scope.cancel()
            assert 3 <= len(read) <= 5, "what its budget lets through"
            assert store.used_bytes == 0

    trio.run(run)


def test_blocks__to_strangers_are_paid_from_one_budget_and_members_get_what_the_line_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/attacks.md, one hostile peer: whoever asks, and by whatever protocol, strangers together get a bounded rate."""
    monkeypatch.setattr(libp2p_blocks, "STRANGERS_BURST_BYTES", libp2p_bitswap.ANSWER_BYTES + LEAF_BYTES)
    monkeypatch.setattr(libp2p_blocks, "STRANGERS_RATE_BYTES_S", 1.0)

    async def run() -> None:
        store = MemoryBlocks()
        cids = [store.put_file(Random(number).randbytes(LEAF_BYTES)) for number in range(12)]
        async with (
            open_victim(store) as victim,
            open_attacker(victim) as stranger,
            open_host(seed=bytes([40]) * 32, listen=[], rng=Random(40)) as member,
        ):
            await member.dial(victim.addresses[0])
            victim.keep_places(frozenset({member.peer_id}))
            ears = Ear(stranger), Ear(member)
            for host in (stranger, member):
                await tell(await host.open_stream(victim.peer_id, [PROTOCOLS[0]]), encode_wants(cids))
            await until(lambda: victim._server.strangers._left < 0)
            await until(lambda: len(ears[1].blocks) == len(cids))
            assert len(ears[0].blocks) <= 4, "one message; the second waits for the budget"

    trio.run(run)


def test_wants__beyond_what_is_answered_at_a_time_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_bitswap, "PEERS_MAX", 1)
    monkeypatch.setattr(libp2p_bitswap, "IDLE_S", 0.2)

    async def run() -> None:
        store = MemoryBlocks()
        cid = store.put_file(BLOCK)
        async with (
            open_victim(store) as victim,
            open_attacker(victim) as first,
            open_host(seed=bytes([40]) * 32, listen=[], rng=Random(40)) as second,
        ):
            await second.dial(victim.addresses[0])
            ears = Ear(first), Ear(second)
            streams = [await host.open_stream(victim.peer_id, [PROTOCOLS[0]]) for host in (first, second)]
            for stream in streams:
                await tell(stream, encode_wants([cid]))
            await until(lambda: [ear.blocks for ear in ears] == [[BLOCK], [BLOCK]])

    trio.run(run)


@pytest.mark.parametrize("entry", [b"\x12\x00", b"\x1a\x00", b"\x22\x00"], ids=["block", "payload", "presence"])
def test_message__of_many_empty_entries_uses_up_the_budget(entry: bytes) -> None:
    """Each costs time whatever is in it, also what is left out beyond the limits."""
    count = libp2p_bitswap.QUIET_BYTES_MAX // 2
    message = parse_message(entry * count)
    assert message.entries == count
    assert len(message.blocks) + len(message.lacking) <= BLOCKS_MAX

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker:
            stream = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
            await tell(stream, entry * count)
            neighbours = victim._fetcher.bitswap._neighbours
            await until(lambda: attacker.peer_id in neighbours and neighbours[attacker.peer_id].budget._left < 0)

    trio.run(run)


def test_message__that_is_too_large_ends_the_stream_and_nonsense_costs_score() -> None:
    """A peer that was asked for nothing has wanted lists to send, at most: 256 KiB at a time."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker:
            large = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
            await large.write(encode_varint(libp2p_bitswap.QUIET_BYTES_MAX + 1) + bytes(1000))
            with trio.fail_after(HANGS_S), pytest.raises(STREAM_ERRORS):
                await large.read(1)
            assert victim.scores.compute(attacker.peer_id, trio.current_time()) >= 0
            broken = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
            await tell(broken, b"\xff\xff nonsense")
            await until(lambda: victim.scores.compute(attacker.peer_id, trio.current_time()) < 0)

    trio.run(run)


def test_streams__of_one_peer_are_bounded() -> None:
    async def run() -> None:
        store = MemoryBlocks()
        cid = store.put_file(BLOCK)
        async with open_victim(store) as victim, open_attacker(victim) as attacker:
            ear = Ear(attacker)
            streams = [await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]]) for _ in range(libp2p_bitswap.STREAMS_PER_PEER_MAX)]
            with trio.fail_after(HANGS_S), pytest.raises(STREAM_ERRORS):
                one_more = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                await one_more.read(1)
            for number, stream in enumerate(streams, 1):
                await tell(stream, encode_wants([cid]))
                await until(lambda count=number: len(ear.blocks) == count)

    trio.run(run)


def test_message__names_and_counts_are_bounded() -> None:
    """What parse_message gives is never more than the limits, whatever the bytes say."""
    many = make_wants(*[Pb.Wantlist.Entry(block=compute_cid(b"%d" % number)) for number in range(WANTS_MAX + 5)])
    assert len(parse_message(many.SerializeToString()).wants) == WANTS_MAX
    assert parse_message(make_wants(Pb.Wantlist.Entry(block=bytes(65))).SerializeToString()).wants == []
    cid = compute_cid(b"x", CODEC_DAG_PB)
    assert parse_message(encode_wants([cid])).wants == [Want(cid, wants_no=True)]
    assert read_name(cid) == read_name(cid[2:]) == cid, "CIDv0 is another name of the same block"
    assert read_name(b"\x01\x55\x1b\x20" + bytes(32)) is None and read_name(b"") is None
    with pytest.raises(MessageError, match="no Bitswap message"):
        parse_message(b"\xff")


def test_get_file__brings_what_a_node_has_made_public_and_nothing_else() -> None:
    """`learnae ipfs get CID --from` asks any node of a session, as any IPFS program may."""

    async def run() -> None:
        store, out = MemoryBlocks(), io.BytesIO()
        content = Random(1).randbytes(3 * LEAF_BYTES + 1)
        public, private = store.put_file(content), store.put_file(b"raw data", public=False)
        told: list[tuple[int, int]] = []
        async with open_victim(store) as victim:

            async def get(cid: Cid, bytes_max: int) -> int:
                return await get_file(
                    victim.addresses[0], cid, out.write, bytes_max=bytes_max, on_progress=lambda *sizes: told.append(sizes)
                )

            assert await get(public, len(content)) == len(content) and out.getvalue() == content
            assert told == [(min(number * LEAF_BYTES, len(content)), len(content)) for number in range(1, 5)]
            with pytest.raises(FetchError, match="is not at"):
                await get(private, 100)
            with pytest.raises(FetchError, match=f"it has {len(content)} bytes, at most {len(content) - 1} are taken"):
                await get(public, len(content) - 1)
            assert out.getvalue() == content, "nothing of those was written"

    trio.run(run)


# --- fetching from strangers ------------------------------------------------------------------------------------


async def push_other_blocks(peer: PeerId, stream: INetStream) -> None:
    """Answers each want with a block that was not asked for."""
    while True:
        told = await read_message(stream)
        for _ in told.wantlist.entries:
            await tell(stream, Pb(payload=[Pb.Block(prefix=b"\x01\x55\x12\x20", data=b"other bytes")]))


async def say_nothing(peer: PeerId, stream: INetStream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("attack", [push_other_blocks, say_nothing], ids=lambda attack: attack.__name__)
def test_fetch__by_bitswap_from_a_useless_provider_fails_soon_and_keeps_nothing(attack: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_fetch, "STALL_S", 0.2)

    async def run() -> None:
        store = MemoryBlocks()
        async with open_victim(store) as victim, open_attacker(victim) as attacker:
            attacker.handle_streams(PROTOCOLS[0], attack)
            with trio.fail_after(HANGS_S), pytest.raises(FetchError, match="it stalled"):
                await victim.fetch_file(compute_cid(BLOCK), providers=[attacker.peer_id], bytes_max=100)
            assert store.used_bytes == 0

    trio.run(run)


def test_fetch__by_bitswap_takes_what_was_asked_in_any_order_and_believes_a_no() -> None:
    """Kubo answers on streams of its own, in the order in which its disk is fast; DONT_HAVE ends the wait."""

    async def run() -> None:
        store, theirs = MemoryBlocks(), MemoryBlocks()
        content = Random(1).randbytes(5 * LEAF_BYTES)
        cid = theirs.put_file(content)
        async with open_victim(store) as victim, open_attacker(victim) as attacker:

            async def answer(peer: PeerId, stream: INetStream) -> None:
                while True:
                    told = await read_message(stream)
                    back = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                    for entry in reversed(told.wantlist.entries):
                        block = theirs.get_block(Cid(entry.block))
                        no = [Pb.BlockPresence(cid=entry.block, type=Pb.DontHave)]
                        await tell(back, Pb(blockPresences=no) if block is None else Pb(payload=[Pb.Block(prefix=b"", data=block)]))

            attacker.handle_streams(PROTOCOLS[0], answer)
            await victim.fetch_file(cid, providers=[attacker.peer_id], bytes_max=len(content))
            assert store.get_file(cid, bytes_max=len(content)) == content
            with trio.fail_after(HANGS_S), pytest.raises(FetchError, match="it does not have all blocks"):
                await victim.fetch_file(compute_cid(b"absent"), providers=[attacker.peer_id], bytes_max=100)

    trio.run(run)


def test_fetch__that_is_cancelled_takes_nothing_back_that_another_waits_for() -> None:
    """Kubo keeps one wanted list of a peer: a want that is taken back is gone for both."""

    async def run() -> None:
        store = MemoryBlocks()
        cid = compute_cid(BLOCK)
        async with open_victim(store) as victim, open_attacker(victim) as attacker:
            asked = ended = 0
            wanted: set[bytes] = set()

            async def listen(peer: PeerId, stream: INetStream) -> None:
                nonlocal asked, ended
                try:
                    while True:
                        for entry in (await read_message(stream)).wantlist.entries:
                            asked += not entry.cancel
                            (wanted.discard if entry.cancel else wanted.add)(entry.block)
                finally:
                    ended += 1

            attacker.handle_streams(PROTOCOLS[0], listen)

            async def fetch(scope: trio.CancelScope) -> None:
                with scope:
                    await victim.fetch_file(cid, providers=[attacker.peer_id], bytes_max=100)

            scopes = [trio.CancelScope(), trio.CancelScope()]
            async with trio.open_nursery() as nursery:
                for scope in scopes:
                    nursery.start_soon(fetch, scope)
                await until(lambda: asked == 2)
                scopes[0].cancel()
                await until(lambda: ended == 1)
                assert wanted == {cid}
                back = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                await tell(back, Pb(payload=[Pb.Block(prefix=b"", data=BLOCK)]))
            assert store.has_file(cid)

    trio.run(run)


def test_fetch__by_bitswap_lets_the_provider_open_a_stream_for_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubo does: a large file would need more streams than a stranger may open."""
    monkeypatch.setattr(libp2p_patience, "BURST", 300.0)
    monkeypatch.setattr(libp2p_patience, "RATE_S", 1.0)

    async def run() -> None:
        store, theirs = MemoryBlocks(), MemoryBlocks()
        content = Random(1).randbytes(60 * LEAF_BYTES)
        cid = theirs.put_file(content)
        async with open_victim(store) as victim, open_attacker(victim) as attacker:

            async def answer(peer: PeerId, stream: INetStream) -> None:
                while True:
                    for entry in (await read_message(stream)).wantlist.entries:
                        back = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                        await tell(back, Pb(payload=[Pb.Block(prefix=b"", data=theirs.get_block(Cid(entry.block)))]))
                        await back.close()

            attacker.handle_streams(PROTOCOLS[0], answer)
            with trio.fail_after(HANGS_S):
                await victim.fetch_file(cid, providers=[attacker.peer_id], bytes_max=len(content))
            assert store.has_file(cid)

    trio.run(run)


def test_fetch__of_a_block_larger_than_a_leaf_ends_with_a_reason() -> None:
    """Others may cut files into larger blocks, under other CIDs: no file of this session, and nothing is kept of it."""

    async def run() -> None:
        store = MemoryBlocks()
        large = bytes(LEAF_BYTES + 1)
        async with open_victim(store) as victim, open_attacker(victim) as attacker:

            async def answer(peer: PeerId, stream: INetStream) -> None:
                await read_message(stream)
                back = await attacker.open_stream(victim.peer_id, [PROTOCOLS[0]])
                await tell(back, Pb(payload=[Pb.Block(prefix=b"", data=large)]))
                await trio.sleep_forever()

            attacker.handle_streams(PROTOCOLS[0], answer)
            with trio.fail_after(HANGS_S), pytest.raises(FetchError, match=f"has {len(large)} bytes, at most {LEAF_BYTES} were expected"):
                await victim.fetch_file(compute_cid(large), providers=[attacker.peer_id], bytes_max=1 << 30)
            assert store.used_bytes == 0

    trio.run(run)
