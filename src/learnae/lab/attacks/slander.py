"""Slander of the best helpers: their help is passed over in silence."""

from __future__ import annotations

from collections import Counter
from typing import Final

from learnae.lab.attack import Conduct, LedgerAttack, Situation

BEST_PART: Final = 10  # One in so many of all members is among the best.


class Slander(LedgerAttack):
    """The ring reports everybody's help but that of the best tenth of all, members of the ring left out.

    A receipt can only praise, so the one way to say ill of a helper is to say nothing.
    """

    name = "slander"
    about = "reports everything but the help of the best helpers"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        given: Counter[int] = Counter()
        for receipt in situation.truth:
            if receipt.helper not in ring:
                given[receipt.helper] += receipt.credits
        best = frozenset(member for member, _ in given.most_common(max(1, situation.draws.peers // BEST_PART)))
        kept = [receipt for receipt in situation.truth if receipt.reporter not in ring or receipt.helper not in best]
        return Conduct(kept, victims=best)
