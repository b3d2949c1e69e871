"""The node's own blocks on disk: whole, verified, within a quota, and still there after a kill at any point.

Blocks lie in *packs*: one file per `put_file` or `put_blocks`, written under another name, synced, then renamed. So a block
is there completely or not at all, and ten megabytes cost one sync, not forty. A pack is a row of records (CID, length,
bytes); the index over all packs is in memory and read anew at every start. What is read is hashed first: a block that bit rot
changed is dropped and asked for again by its reader. What was fetched from others is synced when its file is pinned: until then
a power cut costs no more than fetching it again. What was hashed and written less than a minute ago, to a file that nobody changed
since, is not hashed again when it is read: a model that arrived is averaged at once, and a new one is asked for by everybody.

Space: when the quota is reached, packs are removed, those least recently used first, never one that has a block of a
pinned file or one that a fetch counts on. Blocks put as not public are kept like others and never given to the network.
Of the system's memory only a few files are kept, those used last (`page_cache`).
Does not lock the folder: the journal beside it does (`disk_journal`). Safe to call from worker threads.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

from learnae.backends.held_blocks import HeldBlocks
from learnae.backends.page_cache import PageCache, give_up, start_writing
from learnae.backends.unixfs import LEAF_BYTES, FileView, check_block, collect_all, count_tree, read_file, view_blocks, view_file
from learnae.errors import DiskFullError
from learnae.ids import CID_BYTES, Cid, Content, cid_text, compute_cid, is_cid, parse_cid

QUOTA_BYTES: Final = 5 << 30  # protocol.md: a node may take 5 GiB of a user's disk unless told otherwise.
RESERVE_BYTES: Final = 64 << 20  # Left free on the disk, so that the journal can still write when blocks no longer can.
_HEAD_BYTES: Final = CID_BYTES + 4
_TRUSTED_S: Final = 60.0
_FLUSH_BYTES: Final = 4 << 20  # Of a pack that is written: sent on to the disk while the rest is still hashed.
_PACK_COST_BYTES: Final = 4096  # What a file costs on disk beyond its bytes: bounds the number of packs by the quota too.


@dataclass(slots=True)
class _Pack:
    path: Path
    public: bool
    size_bytes: int
    synced: bool
    trusted_until_s: float = 0.0  # what is read until then is not hashed: it comes from the system's memory; monotonic clock
    written_ns: int = 0  # when the file was last changed by this store
    cids: set[Cid] = field(default_factory=set)  # blocks whose only copy is here


@dataclass(frozen=True, slots=True)
class _Place:
    pack: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """What the index knows of one block."""

    cid: Cid
    size_bytes: int
    public: bool


class DiskBlocks:
    """`BlockStore` in the folder `folder` (made if absent, unless `read_only`).

    Args:
        read_only: nothing on disk is changed, so the folder may be that of a running node: what the node had when this was made can
            be read, less what it removes meanwhile. The caller writes nothing.
    Raises: DiskFullError: from the `put` methods, when neither quota nor disk has room; nothing was changed.
    """

    def __init__(
        self, folder: Path, *, quota_bytes: int = QUOTA_BYTES, reserve_bytes: int = RESERVE_BYTES, read_only: bool = False
    ) -> None:
        self._packs_folder, self._pins_folder = folder / "packs", folder / "pins"
        self._read_only = read_only
        if not read_only:
            self._packs_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._pins_folder.mkdir(exist_ok=True, mode=0o700)
        self._quota_bytes, self._reserve_bytes = quota_bytes, reserve_bytes
        self._lock = threading.RLock()
        self._held = HeldBlocks(self._lock, self._use)
        self._packs: dict[int, _Pack] = {}  # in order of last use
        self._cache = PageCache()
        self._index: dict[Cid, _Place] = {}
        self._used_bytes = 0
        self._reserved_bytes = 0  # promised to writes under way
        self._next = 0
        self._pins = {parse_cid(path.name) for path in self._pins_folder.iterdir() if path.name.startswith("b")}
        self._load()

    def put_file(self, content: Content, *, public: bool = True) -> Cid:
        """Store a file. A large one is hashed in another thread while what was hashed is written."""
        root = Cid(b"")
        here: list[Cid] = []

        def find_new() -> Iterator[tuple[Cid, Content]]:
            nonlocal root
            for root, block in view_blocks(content, each=hasher.map if len(content) > LEAF_BYTES else map):
                if self._is_here(root, public) and keep(root) is not None:
                    here.append(root)
                else:
                    yield root, block

        with self.hold() as keep, ThreadPoolExecutor(1) as hasher:
            count, tree_bytes = count_tree(len(content))
            self._write(find_new(), tree_bytes + count * _HEAD_BYTES, public)
            self._sync_blocks(here)
        return root

    def put_block(self, cid: Cid, block: bytes) -> None:
        self.put_blocks([(cid, block)])

    def put_blocks(self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False, synced: bool = True) -> None:
        """Store several blocks with one sync. Raises: BlockMismatchError, DiskFullError; then none was kept."""
        new: dict[Cid, bytes] = {}
        here: list[Cid] = []
        with self.hold() as keep:
            for cid, block in blocks:
                check_block(cid, block, hashed=hashed)
                if self._is_here(cid, public) and keep(cid) is not None:
                    here.append(cid)
                else:
                    new[cid] = block
            self._write(iter(new.items()), sum(_HEAD_BYTES + len(block) for block in new.values()), public, synced=synced)
            if synced:
                self._sync_blocks(here)

    def get_file(self, cid: Cid, *, bytes_max: int) -> bytes | None:
        return read_file(cid, self.get_block, bytes_max=bytes_max)

    def view_file(self, cid: Cid, *, bytes_max: int) -> FileView | None:
        return view_file(cid, self.get_block, bytes_max=bytes_max)

    def get_block(self, cid: Cid) -> bytes | None:
        with self._lock:
            place = self._index.get(cid)
            if place is None:
                return None
            pack = self._packs.pop(place.pack)
            self._packs[place.pack] = pack
            self._cache.use(place.pack, pack.size_bytes)
            trusted = time.monotonic() < pack.trusted_until_s
        try:
            with open(pack.path, "rb", buffering=0) as file:
                trusted = trusted and os.fstat(file.fileno()).st_mtime_ns == pack.written_ns
                block = os.pread(file.fileno(), place.size_bytes, place.offset)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return None  # too many files are open; this one is as it was
            block = b""
        if len(block) == place.size_bytes and (trusted or compute_cid(block, cid[1]) == cid):
            return block
        with self._lock:
            if self._index.get(cid) == place:
                del self._index[cid]
                pack.cids.discard(cid)  # another copy may come, and outlive this pack
        return None

    def get_public_block(self, cid: Cid) -> bytes | None:
        """A block for the network: None also for a block that was put as not public."""
        return self.get_block(cid) if self.has_public_block(cid) else None

    def has_public_block(self, cid: Cid) -> bool:
        with self._lock:
            place = self._index.get(cid)
            return place is not None and self._packs[place.pack].public

    def has_file(self, cid: Cid) -> bool:
        blocks = collect_all(cid, self.get_block)
        return blocks is not None and all(block in self._index for block in blocks)

    def has_block(self, cid: Cid) -> bool:
        return cid in self._index

    def pin(self, cid: Cid) -> None:
        """Keep a file; what of it is not safe from a power cut yet is now. Raises: DiskFullError."""
        with self._lock:
            self._sync_blocks(collect_all(cid, self.get_block) or ())  # also if it is pinned: what was damaged may have come anew
            if cid not in self._pins:
                try:
                    (self._pins_folder / cid_text(cid)).touch(mode=0o600)
                    _sync(self._pins_folder, os.O_RDONLY)
                except OSError as error:
                    raise DiskFullError("the block store", 0, error.strerror or str(error)) from error
                self._pins.add(cid)

    def unpin(self, cid: Cid) -> None:
        with self._lock:
            if cid in self._pins:
                self._pins.discard(cid)
                (self._pins_folder / cid_text(cid)).unlink(missing_ok=True)

    def hold(self) -> AbstractContextManager[Callable[[Cid], int | None]]:
        return self._held.hold()

    @property
    def pins(self) -> frozenset[Cid]:
        """The files that garbage collection keeps."""
        with self._lock:
            return frozenset(self._pins)

    def list_blocks(self) -> list[StoredBlock]:
        """Every block, without reading any; in the order of their CIDs."""
        with self._lock:
            return [StoredBlock(cid, place.size_bytes, self._packs[place.pack].public) for cid, place in sorted(self._index.items())]

    @property
    def quota_bytes(self) -> int:
        return self._quota_bytes

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    # --- inside -------------------------------------------------------------------------------------------------

    def _is_here(self, cid: Cid, public: bool) -> bool:
        with self._lock:
            place = self._index.get(cid)
            return place is not None and (self._packs[place.pack].public or not public)

    def _use(self, cid: Cid) -> int | None:
        """How many bytes the block has, if it is here; its pack is the last to go."""
        place = self._index.get(cid)
        if place is None:
            return None
        self._packs[place.pack] = self._packs.pop(place.pack)
        return place.size_bytes

    def _load(self) -> None:
        found: list[tuple[int, Path, bool]] = []
        for path in self._packs_folder.iterdir():
            stem, _, kind = path.name.partition(".")
            if kind in ("public", "private") and stem.isdigit():
                found.append((int(stem), path, kind == "public"))
            elif not self._read_only:
                path.unlink()  # a write that a kill cut short
        for number, path, public in sorted(found):
            try:
                self._add(number, path, public, _read_index(path), synced=False)  # A kill may have come before the disk had it.
            except FileNotFoundError:  # The running node made room; without `read_only` nobody else is here.
                if not self._read_only:
                    raise
            self._next = number + 1

    def _sync_blocks(self, cids: Iterable[Cid]) -> None:
        """Those of these blocks that are here survive a power cut from now on. Raises: DiskFullError."""
        with self._lock:
            places = [self._index.get(cid) for cid in cids]
            late = {place.pack for place in places if place is not None and not self._packs[place.pack].synced}
            try:
                for number in late:
                    _sync(self._packs[number].path, os.O_RDWR)
                if late:
                    _sync(self._packs_folder, os.O_RDONLY)
            except OSError as error:
                raise DiskFullError("the block store", 0, error.strerror or str(error)) from error
            for number in late:
                self._packs[number].synced = True

    def _add(self, number: int, path: Path, public: bool, entries: list[tuple[Cid, int, int]], *, synced: bool) -> None:
        pack = _Pack(path, public, path.stat().st_size + _PACK_COST_BYTES, synced)
        self._packs[number] = pack
        self._used_bytes += pack.size_bytes
        for cid, offset, size_bytes in entries:
            old = self._index.get(cid)
            if old is not None:
                self._packs[old.pack].cids.discard(cid)
            self._index[cid] = _Place(number, offset, size_bytes)
            pack.cids.add(cid)

    def _write(self, blocks: Iterator[tuple[Cid, Content]], size_bytes: int, public: bool, *, synced: bool = True) -> None:
        """Write a pack of these blocks, whose records have `size_bytes` bytes at most."""
        assert not self._read_only, "a store that was opened to be read is not written to"
        first = next(blocks, None)
        if first is None:
            return
        with self._lock:
            self._make_room(size_bytes + _PACK_COST_BYTES)
            wanted = {place.pack for cid in self._held.cids if (place := self._index.get(cid)) is not None}
            unused = [self._packs[old].path for old in self._cache.make_room(size_bytes, wanted=wanted)]
            self._reserved_bytes += size_bytes
            number = self._next
            self._next += 1
        path = self._packs_folder / f"{number}.{'public' if public else 'private'}"
        unfinished = path.with_name(f"{number}.unfinished")
        try:
            give_up(unused)
            entries = list(_write_pack(unfinished, chain((first,), blocks), synced=synced))
            os.rename(unfinished, path)
            if synced:
                _sync(self._packs_folder, os.O_RDONLY)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise DiskFullError("the block store", size_bytes, error.strerror or str(error)) from error
        finally:
            with self._lock:
                self._reserved_bytes -= size_bytes
        with self._lock:
            self._add(number, path, public, entries, synced=synced)
            self._cache.use(number, self._packs[number].size_bytes)
            self._packs[number].trusted_until_s = time.monotonic() + _TRUSTED_S
            self._packs[number].written_ns = path.stat().st_mtime_ns

    def _make_room(self, more_bytes: int) -> None:
        """Remove what is least recently used until `more_bytes` fit into the quota and leave the reserve on the disk."""
        disk = os.statvfs(self._packs_folder)
        room_bytes = disk.f_bavail * disk.f_frsize - self._reserve_bytes
        over_bytes = max(
            self._used_bytes + self._reserved_bytes + more_bytes - self._quota_bytes,
            self._reserved_bytes + more_bytes - room_bytes,
        )
        if over_bytes <= 0:
            return
        kept = self._held.cids | {block for root in self._pins for block in collect_all(root, self.get_block) or (root,)}
        victims: list[int] = []
        for number, pack in self._packs.items():
            if over_bytes <= 0:
                break
            if kept.isdisjoint(pack.cids):
                victims.append(number)
                over_bytes -= pack.size_bytes
        if over_bytes > 0:
            reason = f"its quota is {self._quota_bytes} bytes and {max(room_bytes, 0)} bytes of the disk may still be used"
            raise DiskFullError("the block store", more_bytes, reason)
        for number in victims:
            pack = self._packs.pop(number)
            self._cache.drop(number)
            pack.path.unlink(missing_ok=True)
            self._used_bytes -= pack.size_bytes
            for cid in pack.cids:
                self._index.pop(cid, None)


def _write_pack(path: Path, blocks: Iterable[tuple[Cid, Content]], *, synced: bool) -> Iterator[tuple[Cid, int, int]]:
    """Write the blocks as they come; each with the place of its bytes and their number. At the end all are synced, if asked."""
    offset = flushed = 0
    with open(path, "xb", buffering=0, opener=_open_private) as file:
        for cid, block in blocks:
            head = memoryview(cid + len(block).to_bytes(4, "big"))
            for record in (head, memoryview(block)):
                while record:  # an unbuffered write may be cut short by a full disk before it fails
                    record = record[file.write(record) :]
            yield cid, offset + _HEAD_BYTES, len(block)
            offset += _HEAD_BYTES + len(block)
            if offset - flushed >= _FLUSH_BYTES:  # Also of what is synced later: its pin then waits for little.
                start_writing(file.fileno(), flushed, offset - flushed)
                flushed = offset
        if synced:
            os.fsync(file.fileno())


def _read_index(path: Path) -> list[tuple[Cid, int, int]]:
    """The records of one pack; a damaged head ends the list, for what follows cannot be found."""
    entries: list[tuple[Cid, int, int]] = []
    end = path.stat().st_size
    offset = 0
    with open(path, "rb", buffering=0) as file:
        while offset + _HEAD_BYTES <= end:
            head = os.pread(file.fileno(), _HEAD_BYTES, offset)
            size_bytes = int.from_bytes(head[CID_BYTES:], "big")
            offset += _HEAD_BYTES
            if len(head) < _HEAD_BYTES or not is_cid(head[:CID_BYTES]) or offset + size_bytes > end:
                break
            entries.append((Cid(head[:CID_BYTES]), offset, size_bytes))
            offset += size_bytes
    return entries


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(path: Path, flags: int) -> None:
    number = os.open(path, flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)
