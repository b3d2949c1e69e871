"""Memory for whole models: in huge pages where the system gives them, because giving out 4 KiB at a time costs more than filling them."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Final

HUGE_BYTES: Final = 4 << 20  # Two huge pages of 2 MiB: smaller buffers are taken from the heap.


def make_buffer(size_bytes: int) -> memoryview:
    """Zeros that may be written; given back when nobody refers to them."""
    if size_bytes < HUGE_BYTES:
        return memoryview(bytearray(size_bytes))
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # The kernel was built without.
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
