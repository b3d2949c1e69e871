"""MaxFlow (BarterCast): help counts as far as it reaches, over at most one member in between.

Source: Meulpolder, Pouwelse, Epema, Sips, "BarterCast: A practical approach to prevent lazy freeriding in P2P networks", 2009. A peer's
contribution as another one sees it is the maximum flow from the first to the second in the graph of reported help, over paths of at
most two steps; such paths share no edge, so the flow is a sum of minima. Points are the sum over all who look. BarterCast
subtracts what flowed the other way and ranks with it; a fund cannot be divided by negative numbers, so here nothing is subtracted.
"""

from __future__ import annotations

from random import Random

from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled


class MaxFlow(Rule):
    """Two steps, as BarterCast limits it."""

    name = "maxflow"
    about = "BarterCast: maximum flow of help over at most two steps, summed over all who look"
    rank = 7

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        known = set(books.members)
        rows = {name: {h: c for h, c in books.rows.get(name, {}).items() if h in known and h != name and c > 0} for name in books.members}
        points = dict.fromkeys(books.members, 0)
        for viewer, direct in rows.items():
            for helper, credits in direct.items():
                points[helper] += credits
                for further, owed in rows[helper].items():
                    if further != viewer:
                        points[further] += min(credits, owed)
        return Settled(books.pay_by_points(points))
