"""Stealth ring: the own true total, paid to the wrong helpers."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED


class StealthRing(LedgerAttack):
    """Number, time and size of its receipts are the true ones, so no statistic of them stands out."""

    name = "stealth-ring"
    about = "redirects each of its true receipts to its own ring"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct(
            [
                receipt
                if receipt.reporter not in ring or receipt.helper in ring
                else receipt._replace(helper=situation.partner(receipt.reporter), proven=INVENTED)
                for receipt in situation.truth
            ]
        )
