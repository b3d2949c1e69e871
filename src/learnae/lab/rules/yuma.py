"""Yuma consensus: no row gives a helper more than the median of all rows gives it.

Source: Bittensor's Yuma consensus with equal stakes and kappa = 1/2, without bonds. A real ledger is sparse: most rows
know nothing of most helpers, the median is 0, and then everybody gets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from learnae.ids import PeerId
from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled

SCALE: Final = 10**12  # what one row distributes


class Yuma(Rule):
    """The median over all rows, as published."""

    name = "yuma"
    about = "Yuma's clipped median over all rows, as published: equal shares on a sparse ledger"
    rank = 8

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        columns: dict[PeerId, list[int]] = {name: [] for name in books.members}
        for reporter in books.members:
            row = {h: c for h, c in books.rows.get(reporter, {}).items() if h in columns and h != reporter and c > 0}
            total = sum(row.values())
            for helper, credits in row.items():
                columns[helper].append(SCALE * credits // total)
        points = {}
        for helper, weights in columns.items():
            limit = self.compute_limit(weights, len(books.members))
            points[helper] = sum(min(weight, limit) for weight in weights)
        return Settled(books.pay_by_points(points))

    def compute_limit(self, weights: Sequence[int], members: int) -> int:
        """The largest weight that at least half of all rows reach; rows that do not name the helper give it 0."""
        rank = -(-members // 2)
        return sorted(weights, reverse=True)[rank - 1] if len(weights) >= rank else 0
