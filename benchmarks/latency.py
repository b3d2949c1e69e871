"""How long a model takes from one peer to another: from A's publishing of an announcement to B's announcing of what it made of it.

Two whole nodes over libp2p on loopback, with journals and block stores on disk; the learner is ready and takes no time, so what is
left is signing, journal, gossip, judging, fetching, storing, averaging and answering. B has nothing to train on: it looks for news
when news come. The reference is a bare TCP transfer of the same bytes in the same run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random, SystemRandom

import trio
from nacl.signing import SigningKey

from benchmarks import Result
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_chain import MemoryChain, MemoryLedger
from learnae.ids import Address, Cid, PeerId, Topic, Wei
from learnae.learning.immediate import ImmediateLearner
from learnae.node import Node, NodeParts
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import ModelAnnounced
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.store import ControlStore
from learnae.protocol.validation import ControlCodec
from learnae.sim.learner import Unaudited
from learnae.tangle.vertex import Vertex

MODEL_BYTES = 407_392  # The digits model: 101,770 numbers and a header.
ROUNDS = 20
PACE_S = 0.7  # Between two models of A.
TOTAL = 1_000_000
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
TRAINING_S = 3600


class ReadyLearner(Unaudited):
    """Answers at once; every model is new. A trains and never averages, B averages and has nothing to train on."""

    def __init__(self, *, trains: bool) -> None:
        self._trains = trains
        self._rng = Random(trains)
        self._correct = 0

    def open(self) -> TaskFacts:
        return TaskFacts(
            train_examples=100,
            validation_examples=TOTAL,
            device="none",
            parameters=MODEL_BYTES // 4,
            model_bytes=MODEL_BYTES,
            private_slices=int(self._trains),
            shared_slices=0,
        )

    def initial_model(self, seed: int) -> bytes:
        return bytes(MODEL_BYTES)

    def set_initial(self, model: bytes) -> None:
        return None

    def read_shared_slice(self, index: int) -> bytes:
        raise IndexError(index)

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        return Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        return self._make_better()

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        theirs = Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)
        if self._trains:
            return local, Evaluation(correct=0, total=TOTAL, gained=0, lost=TOTAL), theirs
        return *self._make_better(), theirs

    def close(self) -> None:
        return None

    def _make_better(self) -> tuple[bytes, Evaluation]:
        self._correct += 10
        return self._rng.randbytes(MODEL_BYTES), Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0)


class Stopwatch:
    """Notes when a node publishes an announcement of a model; otherwise the network behind it."""

    def __init__(self, network: Libp2pNetwork) -> None:
        self.network, self._codec = network, ControlCodec()
        self.announced: dict[Cid, tuple[float, tuple[Cid, ...]]] = {}  # model -> when, and its parents

    async def publish(self, topic: Topic, content: bytes) -> None:
        vertex = self._codec.decode(content)
        message = self._codec.parse(vertex) if isinstance(vertex, Vertex) else None
        if isinstance(message, ModelAnnounced):
            self.announced[message.model] = (time.perf_counter(), message.parents)
        await self.network.publish(topic, content)

    def __getattr__(self, name: str) -> object:
        return getattr(self.network, name)


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(_measure, Path(folder))


async def _measure(root: Path) -> list[Result]:
    ledger = MemoryLedger(lambda: int(time.time()))
    rules = _make_rules(DiskBlocks(root / "initial", reserve_bytes=0).put_file(bytes(MODEL_BYTES)))
    session = await MemoryChain(ledger, Address("0x" + "f" * 40), PeerId(bytes(32))).deploy_session(rules.compute_terms())
    async with AsyncExitStack() as stack:
        watches: list[Stopwatch] = []
        nodes: list[Node] = []
        for number, trains in enumerate((True, False)):
            key = SigningKey(os.urandom(32))
            blocks = DiskBlocks(root / str(number) / "blocks", reserve_bytes=0)
            blocks.put_file(bytes(MODEL_BYTES))
            network = await stack.enter_async_context(open_libp2p_network(seed=key.encode(), listen=LISTEN, blocks=blocks))
            if watches:
                await network.connect(watches[0].network.addresses[0])
            watches.append(Stopwatch(network))
            chain = MemoryChain(ledger, Address(f"0x{number:040x}"), network.peer_id)
            ledger.move(chain.wallet, 10**18)
            journal = DiskJournal(root / str(number))
            stack.callback(journal.close)
            parts = NodeParts(
                peer=_make_peer(rules, key, journal, pace_s=PACE_S if trains else 0.0),
                network=watches[-1],  # type: ignore[arg-type]
                blocks=blocks,
                journal=journal,
                chain=chain,
                learner=ImmediateLearner(ReadyLearner(trains=trains)),
                session=session,
                folder=root / str(number),
                addresses=network.addresses,
            )
            nodes.append(Node(parts))
        nursery = await stack.enter_async_context(trio.open_nursery())
        for node in nodes:
            nursery.start_soon(node.run)
        latencies_s: list[float] = []
        with trio.fail_after(rules.funding_ends_s - time.time() + 10 * ROUNDS * PACE_S + 20):
            while len(latencies_s) < ROUNDS:
                await trio.sleep(0.1)
                latencies_s = _compute_latencies(*watches)
        bare_s = [await _transfer_bare() for _ in range(ROUNDS)]
        nursery.cancel_scope.cancel()
    ordered = sorted(latencies_s)
    case = f"announce to adopt, {MODEL_BYTES // 1000} kB"
    bare_ms = statistics.median(bare_s) * 1000
    return [
        Result(case=f"{case}: median", value=statistics.median(ordered) * 1000, unit="ms", reference="bare TCP", reference_value=bare_ms),
        Result(case=f"{case}: fastest", value=ordered[0] * 1000, unit="ms"),
        Result(case=f"{case}: slowest of {len(ordered)}", value=ordered[-1] * 1000, unit="ms"),
    ]


def _compute_latencies(one: Stopwatch, other: Stopwatch) -> list[float]:
    """Seconds from each announcement of `one` to the first announcement of `other` that has it as a parent."""
    found: dict[Cid, float] = {}
    for at_s, parents in other.announced.values():
        for parent in parents:
            if parent in one.announced:
                found.setdefault(parent, at_s - one.announced[parent][0])
    return list(found.values())


async def _transfer_bare() -> float:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(MODEL_BYTES))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        began_s = time.perf_counter()
        async with await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1]) as stream:
            left = MODEL_BYTES
            while left:
                left -= len(await stream.receive_some(left))
        took_s = time.perf_counter() - began_s
        nursery.cancel_scope.cancel()
    return took_s


def _make_peer(rules: SessionRules, key: SigningKey, journal: DiskJournal, *, pace_s: float) -> Peer:
    return Peer(
        rules=rules,
        me=PeerId(bytes(key.verify_key)),
        sign=lambda message: key.sign(message).signature,
        rng=SystemRandom(),
        settings=PeerSettings(pace_s=pace_s),
        store=ControlStore(archive=journal),
    )


def _make_rules(initial: Cid) -> SessionRules:
    now_s = int(time.time())
    ends_s = [now_s + 4, now_s + TRAINING_S, now_s + TRAINING_S + 60, now_s + TRAINING_S + 120]
    return SessionRules(
        name="latency",
        codename="latency",
        task_digest=bytes(32),
        initial_model=initial,
        model_bytes=MODEL_BYTES,
        slice_bytes=65_536,
        overuse_threshold=1000,
        train_permille=1000,
        slices_per_cycle=8,
        policy="paired",
        reducer="mean",
        reward_mode="dao",
        reward_rule="budgeted",
        reward_factor=1_000_000,
        tip_wei_per_credit=1,
        chain_id=1,
        deposit_wei=Wei(10**16),
        members_min=2,
        members_max=8,
        starts_s=now_s - 60,
        funding_ends_s=ends_s[0],
        training_ends_s=ends_s[1],
        claiming_ends_s=ends_s[2],
        voting_ends_s=ends_s[3],
        final_s=1,
        reject_quorum_permille=200,
    )
