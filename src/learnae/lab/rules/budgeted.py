"""The node's default: every deposit flows along its owner's row."""

from __future__ import annotations

from random import Random

from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled
from learnae.protocol.rewards import compute_budgeted_points


class Budgeted(Rule):
    """The node's own code for `reward_rule = budgeted`."""

    name = "budgeted"
    about = "row-normalised: each deposit flows along its own row (the default)"
    rank = 2

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        return Settled(books.pay_by_points(compute_budgeted_points(books.rows, books.members)))
