"""The same function over many arguments, on all cores: results come in order, and are those of one core.

Processes are started anew (`spawn`), so nothing of the caller's state leaks into them. They end with the call, however it ends:
at its end, by an error, by Ctrl+C, or because its caller wants no more results.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Final, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")

CHUNKS_PER_PROCESS: Final = 8  # Enough for an even end and for progress, few enough that sending them costs nothing.


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_parallel(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], *, processes: int, chunk: int | None = None
) -> Iterator[Result]:
    """Yield `function(argument)` for each argument, in order.

    Args:
        function: importable by its name, like the arguments and results; called in other processes if `processes` is above 1.
        chunk: how many arguments a process takes at once; None: about an eighth of its share.
    Raises: what `function` raises, once its turn comes; nothing more is started then.
    """
    processes = min(processes, len(arguments))
    if processes <= 1:
        yield from map(function, arguments)
        return
    size = chunk or max(1, len(arguments) // (processes * CHUNKS_PER_PROCESS))
    with open_pool(processes) as pool:
        yield from pool.map(function, arguments, chunksize=size)


@contextmanager
def open_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """New processes for the length of a block; if it is left by an exception, their work is broken off."""
    others = set(active_children())
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    is_complete = False
    try:
        yield pool
        is_complete = True
    finally:
        if not is_complete:
            for process in set(active_children()) - others:
                process.terminate()  # What it works on may take minutes, and nobody waits for it any more.
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl+C goes to the whole group of processes; the first one answers it and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
