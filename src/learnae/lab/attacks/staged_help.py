"""Staged help: make the own model worse on purpose, then let the ring help it."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import Receipt
from learnae.lab.swarm import FACTOR_MAX, LEVEL_MAX


class StagedHelp(LedgerAttack):
    """The improvement is real, so it is confirmed by every re-execution; only the damage before it was made on purpose.

    One receipt of the largest honest size in every cycle.
    """

    name = "staged-help"
    about = "damages its own model and lets the ring repair it: large receipts that are true"
    in_catalogue = False

    def act(self, situation: Situation) -> Conduct:
        ring, largest = set(situation.ring), LEVEL_MAX * FACTOR_MAX
        receipts = [receipt for receipt in situation.truth if receipt.reporter not in ring]
        receipts += [
            Receipt(cycle, member, situation.partner(member), largest, largest)
            for cycle in range(situation.draws.cycles)
            for member in situation.ring
        ]
        return Conduct(receipts)
