"""What the thread of the event loop did with its time: worked, waited with nothing to do, or wanted to work and was not let."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds since the clock was started; what is left of `passed_s` went to other processes and threads."""

    passed_s: float
    idle_s: float  # every task waited for the network, a thread or a timer
    worked_s: float


class IdleClock(trio.abc.Instrument):
    """Counts between `run` and its end. In real seconds, also where trio's clock is another.

    Args: now, worked: clocks, of the machine and of the processor time of this thread.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, worked: Callable[[], float] = time.thread_time) -> None:
        self._now, self._worked = now, worked
        self._began_s, self._worked_s = now(), worked()
        self._idle_s = self._paused_s = 0.0
        self._since_s: float | None = None
        self._pauses = 0

    @contextmanager
    def run(self) -> Iterator[None]:
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What the loop waits for meanwhile does not count, nor as time that passed; may be nested, and used by several tasks."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1

    def read(self) -> Spent:
        return Spent(self._now() - self._began_s - self._paused_s, self._idle_s, self._worked() - self._worked_s)

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0:
            self._since_s = self._now()

    def after_io_wait(self, timeout: float) -> None:
        if self._since_s is not None:
            waited_s = self._now() - self._since_s
            self._since_s = None
            if self._pauses:
                self._paused_s += waited_s
            else:
                self._idle_s += waited_s
