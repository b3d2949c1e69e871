"""Public blocks in an IPFS daemon: against a stand-in server written from Kubo's published RPC reference."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest
import trio

from learnae.backends.errors import KuboError
from learnae.backends.kubo_blocks import KuboBlocks
from learnae.backends.kubo_fetch import KuboNetwork
from learnae.backends.kubo_rpc import KuboRpc
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_network import MemoryHub
from learnae.backends.unixfs import LEAF_BYTES, collect_all
from learnae.cli.compose import open_blocks
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.errors import DiskFullError, FetchError
from learnae.ids import PeerId
from learnae.ports import BlockStore, Network
from tests.backends.kubo_standin import Daemon, open_daemon
from tests.conformance.block_store import check_block_store
from tests.conformance.network import check_network


@contextmanager
def open_store(daemon: Daemon, folder: Path, *, quota_bytes: int = 64 << 20) -> Iterator[KuboBlocks]:
    rpc = KuboRpc(daemon.url)
    store = KuboBlocks(rpc, folder, private=MemoryBlocks(), quota_bytes=quota_bytes)
    try:
        yield store
    finally:
        store.close()
        rpc.close()


def test_kubo_blocks__keep_the_promises_of_the_port(tmp_path: Path) -> None:
    with ExitStack() as stack:
        numbers = count()

        def make_store(quota_bytes: int) -> KuboBlocks:
            daemon = stack.enter_context(open_daemon())
            return stack.enter_context(open_store(daemon, tmp_path / str(next(numbers)), quota_bytes=quota_bytes))

        check_block_store(make_store)


def test_kubo_network__keeps_the_promises_of_the_port() -> None:
    with open_daemon() as daemon:
        rpc = KuboRpc(daemon.url)

        @asynccontextmanager
        async def open_networks(stores: Sequence[BlockStore]) -> AsyncIterator[Sequence[Network]]:
            hub = MemoryHub()
            inner = [hub.join(PeerId(bytes([number]) * 32), store) for number, store in enumerate(stores, 1)]
            yield [KuboNetwork(network, store, rpc, search_s=0.1) for network, store in zip(inner, stores, strict=True)]

        trio.run(check_network, open_networks)
        rpc.close()
        assert "block/get" in daemon.calls, "what nobody had was looked for in IPFS"


def test_private_blocks__never_reach_the_daemon(tmp_path: Path) -> None:
    """Raw data stays on this machine unless it is opened: IPFS would give it to anybody."""
    with open_daemon() as daemon, open_store(daemon, tmp_path) as store:
        content = Random(1).randbytes(300_000)
        cid = store.put_file(content, public=False)
        assert daemon.blocks == {} and store.get_file(cid, bytes_max=300_000) == content
        assert store.put_file(content) == cid
        assert set(daemon.blocks) == daemon.direct_pins == set(collect_all(cid, daemon.blocks.get) or ())


def test_blocks__outlive_the_node_and_the_daemons_garbage_collection(tmp_path: Path) -> None:
    with open_daemon() as daemon:
        with open_store(daemon, tmp_path) as store:
            cid = store.put_file(bytes(3 * LEAF_BYTES) + b"x")
            store.pin(cid)
            used_bytes = store.used_bytes
        daemon.collect_garbage()
        with open_store(daemon, tmp_path) as store:
            assert store.get_file(cid, bytes_max=1 << 20) == bytes(3 * LEAF_BYTES) + b"x"
            assert store.used_bytes == used_bytes > 0


def test_eviction__unpins_and_removes_nothing_of_the_users(tmp_path: Path) -> None:
    """The daemon is the user's: a block below a pin of theirs is shared, and stays when the node lets it go."""
    with open_daemon() as daemon, open_store(daemon, tmp_path, quota_bytes=1 << 20) as store:
        theirs = Random(1).randbytes(200_000)
        mine = [store.put_file(Random(seed).randbytes(250_000)) for seed in (2, 3)]
        shared = store.put_file(theirs)
        daemon.users_pins.add(shared)
        store.put_file(b"small")
        big = store.put_file(Random(4).randbytes(900_000))
        assert store.has_file(big) and not any(store.has_file(cid) for cid in (*mine, shared))
        daemon.collect_garbage()
        assert shared in daemon.blocks and not set(mine) & daemon.blocks.keys()


def test_block_that_the_user_has_pinned_already__is_stored_all_the_same(tmp_path: Path) -> None:
    """Kubo refuses a direct pin on what is pinned recursively, and with it the whole call."""
    with open_daemon() as daemon, open_store(daemon, tmp_path) as store:
        content = Random(5).randbytes(2 * LEAF_BYTES)
        with open_store(daemon, tmp_path / "before") as before:
            cid = before.put_file(content)
        leaf = next(block for block in daemon.blocks if block != cid)
        daemon.direct_pins.clear()
        daemon.users_pins.add(leaf)
        assert store.put_file(content) == cid
        daemon.collect_garbage()
        assert store.get_file(cid, bytes_max=len(content)) == content


def test_block_that_the_daemon_lost_or_changed__is_dropped(tmp_path: Path) -> None:
    with open_daemon() as daemon, open_store(daemon, tmp_path) as store:
        lost, changed = store.put_file(b"lost"), store.put_file(b"changed")
        del daemon.blocks[lost]
        daemon.lies[changed] = b"other bytes"
        for cid in (lost, changed):
            assert store.has_block(cid)
            assert store.get_block(cid) is None
            assert not store.has_block(cid)
        assert store.used_bytes == 0


def test_file_that_no_peer_gives__comes_from_ipfs() -> None:
    """Issue: the user's own daemon fetches by Bitswap and DHT; every block is verified before it is kept."""
    with open_daemon() as mine, open_daemon() as elsewhere:
        mine.peers = [elsewhere]
        content = Random(6).randbytes(5 * LEAF_BYTES + 3)
        source = MemoryBlocks()
        cid = source.put_file(content)
        elsewhere.blocks = {block: source.get_block(block) or b"" for block in collect_all(cid, source.get_block) or ()}

        async def run() -> None:
            rpc, blocks = KuboRpc(mine.url), MemoryBlocks()
            async with open_libp2p_network(seed=bytes(32), listen=(), blocks=blocks) as inner:
                network = KuboNetwork(inner, blocks, rpc, search_s=1.0)
                with pytest.raises(FetchError, match=r"no provider was named; IPFS: it has \d+ bytes, at most 1000 were expected"):
                    await network.fetch_file(cid, providers=[], bytes_max=1000)
                with pytest.raises(FetchError, match=r"no provider was named$"):
                    await network.fetch_file(cid, providers=[], bytes_max=len(content), public=False)
                assert not blocks.has_block(cid)
                leaf = (collect_all(cid, source.get_block) or [])[2]
                mine.lies[leaf] = os.urandom(LEAF_BYTES)
                with pytest.raises(FetchError, match="IPFS: the daemon gave bytes that are not the block asked for"):
                    await network.fetch_file(cid, providers=[], bytes_max=len(content))
                assert not blocks.has_block(leaf)
                mine.lies[leaf] = bytes(LEAF_BYTES + 1)
                with pytest.raises(FetchError, match="IPFS: nobody gave"):
                    await network.fetch_file(cid, providers=[], bytes_max=len(content))
                mine.lies.clear()
                await network.fetch_file(cid, providers=[PeerId(b"1" * 32)], bytes_max=len(content))
                assert blocks.get_file(cid, bytes_max=len(content)) == content
            rpc.close()

        trio.run(run)


def test_daemon__that_does_not_answer_is_told_and_nothing_is_noted(tmp_path: Path) -> None:
    with open_daemon() as daemon, open_store(daemon, tmp_path) as store:
        url = daemon.url
    rpc = KuboRpc(url)
    store = KuboBlocks(rpc, tmp_path, private=MemoryBlocks())
    with pytest.raises(KuboError, match=rf"the IPFS daemon at {url} cannot be used: it does not answer .*`ipfs daemon` runs"):
        store.put_file(b"content")
    assert store.used_bytes == 0
    with pytest.raises(KuboError, match="it does not answer"):
        rpc.read_version()
    store.close()
    rpc.close()
    with pytest.raises(KuboError, match="not an http:// or https:// address"):
        KuboRpc("localhost:5001")


@pytest.mark.parametrize("answer", [b"hello", b"[1]\n", b"{}\n", b'{"Version": 7}', b"[" * 100_000])
def test_daemon__that_is_none_is_told(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_daemon() as daemon:
        monkeypatch.setattr(daemon, "run", lambda command, query, files: answer)
        rpc = KuboRpc(daemon.url)
        with pytest.raises(KuboError, match="something else than Kubo answers there"):
            rpc.read_version()
        rpc.close()


def test_daemon__with_endless_or_wrong_answers_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_daemon() as daemon, open_store(daemon, tmp_path) as store:
        for answer, why in ((bytes(2 << 20), "larger than 1048576 bytes"), (b'{"Key": "bafy"}\n', "under other CIDs than theirs")):
            with monkeypatch.context() as patch:
                patch.setattr(daemon, "run", lambda command, query, files, answer=answer: answer)
                with pytest.raises(KuboError, match=why):
                    store.put_file(b"content")
            assert store.used_bytes == 0
        with pytest.raises(DiskFullError, match="its quota in the IPFS daemon is"):
            KuboBlocks(KuboRpc(daemon.url), tmp_path / "small", private=MemoryBlocks(), quota_bytes=10).put_file(b"more than ten bytes")


def test_node__keeps_its_public_blocks_in_the_daemon_of_its_settings(tmp_path: Path) -> None:
    """`backend` and `kubo` in settings.json; what was put into the folder before, such as the session's first model, is still served."""
    settings = NodeSettings(task="", data="", rpc="")
    folder = NodeFolder(tmp_path)
    plain, nobody = open_blocks(folder, settings)
    first = plain.put_file(b"the first model")
    assert nobody is None
    with open_daemon() as daemon:
        blocks, rpc = open_blocks(folder, replace(settings, backend="kubo", kubo=daemon.url))
        assert isinstance(blocks, KuboBlocks) and rpc is not None
        assert blocks.get_public_block(first) == b"the first model"
        cid = blocks.put_file(b"the next model")
        assert daemon.blocks == {cid: b"the next model"}
        blocks.close()
        rpc.close()
    with pytest.raises(KuboError, match="it does not answer"):
        open_blocks(folder, replace(settings, backend="kubo", kubo=daemon.url))
