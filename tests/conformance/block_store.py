"""What every `BlockStore` promises."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from learnae.backends.unixfs import LEAF_BYTES, build_blocks, compute_root
from learnae.errors import BlockMismatchError, DiskFullError
from learnae.ids import CODEC_RAW, Cid, compute_cid
from learnae.ports import BlockStore


def check_block_store(make_store: Callable[[int], BlockStore]) -> None:
    """`make_store(quota_bytes)` gives a new, empty store."""
    _check_files(make_store(64 << 20))
    _check_blocks(make_store(64 << 20))
    _check_public(make_store(64 << 20))
    _check_quota(make_store)
    _check_pins(make_store)
    _check_held(make_store)


def _check_files(store: BlockStore) -> None:
    rng = Random(1)
    used_bytes = store.used_bytes
    for size in (0, 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES + 5):
        content = rng.randbytes(size)
        cid = store.put_file(content)
        assert cid == compute_root(content)
        assert store.has_file(cid)
        assert store.get_file(cid, bytes_max=size) == content
        view = store.view_file(cid, bytes_max=size)
        assert view is not None and len(view) == size and b"".join(view) == content
        assert store.get_file(cid, bytes_max=max(size, 1)) == content
        if size:
            assert store.get_file(cid, bytes_max=size - 1) is None, "a file larger than the caller takes is not given"
        once_bytes = store.used_bytes
        assert store.put_file(content) == cid
        assert store.used_bytes == once_bytes, "putting it again changes nothing"
    assert store.used_bytes > used_bytes


def _check_blocks(store: BlockStore) -> None:
    content = Random(2).randbytes(2 * LEAF_BYTES + 9)
    blocks = list(build_blocks(content))
    root = blocks[-1][0]
    assert store.get_block(root) is None
    assert not store.has_file(root)
    store.put_block(*blocks[-1])
    assert store.has_block(root)
    assert not store.has_file(root), "the leaves are still absent"
    assert store.get_file(root, bytes_max=len(content)) is None
    store.put_blocks(blocks[:-1])
    assert store.has_file(root)
    assert store.get_file(root, bytes_max=len(content)) == content
    wrong = compute_cid(b"other bytes", CODEC_RAW)
    with pytest.raises(BlockMismatchError, match="do not hash to it"):
        store.put_block(wrong, b"these bytes")
    with pytest.raises(BlockMismatchError, match="nothing was kept"):
        store.put_blocks([(compute_cid(b"right", CODEC_RAW), b"right"), (wrong, b"these bytes")])
    assert not store.has_block(wrong)
    assert not store.has_block(compute_cid(b"right", CODEC_RAW)), "all or none"
    large = bytes(LEAF_BYTES + 1)
    with pytest.raises(BlockMismatchError, match="exceed"):
        store.put_block(compute_cid(large, CODEC_RAW), large)


def _check_public(store: BlockStore) -> None:
    kept = store.put_file(b"for this node only", public=False)
    shared = store.put_file(b"for everyone")
    assert store.get_file(kept, bytes_max=100) == b"for this node only"
    assert store.get_public_block(kept) is None
    assert not store.has_public_block(kept) and store.has_public_block(shared)
    assert store.get_public_block(shared) == b"for everyone"
    store.put_file(b"for everyone", public=False)
    assert store.get_public_block(shared) == b"for everyone", "what is public stays public"
    store.put_file(b"for this node only")
    assert store.get_public_block(kept) == b"for this node only", "putting it again as public opens it"
    assert store.has_public_block(kept) and not store.has_public_block(compute_cid(b"never stored"))


def _check_quota(make_store: Callable[[int], BlockStore]) -> None:
    store = make_store(1 << 20)
    files = [_put(store, seed, 200_000) for seed in range(4)]
    assert store.get_file(files[0], bytes_max=200_000) is not None, "used last, so it goes last"
    newest = _put(store, 9, 400_000)
    assert store.has_file(newest)
    assert store.has_file(files[0])
    assert not store.has_file(files[1]), "least recently used goes first"
    assert store.used_bytes <= 1 << 20
    with pytest.raises(DiskFullError, match="no room in the block store"):
        _put(store, 10, 2 << 20)
    assert store.has_file(newest), "nothing is lost to a file that does not fit"


def _check_pins(make_store: Callable[[int], BlockStore]) -> None:
    store = make_store(1 << 20)
    pinned = _put(store, 1, 600_000)  # several blocks under one root: all of them are kept
    store.pin(pinned)
    store.pin(pinned)
    other = _put(store, 2, 300_000)
    assert store.has_file(_put(store, 3, 300_000))
    assert store.has_file(pinned)
    assert not store.has_file(other)
    with pytest.raises(DiskFullError):
        _put(store, 4, 900_000)
    store.unpin(pinned)
    assert store.has_file(_put(store, 4, 900_000))
    assert not store.has_file(pinned)


def _check_held(make_store: Callable[[int], BlockStore]) -> None:
    store = make_store(1 << 20)
    here = _put(store, 1, 250_000)
    other = _put(store, 2, 250_000)
    late = compute_root(Random(3).randbytes(250_000))
    with store.hold() as keep, store.hold() as keep_too:
        assert keep(here) == keep(here) == keep_too(here) == 250_000
        assert keep(late) is None, "what is not here yet is held from when it comes"
        assert _put(store, 3, 250_000) == late
        assert store.get_file(other, bytes_max=250_000) is not None, "used last"
        assert store.has_file(_put(store, 4, 400_000))
        assert store.has_block(here) and store.has_block(late) and not store.has_block(other)
        assert keep(late) == 250_000 and keep(other) is None
        with pytest.raises(DiskFullError, match="no room in the block store"):
            _put(store, 5, 700_000)
        assert store.has_block(here) and store.has_block(late)
    assert store.has_file(_put(store, 5, 900_000)), "held by nobody any more"
    assert not store.has_block(here) and not store.has_block(late)


def _put(store: BlockStore, seed: int, size: int) -> Cid:
    return store.put_file(Random(seed).randbytes(size))
