"""Free rider: learns from everybody, offers nothing that helps."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class FreeRider(LedgerAttack):
    """Its models are worthless, so averaging with them never improves anybody's; it reports honestly."""

    name = "free-rider"
    about = "takes help and gives none; reports honestly"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct([receipt for receipt in situation.truth if receipt.helper not in ring])
