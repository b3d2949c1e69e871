"""Replay: old messages are sent again and again, one's own receipts from others above all."""

from __future__ import annotations

from typing import Final

from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene, send_vertices
from learnae.protocol import events as ev
from learnae.protocol.messages import HelpReported, parse_message
from learnae.protocol.peer import Peer

AT_ONCE: Final = 64  # Vertices in one message.


class Replayer(HostilePeer):
    """Every few seconds it sends its neighbours every receipt that credits its ring once more, and publishes its own log again."""

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        if not isinstance(event, ev.TimerFired) or event.timer is not ev.Timer.SYNC:
            return effects
        praise = [
            vertex.encoded
            for issuer in self.lane.dag.have_vector()
            for vertex in self.lane.dag.chain(issuer)
            if isinstance(message := parse_message(vertex.kind, vertex.body), HelpReported) and message.helper in self.scene.ring
        ]
        again: list[ev.Effect] = [ev.PublishVertex(vertex.cid, vertex.encoded) for vertex in self.lane.dag.chain(self.me)]
        if praise:
            self.scene.offend(self.me, now_s)
        return [*effects, *again[-AT_ONCE:], *send_vertices(sorted(self.connected), *praise[-AT_ONCE:])]


class Replay(ProtocolAttack):
    """Each (issuer, number) acts once: what is known is ignored, so nothing changes and nobody is blamed."""

    name = "replay"
    about = "sends every receipt that credits its ring again and again"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Replayer(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
