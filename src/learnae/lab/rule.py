"""What a reward rule is to the laboratory: from the books of a session to what everybody is paid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from learnae.ids import Wei
from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books


@dataclass(frozen=True, slots=True)
class Settled:
    """What a rule came to: the payout of every member, and whom it froze for a false receipt."""

    payouts_wei: list[Wei]
    frozen: frozenset[int] = frozenset()


class Rule(ABC):
    """One way to pay for help. Subclasses are stateless; `name` is what the commands call it."""

    name: ClassVar[str]
    about: ClassVar[str]
    rank: ClassVar[int] = 100  # tables show rules by rank, then by name

    @abstractmethod
    def settle(self, books: Books, *, audits: AuditTerms, rng: Random) -> Settled:
        """Pay everybody.

        Args:
            books: what was reported. Only an audit may look at what is behind it (`Receipt.proven`, `ring`, `accusers`).
            audits: how receipts are re-executed, for rules that do.
            rng: the public random beacon.
        """
