"""Over-claim: ask for more points than the ledger gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from learnae.lab.bed import HostilePeer, ProtocolAttack, Scene
from learnae.protocol.calls import Call, ChainView, Member, SubmitClaim
from learnae.protocol.identity import Membership
from learnae.protocol.peer import Peer
from learnae.protocol.settlement import Books, Settlement

FACTOR: Final = 2


@dataclass(slots=True)
class GreedySettlement(Settlement):
    """Claims twice what it is due."""

    scene: Scene = field(kw_only=True)

    def _claim(self, view: ChainView, member: Member, membership: Membership, books: Books, now_s: float) -> Call | None:
        call = Settlement._claim(self, view, member, membership, books, now_s)
        if not isinstance(call, SubmitClaim):
            return call
        self.scene.offend(self.me, self.scene.world.now_s)
        return SubmitClaim(FACTOR * call.points, call.evidence)


class Overclaimer(HostilePeer):
    """Honest until it claims."""

    def __init__(self, scene: Scene, **parts: object) -> None:
        super().__init__(scene, **parts)  # type: ignore[arg-type]  # as the world gives them
        self.dao.settlement = GreedySettlement(self.rules, self.me, scene=scene)


class Overclaim(ProtocolAttack):
    """Claims are deterministic: every honest voter sees that it is wrong."""

    name = "overclaim"
    about = "claims twice the points that the ledger gives"
    in_catalogue = False

    def make_peer(self, scene: Scene, **parts: object) -> Peer:
        return Overclaimer(scene, **parts)
