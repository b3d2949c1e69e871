"""One process at a time in a folder: held by the journal of a running node, and by commands that change its block store."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from learnae.errors import FolderInUseError


def lock_folder(folder: Path) -> IO[bytes]:
    """Hold the folder until the file is closed or the process ends, however it ends. Raises: FolderInUseError."""
    file = open(folder / "lock", "ab")  # noqa: SIM115 - held open for as long as the caller wants
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise FolderInUseError(str(folder)) from error
    return file
