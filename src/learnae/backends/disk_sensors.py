"""The journal of the sensors lane: like a node's, but vertices can be read one by one, and forgotten.

Sensor data have no end, so what is below a checkpoint may leave the disk (`drop`). Overwritten records hold the keys of channels:
SQLite wipes them (secure_delete), so that a stolen disk does not open a channel's past.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from learnae.backends.disk_journal import DiskJournal
from learnae.errors import DiskFullError
from learnae.ids import Cid

CACHE_KIB: Final = 8192  # The index of the vertices that a lane keeps: others ask for them by name, page after page.


class SensorJournal(DiskJournal):
    """`Journal` in a folder of its own, of a lane that forgets. Raises as `DiskJournal` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._log = folder / "journal.sqlite-wal"
        for statement in ("secure_delete=ON", f"cache_size=-{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {statement}").close()

    def append_heard(self, vertices: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep what others said, in one transaction: a kill loses nothing, a power cut perhaps the newest, which sync brings again.

        Waiting for the disk at each vertex would cost more than all else. What is appended or synced later is safe together with
        what came before it: the log is one file.
        """
        self._set_synchronous("NORMAL")
        try:
            self.append(vertices)
        finally:
            self._set_synchronous("FULL")

    def sync(self) -> None:
        """Let all that was kept survive a power cut. Raises: DiskFullError: the disk did not take it."""
        try:
            with self._log.open("rb") as log:
                os.fsync(log.fileno())
        except OSError as error:
            raise DiskFullError("the journal", 0, error.strerror or str(error)) from error

    def _set_synchronous(self, level: str) -> None:
        self._database.execute(f"PRAGMA synchronous={level}").close()

    def read(self, cid: Cid) -> bytes | None:
        """The bytes of one vertex; None if it is not here any more."""
        row = self._select("SELECT block FROM vertices WHERE cid = ?", cid)
        return None if row is None else row[0]

    def drop(self, cids: Iterable[Cid]) -> None:
        """Forget vertices. Losing this on a kill does no harm: they are forgotten again."""
        with self._change(0):
            self._database.executemany("DELETE FROM vertices WHERE cid = ?", ((cid,) for cid in cids))
