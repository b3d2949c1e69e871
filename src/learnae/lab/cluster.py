"""A Dask cluster as an executor (optional extra `cluster`). The only module that names Dask.

Dask sends jobs and results as Python objects, so a scheduler is trusted like the own machine: name only one of your own. Its workers
need the same version of learnae.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final

from learnae import __version__
from learnae.lab.errors import ClusterError

CONNECT_S: Final = 10.0


@contextmanager
def open_cluster(address: str) -> Iterator[Executor]:
    """Connect to a scheduler. Raises: ClusterError: nobody answers, nobody works there, or a worker has another version."""
    from distributed import Client

    try:
        asyncio.run(_knock(address))
        client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except TimeoutError as error:
        raise ClusterError(address, f"no answer within {CONNECT_S:g} s") from error
    except (OSError, ValueError) as error:
        raise ClusterError(address, " ".join(str(error).split())) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ClusterError(address, "it has no workers")
        versions = client.run(read_version)
        for worker, version in versions.items():
            if version != __version__:
                raise ClusterError(address, f"worker {worker} has learnae {version}, this is {__version__}")
        executor: Executor = client.get_executor(pure=False)
        yield executor


async def _knock(address: str) -> None:
    """Wait until a scheduler greets us. `Client` would wait for ever for one that takes the connection and says nothing."""
    from distributed.comm.core import connect

    comm: Any = await asyncio.wait_for(connect(address, timeout=CONNECT_S), CONNECT_S)  # type: ignore[no-untyped-call]
    await comm.close()


def read_version() -> str:
    """The version of learnae where this runs."""
    return __version__
