"""Files by Bitswap between a node and a real Kubo 0.22, both ways, beside Kubo to Kubo in the same run.

Every Kubo is a process of its own; the node that gives and the one that takes are in this one, and do so one after the other. All on
loopback, connections warm, each file new. Kubo stores what it gets on disk; a node verifies it and keeps it in memory.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import Final

import trio

from benchmarks import Result
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import Cid, PeerId, cid_text
from tests.kubo_node import KuboNode, open_kubo

ROUNDS: Final = 5
SIZES_BYTES: Final = (1_000_000, 10_000_000, 50_000_000)
LISTEN: Final = ("/ip4/127.0.0.1/tcp/0",)
QUOTA_BYTES: Final = 120_000_000  # Older files of the run go.


def run() -> list[Result]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kubos = [stack.enter_context(open_kubo(folder / name)) for name in ("kubo-1", "kubo-2")]
        return trio.run(_compare, kubos, folder)


async def _compare(kubos: list[KuboNode], folder: Path) -> list[Result]:
    async with AsyncExitStack() as stack:
        store, copy = (MemoryBlocks(quota_bytes=QUOTA_BYTES) for _ in range(2))
        giver, taker = [
            await stack.enter_async_context(open_libp2p_network(seed=os.urandom(32), listen=LISTEN, blocks=blocks))
            for blocks in (store, copy)
        ]
        await trio.to_thread.run_sync(kubos[0].connect, giver.addresses[0])
        await trio.to_thread.run_sync(kubos[1].connect, kubos[0].addresses[0])
        provider = await taker.connect(kubos[0].addresses[0])
        results: list[Result] = []
        for size_bytes in SIZES_BYTES:
            times: defaultdict[str, list[float]] = defaultdict(list)
            for number in range(ROUNDS + 1):
                content = Random(size_bytes + number).randbytes(size_bytes)
                cid = store.put_file(content)
                took = {
                    "to Kubo": await trio.to_thread.run_sync(_download, kubos[0], cid_text(cid), folder / "from node"),
                    "from Kubo": await _fetch(taker, provider, cid, size_bytes),
                    "Kubo to Kubo": await trio.to_thread.run_sync(_move, kubos, content[::-1], folder),
                }
                for case, took_s in took.items():
                    if number:  # the first is to warm up
                        times[case].append(took_s)
            rates = {case: size_bytes / 1e6 / statistics.median(some) for case, some in times.items()}
            for case in ("to Kubo", "from Kubo"):
                label = f"{case}, {size_bytes // 1_000_000} MB"
                results.append(
                    Result(case=label, value=rates[case], unit="MB/s", reference="Kubo to Kubo", reference_value=rates["Kubo to Kubo"])
                )
        return results


async def _fetch(taker: Libp2pNetwork, provider: PeerId, cid: Cid, size_bytes: int) -> float:
    began_s = time.perf_counter()
    await taker.fetch_file(cid, providers=[provider], bytes_max=size_bytes)
    return time.perf_counter() - began_s


def _move(kubos: list[KuboNode], content: bytes, folder: Path) -> float:
    (folder / "source").write_bytes(content)
    return _download(kubos[1], kubos[0].add_file(folder / "source"), folder / "from kubo")


def _download(kubo: KuboNode, cid: str, target: Path) -> float:
    began_s = time.perf_counter()
    kubo.download(cid, target)
    took_s = time.perf_counter() - began_s
    target.unlink()
    return took_s
