"""How fast a model moves between two processes over libp2p: fetched by CID, every block verified and stored on disk.

The reference is the same number of bytes over a bare TCP connection on loopback, between the same processes: no encryption,
no hashing, no disk. Every size is fetched ROUNDS times, in turn with the reference; medians are told.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import trio

from benchmarks import Result
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import Cid, PeerId
from learnae.ports import DirectMessage

ROUNDS = 5
SIZES_BYTES = (1_000_000, 10_000_000, 100_000_000)
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
_WRITE_BYTES = 262144


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.transfer"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
            assert provider.stdin is not None
            assert provider.stdout is not None
            address, port = provider.stdout.readline().split()
            try:
                return trio.run(_measure, address, int(port), Path(folder))
            finally:
                provider.stdin.close()


async def _measure(address: str, port: int, folder: Path) -> list[Result]:
    blocks = DiskBlocks(folder, reserve_bytes=0)
    results: list[Result] = []
    async with open_libp2p_network(seed=os.urandom(32), listen=(), blocks=blocks) as network:
        provider = await network.connect(address)
        for size_bytes in SIZES_BYTES:
            fetch_s: list[float] = []
            bare_s: list[float] = []
            for number in range(ROUNDS):
                fetch_s.append(await _fetch(network, blocks, provider, size_bytes, number))
                bare_s.append(await _receive_bare(port, size_bytes))
            label, megabytes = f"{size_bytes // 1_000_000} MB", size_bytes / 1e6
            rate, bare = megabytes / statistics.median(fetch_s), megabytes / statistics.median(bare_s)
            case = f"fetch {label}, verify and store"
            results.append(Result(case=case, value=rate, unit="MB/s", reference="bare TCP", reference_value=bare))
            results.append(Result(case=f"{case}: median time", value=statistics.median(fetch_s) * 1000, unit="ms"))
    return results


async def _fetch(network: Libp2pNetwork, blocks: DiskBlocks, provider: PeerId, size_bytes: int, number: int) -> float:
    """Seconds from asking until the file is in the store. The provider makes the file first and tells its CID."""
    request = size_bytes.to_bytes(4, "big") + number.to_bytes(4, "big")
    await network.send(provider, request)
    async for event in network.events:
        if isinstance(event, DirectMessage):
            cid = Cid(event.content)
            break
    began_s = time.perf_counter()
    await network.fetch_file(cid, providers=[provider], bytes_max=size_bytes)
    took_s = time.perf_counter() - began_s
    assert blocks.has_file(cid)
    return took_s


async def _receive_bare(port: int, size_bytes: int) -> float:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        began_s = time.perf_counter()
        await stream.send_all(size_bytes.to_bytes(4, "big"))
        left = size_bytes
        while left:
            left -= len(await stream.receive_some(_WRITE_BYTES))
        return time.perf_counter() - began_s


async def _provide() -> None:
    """The other process: a node with files on demand, and a bare TCP server beside it; ends with its standard input."""
    blocks = MemoryBlocks()
    async with open_libp2p_network(seed=os.urandom(32), listen=LISTEN, blocks=blocks) as network, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _send_bare, 0)
        print(network.addresses[0], listeners[0].socket.getsockname()[1], flush=True)
        nursery.start_soon(_answer, network, blocks)
        await trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())).receive_some(1)
        nursery.cancel_scope.cancel()


async def _answer(network: Libp2pNetwork, blocks: MemoryBlocks) -> None:
    async for event in network.events:
        if isinstance(event, DirectMessage):
            size_bytes, number = int.from_bytes(event.content[:4], "big"), int.from_bytes(event.content[4:], "big")
            await network.send(event.sender, blocks.put_file(Random(number).randbytes(size_bytes)))


async def _send_bare(stream: trio.SocketStream) -> None:
    left = int.from_bytes(await stream.receive_some(4), "big")
    piece = bytes(_WRITE_BYTES)
    while left:
        await stream.send_all(piece[:left])
        left -= min(left, _WRITE_BYTES)


if __name__ == "__main__":
    trio.run(_provide)
