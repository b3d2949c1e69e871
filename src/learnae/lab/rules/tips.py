"""Direct micropayments: every receipt is paid by its reporter (4.3, Eq. 1)."""

from __future__ import annotations

from random import Random

from learnae.ids import Wei
from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled
from learnae.lab.swarm import settle_tips


class Tips(Rule):
    """The paper's earlier scheme: nobody is made to pay."""

    name = "tips"
    about = "direct micropayments (4.3): who reports pays, who does not keeps its money"
    rank = 0

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        refunds = {books.names[index]: books.deposit_wei for index in books.present}  # Outsiders neither give nor get.
        balances = {**refunds, **settle_tips(books.rows, books.members)}
        return Settled([balances.get(name, Wei(0)) for name in books.names])
