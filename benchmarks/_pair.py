"""Two whole nodes in one process, over libp2p on loopback, with journals and block stores on disk and a chain in memory."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import SystemRandom
from typing import Protocol

import trio
from nacl.signing import SigningKey

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.memory_chain import MemoryChain, MemoryLedger
from learnae.ids import Address, Cid, PeerId, Topic, Wei
from learnae.node import Node, NodeParts
from learnae.ports import Learner
from learnae.protocol.messages import ModelAnnounced
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.store import ControlStore
from learnae.protocol.validation import ControlCodec
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import RULES

FUNDING_S = 4
TRAINING_S = 3600
LISTEN = ("/ip4/127.0.0.1/tcp/0",)


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


class Started(Protocol):
    """Told what cancels the node, once it runs."""

    def started(self, value: trio.CancelScope) -> None: ...


@dataclass(slots=True)
class Pair:
    """The session of both, and what was announced by either; made by `open_pair`."""

    rules: SessionRules
    root: Path
    ledger: MemoryLedger
    session: Address
    nursery: trio.Nursery
    watches: list[Stopwatch] = field(default_factory=list)

    async def start_node(self, learner: Learner, *, pace_s: float) -> trio.CancelScope:
        """A node that knows the one before; cancelled, it is gone with all its connections."""
        scope: trio.CancelScope = await self.nursery.start(self._run_node, len(self.watches), learner, pace_s)
        return scope

    async def _run_node(self, number: int, learner: Learner, pace_s: float, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        key = SigningKey(os.urandom(32))
        folder = self.root / str(number)
        blocks = DiskBlocks(folder / "blocks", reserve_bytes=0)
        blocks.put_file(await learner.initial_model(0))
        with trio.CancelScope() as scope, closing(DiskJournal(folder)) as journal:
            async with open_libp2p_network(seed=key.encode(), listen=LISTEN, blocks=blocks) as network:
                if self.watches:
                    await network.connect(self.watches[-1].network.addresses[0])
                self.watches.append(Stopwatch(network))
                chain = MemoryChain(self.ledger, Address(f"0x{number:040x}"), network.peer_id)
                self.ledger.move(chain.wallet, 10**18)
                parts = NodeParts(
                    peer=_make_peer(self.rules, key, journal, pace_s=pace_s),
                    network=self.watches[-1],  # type: ignore[arg-type]
                    blocks=blocks,
                    journal=journal,
                    chain=chain,
                    learner=learner,
                    session=self.session,
                    folder=folder,
                    addresses=network.addresses,
                )
                task_status.started(scope)
                await Node(parts).run()


@asynccontextmanager
async def open_pair(root: Path, initial: bytes, *, train_permille: int = 1000) -> AsyncIterator[Pair]:
    """A session that begins to train `FUNDING_S` after this; its nodes end with the block."""
    ledger = MemoryLedger(lambda: int(time.time()))
    cid = DiskBlocks(root / "initial", reserve_bytes=0).put_file(initial)
    rules = _make_rules(cid, len(initial), train_permille)
    session = await MemoryChain(ledger, Address("0x" + "f" * 40), PeerId(bytes(32))).deploy_session(rules.compute_terms())
    async with trio.open_nursery() as nursery:
        yield Pair(rules, root, ledger, session, nursery)
        nursery.cancel_scope.cancel()


def _make_peer(rules: SessionRules, key: SigningKey, journal: DiskJournal, *, pace_s: float) -> Peer:
    return Peer(
        rules=rules,
        me=PeerId(bytes(key.verify_key)),
        sign=lambda message: key.sign(message).signature,
        rng=SystemRandom(),
        settings=PeerSettings(pace_s=pace_s),
        store=ControlStore(archive=journal),
    )


def _make_rules(initial: Cid, model_bytes: int, train_permille: int) -> SessionRules:
    now_s = int(time.time())
    ends_s = [now_s + FUNDING_S, now_s + TRAINING_S, now_s + TRAINING_S + 60, now_s + TRAINING_S + 120]
    return replace(
        RULES,
        name="benchmark",
        codename="benchmark",
        initial_model=initial,
        model_bytes=model_bytes,
        slice_bytes=65_536,
        overuse_threshold=1000,
        train_permille=train_permille,
        slices_per_cycle=8,
        policy="paired",
        reward_factor=1_000_000,
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
    )
