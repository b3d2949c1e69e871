"""Selective withhold: the truth and nothing but the truth, of its own ring only."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class SelectiveWithhold(LedgerAttack):
    """Reports what its own ring helped, and passes over everybody else's help.

    Every receipt is true, so no re-execution finds anything; where each row has the same weight, it moves the whole deposit.
    """

    name = "selective-withhold"
    about = "reports truthfully, but only the help of its own ring"
    in_catalogue = False

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct([receipt for receipt in situation.truth if receipt.reporter not in ring or receipt.helper in ring])
