"""Budgeted, and receipts are re-executed at random: a false one freezes the row, as the node does it."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from learnae.lab.audits import AuditTerms, find_liars
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled
from learnae.protocol.rewards import compute_budgeted_points


class Audited(Rule):
    """A frozen row counts as a silent one: it flows along the others' consensus. The liar's own claim stands."""

    name = "audited"
    about = "budgeted, receipts audited: a false one freezes its reporter's row"
    rank = 3
    voids_claim: ClassVar[bool] = False

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        liars = find_liars(books, audits, rng)
        frozen = {books.names[liar] for liar in liars}
        rows = {reporter: row for reporter, row in books.rows.items() if reporter not in frozen}
        points = compute_budgeted_points(rows, books.members)
        return Settled(books.pay_by_points(points, void=liars if self.voids_claim else ()), liars)
