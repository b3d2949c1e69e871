"""Audited with a void claim, and short rows are filled up: what a row says less than is usual, flows along the consensus.

A row of a few true receipts for friends moves the whole deposit of its owner under `budgeted`. Here it moves the part of it that its
credits are of the median row's, and the rest flows like the deposit of a silent member.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from statistics import median_low

from learnae.ids import PeerId
from learnae.lab.audits import AuditTerms, find_liars
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled
from learnae.protocol.rewards import POINTS_PER_ROW, Rows, divide_exactly


class AuditedFilled(Rule):
    """A candidate for the node, compared here only."""

    name = "audited-filled"
    about = "audited-void, and what a row says less than the median row flows along the consensus"
    rank = 5

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        liars = find_liars(books, audits, rng)
        frozen = {books.names[liar] for liar in liars}
        rows = {reporter: row for reporter, row in books.rows.items() if reporter not in frozen}
        return Settled(books.pay_by_points(compute_filled_points(rows, books.members), void=liars), liars)


def compute_filled_points(rows: Rows, members: tuple[PeerId, ...]) -> dict[PeerId, int]:
    """Points of every member; each deposit gives `POINTS_PER_ROW` in all."""
    known = set(members)
    cells = {name: {h: c for h, c in rows.get(name, {}).items() if h in known and h != name and c > 0} for name in members}
    totals = {name: sum(row.values()) for name, row in cells.items()}
    usual = median_low([total for total in totals.values() if total] or [1])
    own = {name: POINTS_PER_ROW * min(totals[name], usual) // usual for name in members}
    points = dict.fromkeys(members, 0)
    for name, row in cells.items():
        _flow(own[name], row, points)
    consensus = dict(points)
    for name in members:
        _flow(POINTS_PER_ROW - own[name], {h: w for h, w in consensus.items() if h != name and w > 0}, points)
    return points


def _flow(amount: int, weights: Mapping[PeerId, int], points: dict[PeerId, int]) -> None:
    if amount and weights:
        for helper, share in divide_exactly(amount, weights).items():
            points[helper] += share
