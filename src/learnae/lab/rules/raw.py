"""The paper's reward rule: column sums of the ledger (section 6)."""

from __future__ import annotations

from random import Random

from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled
from learnae.protocol.rewards import compute_raw_points


class Raw(Rule):
    """The node's own code for `reward_rule = raw`."""

    name = "raw"
    about = "the paper's rule: the fund by column sums of the ledger (6)"
    rank = 1

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        return Settled(books.pay_by_points(compute_raw_points(books.rows, books.members)))
