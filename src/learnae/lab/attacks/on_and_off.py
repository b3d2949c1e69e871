"""On and off: honest for a while, then a ring, then honest again."""

from __future__ import annotations

from typing import Final

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED

PERIOD_CYCLES: Final = 10


class OnAndOff(LedgerAttack):
    """Ten honest cycles, then ten in which every receipt goes to the ring, and so on."""

    name = "on-and-off"
    about = "ten honest cycles, ten as a stealth ring, in turns"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct(
            [
                receipt._replace(helper=situation.partner(receipt.reporter), proven=INVENTED)
                if receipt.cycle // PERIOD_CYCLES % 2 and receipt.reporter in ring and receipt.helper not in ring
                else receipt
                for receipt in situation.truth
            ]
        )
