"""Whitewash: once it is found out, the cheat comes back under a new name."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from nacl.signing import SigningKey

from learnae.ids import Address, PeerId
from learnae.lab.attacks.equivocation import Equivocator
from learnae.lab.bed import ProtocolAttack, Scene
from learnae.protocol import events as ev
from learnae.protocol.calls import DeployPoid, Join
from learnae.protocol.fund import FundError
from learnae.protocol.messages import Joined, Kind
from learnae.protocol.peer import Peer
from learnae.tangle.vertex import create_vertex

COMES_BACK_S: Final = 3.0  # After its fork: everybody knows by then.


class Whitewasher(Equivocator):
    """Equivocates, then deploys a new identity, tries to join with a new wallet, and speaks under the new name."""

    comes_back_at_s = 0.0
    has_come_back = False

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        had_forked = self.has_forked
        effects = super().misbehave(event, effects, now_s)
        if self.has_forked and not had_forked:
            self.comes_back_at_s = now_s + COMES_BACK_S
        if self.has_forked and not self.has_come_back and now_s >= self.comes_back_at_s:
            self.has_come_back = True
            effects = [*effects, self._come_back(now_s)]
        return effects

    def _come_back(self, now_s: float) -> ev.Effect:
        key = SigningKey(bytes(self.sign(b"a new name")[:32]))
        name = PeerId(bytes(key.verify_key))
        chain = self.scene.world.chain
        chain.wallets[name] = Address("0x" + name[:20].hex())
        poid = chain.execute(name, DeployPoid(), int(now_s))
        assert poid is not None
        with suppress(FundError):  # The members are final when funding is over: this is what the attack fails at.
            chain.execute(name, Join(poid), int(now_s))
        vertex = create_vertex(
            net=self.lane.net,
            parents=(self.lane.dag.genesis,),
            issuer=name,
            sequence=1,
            time_ms=int(now_s * 1000),
            kind=int(Kind.JOINED),
            body=Joined(poid=bytes.fromhex(poid[2:]), addresses=()).to_body(),
            sign=lambda message: key.sign(message).signature,
        )
        return ev.PublishVertex(vertex.cid, vertex.encoded)


class Whitewash(ProtocolAttack):
    """Nobody becomes a member after funding, and who is no member is not heard."""

    name = "whitewash"
    about = "equivocates, and comes back under a new name once it is frozen"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Whitewasher(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
