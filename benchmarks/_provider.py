"""The other process of the transfer benchmark: gives files by CID, and as many bytes over bare TCP and over py-libp2p as it comes.

`python -m benchmarks._provider` prints the address of its node, the port of the TCP server and the address of the plain py-libp2p
host, and ends with its standard input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from multiaddr import Multiaddr

from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ports import DirectMessage

RAW: Final = TProtocol("/benchmark/raw")
PIECE_BYTES: Final = 262144  # Fastest here for TCP and for py-libp2p.
_KEPT_BYTES: Final = 350_000_000  # The last files that it made.
_LISTEN: Final = ["/ip4/127.0.0.1/tcp/0"]


@dataclass(frozen=True, slots=True)
class Provider:
    """Where the other process is reached."""

    address: str
    tcp_port: int
    raw_address: str
    process_id: int = 0

    @property
    def port(self) -> int:
        """Of its node."""
        return int(self.address.split("/tcp/")[1].split("/")[0])

    def through(self, port: int) -> Provider:
        """The same at the other end of a line."""
        return Provider(self.address.replace(f"/tcp/{self.port}/", f"/tcp/{port}/"), 0, "")


@contextmanager
def start_provider() -> Iterator[Provider]:
    """A provider in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "benchmarks._provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, port, raw_address = process.stdout.readline().split()
        try:
            yield Provider(address, int(port), raw_address, process.pid)
        finally:
            process.stdin.close()


def encode_wish(size_bytes: int, number: int) -> bytes:
    """A file of this size; another number, another file."""
    return size_bytes.to_bytes(4, "big") + number.to_bytes(4, "big")


async def _provide() -> None:
    blocks = MemoryBlocks(quota_bytes=_KEPT_BYTES)
    raw = new_host()
    raw.set_stream_handler(RAW, _send_raw)
    async with (
        open_libp2p_network(seed=os.urandom(32), listen=_LISTEN, blocks=blocks) as network,
        raw.run(listen_addrs=[Multiaddr(_LISTEN[0])]),
        trio.open_nursery() as nursery,
    ):
        listeners = await nursery.start(trio.serve_tcp, _send_bare, 0)
        print(network.addresses[0], listeners[0].socket.getsockname()[1], raw.get_addrs()[0], flush=True)
        nursery.start_soon(_make_files, network, blocks)
        await trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())).receive_some(1)
        nursery.cancel_scope.cancel()


async def _make_files(network: Libp2pNetwork, blocks: MemoryBlocks) -> None:
    """Makes the file that a direct message asks for, and answers with its CID."""
    async for event in network.events:
        if isinstance(event, DirectMessage):
            size_bytes, number = int.from_bytes(event.content[:4], "big"), int.from_bytes(event.content[4:], "big")
            network.keep_places(network.connected())  # as members: strangers get little
            content = Random(size_bytes + number).randbytes(size_bytes)  # files of one seed would share their first blocks
            await network.send(event.sender, blocks.put_file(content))


async def _send_bare(stream: trio.SocketStream) -> None:
    left = int.from_bytes(await stream.receive_some(4), "big")
    piece = bytes(PIECE_BYTES)
    while left:
        await stream.send_all(piece[:left])
        left -= min(left, PIECE_BYTES)


async def _send_raw(stream: INetStream) -> None:
    left = int.from_bytes(await stream.read(4), "big")
    piece = bytes(PIECE_BYTES)
    while left:
        await stream.write(piece[:left])
        left -= min(left, PIECE_BYTES)
    await stream.close()


if __name__ == "__main__":
    trio.run(_provide)
