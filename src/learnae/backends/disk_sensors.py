"""The journal of the sensors lane: like a node's, but vertices can be read one by one, and forgotten.

Sensor data have no end, so what is below a checkpoint may leave the disk (`drop`). Overwritten records hold the keys of channels:
SQLite wipes them (secure_delete), so that a stolen disk does not open a channel's past.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from learnae.backends.disk_journal import DiskJournal
from learnae.ids import Cid


class SensorJournal(DiskJournal):
    """`Journal` in a folder of its own, of a lane that forgets. Raises as `DiskJournal` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._database.execute("PRAGMA secure_delete=ON").close()

    def read(self, cid: Cid) -> bytes | None:
        """The bytes of one vertex; None if it is not here any more."""
        row = self._select("SELECT block FROM vertices WHERE cid = ?", cid)
        return None if row is None else row[0]

    def drop(self, cids: Iterable[Cid]) -> None:
        """Forget vertices. Losing this on a kill does no harm: they are forgotten again."""
        with self._change(0):
            self._database.executemany("DELETE FROM vertices WHERE cid = ?", ((cid,) for cid in cids))
