"""Ring at plausible sizes: members credit only each other, with amounts as they come up honestly."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED, Receipt


class Ring(LedgerAttack):
    """About as many receipts, of about the same size, as an honest member writes; all of them invented."""

    name = "ring"
    about = "reports only invented help from its own ring, at plausible sizes"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        receipts = [receipt for receipt in situation.truth if receipt.reporter not in ring]
        for cycle in range(situation.draws.cycles):
            for member in situation.ring:
                if situation.rng.random() < 0.5:  # As often as an honest attempt succeeds.
                    receipts.append(Receipt(cycle, member, situation.partner(member), situation.plausible_credits(), INVENTED))
        return Conduct(receipts)
