"""What a node tells its folder: bounded, and never a reason to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learnae.node import progress
from learnae.node.progress import ProgressLog
from learnae.protocol.events import Tell, Topic


def tell(log: ProgressLog, count: int) -> None:
    for number in range(count):
        assert log.write(Tell(Topic.TRAINING, f"line {number}"), float(number))


def test_progress_log__is_begun_anew_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PROGRESS_BYTES_MAX", 500)
    log = ProgressLog(tmp_path)
    tell(log, 12)
    log.close()
    texts = [json.loads(line)["text"] for name in ("old", "jsonl") for line in (tmp_path / f"progress.{name}").read_text().splitlines()]
    assert texts == [f"line {number}" for number in range(12)]


def test_progress_log__that_cannot_be_begun_anew_ends_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ARCHITECTURE.md: progress is not needed to go on, so a disk that refuses it leaves it as it is."""
    monkeypatch.setattr(progress, "PROGRESS_BYTES_MAX", 500)
    (tmp_path / "progress.old").mkdir()
    log = ProgressLog(tmp_path)
    tell(log, 20)

    (tmp_path / "progress.old").rmdir()
    tell(log, 1)
    log.close()
    assert (tmp_path / "progress.old").stat().st_size > 500 and (tmp_path / "progress.jsonl").stat().st_size > 0
