"""Flood before the deadline: in the last seconds the ring prints models and receipts as fast as it can."""

from __future__ import annotations

from typing import Final

from learnae.ids import Cid, Credits, compute_cid
from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene, send_vertices
from learnae.protocol import events as ev
from learnae.protocol.messages import HelpReported, Kind, ModelAnnounced, Origin, parse_message
from learnae.protocol.peer import Peer
from learnae.tangle.vertex import create_vertex

MODELS: Final = 40  # Announcements, each good for one receipt of every accomplice.
MODELS_BEFORE_S: Final = 6.0
RECEIPTS_BEFORE_S: Final = 4.0
TOO_FAST_BEFORE_S: Final = 1.0  # When the others know all that the flood stands on.
TOO_FAST: Final = 250  # Vertices of one moment: far past the budget of an issuer (rule 10).


class Flooder(HostilePeer):
    """First many models that do not exist, then a receipt of the largest size for each model of the others in the ring."""

    has_announced = False
    has_praised = False
    has_flooded = False

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        left_s = self.rules.training_ends_s - self.dao.compute_chain_time(now_s)
        if not self.dao.may_speak or not isinstance(event, ev.ChainRead):
            return effects
        if not self.has_announced and left_s <= MODELS_BEFORE_S:
            self.has_announced = True
            self.scene.offend(self.me, now_s)
            return [*effects, *self._say([self._invent_model(number) for number in range(MODELS)], now_s)]
        if not self.has_praised and left_s <= RECEIPTS_BEFORE_S:
            self.has_praised = True
            return [*effects, *(effect for receipt in self._invent_receipts() for effect in self._say([receipt], now_s))]
        if not self.has_flooded and left_s <= TOO_FAST_BEFORE_S:
            self.has_flooded = True
            return [*effects, *self._print_too_fast()]
        return effects

    def _invent_model(self, number: int) -> ModelAnnounced:
        model = compute_cid(b"no model %d" % number + self.me)
        return ModelAnnounced(
            model=model, size_bytes=self.rules.model_bytes, correct=0, total=1, maturity_cycles=1, examples=1, origin=Origin.TRAINED
        )

    def _invent_receipts(self) -> list[HelpReported]:
        """One for each announcement of an accomplice that this row did not credit yet."""
        receipts = []
        for accomplice in self.find_accomplices():
            ledger, most = self.lane.ledger, self.rules.reward_factor
            owed = int(ledger.value(self.me, accomplice))
            for vertex in self.lane.dag.chain(accomplice):
                is_model = isinstance(parse_message(vertex.kind, vertex.body), ModelAnnounced)
                if is_model and not ledger.has_credited(self.me, vertex.cid):
                    owed += most
                    receipts.append(self._invent_receipt(accomplice, vertex.cid, Credits(most), Credits(owed)))
        return receipts

    def _invent_receipt(self, helper: bytes, announcement: Cid, credits: Credits, owed: Credits) -> HelpReported:
        nothing = compute_cid(b"nothing")
        return HelpReported(
            helper=helper,  # type: ignore[arg-type]  # a peer's id
            announcement=announcement,
            before=nothing,
            after=nothing,
            correct_before=0,
            correct_after=1,
            total=1,
            credits=credits,
            owed=owed,
        )

    def _print_too_fast(self) -> list[ev.Effect]:
        """More vertices, all of this moment: what the budget of an issuer is there for."""
        head = self.lane.dag.head(self.me)
        assert head is not None
        flood: list[bytes] = []
        parent, sequence, time_ms = head.cid, head.sequence, head.time_ms
        for number in range(TOO_FAST):
            sequence, time_ms = sequence + 1, time_ms + 1
            message = self._invent_model(MODELS + number)
            vertex = create_vertex(
                net=self.lane.net, parents=(parent,), issuer=self.me, sequence=sequence, time_ms=time_ms,
                kind=int(Kind.MODEL_ANNOUNCED), body=message.to_body(), sign=self.sign,
            )  # fmt: skip
            parent = vertex.cid
            flood.append(vertex.encoded)
        return send_vertices([host.name for host in self.scene.world.hosts if host.name != self.me], *flood)


class Flood(ProtocolAttack):
    """An issuer's own times bound how much it says, a receipt needs an announcement of its own, and a row moves only its deposit."""

    name = "flood"
    about = "prints models and receipts for its ring in the last seconds of the training stage"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Flooder(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
