"""What one hostile peer costs a node: share of a core and memory, for each attack that a stranger can run.

The victim is a process with a network as a node has it: gossip is judged by the codec of vertices, direct messages are read as
those of sync, and what cannot be read costs score. The attacker is another process on the same machine, with no limit of its
own; when it is cut off it comes back as somebody new. The promise is 5 % of a core (docs/attacks.md). `nothing` is the
reference of each: a peer that is connected and silent. After the first seconds, which a burst may take, SECONDS are measured.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from random import Random
from typing import Final

import trio

from benchmarks import Result
from benchmarks._hostile import ATTACKS, TOPIC, Attack, serve_wrong_bytes
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_blocks import PROTOCOL as BLOCKS
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, open_host
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.errors import FetchError, UnreachableError
from learnae.ids import CODEC_DAG_PB, PeerId, Topic, compute_cid
from learnae.ports import Connected, DirectMessage
from learnae.protocol.sync import decode_sync
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex, VertexCodec

BURST_S: Final = 30.0  # The burst of every budget is spent by then, the 64 handshakes of an address last.
SECONDS: Final = 6.0
LISTEN: Final = ("/ip4/127.0.0.1/tcp/0",)
WRONG: Final = "blocks: wrong bytes"
PROMISE_PERCENT: Final = 5.0
AGAIN_S: Final = 0.01


def run() -> list[Result]:
    results = []
    for name in ATTACKS:
        percent, grown_mb = _measure(name)
        results.append(
            Result(case=name, value=percent, unit="% of a core", reference="the promise", reference_value=PROMISE_PERCENT)
        )
        results.append(Result(case=f"{name}: memory at most", value=grown_mb, unit="MB more"))
    return results


def _measure(name: str) -> tuple[float, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.hostile"]
    with subprocess.Popen([*command, "victim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        address = victim.stdout.readline().strip()
        with subprocess.Popen([*command, name, address]) as attacker:
            try:
                began_mb = float(_ask(victim).split()[1])
                time.sleep(BURST_S)
                before_s, at_s = float(_ask(victim).split()[0]), time.monotonic()
                time.sleep(SECONDS)
                after_s, peak_mb = map(float, _ask(victim).split())
                took_s = time.monotonic() - at_s
            finally:
                attacker.kill()
                victim.kill()
    return 100 * (after_s - before_s) / took_s, peak_mb - began_mb


def _ask(victim: subprocess.Popen[str]) -> str:
    assert victim.stdin is not None
    assert victim.stdout is not None
    print(file=victim.stdin, flush=True)
    return victim.stdout.readline()


# --- the two processes ------------------------------------------------------------------------------------------


async def _suffer() -> None:
    """The victim: tells its processor time and its largest memory whenever it is asked."""
    codec = VertexCodec()

    def judge(sender: PeerId, content: bytes) -> Verdict:
        return Verdict.IGNORE if isinstance(codec.decode(content), Vertex) else Verdict.REJECT

    async with open_libp2p_network(seed=os.urandom(32), listen=LISTEN, blocks=MemoryBlocks()) as network, trio.open_nursery() as nursery:
        await network.subscribe(Topic(TOPIC), judge)
        nursery.start_soon(_read_events, network, nursery)
        print(network.addresses[0], flush=True)
        async for _ in trio.wrap_file(sys.stdin):
            print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
        nursery.cancel_scope.cancel()


async def _read_events(network: Libp2pNetwork, nursery: trio.Nursery) -> None:
    async for event in network.events:
        if isinstance(event, DirectMessage):
            if decode_sync(event.content) is None:
                network.blame(event.sender, "not a sync message")
        elif isinstance(event, Connected):
            nursery.start_soon(_fetch, network, event.peer)


async def _fetch(network: Libp2pNetwork, peer: PeerId) -> None:
    """A node fetches what a peer announces: a model that it says it has."""
    with suppress(FetchError):
        await network.fetch_file(compute_cid(os.urandom(8), CODEC_DAG_PB), providers=[peer], bytes_max=10_000_000)


async def _attack(name: str, address: str) -> None:
    attack: Attack = ATTACKS[name]
    while True:
        async with open_host(seed=os.urandom(32), listen=(), rng=Random()) as host:
            if name == WRONG:
                host.handle_streams(BLOCKS, serve_wrong_bytes)
            with suppress(UnreachableError):
                peer = await host.dial(address)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_end_with_connection, host, peer, nursery)
                    with suppress(*STREAM_ERRORS):
                        await attack(host, address)
                    nursery.cancel_scope.cancel()
        await trio.sleep(AGAIN_S)


async def _end_with_connection(host: Host, peer: PeerId, nursery: trio.Nursery) -> None:
    """Who was cut off comes back as somebody new."""
    while peer in host.connected():
        await host.wait_for_change()
    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "victim":
        trio.run(_suffer)
    else:
        trio.run(_attack, *sys.argv[1:])
