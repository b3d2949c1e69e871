"""Voting cartel: the ring votes against honest claims, so that more of the fund is left for its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene
from learnae.protocol.calls import Call, CastBallot, ChainView, Member
from learnae.protocol.identity import Membership
from learnae.protocol.peer import Peer
from learnae.protocol.settlement import Books, Settlement


@dataclass(slots=True)
class CartelSettlement(Settlement):
    """Claims what it is due, and rejects as many claims of outsiders as one ballot may, the largest first."""

    scene: Scene = field(kw_only=True)

    def _vote(self, view: ChainView, member: Member, membership: Membership, books: Books, now_s: float) -> Call | None:
        if member.index in view.ballots or not view.claims:
            return None
        own = {membership.by_peer[name].index for name in self.scene.ring if name in membership.by_peer}
        foreign = sorted((claim for claim in view.claims if claim.index not in own), key=lambda claim: -claim.points)
        if self.ballot is None:
            self.ballot = tuple(sorted(claim.index for claim in foreign[: (len(view.members) - 1) // 2]))
            self.scene.offend(self.me, self.scene.world.now_s)
        return CastBallot(self.ballot)


class CartelMember(HostilePeer):
    """Honest until the vote."""

    def __init__(self, scene: Scene, **parts: object) -> None:
        super().__init__(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
        self.dao.settlement = CartelSettlement(self.rules, self.me, scene=scene)


class VotingCartel(ProtocolAttack):
    """A claim falls only if half of all ballots are against it; ballots are on the chain for everybody to see."""

    name = "voting-cartel"
    about = "votes against every honest claim it can"

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return CartelMember(scene, **parts)
