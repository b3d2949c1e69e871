"""A node of a session in a process of its own, which obeys a line of JSON at a time: `[name, argument...]`, answered by one line.

`python -m tests.backends.punching_node NUMBER LISTEN KNOWN...`: its key is NUMBER, 32 times; members are the numbers 1 to 9.
"""

from __future__ import annotations

import json
import logging
import sys

import trio
from nacl.signing import SigningKey

from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.errors import LearnaeError
from learnae.ids import PeerId, cid_text, parse_cid
from tests.backends.hostile import until

FILE = bytes(range(250)) * 10_000


def name(number: int) -> PeerId:
    return PeerId(bytes(SigningKey(bytes([number]) * 32).verify_key))


class Node:
    def __init__(self, network: Libp2pNetwork, blocks: MemoryBlocks) -> None:
        self._network, self._blocks = network, blocks

    async def addresses(self) -> list[str]:
        return list(self._network.addresses)

    async def circuits(self, wanted: int) -> list[str]:
        """The addresses through relays, as soon as there are so many."""
        await until(lambda: len(self._network.circuits.addresses) >= wanted)
        return list(self._network.circuits.addresses)

    async def connect(self, address: str) -> None:
        await self._network.connect(address)

    async def ways(self, number: int) -> list[str]:
        """How each connection with a node leads."""
        return self._describe(number)

    def _describe(self, number: int) -> list[str]:
        conns = self._network._host.connections(name(number))
        return [conn.way.name.lower() for conn in conns]

    async def wait_for(self, number: int, ways: list[str]) -> None:
        await until(lambda: self._describe(number) == ways)

    async def wait_for_failure(self, number: int) -> bool | None:
        """Until a punch that this node led has failed; whether its router keeps one port for all."""
        waits = self._network.puncher._waits
        await until(lambda: name(number) in waits and waits[name(number)].failures > 0)
        return self._network.puncher.keeps_port

    async def router(self) -> bool | None:
        return self._network.puncher.keeps_port

    async def put(self) -> str:
        return cid_text(self._blocks.put_file(FILE))

    async def fetch(self, cid: str, number: int) -> bool:
        """Whether a file came from a node."""
        try:
            await self._network.fetch_file(parse_cid(cid), providers=[name(number)], bytes_max=3_000_000)
        except LearnaeError:
            return False
        return self._blocks.get_file(parse_cid(cid), bytes_max=3_000_000) == FILE

    async def carried(self) -> int:
        return self._network.relay.count


async def run(number: int, listen: list[str], known: list[str]) -> None:
    blocks = MemoryBlocks()
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=listen, blocks=blocks) as network:
        network.keep_places(frozenset(map(name, range(1, 10))))
        for address in known:
            await network.connect(address)
        node = Node(network, blocks)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            order, *arguments = json.loads(line)
            print(json.dumps(await getattr(node, order)(*arguments)), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    trio.run(run, int(sys.argv[1]), sys.argv[2].split(), sys.argv[3:])
