"""Camouflaged ring: everything true is reported, and something invented besides."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import INVENTED, Receipt


class CamouflagedRing(LedgerAttack):
    """One invented receipt of plausible size with every second true one: a third of the row is false."""

    name = "camouflaged-ring"
    about = "reports the truth, and invented help from its own ring for half as much again"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        extra = [
            Receipt(true.cycle, true.reporter, situation.partner(true.reporter), situation.plausible_credits(), INVENTED)
            for true in situation.truth
            if true.reporter in ring and situation.rng.random() < 0.5
        ]
        return Conduct([*situation.truth, *extra])
