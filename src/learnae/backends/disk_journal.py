"""What this node must not forget, in one SQLite file: every accepted vertex, and small named records.

An `append` has reached the disk when it returns (WAL, synchronous FULL), so a kill at any point loses nothing that was
acknowledged and keeps nothing half. The folder belongs to one process: a second start on it ends with a sentence.
Does not judge vertices: what is appended has been accepted by the core.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from learnae.backends.folder_lock import lock_folder
from learnae.errors import DiskFullError, JournalDamagedError
from learnae.ids import Cid, compute_cid

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS vertices (position INTEGER PRIMARY KEY, cid BLOB NOT NULL UNIQUE, block BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
# Positions have no gaps: nothing is ever deleted, and what is known already takes none. So a vertex's number is its position less one.
_PAGE = 256  # Vertices read per query: bounds memory while a long journal is replayed.


class DiskJournal:
    """`Journal` in the folder `folder` (made if absent, 0700).

    Raises: FolderInUseError: another process has this folder open. JournalDamagedError: the file is not a journal.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock_file = lock_folder(folder)
        path = folder / "journal.sqlite"
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                for statement in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=1000", "cache_size=-512"):
                    self._database.execute(f"PRAGMA {statement}")
                self._database.executescript(_SCHEMA)
                self._count: int = self._database.execute("SELECT coalesce(max(position), 0) FROM vertices").fetchone()[0]
            except sqlite3.Error:
                self._database.close()
                raise
        except sqlite3.Error as error:
            self._lock_file.close()
            if _is_full(error):
                raise DiskFullError("the journal", 0, str(error)) from error
            raise JournalDamagedError(str(path), str(error)) from error
        os.chmod(path, 0o600)

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
        changes = list(records)
        needed = sum(len(block) for _, block in vertices) + sum(len(value or b"") for _, value in changes)
        with self._change(needed):
            self._database.executemany("INSERT OR IGNORE INTO vertices (cid, block) VALUES (?, ?)", vertices)
            for name, value in changes:
                if value is None:
                    self._database.execute("DELETE FROM records WHERE name = ?", (name,))
                else:
                    self._database.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, value))
            count = self._database.execute("SELECT coalesce(max(position), 0) FROM vertices").fetchone()[0] if vertices else self._count
        self._count = count

    @contextmanager
    def _change(self, needed: int) -> Iterator[None]:
        """One transaction: all of it is on disk afterwards, or nothing and an error. `needed`: bytes to be told if the disk is full."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if _is_full(error):
                raise DiskFullError("the journal", needed, str(error)) from error
            raise JournalDamagedError(str(self._folder), str(error)) from error

    def vertices(self) -> Iterator[bytes]:
        position = 0
        while True:
            query = "SELECT position, cid, block FROM vertices WHERE position > ? ORDER BY position LIMIT ?"
            rows = self._read(query, (position, _PAGE))
            if not rows:
                return
            position = rows[-1][0]
            for number, cid, block in rows:
                if compute_cid(block, cid[1]) != cid:
                    raise JournalDamagedError(str(self._folder), f"the bytes of its vertex {number} changed since they were written")
                yield block

    @property
    def vertices_count(self) -> int:
        return self._count

    def read_vertex(self, number: int) -> bytes:
        row = self._select("SELECT block FROM vertices WHERE position = ?", number + 1)
        if row is None:
            raise IndexError(f"the journal has {self._count} vertices, there is no number {number}")
        block: bytes = row[0]
        return block

    def find_vertex(self, cid: Cid) -> tuple[int, bytes] | None:
        row = self._select("SELECT position - 1, block FROM vertices WHERE cid = ?", cid)
        return None if row is None else (row[0], row[1])

    def _select(self, query: str, key: int | bytes) -> tuple[Any, ...] | None:
        return next(iter(self._read(query, (key,))), None)

    def _read(self, query: str, values: tuple[int | bytes, ...]) -> list[tuple[Any, ...]]:
        """Raises: JournalDamagedError: pages of the file changed since they were written, or cannot be read."""
        try:
            with closing(self._database.execute(query, values)) as cursor:
                rows: list[tuple[Any, ...]] = cursor.fetchall()
        except sqlite3.Error as error:
            raise JournalDamagedError(str(self._folder), str(error)) from error
        return rows

    def records(self) -> dict[str, bytes]:
        return dict(self._read("SELECT name, value FROM records", ()))

    def close(self) -> None:
        self._database.close()
        self._lock_file.close()


def read_journal_beside(folder: Path) -> Iterator[bytes]:
    """The vertices of a journal without holding its folder, so also while its node runs; none if there is no journal yet.

    Raises: JournalDamagedError: the file is not a journal.
    """
    path = folder / "journal.sqlite"
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
            for (block,) in database.execute("SELECT block FROM vertices ORDER BY position"):
                yield bytes(block)
    except sqlite3.Error as error:
        raise JournalDamagedError(str(path), str(error)) from error


def read_record_beside(folder: Path, name: str) -> bytes | None:
    """One record of a journal without holding its folder; None if there is no such record, or no journal yet.

    Raises: JournalDamagedError: the file is not a journal.
    """
    path = folder / "journal.sqlite"
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
            row = database.execute("SELECT value FROM records WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error as error:
        raise JournalDamagedError(str(path), str(error)) from error
    return None if row is None else bytes(row[0])


def _is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite ran out of room. A failed write (IOERR) is told the same way: nothing was written either."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
