"""Sybil split: one person pays several deposits, and the others of it speak for the first."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED, Receipt


class SybilSplit(LedgerAttack):
    """The first of the ring works honestly; the others did not come to work, and report plausible help from the first in every cycle.

    If it were honest, they would not have joined, so their deposits are the cost of the attack.
    """

    name = "sybil-split"
    about = "one member pays further deposits for members that only praise it; their deposits count as cost"
    is_mixable = False

    def act(self, situation: Situation) -> Conduct:
        master, sybils = situation.ring[0], frozenset(situation.ring[1:])
        receipts = [receipt for receipt in situation.truth if receipt.reporter not in sybils and receipt.helper not in sybils]
        receipts += [
            Receipt(cycle, sybil, master, situation.plausible_credits(), INVENTED)
            for cycle in range(situation.draws.cycles)
            for sybil in sorted(sybils)
        ]
        return Conduct(receipts, hired=sybils)
