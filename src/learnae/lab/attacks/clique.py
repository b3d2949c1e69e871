"""Clique: members average with each other only, and report it truthfully."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import Receipt


class Clique(LedgerAttack):
    """Nothing here is false: who to average with is a peer's own choice. So no re-execution finds anything.

    The attempts of the ring have the level of change that was drawn, with the Contribution Factor of the other helper.
    """

    name = "clique"
    about = "averages only within its own ring and reports it truthfully"
    in_catalogue = False

    def act(self, situation: Situation) -> Conduct:
        ring, draws = set(situation.ring), situation.draws
        receipts = [receipt for receipt in situation.truth if receipt.reporter not in ring]
        for attempt, (helper, change) in enumerate(zip(draws.helpers, draws.changes, strict=True)):
            cycle, reporter = divmod(attempt, draws.peers)
            if reporter in ring and change > 0:
                partner = situation.partner(reporter)
                credits = change // draws.factors[helper] * draws.factors[partner]
                receipts.append(Receipt(cycle, reporter, partner, credits, credits))
        return Conduct(receipts)
