"""False accusations: drawn as auditors, the ring calls honest receipts false."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class FalseAccusations(LedgerAttack):
    """Honest in everything but its verdicts. Under rules without audits there is nothing to lie about."""

    name = "false-accusations"
    about = "as an auditor, calls every honest receipt false and vouches for its own ring"

    def act(self, situation: Situation) -> Conduct:
        return Conduct(situation.truth, accusers=frozenset(situation.ring))
