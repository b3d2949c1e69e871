"""Withhold: the paper's malicious peer, which never reports help (section 7.2)."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class Withhold(LedgerAttack):
    """Take help, tell nobody."""

    name = "withhold"
    about = "never reports the help it gets (7.2)"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct([receipt for receipt in situation.truth if receipt.reporter not in ring])
