"""The journal of the sensors lane: what it cannot do it says, as the node's journal does, and stays usable."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from learnae.backends.disk_sensors import SensorJournal
from learnae.errors import JournalDamagedError
from learnae.ids import compute_cid


def test_drop__that_fails_is_told_and_leaves_no_transaction(tmp_path: Path) -> None:
    block = b"a vertex"
    with closing(SensorJournal(tmp_path)) as journal:
        journal.append([(compute_cid(block), block)])
        with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
            other.execute("CREATE TRIGGER stop BEFORE DELETE ON vertices BEGIN SELECT RAISE(ABORT, 'broken'); END").close()
        with pytest.raises(JournalDamagedError, match="broken"):
            journal.drop([compute_cid(block)])
        assert journal.read(compute_cid(block)) == block
        with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
            other.execute("DROP TRIGGER stop").close()
        journal.drop([compute_cid(block)])
        assert journal.read(compute_cid(block)) is None


def test_read__of_a_damaged_journal_is_told(tmp_path: Path) -> None:
    with closing(SensorJournal(tmp_path)) as journal:
        with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
            other.execute("DROP TABLE vertices").close()
        with pytest.raises(JournalDamagedError, match="no such table"):
            journal.read(compute_cid(b"x"))
