"""What a gossip message costs a node in processor time: our router beside py-libp2p's own gossipsub, in the same run.

Every node is a process of its own, on loopback, and every message is accepted without looking at it, so that only the network
is measured. `sending` and `receiving` are the two ends of one connection; `a node of six` is the whole swarm's time by
messages and nodes: one sends, all forward in a full mesh and throw away what comes twice. Messages leave one by one, RATE_S a
second, because what leaves together is cheaper. Both sides speak gossipsub 1.1 with a heartbeat of 1 s, over Noise and yamux, and
neither verifies envelopes (vertices are signed themselves; ours are sealed for Kubo's sake, the reference's are not). The
reference is a host as py-libp2p's `new_host` makes it, with its limit of messages a second lifted, as it would drop most of these.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from benchmarks import Result
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import Topic
from learnae.tangle.verdict import Verdict

ROUNDS: Final = 3
NODES: Final = 6
MESSAGES: Final = 400
RATE_S: Final = 100.0
MESSAGE_BYTES: Final = 400  # An announcement or a receipt.
LISTEN: Final = "/ip4/127.0.0.1/tcp/0"
TOPIC: Final = Topic("/learnae/benchmark")
SYSTEMS: Final = ("learnae", "py-libp2p gossipsub")
ARRIVE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Member:
    """One system's node as this benchmark sees it."""

    address: str
    connect: Callable[[str], Awaitable[object]]
    publish: Callable[[bytes], Awaitable[object]]


def run() -> list[Result]:
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for system in SYSTEMS:
            pair, swarm = _measure(system, 2), _measure(system, NODES)
            found.setdefault(("sending", system), []).append(pair[0])
            found.setdefault(("receiving", system), []).append(pair[1])
            found.setdefault((f"a node of {NODES}", system), []).append(sum(swarm) / NODES)
    ours, theirs = SYSTEMS
    return [
        Result(
            case=f"{case}: processor time a message",
            value=statistics.median(found[case, ours]),
            unit="ms",
            reference=theirs,
            reference_value=statistics.median(found[case, theirs]),
        )
        for case in ("sending", "receiving", f"a node of {NODES}")
    ]


def _measure(system: str, count: int) -> list[float]:
    """Milliseconds of processor time by message heard, of the sender and of each of the others; what is lost is told."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(_start(system)) for _ in range(count)]
        for node in nodes:
            node.wait()
        for number, node in enumerate(nodes):
            for other in nodes[:number]:
                node.ask(f"connect {other.address}")
        for node in nodes:
            node.ask(f"wait {count - 1}")
        before = [node.cpu_s() for node in nodes]
        nodes[0].ask("publish")
        counts = [MESSAGES, *(int(node.ask("heard")) for node in nodes[1:])]
        spent_s = [node.cpu_s() - was_s for node, was_s in zip(nodes, before, strict=True)]
        if min(counts) < MESSAGES:
            print(f"{system}: of {MESSAGES} messages its nodes heard {sorted(counts[1:])}", file=sys.stderr)
        return [taken_s * 1000 / max(count, 1) for taken_s, count in zip(spent_s, counts, strict=True)]


class _Process:
    """A node in a process of its own, told what to do line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.address = ""

    def wait(self) -> None:
        """Until it listens."""
        self.address = self._output.readline().strip()

    def ask(self, line: str) -> str:
        print(line, file=self._input, flush=True)
        answer = self._output.readline().strip()
        if not answer:
            raise RuntimeError(f"a node of the benchmark ended at {line!r}")
        return answer

    def cpu_s(self) -> float:
        return float(self.ask("cpu"))


@contextmanager
def _start(system: str) -> Iterator[_Process]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gossip", system]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Process(process)
        finally:
            process.kill()


# --- one node ---------------------------------------------------------------------------------------------------


class _Heard:
    """Counts what arrived, and the peers that are there."""

    def __init__(self) -> None:
        self.messages = 0
        self.count_peers: Callable[[], int] = lambda: 0

    def judge(self, sender: object, content: bytes) -> Verdict:
        self.messages += 1
        return Verdict.ACCEPT


async def _serve(system: str) -> None:
    heard = _Heard()
    opened = _open_ours(heard) if system == SYSTEMS[0] else _open_theirs(heard)
    async with opened as member:
        print(member.address, flush=True)
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            name, _, rest = line.strip().partition(" ")
            if name == "connect":
                await member.connect(rest)
            elif name == "wait":
                await _until(lambda wanted=int(rest): heard.count_peers() >= wanted)  # type: ignore[misc]
                await trio.sleep(2.5)  # two heartbeats: the mesh is full
            elif name == "publish":
                await _publish_all(member)
            elif name == "heard":
                with trio.move_on_after(ARRIVE_S):
                    await _until(lambda: heard.messages >= MESSAGES)
            print({"cpu": time.process_time(), "heard": heard.messages}.get(name, "done"), flush=True)


async def _publish_all(member: Member) -> None:
    at_s = trio.current_time()
    for number in range(MESSAGES):
        await trio.sleep_until(at_s + number / RATE_S)
        await member.publish(number.to_bytes(4, "big") + os.urandom(MESSAGE_BYTES - 4))


async def _until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110 - a mesh tells nobody when it is full
        await trio.sleep(0.05)


@asynccontextmanager
async def _open_ours(heard: _Heard) -> AsyncIterator[Member]:
    async with open_libp2p_network(seed=os.urandom(32), listen=[LISTEN], blocks=MemoryBlocks()) as network:
        await network.subscribe(TOPIC, heard.judge)
        heard.count_peers = lambda: len(network.mesh(TOPIC))
        yield Member(network.addresses[0], network.connect, lambda content: network.publish(TOPIC, content))


@asynccontextmanager
async def _open_theirs(heard: _Heard) -> AsyncIterator[Member]:
    from libp2p import new_host
    from libp2p.custom_types import TProtocol
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    host = new_host()
    router = GossipSub([TProtocol("/meshsub/1.1.0")], 8, 6, 12, heartbeat_interval=1, max_messages_per_topic_per_second=1e9)
    pubsub = Pubsub(host, router, strict_signing=False, msg_id_constructor=_name_message)

    async def connect(address: str) -> None:
        await host.connect(info_from_p2p_addr(Multiaddr(address)))

    async def listen(subscription: Any) -> None:
        while True:
            heard.judge(None, (await subscription.get()).data)

    async with host.run([Multiaddr(LISTEN)]), background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        subscription = await pubsub.subscribe(TOPIC)
        heard.count_peers = lambda: len(router.mesh.get(TOPIC, ()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, subscription)
            yield Member(str(host.get_addrs()[0]), connect, lambda content: pubsub.publish(TOPIC, content))
            nursery.cancel_scope.cancel()


def _name_message(message: Any) -> bytes:
    return hashlib.sha256(message.data).digest()[:20]


def main(arguments: Sequence[str]) -> None:
    trio.run(_serve, arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
