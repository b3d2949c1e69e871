"""Identity hijack by front-running: the attacker binds another peer's id to its own wallet before that peer does."""

from __future__ import annotations

from dataclasses import replace

from learnae.ids import Address, PeerId
from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene
from learnae.protocol import events as ev
from learnae.protocol.calls import Stage, SubmitClaim
from learnae.protocol.identity import compute_peer_message, is_signed_by_peer
from learnae.protocol.peer import Peer
from learnae.protocol.settlement import compute_expected_points
from learnae.sim.chain import SimulatedChain
from learnae.sim.world import derive_key


class MempoolChain(SimulatedChain):
    """A chain whose waiting transactions everybody sees.

    A member of the ring deploys its victim's proof of identity with its own wallet in it, a moment before the victim. It can copy the
    signature that it sees, not make one: that one is for the victim's wallet.
    """

    def __init__(self, scene: Scene) -> None:
        world = scene.world
        super().__init__(world.rules, [host.name for host in world.hosts])
        self._chain_id = world.rules.chain_id
        self._keys = {host.name: derive_key(scene.seed, host.index) for host in world.hosts}
        self.victim_of = choose_victims(scene)

    def _deploy(self, peer: PeerId, wallet: Address, now_s: int) -> Address:
        contract = super()._deploy(peer, wallet, now_s)
        named = self.victim_of.get(peer, peer)
        message = compute_peer_message(self.wallets[named], self._chain_id)
        signature = self._keys[named].sign(message).signature
        fault = "" if is_signed_by_peer(named, wallet, self._chain_id, signature) else "the peer did not sign it"
        self._poids[contract] = replace(self._poids[contract], peer_id=named, fault=fault)
        return contract


def choose_victims(scene: Scene) -> dict[PeerId, PeerId]:
    """Each member of the ring takes the name of another outsider."""
    outsiders = [host.name for host in scene.world.hosts if host.index not in scene.setting.ring]
    return dict(zip(scene.ring, outsiders, strict=False))


class Hijacker(HostilePeer):
    """Joins with the stolen record, and claims what its victim is due if that is how the others see it."""

    claim_number = 0
    has_claimed = False
    has_finished = False

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        if isinstance(event, ev.TransactionConfirmed | ev.TransactionFailed) and event.number == self.claim_number:
            return []  # The honest part of this peer knows nothing of the claim.
        return super().handle(event, now_s)

    def misbehave(self, event: ev.Event, effects: list[ev.Effect], now_s: float) -> list[ev.Effect]:
        if any(isinstance(effect, ev.SubmitTransaction) for effect in effects):
            self.scene.offend(self.me, now_s)
        view = self.dao.view
        if view is None:
            return effects
        if view.stage in (Stage.RELEASED, Stage.REFUNDED) and not self.has_finished:
            self.has_finished = True
            return [*effects, ev.Finish()]
        effects = [effect for effect in effects if not isinstance(effect, ev.Finish)]  # It waits, although its own name was not admitted.
        if view.stage is not Stage.CLAIMING or self.has_claimed:
            return effects
        if not all(self.lane.ledger.row(peer).closed for peer in self.dao.membership.peers):
            return effects
        victim = choose_victims(self.scene)[self.me]
        member = self.dao.membership.by_peer.get(victim)
        points = compute_expected_points(self.rules, self.lane.ledger.rows(), self.dao.membership).get(victim, 0)
        if member is None or member.wallet != self.scene.world.chain.wallets[self.me] or points == 0:
            return effects
        self.has_claimed = True
        self.claim_number = self._next_number()
        return [*effects, ev.SubmitTransaction(self.claim_number, SubmitClaim(points, bytes(32)))]


class IdentityHijack(ProtocolAttack):
    """The peer's own key signs the wallet, so a record with another wallet is void, however early it stands in the chain (4.4)."""

    name = "identity-hijack"
    about = "deploys another peer's proof of identity with its own wallet first, and joins with it"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Hijacker(scene, **parts)  # type: ignore[arg-type]  # as the world gives them

    def prepare(self, scene: Scene) -> None:
        scene.world.chain = MempoolChain(scene)

    def is_found(self, peer: Peer, offender: PeerId) -> bool:
        return offender not in peer.dao.membership.by_peer and bool(peer.dao.membership.rejected)
