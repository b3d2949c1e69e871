"""Shared Contribution Ledger: who helped whom, as far as this peer has heard.

The row of an issuer (its Shared Contribution Vector) is the fold of its HelpReported receipts in the order of its own
log, up to its closing checkpoint. The same set of vertices gives the same ledger on every honest peer, whatever the order of
arrival. An issuer with a fork proof against it is frozen at the common prefix.

Pure. Only receipts that passed `validation` get here. Source: paper, section 6, figures 3 and 4.
Deviation D3: rows are running totals inside a numbered, signed log; the paper has no numbers, so a replay could undo a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from learnae.ids import Cid, Credits, PeerId
from learnae.protocol.messages import Checkpoint, HelpReported, Message
from learnae.protocol.signed import BallotSigned, ClaimSigned


@dataclass(slots=True)
class ContributionVector:
    """One row: what `reporter` owes each helper in total, and how far its log was folded."""

    reporter: PeerId
    sequence: int = 0  # of the last vertex folded
    closing: int = 0  # number of the closing checkpoint, 0 if there is none: nothing after it counts
    credits: dict[PeerId, Credits] = field(default_factory=dict)
    credited: set[Cid] = field(default_factory=set)  # announcements that already earned a receipt from this reporter
    signed: set[type] = field(default_factory=set)  # ClaimSigned, BallotSigned: each is said once

    def fold(self, sequence: int, message: Message) -> None:
        """Take in the reporter's next vertex; vertices come in order, without gaps."""
        self.sequence = sequence
        if isinstance(message, ClaimSigned | BallotSigned):
            self.signed.add(type(message))
        if self.closing:
            return
        if isinstance(message, HelpReported):
            self.credits[message.helper] = message.owed
            self.credited.add(message.announcement)
        elif isinstance(message, Checkpoint) and message.closing:
            self.closing = sequence

    @property
    def closed(self) -> bool:
        return self.closing > 0

    @property
    def counted(self) -> int:
        """The number up to which vertices count in this row."""
        return self.closing or self.sequence


class ContributionLedger:
    """All rows that this peer knows. `value` is the paper's cell: help offered to `reporter` by `helper` (Fig. 4)."""

    def __init__(self) -> None:
        self._rows: dict[PeerId, ContributionVector] = {}
        self._plain: dict[PeerId, dict[PeerId, Credits]] | None = None  # what `rows` gave, until a row changes

    def row(self, reporter: PeerId) -> ContributionVector:
        vector = self._rows.get(reporter)
        return vector if vector is not None else ContributionVector(reporter)

    def fold(self, reporter: PeerId, sequence: int, message: Message) -> None:
        """Take in one vertex of a reporter's log. A number that is folded already changes nothing."""
        vector = self._rows.setdefault(reporter, ContributionVector(reporter))
        if sequence == vector.sequence + 1:
            vector.fold(sequence, message)
            if isinstance(message, HelpReported):
                self._plain = None

    def refold(self, reporter: PeerId, log: Iterable[tuple[int, Message]]) -> None:
        """Build a row anew from a shortened log (the issuer forked)."""
        self._rows[reporter] = ContributionVector(reporter)
        self._plain = None
        for sequence, message in log:
            self.fold(reporter, sequence, message)

    def merge(self, other: Mapping[PeerId, ContributionVector]) -> None:
        """Take over rows that were folded further; idempotent, and the same in any order (Fig. 4)."""
        self._plain = None
        for reporter, vector in other.items():
            if vector.sequence > self.row(reporter).sequence:
                self._rows[reporter] = vector

    def value(self, reporter: PeerId, helper: PeerId) -> Credits:
        return self.row(reporter).credits.get(helper, Credits(0))

    def rows(self) -> dict[PeerId, dict[PeerId, Credits]]:
        """The whole ledger as plain rows, sorted, for the reward rules and for comparing two peers."""
        if self._plain is None:
            self._plain = {r: dict(sorted(v.credits.items())) for r, v in sorted(self._rows.items()) if v.credits}
        return self._plain

    def vectors(self) -> Mapping[PeerId, ContributionVector]:
        return self._rows

    def profile(self, helper: PeerId) -> Credits:
        """What all rows say of one peer: its contribution profile (sections 1 and 6)."""
        return Credits(sum(vector.credits.get(helper, 0) for vector in self._rows.values()))

    def received(self, reporter: PeerId) -> Credits:
        """What a peer says it received from all others."""
        return Credits(sum(self.row(reporter).credits.values()))
