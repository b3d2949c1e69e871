"""Looking at other processes from a test."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

HANGS_S = 60.0
"""Who needs longer to end hangs. How quick it is on a machine that does nothing else, the benchmarks say."""


def find_left(family: Sequence[psutil.Process], *, limit_s: float = 1.0) -> list[psutil.Process]:
    """Those that still run after `limit_s`. One that ended and that nobody asks for its exit status does not run any more."""
    deadline = time.monotonic() + limit_s
    while (left := [process for process in family if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
