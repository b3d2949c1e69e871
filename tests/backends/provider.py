"""Providers of files in a process of their own: `python -m tests.backends.provider SEED KIND...`, a node for each KIND.

Prints their addresses and runs until it is killed or its standard input ends. KIND: `honest`; `stall` answers nothing after half of
the blocks of the largest file, `lie` sends wrong bytes from there on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import trio
from libp2p.abc import INetStream

from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_blocks import PROTOCOL, read_request
from learnae.backends.libp2p_host import open_host
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES
from learnae.ids import PeerId

SIZES: Final = (100_000, 4_000_000)
"""Every provider has the files of these sizes."""
_LISTEN: Final = ["/ip4/127.0.0.1/tcp/0"]


def make_content(size_bytes: int) -> bytes:
    return Random(size_bytes).randbytes(size_bytes)


@dataclass(frozen=True, slots=True)
class Provider:
    """A running provider."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        found = re.search(r"/tcp/(\d+)/", self.address)
        assert found is not None
        return int(found[1])

    def address_through(self, port: int) -> str:
        """Its address at the other end of a line."""
        return self.address.replace(f"/tcp/{self.port}/", f"/tcp/{port}/")


@contextmanager
def open_providers(seed: int, *kinds: str) -> Iterator[list[Provider]]:
    """A process with a node of each kind, killed with the block."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    command = [sys.executable, "-m", "tests.backends.provider", str(seed), *kinds]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, env=environment)
    try:
        assert process.stdout is not None
        yield [Provider(process, process.stdout.readline().strip()) for _ in kinds]
    finally:
        process.kill()
        process.communicate()


async def _provide(seed: int, kinds: list[str]) -> None:
    blocks = MemoryBlocks()
    for size_bytes in SIZES:
        blocks.put_file(make_content(size_bytes))
    async with AsyncExitStack() as stack:
        for number, kind in enumerate(kinds, seed):
            if kind == "honest":
                opening = open_libp2p_network(seed=bytes([number]) * 32, listen=_LISTEN, blocks=blocks)
                print((await stack.enter_async_context(opening)).addresses[0], flush=True)
            else:
                host = await stack.enter_async_context(open_host(seed=bytes([number]) * 32, listen=_LISTEN, rng=Random(number)))
                host.handle_streams(PROTOCOL, partial(_serve_badly, blocks, kind))
                print(host.addresses[0], flush=True)
        await trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())).receive_some(1)


async def _serve_badly(blocks: MemoryBlocks, kind: str, peer: PeerId, stream: INetStream) -> None:
    left = max(SIZES) // LEAF_BYTES // 2
    while (cids := await read_request(stream)) is not None:
        for cid in cids:
            block = blocks.get_block(cid)
            assert block is not None
            left -= 1
            if left < 0 and kind == "stall":
                await trio.sleep_forever()
            await stream.write(len(block).to_bytes(4, "big") + (bytes(len(block)) if left < 0 else block))


if __name__ == "__main__":
    trio.run(_provide, int(sys.argv[1]), sys.argv[2:])
