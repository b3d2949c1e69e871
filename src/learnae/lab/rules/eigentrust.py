"""EigenTrust: trust flows along rows again and again, with a part that always starts anew from everybody alike.

Source: Kamvar, Schlosser, Garcia-Molina, "The EigenTrust Algorithm for Reputation Management in P2P Networks", 2003. Nobody is
trusted beforehand in an open swarm, so the pre-trust is uniform. Integers in parts of `SCALE`.
"""

from __future__ import annotations

from operator import sub
from random import Random
from typing import Final

from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books
from learnae.lab.rule import Rule, Settled

PRETRUST_PERMILLE: Final = 150
ROUNDS_MAX: Final = 60  # 0.85 to this power is below one in ten thousand.
SETTLED_PARTS: Final = 10**7  # Nobody's trust changes by more than one in so many any more.
SCALE: Final = 10**15


class EigenTrust(Rule):
    """A silent row trusts everybody alike, as published."""

    name = "eigentrust"
    about = "EigenTrust, uniform pre-trust of 15 %"
    rank = 6

    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        members = books.members
        place = {name: index for index, name in enumerate(members)}
        rows = []
        for name in members:
            row = [(place[h], c) for h, c in books.rows.get(name, {}).items() if h in place and h != name and c > 0]
            rows.append((row, sum(credits for _, credits in row)))
        pretrust = SCALE // len(members)
        trust = [pretrust] * len(members)
        for _ in range(ROUNDS_MAX):
            flow, spread = [0] * len(members), 0
            for held, (row, total) in zip(trust, rows, strict=True):
                if not total:
                    spread += held
                    continue
                for helper, credits in row:
                    flow[helper] += held * credits // total
            before, trust = (
                trust,
                [
                    ((1000 - PRETRUST_PERMILLE) * (amount + spread // len(members)) + PRETRUST_PERMILLE * pretrust) // 1000
                    for amount in flow
                ],
            )
            if max(map(abs, map(sub, trust, before))) <= SCALE // SETTLED_PARTS:
                break
        return Settled(books.pay_by_points(dict(zip(members, trust, strict=True))))
