"""How fast a model moves between two processes on one machine: fetched by CID and verified, into memory and onto disk.

Beside it, in the same rounds and so under the same load of the machine: the same bytes over bare TCP (no encryption, no hashing),
over a stream of py-libp2p as it comes (encrypted, not hashed), as hivemind loads the state of a peer (into memory, encrypted), and
from one Kubo to another (hashed, encrypted, onto disk). Each system in two processes of its own. Medians are told.

Then: several providers (`python -m benchmarks providers`), 1 MB on a warm connection, the memory that a fetch takes, and a line with
100 ms each way that loses 30 % (`tests/lossy_link.py`) against bare TCP over the same line.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import psutil
import trio
import trio.testing
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from benchmarks import Result, providers
from benchmarks._fetching import Fetching, open_fetching
from benchmarks._hivemind_pair import HivemindPair, start_hivemind
from benchmarks._provider import PIECE_BYTES, RAW, Provider, start_provider
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.errors import FetchError
from learnae.ids import Cid
from learnae.ports import BlockStore
from tests.kubo_node import KuboNode, open_kubo
from tests.lossy_link import Line, open_lossy_link

ROUNDS = 5
WARM_ROUNDS = 41
SIZES_BYTES = (1_000_000, 10_000_000, 100_000_000)
BAD_LINE = Line(delay_s=0.1, loss=0.3)
BAD_LINE_BYTES = 200_000
TRIES = 5
BAD_LINE_RATE = 30.0  # Times faster than real: the line is modelled.

Measure = Callable[[int, int], Awaitable[float]]
"""Seconds for so many bytes; the round's number."""


def run() -> list[Result]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(start_provider())
        hivemind = stack.enter_context(start_hivemind(SIZES_BYTES))
        kubos = [stack.enter_context(open_kubo(folder / name)) for name in ("kubo-1", "kubo-2")]
        kubos[1].connect(kubos[0].addresses[0])
        results = trio.run(_compare, provider, hivemind, kubos, folder)
    results += providers.run()
    with start_provider() as provider:
        results += trio.run(_measure_warm, provider)
    results += _measure_memory_apart()
    return results + trio.run(_measure_bad_line, clock=trio.testing.MockClock(rate=BAD_LINE_RATE))


async def _compare(provider: Provider, hivemind: HivemindPair, kubos: Sequence[KuboNode], folder: Path) -> list[Result]:
    async with AsyncExitStack() as stack:
        ours = await open_fetching(stack, MemoryBlocks(quota_bytes=250_000_000), [provider])
        stored = await open_fetching(stack, DiskBlocks(folder / "blocks", reserve_bytes=0), [provider])
        host = new_host()
        await stack.enter_async_context(host.run(listen_addrs=[]))
        await host.connect(info_from_p2p_addr(Multiaddr(provider.raw_address)))
        systems: dict[str, Measure] = {
            "ours": ours.fetch,
            "stored": stored.fetch,
            "bare TCP": partial(_receive_bare, provider.tcp_port),
            "py-libp2p stream": partial(_receive_raw, host, provider),
            "hivemind": partial(_load_hivemind, hivemind),
            "Kubo to Kubo": partial(_download, kubos, folder),
        }
        results: list[Result] = []
        for size_bytes in SIZES_BYTES:
            times: defaultdict[str, list[float]] = defaultdict(list)
            for number in range(ROUNDS + 1):
                for name, measure in systems.items():
                    took_s = await measure(size_bytes, number)
                    if number:  # the first is to warm up
                        times[name].append(took_s)
            results += _tell(size_bytes, times)
        return results


def _tell(size_bytes: int, times: dict[str, list[float]]) -> list[Result]:
    label = f"{size_bytes // 1_000_000} MB"
    rates = {name: size_bytes / 1e6 / statistics.median(some) for name, some in times.items()}
    results: list[Result] = []
    for case, ours in ((f"fetch {label}, verify", "ours"), (f"fetch {label}, verify and store", "stored")):
        for reference in ("bare TCP", "py-libp2p stream", "hivemind", "Kubo to Kubo"):
            results.append(Result(case=case, value=rates[ours], unit="MB/s", reference=reference, reference_value=rates[reference]))
    return results


async def _receive_bare(port: int, size_bytes: int, number: int) -> float:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        began_s = time.perf_counter()
        await stream.send_all(size_bytes.to_bytes(4, "big"))
        left = size_bytes
        while left:
            left -= len(await stream.receive_some(PIECE_BYTES))
        return time.perf_counter() - began_s


async def _receive_raw(host: IHost, provider: Provider, size_bytes: int, number: int) -> float:
    peer = info_from_p2p_addr(Multiaddr(provider.raw_address)).peer_id
    began_s = time.perf_counter()
    stream = await host.new_stream(peer, [RAW])
    await stream.write(size_bytes.to_bytes(4, "big"))
    left = size_bytes
    while left:
        left -= len(await stream.read(min(left, PIECE_BYTES)))
    took_s = time.perf_counter() - began_s
    await stream.close()
    return took_s


async def _load_hivemind(pair: HivemindPair, size_bytes: int, number: int) -> float:
    return await trio.to_thread.run_sync(pair.load, size_bytes)


async def _download(kubos: Sequence[KuboNode], folder: Path, size_bytes: int, number: int) -> float:
    def download() -> float:
        source, target = folder / "source", folder / "target"
        source.write_bytes(Random(size_bytes + number).randbytes(size_bytes))
        cid = kubos[0].add_file(source)
        began_s = time.perf_counter()
        kubos[1].download(cid, target)
        took_s = time.perf_counter() - began_s
        assert target.stat().st_size == size_bytes
        target.unlink()
        return took_s

    return await trio.to_thread.run_sync(download)


async def _measure_warm(provider: Provider) -> list[Result]:
    """1 MB on a connection that has been used, as models of a session come."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = []
        for case, blocks in (("verify", MemoryBlocks()), ("verify and store", DiskBlocks(folder, reserve_bytes=0))):
            ours = await open_fetching(stack, blocks, [provider])
            times = [await ours.fetch(SIZES_BYTES[0], number) for number in range(WARM_ROUNDS)]
            results.append(Result(case=f"fetch 1 MB, warm, {case}: median time", value=statistics.median(times[1:]) * 1000, unit="ms"))
        return results


def _measure_memory_apart() -> list[Result]:
    """In a process of its own: this one keeps memory that it once used, and would fetch into that."""
    told = subprocess.run([sys.executable, "-m", "benchmarks.transfer"], stdout=subprocess.PIPE, check=True).stdout
    return [Result(**values) for values in json.loads(told)]


async def _measure_memory(provider: Provider) -> list[Result]:
    """How much more memory this process has in use at the peak of a fetch than before it."""
    results = []
    size_bytes = SIZES_BYTES[-1]
    for case in ("into memory", "onto disk"):
        with tempfile.TemporaryDirectory() as folder:
            async with AsyncExitStack() as stack:
                blocks: BlockStore = MemoryBlocks() if case == "into memory" else DiskBlocks(Path(folder), reserve_bytes=0)
                ours = await open_fetching(stack, blocks, [provider])
                await ours.fetch(SIZES_BYTES[0], 0)
                before = _reset_peak()
                await ours.fetch(size_bytes, 1000)
                more = (_read_peak() - before) / 1e6
                name = f"fetch {size_bytes // 1_000_000} MB {case}: more memory at the peak"
                bound = (size_bytes + (32 << 20)) / 1e6
                results.append(Result(case=name, value=more, unit="MB", reference="the model and 32 MiB", reference_value=bound))
    return results


def _reset_peak() -> int:
    """Bytes in memory now; the peak counts from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return int(psutil.Process().memory_info().rss)


def _read_peak() -> int:
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024


async def _fetch_patiently(ours: Fetching, cid: Cid) -> None:
    """As a node does: who was silent for longer than a fetch waits is asked again. Raises: FetchError: five times in a row."""
    for _ in range(TRIES - 1):
        try:
            await ours.network.fetch_file(cid, providers=ours.providers, bytes_max=BAD_LINE_BYTES)
            return
        except FetchError:
            continue  # At 30 % loss six time-outs of TCP in a row are no rarity: every thirtieth fetch or so.
    await ours.network.fetch_file(cid, providers=ours.providers, bytes_max=BAD_LINE_BYTES)


async def _measure_bad_line() -> list[Result]:
    """A line that loses 30 %: ours against bare TCP over the same model of a line, in the time of the line."""
    store = MemoryBlocks()
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with start_provider() as provider:
        for seed in range(ROUNDS):
            async with (
                open_lossy_link(provider.port, Line(), seed=seed) as link,
                open_lossy_link(provider.tcp_port, Line(), seed=seed) as bare_link,
                AsyncExitStack() as stack,
            ):
                ours = await open_fetching(stack, store, [provider.through(link.port)])
                cid = await ours.wish_of_all(BAD_LINE_BYTES, seed)
                link.line = bare_link.line = BAD_LINE
                began_s = trio.current_time()
                await _fetch_patiently(ours, cid)
                times["ours"].append(trio.current_time() - began_s)
                began_s = trio.current_time()
                await _receive_bare(bare_link.port, BAD_LINE_BYTES, seed)
                times["bare"].append(trio.current_time() - began_s)
    rates = {name: BAD_LINE_BYTES / 1e3 / statistics.median(some) for name, some in times.items()}
    case = "fetch over a line with 100 ms each way and 30 % loss"
    return [Result(case=case, value=rates["ours"], unit="kB/s", reference="bare TCP", reference_value=rates["bare"])]


if __name__ == "__main__":
    with start_provider() as _provider:
        print(json.dumps([asdict(result) for result in trio.run(_measure_memory, _provider)]))
