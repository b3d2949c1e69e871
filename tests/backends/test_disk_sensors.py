"""The journal of the sensors lane: what it cannot do it says, as the node's journal does, and stays usable."""

from __future__ import annotations

import os
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


def test_heard_vertices__survive_a_kill_and_are_synced_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others said waits for no disk, vertex by vertex; what this node says, and what it acknowledges, does."""
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor))[1])
    with closing(SensorJournal(tmp_path)) as journal:
        statements: list[str] = []
        journal._database.set_trace_callback(statements.append)
        blocks = [b"one", b"two"]
        journal.append_heard([(compute_cid(block), block) for block in blocks])
        levels = [statement for statement in statements if "synchronous" in statement]
        assert levels == ["PRAGMA synchronous=NORMAL", "PRAGMA synchronous=FULL"]
        assert statements.index("COMMIT") < statements.index(levels[1])
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:  # What another process sees, a kill does not undo.
            assert [block for (block,) in other.execute("SELECT block FROM vertices ORDER BY position")] == blocks
        assert not synced
        journal.sync()
        assert len(synced) == 1
