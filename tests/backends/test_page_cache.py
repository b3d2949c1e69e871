"""A store leaves the system's memory to others: only the files used last stay in it."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from learnae.backends import page_cache
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.page_cache import KEPT_BYTES_MIN, PageCache
from learnae.backends.unixfs import build_blocks

MODEL_BYTES = KEPT_BYTES_MIN  # so that what is kept counts by files


def test_make_room__keeps_as_many_as_a_merge_needs() -> None:
    cache = PageCache()
    for number in range(3):
        assert cache.make_room(MODEL_BYTES) == []
        cache.use(number, MODEL_BYTES)
    assert cache.make_room(MODEL_BYTES) == [0]
    assert cache.make_room(MODEL_BYTES) == [], "what was given up is not told twice"


def test_make_room__takes_what_was_used_longest_ago() -> None:
    cache = PageCache()
    for number in (0, 1, 2, 0):
        cache.use(number, MODEL_BYTES)
    assert cache.make_room(MODEL_BYTES) == [1]
    cache.drop(2)
    cache.use(3, MODEL_BYTES)
    assert cache.make_room(2 * MODEL_BYTES) == [], "what is not there takes no room"


def test_make_room__of_small_files_keeps_many() -> None:
    cache = PageCache()
    small_bytes = KEPT_BYTES_MIN // 64
    for number in range(64):
        assert cache.make_room(small_bytes) == []
        cache.use(number, small_bytes)
    assert cache.make_room(small_bytes) == [0]


def test_make_room__leaves_what_is_wanted() -> None:
    cache = PageCache()
    for number in range(3):
        cache.use(number, MODEL_BYTES)
    assert cache.make_room(MODEL_BYTES, wanted={0, 1}) == [2]


@pytest.mark.parametrize("reads", [False, True])
def test_disk_blocks__give_up_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    monkeypatch.setattr(page_cache, "KEPT_BYTES_MIN", 0)
    given_up: list[int] = []
    advise = os.posix_fadvise

    def watch(file: int, begin: int, size_bytes: int, advice: int) -> None:
        if (begin, size_bytes) == (0, 0):  # the whole file
            assert advice == os.POSIX_FADV_DONTNEED
            given_up.append(os.fstat(file).st_ino)
        advise(file, begin, size_bytes, advice)

    monkeypatch.setattr(os, "posix_fadvise", watch)
    blocks = DiskBlocks(tmp_path, reserve_bytes=0)
    models = [Random(number).randbytes(300_000) for number in range(5)]
    cids = []
    for number, model in enumerate(models):
        if reads and number == 3:
            assert blocks.get_file(cids[0], bytes_max=300_000) == models[0]
        cids.append(blocks.put_file(model))
    packs = {int(path.name.split(".")[0]): path.stat().st_ino for path in (tmp_path / "packs").iterdir()}
    first, second = sorted(packs)[:2] if not reads else sorted(packs)[1:3]
    assert given_up == [packs[first], packs[second]]
    assert [blocks.get_file(cid, bytes_max=300_000) for cid in cids] == models, "what left the memory is still on the disk"


def test_disk_blocks__a_file_that_is_fetched_stays_in_memory_until_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "KEPT_BYTES_MIN", 0)
    given_up: list[Path] = []
    monkeypatch.setattr("learnae.backends.disk_blocks.give_up", given_up.extend)
    blocks = DiskBlocks(tmp_path, reserve_bytes=0)
    batches = [[(cid, block)] for cid, block in build_blocks(Random(1).randbytes(2_000_000))][:-1]
    with blocks.hold() as keep:
        for batch in batches:
            blocks.put_blocks(batch, hashed=True, synced=False)
            keep(batch[0][0])
        assert not given_up
    blocks.put_block(*next(iter(build_blocks(Random(2).randbytes(200_000)))))
    assert len(given_up) == len(batches) - 2
