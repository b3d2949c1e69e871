"""A node and real Kubo nodes: blocks by Bitswap in both directions, and the same files under the same CIDs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random

import base58
import pytest
import trio
import trio.testing

from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, LINKS_MAX, build_blocks
from learnae.cli import main
from learnae.ids import CODEC_DAG_PB, Cid, PeerId, Topic, cid_text, compute_cid
from learnae.tangle.verdict import Verdict
from tests.backends.hostile import LOOPBACK
from tests.kubo_node import KuboNode, open_kubo

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KuboNode]:
    with open_kubo(tmp_path_factory.mktemp("kubo")) as node:
        yield node


@asynccontextmanager
async def open_node(number: int, store: MemoryBlocks) -> AsyncIterator[Libp2pNetwork]:
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=LOOPBACK, blocks=store, rng=Random(number)) as network:
        yield network


def test_kubo__gets_public_files_of_a_node_and_gives_them_to_another(kubo: KuboNode, tmp_path: Path) -> None:
    """Issue, "real IPFS at the other end": 1 KB to 50 MB, there by Kubo's own search, and back to a node that only knows Kubo."""

    async def run() -> None:
        store, copy = MemoryBlocks(), MemoryBlocks()
        async with open_node(1, store) as giver, open_node(2, copy) as taker:
            await trio.to_thread.run_sync(kubo.connect, giver.addresses[0])
            provider = await taker.connect(kubo.addresses[0])
            for size in (0, KIB, LEAF_BYTES, LEAF_BYTES + 1, 3 * MIB, 50 * MIB):
                content = Random(size).randbytes(size)
                cid = store.put_file(content)
                await trio.to_thread.run_sync(kubo.download, cid_text(cid), tmp_path / "file")
                assert (tmp_path / "file").read_bytes() == content
                await taker.fetch_file(cid, providers=[provider], bytes_max=size)
                assert copy.get_file(cid, bytes_max=size) == content

    trio.run(run)


def test_kubo__is_one_provider_among_others(kubo: KuboNode, tmp_path: Path) -> None:
    """A file comes from a node and from Kubo at the same time; what Kubo lacks comes from the node."""

    async def run() -> None:
        store, copy = MemoryBlocks(), MemoryBlocks()
        content = Random(1).randbytes(5 * MIB)
        async with open_node(3, store) as giver, open_node(4, copy) as taker:
            cid = store.put_file(content)
            await trio.to_thread.run_sync(kubo.connect, giver.addresses[0])
            await trio.to_thread.run_sync(kubo.download, cid_text(cid), tmp_path / "file")
            absent = store.put_file(content + b"more")
            providers = [await taker.connect(kubo.addresses[0]), await taker.connect(giver.addresses[0])]
            for root in (cid, absent):
                await taker.fetch_file(root, providers=providers, bytes_max=len(content) + 4)
                assert copy.has_file(root)

    trio.run(run)


FULL_BYTES = LINKS_MAX * LEAF_BYTES  # one more byte, and the tree has another level


@pytest.mark.parametrize("size", [1, LEAF_BYTES, LEAF_BYTES + 1, 2 * LEAF_BYTES, 5 * MIB + 1, FULL_BYTES, FULL_BYTES + 1, 50 * MIB])
def test_file_tree__is_kubos(kubo: KuboNode, tmp_path: Path, size: int) -> None:
    """Equal CIDs: Kubo's library adds with CIDv0, whose leaves are wrapped, so ours are wrapped here and all else is left as it is."""
    content = Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    assert _name_as_version_0(content) == kubo.add_file(tmp_path / "file", only_hash=True)


def _name_as_version_0(content: bytes) -> str:
    """The CIDv0 of a file whose tree is the one that `build_blocks` makes, but for the wrapping of leaves."""
    wrapped: dict[Cid, tuple[bytes, int]] = {}  # digest, and bytes of the subtree
    digest = b""
    for cid, block in build_blocks(content):
        if cid[1] == CODEC_DAG_PB:
            block, below = _rename_links(block, wrapped)
        else:
            inner = b"\x08\x02\x12" + _varint(len(block)) + block + b"\x18" + _varint(len(block))
            block, below = b"\x0a" + _varint(len(inner)) + inner, 0
        digest = hashlib.sha256(block).digest()
        wrapped[cid] = digest, len(block) + below
    return base58.b58encode(b"\x12\x20" + digest).decode()


def _rename_links(node: bytes, wrapped: dict[Cid, tuple[bytes, int]]) -> tuple[bytes, int]:
    out, at, below = b"", 0, 0
    while node[at] == 0x12:
        digest, tree_bytes = wrapped[Cid(node[at + 4 : at + 40])]
        link = b"\x0a\x22\x12\x20" + digest + b"\x12\x00\x18" + _varint(tree_bytes)
        out += b"\x12" + _varint(len(link)) + link
        below += tree_bytes
        at += 2 + node[at + 1]
    return out + node[at:], below


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def test_get_from__brings_kubos_own_files_and_says_what_is_none(
    kubo: KuboNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`learnae ipfs get CID --from MULTIADDR`: files that Kubo added in its own way, CIDv0 with wrapped leaves."""
    for size in (0, KIB, 3 * MIB + 1):
        content = Random(size).randbytes(size)
        (tmp_path / "file").write_bytes(content)
        cid, out = kubo.add_file(tmp_path / "file"), tmp_path / f"{size}.out"
        assert main(["ipfs", "get", cid, "--from", kubo.addresses[0], "--out", str(out)]) == 0
        assert out.read_bytes() == content
        assert f"{out}: {size} bytes" in capsys.readouterr().out
    empty_folder = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"  # in every repository of Kubo
    assert main(["ipfs", "get", empty_folder, "--from", kubo.addresses[0]]) == 1
    assert "it is a directory, not a file" in capsys.readouterr().err
    absent = cid_text(compute_cid(b"nobody has this"))
    assert main(["ipfs", "get", absent, "--from", kubo.addresses[0], "--out", str(tmp_path / "absent")]) == 1
    assert f"{absent} is not at {kubo.addresses[0]}" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


def test_gossip__passes_kubo_in_both_directions_and_kubos_messages_pass_a_node(kubo: KuboNode, tmp_path: Path) -> None:
    """PubSub with real IPFS: Kubo drops what its author has not signed, so this fails where an envelope is absent or was not kept."""
    topic = Topic("/learnae/test/control")
    found: dict[str, set[bytes]] = {"one": set(), "two": set(), "kubo": set(), "far": set()}

    def judge_for(name: str) -> Callable[[PeerId, bytes], Verdict]:
        return lambda sender, content: (found[name].add(content.split(b" ")[0]), Verdict.ACCEPT)[1]

    async def run(far: KuboNode) -> None:
        subscriptions = {"kubo": (kubo, kubo.subscribe(topic)), "far": (far, far.subscribe(topic))}

        def pump(name: str) -> None:
            node, subscription = subscriptions[name]
            while (message := node.next_message(subscription)) is not None:
                found[name].add(message[1].split(b" ")[0])

        async with open_node(6, MemoryBlocks()) as one, open_node(7, MemoryBlocks()) as two:
            await one.subscribe(topic, judge_for("one"))
            await two.subscribe(topic, judge_for("two"))
            await one.connect(kubo.addresses[0])  # a line: one - kubo - two - far
            await two.connect(kubo.addresses[0])
            await two.connect(far.addresses[0])
            expected = {"one": {b"K", b"F"}, "two": {b"1", b"K", b"F"}, "kubo": {b"1", b"F", b"K"}, "far": {b"1", b"K", b"F"}}
            with trio.fail_after(20):
                for number in count():
                    await one.publish(topic, b"1 %d" % number)
                    await trio.to_thread.run_sync(kubo.publish, topic, b"K %d" % number)
                    await trio.to_thread.run_sync(far.publish, topic, b"F %d" % number)
                    for name in subscriptions:
                        await trio.to_thread.run_sync(pump, name)
                    if found == expected:
                        return
                    await trio.testing.wait_all_tasks_blocked(0.05)

    with open_kubo(tmp_path / "far") as far:
        trio.run(run, far)
