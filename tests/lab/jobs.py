"""A job, an attack and a rule for tests, in a module that is quick to load: every process that is started anew loads it."""

from __future__ import annotations

from dataclasses import dataclass

from learnae.errors import UsageError


@dataclass(frozen=True)
class Halving:
    """A job that fails for 0."""

    number: int

    @property
    def command(self) -> str:
        return f"halve {self.number}"

    def run(self) -> float:
        if self.number < 0:
            raise UsageError("less than nothing")
        return 1 / self.number


AN_ATTACK = '''
"""Loud ring: every receipt of the ring is doubled."""

from learnae.lab.attack import Conduct, LedgerAttack, Situation


class LoudRing(LedgerAttack):
    """Says everything twice as loud."""

    name = "loud-ring"
    about = "doubles what it reports"

    def act(self, situation: Situation) -> Conduct:
        ring = set(situation.ring)
        return Conduct([r._replace(credits=2 * r.credits) if r.reporter in ring else r for r in situation.truth])
'''

A_RULE = '''
"""Equal shares: nobody's report counts."""

from learnae.lab.rule import Rule, Settled


class EqualShares(Rule):
    """The fund divided by heads."""

    name = "equal"
    about = "everybody gets its deposit back"

    def settle(self, books, *, audits, rng):
        return Settled(books.pay_by_points(dict.fromkeys(books.members, 1)))
'''
