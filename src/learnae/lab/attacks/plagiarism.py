"""Plagiarised models: whatever good model is announced, the ring announces as its own."""

from __future__ import annotations

from typing import ClassVar

from learnae.ids import Cid, PeerId
from learnae.lab.bed import Bed, HostilePeer, ProtocolAttack, Scene
from learnae.protocol import events as ev
from learnae.protocol.messages import ModelAnnounced, Origin
from learnae.protocol.peer import Peer


class Plagiarist(HostilePeer):
    """Instead of every model of its own, it announces the best claimed model of an outsider, which it fetched."""

    def __init__(self, scene: Scene, **parts: object) -> None:
        super().__init__(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
        self.copied: set[Cid] = set()
        self.fetching: dict[int, ModelAnnounced] = {}

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        if isinstance(event, ev.FileFetched) and event.number in self.fetching:
            model = self.fetching.pop(event.number)
            self.scene.offend(self.me, now_s)
            return [*effects, ev.PinFile(model.model), *self._say([model], now_s)]
        if not isinstance(event, ev.ModelTrained | ev.ModelsAveraged) or not self._has_budget(now_s):
            return effects
        best = max(
            (
                candidate
                for candidate in self.cycle.market.all()
                if candidate.issuer not in self.scene.ring and candidate.message.model not in self.copied
            ),
            key=lambda candidate: (candidate.message.accuracy_claimed, candidate.announcement),
            default=None,
        )
        if best is None:
            return effects
        message = best.message
        self.copied.add(message.model)
        number = self._next_number()
        self.fetching[number] = ModelAnnounced(
            model=message.model,
            size_bytes=message.size_bytes,
            correct=message.correct,
            total=message.total,
            maturity_cycles=message.maturity_cycles,
            examples=message.examples,
            origin=Origin.TRAINED,
        )
        return [*effects, ev.FetchFile(number, message.model, (best.issuer, *sorted(self.connected)), message.size_bytes)]


class Plagiarism(ProtocolAttack):
    """Nothing pays by who announced a model first."""

    name = "plagiarism"
    about = "announces the best models of others as its own"
    bed: ClassVar[Bed] = "learning"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Plagiarist(scene, **parts)

    def is_found(self, peer: Peer, offender: PeerId) -> bool:
        return False
