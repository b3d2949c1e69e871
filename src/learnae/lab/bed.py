"""Attacks that real peers play: where they are staged, and what a hostile peer is.

A session of full `Peer`s runs in the simulator with real signed vertices, claims and ballots; members of the ring are
`HostilePeer`s. In a scripted bed the draws of section 7 decide who tries whose model and what comes of it, so the honest session pays
the same to the wei whatever else happens, and every difference is the attack's. In a learning bed the synthetic learner trains and
averages: for attacks on the models themselves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar, Final, Literal

from learnae.ids import Cid, PeerId, compute_cid
from learnae.lab.attack import Attack
from learnae.lab.swarm import CREDIT_WEI, DEPOSIT_WEI, draw_swarm
from learnae.lab.through import PaperScenario, ScriptedPeer, make_initial_model
from learnae.lab.trial import Setting
from learnae.learning.synthetic import SyntheticLearner
from learnae.protocol import events as ev
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.models import Candidate, LocalModel, ModelMarket
from learnae.protocol.peer import Peer
from learnae.protocol.rules import SessionRules
from learnae.protocol.sync import SyncMessage
from learnae.sim.host import Host
from learnae.sim.learner import SimulatedLearner, Unaudited
from learnae.sim.scenario import Link, Scenario
from learnae.sim.world import World
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Sign

GOSSIP_LOSS: Final = 0.1
SPARE_CYCLES: Final = 10  # Turns beside the scripted ones: training once, waiting for models.
LEARNING_FACTOR: Final = 1000  # Ten credits for an example of a hundred: receipts as large as those of section 7.
LEARNERS_PER_SEED: Final = 1000  # Learner `index` of a seed has data of its own.

Bed = Literal["scripted", "learning"]


# --- what is staged -------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """One staged session: who attacks, what they did when, and when the honest found out."""

    setting: Setting
    seed: int
    world: World = field(init=False)
    recorders: list[Recorder] = field(default_factory=list)
    offences: dict[PeerId, float] = field(default_factory=dict)  # when each offender did something wrong for the first time
    known_by: dict[PeerId, set[int]] = field(default_factory=dict)  # which honest hosts know
    found_at: dict[PeerId, float] = field(default_factory=dict)  # when most of them knew

    @property
    def ring(self) -> list[PeerId]:
        return [self.world.hosts[index].name for index in self.setting.ring]

    @property
    def honest(self) -> list[Host]:
        return [host for host in self.world.hosts if host.index not in self.world.hostile]

    def offend(self, offender: PeerId, now_s: float) -> None:
        self.offences.setdefault(offender, now_s)

    def notice(self, host: Host, offender: PeerId) -> None:
        """An honest host knows of an offender."""
        known = self.known_by.setdefault(offender, set())
        known.add(host.index)
        if 2 * len(known) > len(self.honest):
            self.found_at.setdefault(offender, self.world.now_s)


class HostilePeer(Peer):
    """A member of the ring. It does all that an honest peer does, and `misbehave` changes it."""

    def __init__(self, scene: Scene, *, sign: Sign, **parts: object) -> None:
        super().__init__(sign=sign, **parts)  # type: ignore[arg-type]  # as the world gives them
        self.scene = scene
        self.sign = sign

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        return self.misbehave(event, super().handle(event, now_s), now_s)

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        """What it really does, instead of the honest `effects` of an event."""
        return effects

    def find_accomplices(self) -> list[PeerId]:
        return [name for name in self.scene.ring if name != self.me]

    def find_model_of(self, helper: PeerId) -> Candidate | None:
        """The newest announcement of a helper that earned no receipt of this peer yet."""
        ledger, known = self.lane.ledger, self.cycle.market.of(helper)
        return next((candidate for candidate in reversed(known) if not ledger.has_credited(self.me, candidate.announcement)), None)


def send_vertices(peers: Sequence[PeerId], *vertices: bytes) -> list[ev.Effect]:
    """Hand vertices to some peers directly, past gossip."""
    content = SyncMessage(vertices=vertices).encode()
    return [ev.SendSync(peer, content) for peer in peers]


class ProtocolAttack(Attack):
    """An attack that needs the whole protocol: what the members of its ring are."""

    level = "protocol"
    bed: ClassVar[Bed] = "scripted"

    @abstractmethod
    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        """One member of the ring, from what `Peer` is made of."""

    def make_learner(self, honest: SimulatedLearner) -> SimulatedLearner:
        """What a member of the ring learns with."""
        return honest

    def prepare(self, scene: Scene) -> None:
        """Change the world before it starts, for example its chain."""

    def is_found(self, peer: Peer, offender: PeerId) -> bool:
        """Whether an honest peer knows what the offender did. Refusing its bytes (REJECT) counts anyway."""
        return peer.lane.dag.fork(offender) is not None


# --- learners -------------------------------------------------------------------------------------------------------


class Recorder(Unaudited):
    """A learner that remembers what its validation set said of every model: what an auditor would find by re-execution."""

    def __init__(self, learner: SimulatedLearner) -> None:
        self._learner = learner
        self.correct: dict[Cid, int] = {}
        self.averages: dict[tuple[Cid, Cid], Cid] = {}

    def open(self) -> TaskFacts:
        return self._learner.open()

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        return self._note(model, self._learner.evaluate(model, reference=reference))

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        trained, evaluation = self._learner.train(model, private_slices=private_slices, slices=slices, seed=seed)
        return trained, self._note(trained, evaluation)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        average, evaluation, measured = self._learner.average(local, remote, remote_share=remote_share)
        self.averages[compute_cid(local), compute_cid(remote)] = compute_cid(average)
        return average, self._note(average, evaluation), self._note(remote, measured)

    def read_shared_slice(self, index: int) -> bytes:
        return self._learner.read_shared_slice(index)

    def _note(self, model: bytes, evaluation: Evaluation) -> Evaluation:
        self.correct[compute_cid(model)] = evaluation.correct
        return evaluation


@dataclass(slots=True)
class PatientScript(ScriptedPeer):
    """Follows the draws, but passes over a helper that is frozen or not a member: its attempt came to nothing."""

    peer: Peer | None = None

    def choose(self, local: LocalModel, market: ModelMarket, rng: Random) -> Candidate | None:
        lane = self.peer.lane if self.peer is not None else None
        while lane is not None and not self.is_done:
            helper = self.helpers[self.attempt]
            if helper in lane.members and helper not in lane.dag.forks:
                break
            self.attempt += 1
        return ScriptedPeer.choose(self, local, market, rng)


# --- the two beds ---------------------------------------------------------------------------------------------------


class LearningScenario(Scenario):
    """A session of peers that learn, in the money of section 7."""

    def compute_rules(self, *, initial_model: Cid, model_bytes: int) -> SessionRules:
        rules = Scenario.compute_rules(self, initial_model=initial_model, model_bytes=model_bytes)
        return replace(rules, reward_factor=LEARNING_FACTOR, tip_wei_per_credit=CREDIT_WEI, deposit_wei=DEPOSIT_WEI)


def stage(attack: ProtocolAttack | None, bed: Bed, setting: Setting, seed: int) -> Scene:
    """Build one session; with no attack, everybody in it is honest."""
    scene = Scene(setting, seed)
    ring = frozenset(setting.ring) if attack is not None else frozenset[int]()
    scripts = _make_scripts(setting, seed) if bed == "scripted" else []
    honest: list[SimulatedLearner] = [*scripts] if scripts else [_make_learner(seed, index) for index in range(setting.peers)]
    scene.recorders = [Recorder(learner) for learner in honest]
    learners: list[SimulatedLearner] = [
        attack.make_learner(recorder) if attack is not None and index in ring else recorder
        for index, recorder in enumerate(scene.recorders)
    ]

    def make_hostile(**parts: object) -> Peer:
        assert attack is not None
        return attack.make_peer(scene, **parts)

    def observe(world: World, host: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        _observe(scene, attack, host, event, effects)

    world = scene.world = World(
        _make_scenario(bed, setting),
        seed=seed,
        learners=learners,
        initial_model=make_initial_model() if scripts else _make_learner(seed, 0).initial_model(seed),
        observe=observe if attack is not None else None,
        peer_types=dict.fromkeys(ring, make_hostile),
    )
    for host, script in zip(world.hosts, scripts, strict=False):
        script.helpers = [world.hosts[index].name for index in script.helper_indices]
        _follow_script(host, script)
    if attack is not None:
        attack.prepare(scene)
    return scene


def _make_scenario(bed: Bed, setting: Setting) -> Scenario:
    kind, cycles = (PaperScenario, setting.cycles + SPARE_CYCLES) if bed == "scripted" else (LearningScenario, setting.cycles)
    final_s = 0 if bed == "scripted" else 5
    return kind(
        name="lab", about="", peers=setting.peers, cycles=cycles, final_s=final_s, link=Link(loss=GOSSIP_LOSS), reward_rule="budgeted"
    )


def _make_scripts(setting: Setting, seed: int) -> list[PatientScript]:
    draws = draw_swarm(seed, peers=setting.peers, cycles=setting.cycles)
    return [
        PatientScript(index, (), draws.helpers[index :: draws.peers], draws.changes[index :: draws.peers]) for index in range(draws.peers)
    ]


def _make_learner(seed: int, index: int) -> SyntheticLearner:
    return SyntheticLearner(seed * LEARNERS_PER_SEED + index)


def _follow_script(host: Host, script: PatientScript) -> None:
    make_peer = host.make_peer

    def make_scripted(rng: Random) -> Peer:
        peer = make_peer(rng)
        peer.cycle.policy = script
        script.peer = peer
        return peer

    host.make_peer = make_scripted


def _observe(scene: Scene, attack: ProtocolAttack | None, host: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
    """Note which honest host knows of which offender: by what it refuses, and once a block by what it holds."""
    if host.index in scene.world.hostile or host.peer is None or attack is None:
        return
    for effect in effects:
        if isinstance(effect, ev.PassVerdict) and effect.ruling.verdict is Verdict.REJECT and effect.sender in scene.offences:
            scene.notice(host, effect.sender)
    if isinstance(event, ev.ChainRead):
        for offender in scene.offences:
            if attack.is_found(host.peer, offender):
                scene.notice(host, offender)
