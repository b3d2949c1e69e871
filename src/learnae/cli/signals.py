"""Ctrl+C and SIGTERM under trio: work is cancelled in order, files are closed, worker processes end."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

Done = TypeVar("Done")


def run_interruptible(job: Callable[[], Awaitable[Done]], *, on_signal: Callable[[], bool] = lambda: False) -> Done:
    """Run `job` under trio until it is done or a signal comes.

    Args:
        on_signal: called at the first signal; True if it has arranged for `job` to end by itself. Otherwise, and at a second
            signal, `job` is cancelled.
    Raises: KeyboardInterrupt: a signal came. What `job` raises, in groups.
    """
    results: list[Done] = []
    signals_seen = 0

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    nonlocal signals_seen
                    async for _ in signals:
                        signals_seen += 1
                        if signals_seen > 1 or not on_signal():
                            nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                results.append(await job())
                nursery.cancel_scope.cancel()

    trio.run(run)
    if signals_seen:
        raise KeyboardInterrupt
    return results[0]
