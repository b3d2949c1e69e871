"""Budgeted and audited, with the harder consequence: a false receipt freezes the row and voids the liar's own claim."""

from __future__ import annotations

from learnae.lab.rules.audited import Audited


class AuditedVoid(Audited):
    """Lying a little is found rarely and costs everything, so that it does not pay on average."""

    name = "audited-void"
    about = "budgeted, receipts audited: a false one freezes the row and voids its reporter's claim"
    rank = 4
    voids_claim = True
