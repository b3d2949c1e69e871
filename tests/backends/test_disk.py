"""Block store and journal on disk: promises of the ports, kills, bit rot, full disks, second starts."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from random import Random

import pytest

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.unixfs import LEAF_BYTES, build_blocks
from learnae.errors import DiskFullError, FolderInUseError, JournalDamagedError
from learnae.ids import CODEC_DAG_CBOR, compute_cid
from tests.conformance.block_store import check_block_store
from tests.conformance.journal import check_journal

QUOTA = 8 << 20


def open_blocks(folder: Path, quota_bytes: int = QUOTA) -> DiskBlocks:
    return DiskBlocks(folder, quota_bytes=quota_bytes, reserve_bytes=0)


def note_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on the names of what is synced are added to the answer."""
    synced: list[str] = []

    def note(file: int) -> None:
        synced.append(Path(f"/dev/fd/{file}").resolve().name)

    monkeypatch.setattr("learnae.backends.disk_blocks.os.fsync", note)
    return synced


def damage_packs(folder: Path) -> None:
    for pack in (folder / "packs").iterdir():
        raw = bytearray(pack.read_bytes())
        raw[100] ^= 1  # in its first block
        pack.write_bytes(raw)


def test_disk_blocks__keep_the_promises_of_the_port(tmp_path: Path) -> None:
    numbers = count()
    check_block_store(lambda quota_bytes: open_blocks(tmp_path / str(next(numbers)), quota_bytes))


def test_disk_journal__keeps_the_promises_of_the_port(tmp_path: Path) -> None:
    check_journal(DiskJournal(tmp_path))


# --- blocks -----------------------------------------------------------------------------------------------------


def test_disk_blocks__files_pins_and_privacy_survive_a_restart(tmp_path: Path) -> None:
    store = open_blocks(tmp_path)
    content = Random(1).randbytes(3 * LEAF_BYTES)
    shared, kept = store.put_file(content), store.put_file(b"mine", public=False)
    store.pin(shared)
    again = open_blocks(tmp_path)
    assert again.get_file(shared, bytes_max=len(content)) == content
    assert again.get_public_block(kept) is None
    assert again.get_block(kept) == b"mine"
    assert again.used_bytes == store.used_bytes
    for seed in range(2, 12):
        again.put_file(Random(seed).randbytes(2 << 20))
    assert again.has_file(shared), "its pin was read back"
    again.unpin(shared)
    assert not list((tmp_path / "pins").iterdir())


def test_disk_blocks__flipped_bits_are_never_given_and_the_block_can_be_stored_again(tmp_path: Path) -> None:
    """threats.md, bit rot: corrupt bytes are never used, and are fetched again."""
    store = open_blocks(tmp_path)
    content = Random(1).randbytes(2 * LEAF_BYTES)
    root = store.put_file(content)
    leaf, block = next(iter(build_blocks(content)))
    (pack,) = (tmp_path / "packs").iterdir()
    raw = bytearray(pack.read_bytes())
    raw[raw.index(block[:32])] ^= 1
    pack.write_bytes(raw)
    assert store.get_file(root, bytes_max=len(content)) is None, "also right after it was written"
    assert not store.has_block(leaf), "dropped, so that it is asked for again"
    store.put_block(leaf, block)
    assert store.get_file(root, bytes_max=len(content)) == content
    again = open_blocks(tmp_path)
    assert again.get_file(root, bytes_max=len(content)) == content, "the newer copy wins after a restart"


def test_disk_blocks__rot_that_leaves_no_trace_is_found_a_minute_after_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then what is read comes from the system's memory, and is not hashed again."""
    now_s = time.monotonic()
    monkeypatch.setattr("learnae.backends.disk_blocks.time.monotonic", lambda: now_s)
    store = open_blocks(tmp_path)
    content = Random(1).randbytes(LEAF_BYTES)
    root = store.put_file(content)
    (pack,) = (tmp_path / "packs").iterdir()
    written = pack.stat()
    with pack.open("r+b") as file:
        file.seek(100)
        file.write(b"rot")
    os.utime(pack, ns=(written.st_atime_ns, written.st_mtime_ns))
    now_s += 61
    assert store.get_block(root) is None
    assert not store.has_block(root)


def test_disk_blocks__what_was_fetched_is_synced_when_it_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_blocks(tmp_path)
    *leaves, root = build_blocks(Random(1).randbytes(3 * LEAF_BYTES))
    synced = note_syncs(monkeypatch)
    store.put_blocks(leaves, synced=False)
    store.put_blocks([root], synced=False)
    other = store.put_file(b"other")
    assert synced == ["2.unfinished", "packs"], "the file that this node made, and nothing that it fetched"
    synced.clear()
    store.pin(root[0])
    assert sorted(synced) == ["0.public", "1.public", "packs", "pins"]
    synced.clear()
    store.pin(other)
    assert synced == ["pins"], "each is synced once"


def test_disk_blocks__what_was_fetched_before_a_kill_is_synced_when_it_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node that starts again cannot know what the disk had."""
    *leaves, root = build_blocks(Random(1).randbytes(2 * LEAF_BYTES))
    open_blocks(tmp_path).put_blocks([*leaves, root], synced=False)
    again = open_blocks(tmp_path)
    synced = note_syncs(monkeypatch)
    again.pin(root[0])
    assert synced == ["0.public", "packs", "pins"]


def test_disk_blocks__what_was_fetched_anew_is_synced_though_its_file_was_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_blocks(tmp_path)
    content = Random(1).randbytes(2 * LEAF_BYTES)
    root = store.put_file(content)
    store.pin(root)
    damage_packs(tmp_path)
    assert store.get_file(root, bytes_max=len(content)) is None
    store.put_blocks(build_blocks(content), synced=False)
    synced = note_syncs(monkeypatch)
    store.pin(root)
    assert synced == ["1.public", "packs"]


def test_disk_blocks__a_file_of_blocks_that_were_fetched_is_durable_when_it_is_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_blocks(tmp_path)
    *leaves, root = build_blocks(Random(1).randbytes(2 * LEAF_BYTES))
    store.put_blocks(leaves, synced=False)
    store.put_blocks([root], synced=False)
    synced = note_syncs(monkeypatch)
    store.put_blocks(leaves)
    assert synced == ["0.public", "packs"]
    synced.clear()
    assert store.put_file(Random(1).randbytes(2 * LEAF_BYTES)) == root[0]
    assert synced == ["1.public", "packs"]


def test_disk_blocks__making_room_takes_no_block_that_the_new_file_shares_with_an_old_one(tmp_path: Path) -> None:
    """Models whose first layers are frozen have their first blocks in common."""
    store = open_blocks(tmp_path, 1_200_000)
    common = Random(1).randbytes(2 * LEAF_BYTES)
    old = store.put_file(common)
    spare = store.put_file(Random(2).randbytes(LEAF_BYTES))
    assert store.get_block(spare), "so the common blocks would be the first to go"
    new = store.put_file(common + Random(3).randbytes(LEAF_BYTES // 4))
    assert store.has_file(new) and store.has_file(old) and not store.has_block(spare)
    blocks = list(build_blocks(common + Random(4).randbytes(3 * LEAF_BYTES)))
    with pytest.raises(DiskFullError):
        store.put_blocks(blocks)
    assert store.has_file(new), "what is in the way is in use"


def test_disk_blocks__a_copy_that_came_for_a_damaged_block_outlives_it(tmp_path: Path) -> None:
    store = open_blocks(tmp_path, 1 << 20)
    content = Random(1).randbytes(LEAF_BYTES)
    cid = store.put_file(content)
    damage_packs(tmp_path)
    assert store.get_block(cid) is None
    store.put_block(cid, content)
    store.put_file(Random(2).randbytes(LEAF_BYTES))
    assert store.get_block(cid) == content
    store.put_file(Random(3).randbytes(LEAF_BYTES))
    assert not (tmp_path / "packs" / "0.public").exists(), "the damaged pack made room"
    assert store.get_block(cid) == content


def test_disk_blocks__a_block_is_not_given_up_because_too_many_files_are_open(tmp_path: Path) -> None:
    store = open_blocks(tmp_path)
    cid = store.put_file(b"here")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        assert store.get_block(cid) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert store.get_block(cid) == b"here"


def test_disk_blocks__a_pack_whose_name_is_not_on_the_disk_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_blocks(tmp_path)

    def fail(file: int) -> None:
        if Path(f"/dev/fd/{file}").resolve().name == "packs":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("learnae.backends.disk_blocks.os.fsync", fail)
    with pytest.raises(DiskFullError, match="Input/output error"):
        store.put_file(b"lost")
    assert not list((tmp_path / "packs").iterdir())
    assert store.used_bytes == 0


def test_disk_blocks__unfinished_and_damaged_packs_do_not_stop_a_start(tmp_path: Path) -> None:
    store = open_blocks(tmp_path)
    first, second = Random(1).randbytes(1000), Random(2).randbytes(1000)
    one, two = store.put_file(first), store.put_file(second)
    packs = sorted((tmp_path / "packs").iterdir())
    (tmp_path / "packs" / "9.unfinished").write_bytes(b"half a pack")
    packs[1].write_bytes(packs[1].read_bytes()[:-1])  # cut short
    (tmp_path / "packs" / "7.public").write_bytes(b"\xff" * 100)
    again = open_blocks(tmp_path)
    assert again.get_file(one, bytes_max=1000) == first
    assert again.get_file(two, bytes_max=1000) is None
    assert not (tmp_path / "packs" / "9.unfinished").exists()


def test_disk_blocks__a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    """threats.md, disk: a file size limit stands for the full disk; the write fails half way."""
    store = open_blocks(tmp_path)
    kept = store.put_file(b"before")
    used_bytes = store.used_bytes
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LEAF_BYTES, limits[1]))
        with pytest.raises(DiskFullError, match=r"no room in the block store for .* more bytes: File too large; free some space"):
            store.put_file(Random(1).randbytes(4 * LEAF_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert store.get_block(kept) == b"before"
    assert store.used_bytes == used_bytes
    assert len(list((tmp_path / "packs").iterdir())) == 1, "the half pack is gone"
    assert store.has_file(store.put_file(Random(1).randbytes(4 * LEAF_BYTES)))


def test_disk_blocks__leave_the_reserve_to_the_journal(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    store = DiskBlocks(tmp_path, quota_bytes=1 << 60, reserve_bytes=disk.f_bavail * disk.f_frsize + (1 << 30))
    with pytest.raises(DiskFullError, match="0 bytes of the disk may still be used"):
        store.put_file(b"small")


# --- journal ----------------------------------------------------------------------------------------------------


def test_disk_journal__is_read_back_after_a_restart(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path)
    journal.append([(compute_cid(b"one", CODEC_DAG_CBOR), b"one")], [("name", b"value")])
    journal.close()
    again = DiskJournal(tmp_path)
    assert list(again.vertices()) == [b"one"]
    assert again.records() == {"name": b"value"}
    again.close()
    assert (tmp_path / "journal.sqlite").stat().st_mode & 0o077 == 0


def test_disk_journal__a_second_start_on_the_folder_is_one_sentence(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path)
    with pytest.raises(FolderInUseError, match=f"the folder {tmp_path} is in use by another learnae process; stop that one first"):
        DiskJournal(tmp_path)
    journal.append([(compute_cid(b"one", CODEC_DAG_CBOR), b"one")])
    journal.close()
    DiskJournal(tmp_path).close()


def test_disk_journal__a_file_that_is_no_journal_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 1000)
    for _ in range(2):  # and the folder is free again after the first
        with pytest.raises(JournalDamagedError, match=r"journal.sqlite cannot be used .*; restore it from a backup"):
            DiskJournal(tmp_path)


def test_disk_journal__vertex_that_rotted_is_told_and_not_taken_for_what_was_written(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path)
    journal.append([(compute_cid(block, CODEC_DAG_CBOR), block) for block in (b"one", b"two")])
    journal._database.execute("UPDATE vertices SET block = ? WHERE position = 2", (b"twi",))
    with pytest.raises(JournalDamagedError, match="the bytes of its vertex 2 changed since they were written"):
        list(journal.vertices())
    journal.close()


def test_disk_journal__pages_that_rotted_are_one_sentence(tmp_path: Path) -> None:
    """threats.md, bit rot: SQLite finds it when the node reads its journal back, and its user is told what to do."""
    journal = DiskJournal(tmp_path)
    blocks = [bytes([number]) * 1000 for number in range(200)]
    records = [(f"name {number}", b"a" * 3000) for number in range(50)]
    journal.append([(compute_cid(block, CODEC_DAG_CBOR), block) for block in blocks], records)
    journal.close()
    path = tmp_path / "journal.sqlite"
    content = path.read_bytes()
    faults = []
    for page in range(1, len(content) // 4096):
        path.write_bytes(content[: page * 4096] + b"\xff" * 64 + content[page * 4096 + 64 :])
        try:
            journal = DiskJournal(tmp_path)
        except JournalDamagedError:
            continue
        try:
            assert list(journal.vertices()) == blocks and len(journal.records()) == 50
        except JournalDamagedError as error:
            faults.append(str(error))
        journal.close()
    assert len(faults) > 20 and all("restore it from a backup" in fault for fault in faults)


def test_disk_journal__a_full_disk_is_one_sentence_and_nothing_is_half_written(tmp_path: Path) -> None:
    """SQLite's own page limit stands for the full disk."""
    journal = DiskJournal(tmp_path)
    journal.append([(compute_cid(b"one", CODEC_DAG_CBOR), b"one")], [("stage", b"1")])
    journal._database.execute("PRAGMA max_page_count = 12")
    large = bytes(200_000)
    with pytest.raises(DiskFullError, match=r"no room in the journal for 200001 more bytes: .*; free some space"):
        journal.append([(compute_cid(large, CODEC_DAG_CBOR), large)], [("stage", b"2")])
    assert list(journal.vertices()) == [b"one"]
    assert journal.records() == {"stage": b"1"}
    journal._database.execute("PRAGMA max_page_count = 100000")
    journal.append([(compute_cid(large, CODEC_DAG_CBOR), large)], [("stage", b"2")])
    assert journal.records() == {"stage": b"2"}
    journal.close()


_APPENDER = """
import sys
import time
from pathlib import Path
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.ids import CODEC_DAG_CBOR, compute_cid
journal = DiskJournal(Path(sys.argv[1]))
blocks = DiskBlocks(Path(sys.argv[1]), reserve_bytes=0)
number = 0
while True:
    block = b"%d" % number
    journal.append([(compute_cid(block, CODEC_DAG_CBOR), block)], [("number", block)])
    blocks.put_file(block * 2000)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("lines", [1, 7, 30])
def test_disk__what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path, lines: int) -> None:
    """threats.md, kill at any point: starts again, repeats nothing, forgets nothing."""
    with subprocess.Popen([sys.executable, "-c", _APPENDER, str(tmp_path)], stdout=subprocess.PIPE, env=_environment()) as process:
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
    journal, blocks = DiskJournal(tmp_path), open_blocks(tmp_path)
    found = [int(block) for block in journal.vertices()]
    assert found == list(range(len(found))), "each once, in order"
    assert acknowledged <= found[-1] <= acknowledged + 1
    assert int(journal.records()["number"]) == found[-1], "vertex and record of one append are there together or not at all"
    for number in range(acknowledged + 1):
        content = b"%d" % number * 2000
        assert blocks.get_file(compute_cid(content), bytes_max=len(content)) == content
    journal.close()


def test_sqlite__syncs_every_commit(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path)
    settings = [journal._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    journal.close()
    assert settings == ["wal", 2]
    assert sqlite3.sqlite_version_info >= (3, 37), "STRICT tables"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
