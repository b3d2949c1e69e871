"""Partial withhold: report enough to look honest."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class PartialWithhold(LedgerAttack):
    """Each own receipt is kept back with a chance of one half."""

    name = "partial-withhold"
    about = "reports half of the help it gets"

    def act(self, situation: Situation) -> Conduct:
        ring, rng = set(situation.ring), situation.rng
        return Conduct([receipt for receipt in situation.truth if receipt.reporter not in ring or rng.random() < 0.5])
