"""The node's own blocks on disk: whole, verified, within a quota, and still there after a kill at any point.

Blocks lie in *packs*: one file per `put_file` or `put_blocks`, written under another name, synced, then renamed. So a block
is there completely or not at all, and ten megabytes cost one sync, not forty. A pack is a row of records (CID, length,
bytes); the index over all packs is in memory and read anew at every start. What is read is hashed first: a block that bit rot
changed is dropped and asked for again by its reader.

Space: when the quota is reached, packs are removed, those least recently used first, never one that has a block of a
pinned file or one that a fetch counts on. Blocks put as not public are kept like others and never given to the network.
Does not lock the folder: the journal beside it does (`disk_journal`). Safe to call from worker threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from learnae.backends.held_blocks import HeldBlocks
from learnae.backends.unixfs import build_blocks, check_block, collect_all, read_file
from learnae.errors import DiskFullError
from learnae.ids import CID_BYTES, Cid, cid_text, compute_cid, is_cid, parse_cid

QUOTA_BYTES: Final = 5 << 30  # protocol.md: a node may take 5 GiB of a user's disk unless told otherwise.
RESERVE_BYTES: Final = 64 << 20  # Left free on the disk, so that the journal can still write when blocks no longer can.
_HEAD_BYTES: Final = CID_BYTES + 4
_PACK_COST_BYTES: Final = 4096  # What a file costs on disk beyond its bytes: bounds the number of packs by the quota too.


@dataclass(slots=True)
class _Pack:
    path: Path
    public: bool
    size_bytes: int
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
        self._index: dict[Cid, _Place] = {}
        self._used_bytes = 0
        self._reserved_bytes = 0  # promised to writes under way
        self._next = 0
        self._pins = {parse_cid(path.name) for path in self._pins_folder.iterdir() if path.name.startswith("b")}
        self._load()

    def put_file(self, content: bytes, *, public: bool = True) -> Cid:
        blocks = list(build_blocks(content))
        self._write([(cid, block) for cid, block in blocks if not self._is_here(cid, public)], public)
        return blocks[-1][0]

    def put_block(self, cid: Cid, block: bytes) -> None:
        self.put_blocks([(cid, block)])

    def put_blocks(self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False) -> None:
        """Store several blocks with one sync. Raises: BlockMismatchError, DiskFullError; then none was kept."""
        new: dict[Cid, bytes] = {}
        for cid, block in blocks:
            check_block(cid, block, hashed=hashed)
            if not self._is_here(cid, public):
                new[cid] = block
        self._write(list(new.items()), public)

    def get_file(self, cid: Cid, *, bytes_max: int) -> bytes | None:
        return read_file(cid, self.get_block, bytes_max=bytes_max)

    def get_block(self, cid: Cid) -> bytes | None:
        with self._lock:
            place = self._index.get(cid)
            if place is None:
                return None
            pack = self._packs.pop(place.pack)
            self._packs[place.pack] = pack
        try:
            with open(pack.path, "rb") as file:
                file.seek(place.offset)
                block = file.read(place.size_bytes)
        except OSError:
            block = b""
        if len(block) == place.size_bytes and compute_cid(block, cid[1]) == cid:
            return block
        with self._lock:
            if self._index.get(cid) == place:
                del self._index[cid]
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
        with self._lock:
            if cid not in self._pins:
                try:
                    (self._pins_folder / cid_text(cid)).touch(mode=0o600)
                    _sync_folder(self._pins_folder)
                except OSError as error:
                    raise DiskFullError("the block store", 0, error.strerror or str(error)) from error
                self._pins.add(cid)

    def unpin(self, cid: Cid) -> None:
        with self._lock:
            if cid in self._pins:
                self._pins.discard(cid)
                (self._pins_folder / cid_text(cid)).unlink(missing_ok=True)

    def hold(self) -> AbstractContextManager[Callable[[Cid], bool]]:
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

    def _use(self, cid: Cid) -> bool:
        """Whether the block is here; its pack is the last to go."""
        place = self._index.get(cid)
        if place is not None:
            self._packs[place.pack] = self._packs.pop(place.pack)
        return place is not None

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
                self._add(number, path, public, _read_index(path))
            except FileNotFoundError:  # The running node made room; without `read_only` nobody else is here.
                if not self._read_only:
                    raise
            self._next = number + 1

    def _add(self, number: int, path: Path, public: bool, entries: list[tuple[Cid, int, int]]) -> None:
        pack = _Pack(path, public, path.stat().st_size + _PACK_COST_BYTES)
        self._packs[number] = pack
        self._used_bytes += pack.size_bytes
        for cid, offset, size_bytes in entries:
            old = self._index.get(cid)
            if old is not None:
                self._packs[old.pack].cids.discard(cid)
            self._index[cid] = _Place(number, offset, size_bytes)
            pack.cids.add(cid)

    def _write(self, blocks: list[tuple[Cid, bytes]], public: bool) -> None:
        assert not self._read_only, "a store that was opened to be read is not written to"
        if not blocks:
            return
        size_bytes = sum(_HEAD_BYTES + len(block) for _, block in blocks)
        with self._lock:
            self._make_room(size_bytes + _PACK_COST_BYTES)
            self._reserved_bytes += size_bytes
            number = self._next
            self._next += 1
        path = self._packs_folder / f"{number}.{'public' if public else 'private'}"
        unfinished = path.with_name(f"{number}.unfinished")
        try:
            entries = _write_pack(unfinished, blocks)
            os.rename(unfinished, path)
            _sync_folder(self._packs_folder)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise DiskFullError("the block store", size_bytes, error.strerror or str(error)) from error
        finally:
            with self._lock:
                self._reserved_bytes -= size_bytes
        with self._lock:
            self._add(number, path, public, entries)

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
            pack.path.unlink(missing_ok=True)
            self._used_bytes -= pack.size_bytes
            for cid in pack.cids:
                self._index.pop(cid, None)


def _write_pack(path: Path, blocks: list[tuple[Cid, bytes]]) -> list[tuple[Cid, int, int]]:
    entries: list[tuple[Cid, int, int]] = []
    offset = 0
    with open(path, "xb", buffering=0, opener=_open_private) as file:
        for cid, block in blocks:
            record = memoryview(cid + len(block).to_bytes(4, "big") + block)
            written = 0
            while written < len(record):  # an unbuffered write may be cut short by a full disk before it fails
                written += file.write(record[written:])
            entries.append((cid, offset + _HEAD_BYTES, len(block)))
            offset += len(record)
        os.fsync(file.fileno())
    return entries


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


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
