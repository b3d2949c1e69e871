"""What a running node leaves in its folder for people and programs to read: `progress.jsonl` and `status.json`.

Progress is one JSON object a line, appended, bounded by starting anew. The status is one small file, replaced as a whole.
Neither is needed to go on after a restart, so a disk that is full leaves them as they are; the journal is what says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from learnae.ids import PeerId, peer_text
from learnae.protocol.events import Tell, Topic

PROGRESS_BYTES_MAX: Final = 16 << 20  # A week of a busy peer; then the file is moved to `.old` and begun anew.
REPEAT_S: Final = 30.0  # The same trouble is told again only after so long.
RECENT_MAX: Final = 64  # Different troubles remembered, so that none is repeated too soon.


class ProgressLog:
    """Appends what the peer tells to `progress.jsonl`; the same trouble not more often than every `REPEAT_S`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.jsonl"
        self._file = _open_log(self._path)
        self._recent: dict[str, float] = {}

    def write(self, tell: Tell, now_s: float) -> bool:
        """Write one line; False if it was told a moment ago."""
        if tell.topic is Topic.TROUBLE:
            if now_s - self._recent.get(tell.text, -REPEAT_S) < REPEAT_S:
                return False
            self._recent[tell.text] = now_s
            if len(self._recent) > RECENT_MAX:
                del self._recent[next(iter(self._recent))]
        values = {name: _to_plain(value) for name, value in tell.values.items()}
        line = {"time_s": round(now_s, 3), "topic": tell.topic.value, "text": tell.text, **values}
        with suppress(OSError):
            self._append(json.dumps(line) + "\n")
        return True

    def _append(self, line: str) -> None:
        if self._file.tell() > PROGRESS_BYTES_MAX:
            if self._path.exists():
                self._path.replace(self._path.with_suffix(".old"))
            full, self._file = self._file, _open_log(self._path)  # Should there be no new one, the old one goes on.
            full.close()
        self._file.write(line.encode())

    def close(self) -> None:
        self._file.close()


def _open_log(path: Path) -> FileIO:
    return path.open("ab", buffering=0)  # Unbuffered: a line that a full disk refused is not tried again at the end.


def write_status(folder: Path, status: Mapping[str, object]) -> None:
    """Replace `status.json` as a whole, so that a reader never sees half of it."""
    draft = folder / "status.json.new"
    with suppress(OSError):
        draft.write_text(json.dumps(status, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, folder / "status.json")


def _to_plain(value: object) -> object:
    return peer_text(PeerId(value)) if isinstance(value, bytes) else value
