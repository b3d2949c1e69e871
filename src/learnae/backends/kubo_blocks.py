"""A node's public blocks in the user's own IPFS daemon, so that any IPFS program finds them; what is private stays in the node's folder.

The daemon is the user's: a node keeps a list of the blocks that it put there (SQLite, in its folder), reads only those, keeps them by a pin
each, and pins no more than its quota. When room is needed it unpins; the daemon's own garbage collection (`ipfs repo gc`, or
`--enable-gc`) frees the disk, because only the daemon knows which other files share a block. The list is written before the
blocks: a kill in between leaves entries whose blocks are absent, and those are dropped when they are read.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from learnae.backends.errors import KuboError
from learnae.backends.held_blocks import HeldBlocks
from learnae.backends.kubo_rpc import KuboRpc
from learnae.backends.unixfs import FileView, build_blocks, check_block, collect_all, read_file, view_file
from learnae.errors import DiskFullError, JournalDamagedError
from learnae.ids import Cid, Content, compute_cid
from learnae.ports import BlockStore

logger = logging.getLogger(__name__)
QUOTA_BYTES: Final = 5 << 30  # As on disk: protocol.md, Limits.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, cid BLOB NOT NULL UNIQUE, size_bytes INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS pins (cid BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
"""


class KuboBlocks:
    """`BlockStore` over a daemon, with `private` for what never goes there.

    Raises: KuboError: from every method that needs the daemon, when it does not answer. JournalDamagedError: the list cannot be used.
    """

    def __init__(self, rpc: KuboRpc, folder: Path, *, private: BlockStore, quota_bytes: int = QUOTA_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._rpc, self._private, self._quota_bytes = rpc, private, quota_bytes
        self._path = folder / "kubo.sqlite"
        self._lock = threading.RLock()
        self._held = HeldBlocks(self._lock, self._use)
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
            rows = self._database.execute("SELECT cid, size_bytes FROM blocks ORDER BY number").fetchall()
            self._pins = {Cid(bytes(cid)) for (cid,) in self._database.execute("SELECT cid FROM pins")}
        except sqlite3.Error as error:
            raise JournalDamagedError(str(self._path), str(error)) from error
        self._sizes: dict[Cid, int] = {Cid(bytes(cid)): size for cid, size in rows}  # in order of last use
        self._used_bytes = sum(self._sizes.values())

    def close(self) -> None:
        self._database.close()

    def put_file(self, content: Content, *, public: bool = True) -> Cid:
        blocks = list(build_blocks(content))
        self.put_blocks(blocks, public=public, hashed=True)
        return blocks[-1][0]

    def put_block(self, cid: Cid, block: bytes) -> None:
        self.put_blocks([(cid, block)])

    def put_blocks(self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False, synced: bool = True) -> None:
        """Raises: BlockMismatchError, DiskFullError, KuboError; then none was kept."""
        given: dict[Cid, bytes] = {}
        for cid, block in blocks:
            check_block(cid, block, hashed=hashed)
            given[cid] = block
        with self._lock:
            new = {cid: block for cid, block in given.items() if cid not in self._sizes}
            if not new:
                return
            if not public:
                self._private.put_blocks(new.items(), public=False)
                return
            self._make_room(sum(map(len, new.values())), set(given))
            self._note(new)
            try:
                self._rpc.put_blocks(list(new.items()))
            except KuboError:
                self._forget(new)
                raise

    def get_file(self, cid: Cid, *, bytes_max: int) -> bytes | None:
        return read_file(cid, self.get_block, bytes_max=bytes_max)

    def view_file(self, cid: Cid, *, bytes_max: int) -> FileView | None:
        return view_file(cid, self.get_block, bytes_max=bytes_max)

    def get_block(self, cid: Cid) -> bytes | None:
        found = self._get_from_daemon(cid)
        return self._private.get_block(cid) if found is None else found

    def get_public_block(self, cid: Cid) -> bytes | None:
        """A block for the network. While the daemon is away strangers are told that it is not here; the node itself is told the error."""
        try:
            found = self._get_from_daemon(cid)
        except KuboError as error:
            logger.warning("a block was not given: %s", error)
            found = None
        return self._private.get_public_block(cid) if found is None else found

    def has_public_block(self, cid: Cid) -> bool:
        return cid in self._sizes or self._private.has_public_block(cid)

    def _get_from_daemon(self, cid: Cid) -> bytes | None:
        with self._lock:
            if self._use(cid) is None:
                return None
        block = self._rpc.get_block(cid)
        if block is not None and compute_cid(block, cid[1]) == cid:
            return block
        with self._lock:
            self._forget([cid])
        return None

    def has_block(self, cid: Cid) -> bool:
        return cid in self._sizes or self._private.has_block(cid)

    def has_file(self, cid: Cid) -> bool:
        blocks = collect_all(cid, self.get_block)
        return blocks is not None and all(self.has_block(block) for block in blocks)

    def pin(self, cid: Cid) -> None:
        with self._lock:
            self._write("INSERT OR IGNORE INTO pins VALUES (?)", [(cid,)])
            self._pins.add(cid)
            self._private.pin(cid)

    def unpin(self, cid: Cid) -> None:
        with self._lock:
            self._write("DELETE FROM pins WHERE cid = ?", [(cid,)])
            self._pins.discard(cid)
            self._private.unpin(cid)

    @contextmanager
    def hold(self) -> Iterator[Callable[[Cid], int | None]]:
        with self._held.hold() as keep_public, self._private.hold() as keep_private:

            def keep(cid: Cid) -> int | None:
                sizes = keep_public(cid), keep_private(cid)
                return sizes[1] if sizes[0] is None else sizes[0]

            yield keep

    @property
    def used_bytes(self) -> int:
        return self._used_bytes + self._private.used_bytes

    # --- inside; the caller holds the lock ------------------------------------------------------------------------

    def _use(self, cid: Cid) -> int | None:
        """How many bytes the block has, if the daemon has it for this node; it is the last to go."""
        size_bytes = self._sizes.pop(cid, None)
        if size_bytes is not None:
            self._sizes[cid] = size_bytes
        return size_bytes

    def _make_room(self, more_bytes: int, wanted: set[Cid]) -> None:
        """Remove what is least recently used, never a block that is pinned or held, until `more_bytes` fit into the quota."""
        over_bytes = self._used_bytes + more_bytes - self._quota_bytes
        if over_bytes <= 0:
            return
        kept = wanted | self._held.cids | {block for root in self._pins for block in collect_all(root, self.get_block) or (root,)}
        victims: list[Cid] = []
        for cid, size_bytes in self._sizes.items():
            if over_bytes <= 0:
                break
            if cid not in kept:
                victims.append(cid)
                over_bytes -= size_bytes
        if over_bytes > 0:
            raise DiskFullError("the block store", more_bytes, f"its quota in the IPFS daemon is {self._quota_bytes} bytes")
        self._rpc.unpin_blocks(victims)
        self._forget(victims)

    def _note(self, blocks: dict[Cid, bytes]) -> None:
        self._write("INSERT OR IGNORE INTO blocks (cid, size_bytes) VALUES (?, ?)", [(cid, len(block)) for cid, block in blocks.items()])
        for cid, block in blocks.items():
            self._sizes[cid] = len(block)
            self._used_bytes += len(block)

    def _forget(self, cids: Iterable[Cid]) -> None:
        gone = [cid for cid in cids if cid in self._sizes]
        self._write("DELETE FROM blocks WHERE cid = ?", [(cid,) for cid in gone])
        for cid in gone:
            self._used_bytes -= self._sizes.pop(cid)

    def _write(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise DiskFullError("the list of blocks", 0, str(error)) from error
