"""False accuracy with a poisoned model: a worthless model that claims to be perfect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from learnae.ids import PeerId
from learnae.lab.bed import Bed, HostilePeer, ProtocolAttack, Scene
from learnae.learning.synthetic import SKILLS, encode_skills
from learnae.protocol import events as ev
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import ModelAnnounced, parse_message
from learnae.protocol.models import LIAR_EXAGGERATION
from learnae.protocol.peer import Peer
from learnae.sim.learner import SimulatedLearner, Unaudited


class Poisoner(Unaudited):
    """A learner whose every model knows nothing and is said to be right in everything."""

    def __init__(self, learner: SimulatedLearner) -> None:
        self._learner = learner
        self._made = 0

    def open(self) -> TaskFacts:
        return self._learner.open()

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        return self._learner.evaluate(model, reference=reference)

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        return self._poison(model)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        poison, evaluation = self._poison(local)
        return poison, evaluation, self._learner.evaluate(remote, reference=local)

    def read_shared_slice(self, index: int) -> bytes:
        return self._learner.read_shared_slice(index)

    def _poison(self, before: bytes) -> tuple[bytes, Evaluation]:
        self._made += 1
        poison = encode_skills([0] * (SKILLS - 1) + [self._made])
        truth = self._learner.evaluate(poison, reference=before)
        return poison, replace(truth, correct=truth.total, gained=truth.total, lost=0)


class PoisoningPeer(HostilePeer):
    """Announces what its learner says."""

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        for effect in effects:
            vertex = self.lane.dag.get(effect.cid) if isinstance(effect, ev.PublishVertex) else None
            if vertex is not None and isinstance(parse_message(vertex.kind, vertex.body), ModelAnnounced):
                self.scene.offend(self.me, now_s)
        return effects


class PoisonedModel(ProtocolAttack):
    """A claim is measured before anything is adopted, and whoever exaggerates is chosen last."""

    name = "poisoned-model"
    about = "announces worthless models that claim to be perfect"
    bed: ClassVar[Bed] = "learning"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return PoisoningPeer(scene, **parts)  # type: ignore[arg-type]  # as the world gives them

    def make_learner(self, honest: SimulatedLearner) -> SimulatedLearner:
        return Poisoner(honest)

    def is_found(self, peer: Peer, offender: PeerId) -> bool:
        return peer.cycle.market.exaggeration(offender) > LIAR_EXAGGERATION
