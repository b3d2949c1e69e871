"""Equivocation: two halves of the network are told different rows under the same numbers."""

from __future__ import annotations

from learnae.ids import Credits, PeerId
from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene, send_vertices
from learnae.protocol import events as ev
from learnae.protocol.messages import Departed, HelpReported, Kind, parse_message
from learnae.protocol.peer import Peer
from learnae.tangle.vertex import Vertex, create_vertex


class Equivocator(HostilePeer):
    """From its first receipt for an outsider on, every second peer hears that the ring helped instead."""

    has_forked = False

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        told: list[ev.Effect] = []
        for effect in effects:
            rival = None if self.has_forked else self._tell_rival(effect)
            if rival is None:
                told.append(effect)
                continue
            assert isinstance(effect, ev.PublishVertex)
            self.has_forked = True
            self.scene.offend(self.me, now_s)
            others = [host.name for host in self.scene.world.hosts if host.name != self.me]
            told += send_vertices(others[::2], effect.encoded)
            told += send_vertices(others[1::2], rival.encoded)
        return told

    def _tell_rival(self, effect: ev.Effect) -> Vertex | None:
        """The same number once more, with a receipt for the ring; without an accomplice that has a model, a farewell."""
        vertex = self.lane.dag.get(effect.cid) if isinstance(effect, ev.PublishVertex) else None
        help = None if vertex is None else parse_message(vertex.kind, vertex.body)
        if vertex is None or not isinstance(help, HelpReported) or help.helper in self.scene.ring:
            return None
        praise = next(filter(None, (self._praise(name, help) for name in self.find_accomplices())), None)
        kind, body = (
            (Kind.DEPARTED, Departed(reason="another story").to_body()) if praise is None else (Kind.HELP_REPORTED, praise.to_body())
        )
        return create_vertex(
            net=vertex.net,
            parents=vertex.parents,
            issuer=self.me,
            sequence=vertex.sequence,
            time_ms=vertex.time_ms,
            kind=int(kind),
            body=body,
            sign=self.sign,
        )

    def _praise(self, helper: PeerId, true: HelpReported) -> HelpReported | None:
        candidate = self.find_model_of(helper)
        if candidate is None:
            return None
        return HelpReported(
            helper=helper,
            announcement=candidate.announcement,
            before=true.before,
            after=true.after,
            correct_before=true.correct_before,
            correct_after=true.correct_after,
            total=true.total,
            credits=true.credits,
            owed=Credits(self.lane.ledger.value(self.me, helper) + true.credits),
        )


class Equivocation(ProtocolAttack):
    """Whoever sees both stories proves the fork to all; the row is frozen where they part, and nobody tries its models any more."""

    name = "equivocation"
    about = "tells two halves of the network different receipts under one number"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Equivocator(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
