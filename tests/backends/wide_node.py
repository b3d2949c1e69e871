"""A node in a process of its own that looks for its session in the DHT; `test_kubo_dht` runs it elsewhere in the internet.

On standard input it gets a JSON object: `number` (of its identity), `rules` (text whose CID is the session's), `bootstrap`, `ticket`
(addresses); on standard output it says its peer id, and then whom it met, a line each. It ends with its input.
"""

from __future__ import annotations

import json
import sys

import trio

from learnae.backends import libp2p_wide
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_wide import WideArea
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, peer_text


async def run() -> None:
    told = json.loads(sys.stdin.readline())
    blocks = MemoryBlocks()
    session = blocks.put_file(told["rules"].encode())
    wide = WideArea(session=session, bootstrap=tuple(told["bootstrap"]))
    listen = ["/ip4/0.0.0.0/tcp/4001"]
    async with open_libp2p_network(seed=bytes([told["number"]]) * 32, listen=listen, blocks=blocks, wide=wide) as network:
        print(peer_text(network.peer_id), flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_whom_it_meets, network)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()


async def say_whom_it_meets(network: Libp2pNetwork) -> None:
    met: set[PeerId] = set()
    async for _ in network.events:
        for peer in network.connected() - met:
            met.add(peer)
            print(peer_text(peer), flush=True)


if __name__ == "__main__":
    libp2p_wide.LONELY_S = libp2p_wide.AGAIN_FIRST_S = 0.2  # type: ignore[misc]
    trio.run(run)
