"""Ring inflated: members credit each other with absurd amounts."""

from __future__ import annotations

from typing import Final

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED, Receipt

MILLION: Final = 1_000_000


class RingInflated(LedgerAttack):
    """One receipt of a million in every cycle."""

    name = "ring-inflated"
    about = "reports a million of invented help from its own ring in every cycle"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        receipts = [receipt for receipt in situation.truth if receipt.reporter not in ring]
        receipts += [
            Receipt(cycle, member, situation.partner(member), MILLION, INVENTED)
            for cycle in range(situation.draws.cycles)
            for member in situation.ring
        ]
        return Conduct(receipts)
