"""Padded receipts: true help from the ring, a little more than it was."""

from __future__ import annotations

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.audits import AuditTerms


class PaddedReceipts(LedgerAttack):
    """Every true receipt for a member of the ring is raised by the tolerance of the audits, which cannot tell it from rounding."""

    name = "padded-receipts"
    about = "raises its true receipts for its own ring by the tolerance of the audits"
    in_catalogue = False

    def act(self, situation: Situation) -> Conduct:
        ring, more = set(situation.ring), AuditTerms().tolerance_credits
        return Conduct(
            [
                receipt._replace(credits=receipt.credits + more) if receipt.reporter in ring and receipt.helper in ring else receipt
                for receipt in situation.truth
            ]
        )
