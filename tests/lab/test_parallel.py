"""Many arguments on all cores: the results of one core, and no process that outlives its call."""

from __future__ import annotations

import signal
from functools import partial
from multiprocessing import active_children

import pytest

from learnae.errors import InvariantBrokenError
from learnae.lab.paper import Setting, run_fast
from learnae.lab.parallel import count_cores, map_parallel


def test_parallel__gives_what_one_process_gives() -> None:
    """Same seeds, same figures, in the same order, on however many processes."""
    run = partial(run_fast, Setting(10, 5, 1))

    assert list(map_parallel(run, range(12), processes=2)) == [run(seed) for seed in range(12)]
    assert list(map_parallel(run, range(3), processes=1)) == [run(seed) for seed in range(3)]
    assert active_children() == []


def test_parallel__raises_what_the_function_raises() -> None:
    """A broken promise in another process is the same sentence here, with the command that repeats it."""
    with pytest.raises(InvariantBrokenError, match="broken promise: seed 1 was lost; repeat it with: learnae paper --first-seed 1"):
        list(map_parallel(lose_seed_1, range(4), processes=2, chunk=1))
    assert active_children() == []


def lose_seed_1(seed: int) -> int:
    if seed == 1:
        raise InvariantBrokenError("seed 1 was lost", "learnae paper --first-seed 1")
    return seed


def test_parallel__that_is_left_early_ends_its_processes_at_once() -> None:
    """Ctrl+C in the middle of sessions that take minutes: their processes are ended, not waited for."""
    results = map_parallel(work_for_long, range(4), processes=2, chunk=1)
    assert next(results) == 0
    processes = active_children()
    results.close()  # type: ignore[attr-defined]

    assert len(processes) == 2
    assert {process.exitcode for process in processes} == {-signal.SIGTERM}


def work_for_long(number: int) -> int:
    if number:
        signal.alarm(30)  # Ends this process by itself, with another exit code, should nobody do it.
        signal.pause()
    return number


def test_cores__are_those_that_this_process_may_use() -> None:
    assert count_cores() >= 1
