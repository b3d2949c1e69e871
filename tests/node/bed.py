"""What tests of nodes share: nodes over backends in memory or on disk, and reading back what they left."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

import trio
from nacl.signing import SigningKey
from trio.testing import MockClock

from learnae.backends.disk_journal import DiskJournal
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_chain import MemoryChain, MemoryLedger
from learnae.backends.memory_journal import MemoryJournal
from learnae.backends.memory_network import MemoryHub
from learnae.ids import Address, Credits, PeerId
from learnae.learning.immediate import ImmediateLearner, PlainLearner
from learnae.learning.synthetic import SyntheticLearner
from learnae.node import Node, NodeParts
from learnae.ports import Journal
from learnae.protocol import events as ev
from learnae.protocol.calls import RELAY_GAS_MAX, ChainView, Stage
from learnae.protocol.lane import ControlLane
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.store import ControlStore
from learnae.protocol.validation import ControlCodec
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import RULES


def restore_lane(vertices: Iterable[bytes], rules: SessionRules) -> ControlLane:
    """The control lane that a journal's vertices give."""
    lane = ControlLane(rules=rules, me=PeerId(bytes(32)), sign=lambda message: b"", rng=Random(0))
    for _ in lane.restore(vertices):
        pass
    return lane


def fold(journal: Journal, rules: SessionRules) -> Mapping[PeerId, Mapping[PeerId, Credits]]:
    """The ledger of a journal, folded anew: whom each peer owes how much."""
    return {issuer: row for issuer, row in restore_lane(journal.vertices(), rules).ledger.rows().items() if row}


def fold_ledger(folder: Path, rules: SessionRules) -> Mapping[PeerId, Mapping[PeerId, Credits]]:
    journal = DiskJournal(folder)
    try:
        return fold(journal, rules)
    finally:
        journal.close()


def select_vertices(encoded: Iterable[bytes], *, issuer: PeerId) -> list[Vertex]:
    """The vertices of one issuer, in the order of the journal."""
    codec = ControlCodec()
    found = [codec.decode(content) for content in encoded]
    return [vertex for vertex in found if isinstance(vertex, Vertex) and vertex.issuer == issuer]


def read_vertices(folder: Path, *, issuer: PeerId) -> list[Vertex]:
    journal = DiskJournal(folder)
    try:
        return select_vertices(journal.vertices(), issuer=issuer)
    finally:
        journal.close()


# --- nodes over memory ------------------------------------------------------------------------------------------

EPOCH_S: Final = 1_700_000_000
ETHER: Final = 10**18


class Clock:
    """Unix time by trio's clock, so that a test may run faster than real time."""

    def __call__(self) -> float:
        return EPOCH_S + trio.current_time() - self._start_s

    def __init__(self) -> None:
        self._start_s = trio.current_time()


@dataclass(kw_only=True)
class Machine:
    """What a kill does not take from a node: its key, its disk."""

    name: str
    key: SigningKey
    folder: Path
    journal: MemoryJournal
    blocks: MemoryBlocks
    told: list[ev.Tell] = field(default_factory=list)

    @property
    def peer_id(self) -> PeerId:
        return PeerId(bytes(self.key.verify_key))

    @property
    def wallet(self) -> Address:
        return Address("0x" + hashlib.sha256(self.key.encode()).hexdigest()[:40])

    def troubles(self) -> list[str]:
        return [tell.text for tell in self.told if tell.topic is ev.Topic.TROUBLE]

    def events(self, name: str) -> list[ev.Tell]:
        return [tell for tell in self.told if tell.values.get("event") == name]


class Bed:
    """A session over a memory network and a memory chain. Make it inside of trio."""

    def __init__(
        self, folder: Path, *, training_s: int = 5, learner: PlainLearner | None = None, seed: int = 1, audit_permille: int = 0
    ) -> None:
        self.clock = Clock()
        self.folder = folder
        self.ledger = MemoryLedger(lambda: int(self.clock()))
        self.hub = MemoryHub()
        self.machines: dict[str, Machine] = {}
        self.initial = (learner or SyntheticLearner(0)).initial_model(seed)
        self.rules = _make_rules(self.initial, training_s=training_s, audit_permille=audit_permille)
        self.session = Address("")

    async def open(self) -> None:
        founder = MemoryChain(self.ledger, Address("0x" + "f" * 40), PeerId(bytes(32)))
        self.session = await founder.deploy_session(self.rules.compute_terms())

    def machine(self, name: str) -> Machine:
        if name not in self.machines:
            folder = self.folder / name
            folder.mkdir()
            key = SigningKey(hashlib.sha256(name.encode()).digest())
            made = Machine(name=name, key=key, folder=folder, journal=MemoryJournal(), blocks=MemoryBlocks())
            made.blocks.put_file(self.initial)
            self.ledger.move(made.wallet, 10 * ETHER)
            self.machines[name] = made
        return self.machines[name]

    async def parts(
        self, name: str, *, learner: PlainLearner | None, pace_s: float = 0.1, relay_gas_max: int = RELAY_GAS_MAX
    ) -> NodeParts:
        """The parts of a node that is connected to all others; tests replace some of them."""
        machine = self.machine(name)
        if machine.peer_id in self.hub.nodes:
            await self.hub.leave(machine.peer_id)
        network = self.hub.join(machine.peer_id, machine.blocks)
        for other in list(self.hub.nodes.values()):
            if other is not network:
                await network.connect(other.addresses[0])
        peer = Peer(
            rules=self.rules,
            me=machine.peer_id,
            sign=lambda message: machine.key.sign(message).signature,
            rng=Random(name),
            settings=PeerSettings(pace_s=pace_s, relay_gas_max=relay_gas_max),
            store=ControlStore(archive=machine.journal),
        )
        return NodeParts(
            peer=peer,
            network=network,
            blocks=machine.blocks,
            journal=machine.journal,
            chain=MemoryChain(self.ledger, machine.wallet, machine.peer_id),
            learner=None if learner is None else ImmediateLearner(learner),
            session=self.session,
            folder=machine.folder,
            addresses=network.addresses,
            poll_s=0.1,
            now_s=self.clock,
        )

    def node(self, parts: NodeParts) -> Node:
        machine = next(machine for machine in self.machines.values() if machine.peer_id == parts.peer.me)
        return Node(parts, on_tell=machine.told.append)

    async def start(self, name: str, nursery: trio.Nursery, *, learner: PlainLearner | None) -> tuple[Node, trio.CancelScope]:
        """Run a node in the background; cancelling its scope is a kill."""
        node = self.node(await self.parts(name, learner=learner))
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                assert await node.run() == ""

        nursery.start_soon(run)
        return node, scope

    async def wait_for(self, condition: Callable[[], bool], *, limit_s: float = 30.0) -> None:
        """Look often until it holds, by trio's clock."""
        with trio.fail_after(limit_s):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await trio.sleep(0.02)

    async def view(self) -> ChainView:
        machine = next(iter(self.machines.values()))
        return await MemoryChain(self.ledger, machine.wallet, machine.peer_id).read(self.session)

    async def check_settled(self) -> ChainView:
        """The fund is paid out to the last wei: by claims, or back to everybody if nobody had one. Returns the last view."""
        view = await self.view()
        assert view.stage is (Stage.RELEASED if view.claims else Stage.REFUNDED)
        assert sum((view.paid_wei or {}).values()) == view.fund_wei == len(view.members) * self.rules.deposit_wei
        return view


def run_fast(job: Callable[[], Awaitable[None]]) -> None:
    """Run with a clock that jumps to what is next while nobody works, so that a busy machine makes nobody late."""
    trio.run(job, clock=MockClock(autojump_threshold=0.002))


def _make_rules(initial: bytes, *, training_s: int, audit_permille: int) -> SessionRules:
    funding_ends_s = EPOCH_S + 2
    training_ends_s = funding_ends_s + training_s
    claiming_ends_s = training_ends_s + (20 if audit_permille else 2)
    return replace(
        RULES,
        name="three in one process",
        codename="three",
        initial_model=MemoryBlocks().put_file(initial),
        model_bytes=len(initial),
        slice_bytes=900,
        overuse_threshold=50,
        train_permille=333,
        slices_per_cycle=64,
        policy="paired",
        reward_factor=1_000_000,
        tip_wei_per_credit=1,
        chain_id=1,
        members_max=8,
        starts_s=EPOCH_S - 60,
        funding_ends_s=funding_ends_s,
        training_ends_s=training_ends_s,
        claiming_ends_s=claiming_ends_s,
        voting_ends_s=claiming_ends_s + 2,
        final_s=1,
        audit_permille=audit_permille,
    )
