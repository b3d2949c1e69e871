"""A clock that goes on evenly: what sets the machine's clock, as NTP does soon after a start, is no time that passed.

The core counts on from the chain's time by differences of this clock. A step of two hours would tell it that training is over.
Time in which the machine slept does count.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def _read_elapsed() -> float:
    """Seconds since the machine started; where the system cannot count those in which it slept, without them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def make_steady_clock(wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _read_elapsed) -> Callable[[], float]:
    """Unix seconds: what the machine's clock shows now, and from now on what passes."""
    offset_s = wall() - elapsed()
    return lambda: offset_s + elapsed()
