"""What the members of one session reported, and what is really behind it.

Attacks write books, reward rules settle them. A receipt carries the amount that it claims and the amount that a re-execution of
it gives; no rule sees the second one but through an audit. Integers only; members are numbers 0 to n - 1.
Source: paper, sections 6 and 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from learnae.ids import Credits, PeerId, Wei
from learnae.lab.swarm import DEPOSIT_WEI, SwarmDraws, draw_swarm, name_peers
from learnae.protocol.rewards import Rows, compute_payouts

INVENTED: Final = -(10**9)
"""`Receipt.proven` where no models were averaged at all: there is nothing to repeat, and no tolerance covers it."""


class Receipt(NamedTuple):
    """One report of help. It is false if `credits` is more than what a re-execution gives (`proven`)."""

    cycle: int
    reporter: int
    helper: int
    credits: int
    proven: int


@dataclass(frozen=True)
class Books:
    """All receipts of one session.

    `present` are the members that paid a deposit. `ring` work together: as auditors they vouch for one another. `accusers` are
    auditors that call every receipt of others false. Claims of `rejected` members were voted down. `outsiders` paid a deposit and
    were not admitted: their proof of identity did not hold.
    """

    names: tuple[PeerId, ...]
    receipts: Sequence[Receipt]
    present: tuple[int, ...]
    ring: frozenset[int] = frozenset()
    accusers: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()
    outsiders: frozenset[int] = frozenset()
    deposit_wei: Wei = DEPOSIT_WEI

    @cached_property
    def rows(self) -> Rows:
        """The Shared Contribution Ledger that these receipts fold to."""
        return fold_rows(self.names, self.receipts)

    @cached_property
    def members(self) -> tuple[PeerId, ...]:
        return tuple(self.names[index] for index in self.present if index not in self.outsiders)

    @property
    def fund_wei(self) -> Wei:
        return Wei(self.deposit_wei * len(self.present))

    def pay_by_points(self, points: Mapping[PeerId, int], *, void: Iterable[int] = ()) -> list[Wei]:
        """The fund divided in proportion to points, by member; claims of `void` and of rejected members count nothing.

        If nobody has points, everybody is refunded, as the contract does.
        """
        left_out = {self.names[index] for index in (*void, *self.rejected)}
        approved = {name: point for name, point in points.items() if point > 0 and name not in left_out}
        refunds = {self.names[index]: self.deposit_wei for index in self.present}
        payouts = compute_payouts(self.fund_wei, approved) or refunds
        return [payouts.get(name, Wei(0)) for name in self.names]


def fold_rows(names: Sequence[PeerId], receipts: Iterable[Receipt]) -> dict[PeerId, dict[PeerId, Credits]]:
    """The ledger: running totals by reporter and helper (Fig. 4)."""
    rows: dict[PeerId, dict[PeerId, Credits]] = {name: {} for name in names}
    for _, reporter, helper, credits, _ in receipts:
        row, name = rows[names[reporter]], names[helper]
        row[name] = Credits(row.get(name, 0) + credits)
    return rows


@lru_cache(maxsize=8)
def draw_truth(seed: int, peers: int, cycles: int) -> tuple[SwarmDraws, tuple[Receipt, ...]]:
    """One run of section 7 and the receipts that honest members report of it."""
    draws = draw_swarm(seed, peers=peers, cycles=cycles)
    receipts = tuple(
        Receipt(attempt // peers, attempt % peers, helper, change, change)
        for attempt, (helper, change) in enumerate(zip(draws.helpers, draws.changes, strict=True))
        if change > 0
    )
    return draws, receipts


def open_books(truth: Sequence[Receipt], peers: int, *, without: Iterable[int] = ()) -> Books:
    """The books of a session in which everybody is honest and `without` did not join."""
    absent = frozenset(without)
    receipts = [r for r in truth if r.reporter not in absent and r.helper not in absent] if absent else truth
    return Books(names=name_peers(peers), receipts=receipts, present=tuple(i for i in range(peers) if i not in absent))
