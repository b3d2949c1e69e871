"""The system's memory for files: which of a store's files may leave it, and telling the system so.

What a program writes or reads stays in memory until the system needs the room. A node that stores a model every few seconds would so
fill the memory of an ordinary computer with models that nobody asks for any more, at the cost of what its user works with; and each new
file would be written into memory that was not in use before, which a virtual machine may have to get from its host first: ten times
slower than memory that a moment ago held another file (docs/moving-models.md). Systems other than Linux are told nothing.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT_BYTES_MIN: Final = 32 << 20
KEPT_FILES: Final = 3  # Of the size of the largest: the local model, the one that comes, and their average.


class PageCache:
    """A store's files that may lie in memory, by number, in the order of their last use."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._bytes = 0

    def use(self, number: int, size_bytes: int) -> None:
        """This file was written or read."""
        self.drop(number)
        self._sizes[number] = size_bytes
        self._bytes += size_bytes

    def drop(self, number: int) -> None:
        """This file is not in memory any more, or not there at all."""
        self._bytes -= self._sizes.pop(number, 0)

    def make_room(self, size_bytes: int, *, wanted: Container[int] = ()) -> list[int]:
        """The files to give up before one of this size is written, least recently used first; none that is wanted."""
        kept_bytes = max(KEPT_BYTES_MIN, KEPT_FILES * max(size_bytes, *self._sizes.values(), 0))
        found: list[int] = []
        for number in list(self._sizes):
            if self._bytes + size_bytes <= kept_bytes:
                break
            if number not in wanted:
                found.append(number)
                self.drop(number)
        return found


def give_up(paths: Iterable[Path]) -> None:
    """Tell the system that these files need not lie in its memory."""
    if hasattr(os, "posix_fadvise"):
        for path in paths:
            with suppress(OSError), open(path, "rb", buffering=0) as file:  # It was removed meanwhile, or too many files are open.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start_writing(file: int, begin: int, size_bytes: int) -> None:
    """Let the disk begin to write this part of a file. Linux does so when told that it is not needed in memory now, and keeps it there."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, begin, size_bytes, os.POSIX_FADV_DONTNEED)
