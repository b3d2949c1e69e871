"""Carries out many jobs: in this process, on all cores, or on a cluster that exists already. The results are the same.

A job is small plain values and a module-level function, so that a process started anew (spawn) or another machine can do it. All of
its randomness comes from the seeds in it, and results are taken in the order of the jobs.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from learnae.errors import LearnaeError
from learnae.lab.errors import LabTrialError
from learnae.lab.parallel import open_pool

Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class Job(Protocol[Done_co]):
    """A piece of work that can be sent away."""

    @property
    def command(self) -> str:
        """The command that repeats it."""

    def run(self) -> Done_co: ...


def run_jobs(
    jobs: Sequence[Job[Done]],
    *,
    processes: int = 1,
    cluster: str = "",
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> list[Done]:
    """Do all jobs; the results are in the order of the jobs.

    Args:
        processes: how many processes of this machine; 1 is this one.
        cluster: address of a Dask scheduler, for example tcp://192.0.2.10:8786; its workers do the work instead.
        progress: is told how many jobs are done.
    Raises: LabTrialError: a job failed; the message holds the command that repeats it. ClusterError: the cluster does not answer.
    """
    with _open_executor(min(processes, len(jobs)), cluster) as executor:
        futures = [executor.submit(run_job, job) for job in jobs]
        results: dict[int, Done] = {}
        place = {future: index for index, future in enumerate(futures)}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                result = future.result()
                if isinstance(result, Failed):
                    raise LabTrialError(result.what, jobs[place[future]].command)
                results[place[future]] = result
                progress(done, len(jobs))
        finally:
            for future in futures:
                future.cancel()
        return [results[index] for index in range(len(jobs))]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a job answers that came upon a bug. Plain text, because not every exception survives the way back from a process."""

    what: str


_BUGS: Final = (LearnaeError, AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def run_job(job: Job[Done]) -> Done | Failed:
    """Do one job, wherever this is."""
    try:
        return job.run()
    except _BUGS as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Failed(f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {error}")


@contextmanager
def _open_executor(processes: int, cluster: str) -> Iterator[Executor]:
    if cluster:
        from learnae.lab.cluster import open_cluster

        with open_cluster(cluster) as remote:
            yield remote
    elif processes > 1:
        with open_pool(processes) as pool:
            yield pool
    else:
        with ThreadPoolExecutor(max_workers=1) as thread:
            yield thread
