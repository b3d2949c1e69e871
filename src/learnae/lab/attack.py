"""What an attack is to the laboratory: what a ring of members does instead of being honest.

There are two levels. A ledger attack changes what is reported of one run of section 7; it is quick and free of noise, because the
honest run has the same draws. A protocol attack is played by real peers in the simulator (`lab.bed`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from learnae.lab.books import Receipt
from learnae.lab.swarm import FACTOR_MAX, FACTOR_MIN, LEVEL_MAX, SwarmDraws

Level = Literal["ledger", "protocol"]


class Attack(ABC):
    """One misbehaviour. `name` is what the commands call it, `about` one line for people."""

    name: ClassVar[str]
    about: ClassVar[str]
    level: ClassVar[Level]
    in_catalogue: ClassVar[bool] = True  # False: known beside the catalogue; shown apart, and not promised to fail


@dataclass(frozen=True, slots=True)
class Situation:
    """What the ring knows: the run, what honest members would report of it, who they are, and a source of randomness."""

    draws: SwarmDraws
    truth: Sequence[Receipt]
    ring: tuple[int, ...]
    rng: Random

    def partner(self, reporter: int) -> int:
        """Another member of the ring; the reporter itself if there is none, which no rule pays for."""
        others = [member for member in self.ring if member != reporter]
        return self.rng.choice(others) if others else reporter

    def plausible_credits(self) -> int:
        """An amount as it comes up honestly: a level of change times a Contribution Factor (section 7)."""
        return self.rng.randint(1, LEVEL_MAX) * self.rng.randint(FACTOR_MIN, FACTOR_MAX)


@dataclass(frozen=True, slots=True)
class Conduct:
    """What came of an attack: all receipts of the session as they are reported, and who plays which part.

    `hired` members joined only for the attack, so their deposits are its cost. `victims` are whom it is aimed at.
    """

    receipts: Sequence[Receipt]
    accusers: frozenset[int] = frozenset()
    hired: frozenset[int] = frozenset()
    victims: frozenset[int] = frozenset()


class LedgerAttack(Attack):
    """An attack on what is reported. It changes receipts that a member of the ring wrote, or was the helper of; never others."""

    level = "ledger"
    is_mixable: ClassVar[bool] = True  # whether a member can follow it in one cycle and another attack in the next

    @abstractmethod
    def act(self, situation: Situation) -> Conduct:
        """What is reported if the ring does this in every cycle."""
