"""Shared Contribution Ledger: who helped whom, as far as this peer has heard.

The row of an issuer (its Shared Contribution Vector) is the fold of its HelpReported receipts in the order of its own
log, up to its closing checkpoint. The same set of vertices gives the same ledger on every honest peer, whatever the order of
arrival. An issuer with a fork proof against it is frozen at the common prefix.

A row is folded once for every log, whoever holds it; a peer's ledger reads it as far as that peer knows the log. A receipt stays in
memory as 28 bytes, so a row can be read at any earlier point without its vertices.
Pure. Only receipts that passed `validation` get here. Source: paper, section 6, figures 3 and 4.
Deviation D3: rows are running totals inside a numbered, signed log; the paper has no numbers, so a replay could undo a row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from learnae.ids import Cid, Credits, PeerId
from learnae.protocol.messages import Checkpoint, HelpReported, Message
from learnae.protocol.rewards import Rows
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.tangle.dag import TangleDag
from learnae.tangle.store import Entry, IssuerLog

LEDGERS_MAX: Final = 64  # Kept of a shared store's peers, to compute points once: towards the end all have the same.


@dataclass(frozen=True, slots=True)
class ContributionVector:
    """One row at some point: what `reporter` owes each helper in total, and how far its log was folded."""

    reporter: PeerId
    sequence: int = 0  # of the last vertex folded
    closing: int = 0  # number of the closing checkpoint, 0 if there is none: nothing after it counts
    credits: Mapping[PeerId, Credits] = field(default_factory=dict)  # sorted by helper

    @property
    def closed(self) -> bool:
        return self.closing > 0

    @property
    def counted(self) -> int:
        """The number up to which vertices count in this row."""
        return self.closing or self.sequence


class ReceiptFold:
    """The receipts of one log as they come in, and what they amount to. Columns of numbers, sorted by the announcement's."""

    def __init__(self, reporter: PeerId) -> None:
        self.reporter = reporter
        self.sequence = 0  # of the last vertex folded
        self.closing = 0
        self.credits: dict[PeerId, Credits] = {}  # after all that was folded
        self.signed: dict[type, int] = {}  # ClaimSigned, BallotSigned: each is said once, under this number
        self._announcements = array("Q")  # numbers of the announcements that earned a receipt
        self._sequences = array("Q")
        self._helpers = array("I")  # places in `credits`
        self._owed = array("Q")
        self._place: dict[PeerId, int] = {}
        self._last = 0  # sequence of the newest receipt
        self._sorted: dict[PeerId, Credits] | None = None

    def fold(self, sequence: int, message: Message, announcement: int = 0) -> None:
        """Take in the reporter's next vertex; of a receipt also the number of its announcement. Vertices come in order, without gaps."""
        assert sequence == self.sequence + 1, "a row is folded without gaps"
        self.sequence = sequence
        if isinstance(message, ClaimSigned | BallotSigned):
            self.signed.setdefault(type(message), sequence)
        if self.closing:
            return
        if isinstance(message, HelpReported):
            at = bisect_left(self._announcements, announcement)
            self._announcements.insert(at, announcement)
            self._sequences.insert(at, sequence)
            self._helpers.insert(at, self._place.setdefault(message.helper, len(self._place)))
            self._owed.insert(at, message.owed)
            self.credits[message.helper] = message.owed
            self._last, self._sorted = sequence, None
        elif isinstance(message, Checkpoint) and message.closing:
            self.closing = sequence

    def has_credited(self, announcement: int, sequence: int) -> bool:
        """Whether one of the receipts up to that sequence is for the announcement of that number."""
        at = bisect_left(self._announcements, announcement)
        return at < len(self._announcements) and self._announcements[at] == announcement and self._sequences[at] <= sequence

    def at(self, sequence: int) -> ContributionVector:
        """The row after the reporter's vertex of that sequence."""
        sequence = min(sequence, self.sequence)
        closing = self.closing if self.closing <= sequence else 0
        return ContributionVector(self.reporter, sequence, closing, self.credits_at(sequence))

    def credits_at(self, sequence: int) -> Mapping[PeerId, Credits]:
        """What is owed after the reporter's vertex of that sequence, sorted by helper; do not modify."""
        if self._last <= sequence:
            if self._sorted is None:
                self._sorted = dict(sorted(self.credits.items()))
            return self._sorted
        credits: dict[PeerId, Credits] = {}
        helpers = list(self._place)
        for number, helper, owed in zip(self._sequences, self._helpers, self._owed, strict=True):
            if number <= sequence:  # Totals only grow, so the largest up to there is the newest.
                credits[helpers[helper]] = Credits(max(owed, credits.get(helpers[helper], 0)))
        return dict(sorted(credits.items()))

    def cut(self, sequence: int) -> ReceiptFold:
        """A fold of its own that goes on after that sequence, for another branch of the log."""
        other = ReceiptFold(self.reporter)
        other.sequence = min(sequence, self.sequence)
        other.closing = self.closing if self.closing <= sequence else 0
        other.signed = {kind: number for kind, number in self.signed.items() if number <= sequence}
        other._place = dict(self._place)
        helpers = list(self._place)
        for announcement, number, helper, owed in zip(self._announcements, self._sequences, self._helpers, self._owed, strict=True):
            if number <= sequence:
                other._announcements.append(announcement)
                other._sequences.append(number)
                other._helpers.append(helper)
                other._owed.append(owed)
                other.credits[helpers[helper]] = Credits(max(owed, other.credits.get(helpers[helper], 0)))
                other._last = max(number, other._last)
        return other


class ReceiptBook:
    """The folds of all logs of a store. Peers that share the store share it."""

    def __init__(self, *, shared: bool = False) -> None:
        self._folds: dict[IssuerLog, ReceiptFold] = {}
        self._shared = shared
        self._ledgers: dict[tuple[int, ...], Rows] = {}  # the newest ledgers that peers put together, by their rows

    def of(self, log: IssuerLog) -> ReceiptFold:
        fold = self._folds.get(log)
        if fold is None:
            fold = self._folds[log] = ReceiptFold(log.issuer) if log.origin is None else self.of(log.origin).cut(log.parted)
        return fold


    def share(self, rows: Rows) -> Rows:
        """These rows, or the same ones as another peer put them together before: equal ledgers become one object."""
        if not self._shared:
            return rows
        key = tuple(map(id, rows.values()))  # A row's credits are one object as long as no receipt comes, and kept by the ledger.
        known = self._ledgers.setdefault(key, rows)
        if len(self._ledgers) > LEDGERS_MAX:
            del self._ledgers[next(iter(self._ledgers))]
        return known


class ContributionLedger:
    """All rows that this peer knows. `value` is the paper's cell: help offered to `reporter` by `helper` (Fig. 4)."""

    def __init__(self, dag: TangleDag, book: ReceiptBook) -> None:
        self._dag = dag
        self._book = book
        self._open: PeerId | None = None  # a row that was still open
        self._all_closed: Collection[PeerId] | None = None  # reporters whose rows are all closed
        self._plain: Rows = {}
        self._plain_at = (0, 0)  # how many vertices and proofs of forks were known when `_plain` was made

    def row(self, reporter: PeerId) -> ContributionVector:
        log = self._dag.log(reporter)
        return ContributionVector(reporter) if log is None else self._book.of(log).at(self._dag.counted_length(reporter))

    def fold(self, reporter: PeerId, sequence: int, message: Message) -> None:
        """Take in one vertex of a reporter's log, unless another peer did so before."""
        log = self._dag.log(reporter)
        assert log is not None, "a vertex enters the graph first"
        fold = self._book.of(log)
        if sequence == fold.sequence + 1:
            entry = self._dag.find(message.announcement) if isinstance(message, HelpReported) else None
            fold.fold(sequence, message, 0 if entry is None else entry.number)

    def has_credited(self, reporter: PeerId, announcement: Cid) -> bool:
        """Whether the row holds a receipt for this announcement."""
        log, entry = self._dag.log(reporter), self._dag.find(announcement)
        if log is None or entry is None:
            return False
        return self._book.of(log).has_credited(entry.number, self._dag.counted_length(reporter))

    def row_before(self, head: Entry) -> ContributionVector | None:
        """The row as it stood after a vertex of a log that is known here; None if that vertex is on another branch."""
        issuer = head.vertex.issuer
        log = self._dag.log(issuer)
        if log is None or self._dag.number_at(issuer, head.sequence) != head.number or head.sequence > self._dag.counted_length(issuer):
            return None
        return self._book.of(log).at(head.sequence)

    def has_signed(self, reporter: PeerId, kind: type) -> bool:
        """Whether the reporter's log holds its signed claim (`ClaimSigned`) or ballot (`BallotSigned`)."""
        log = self._dag.log(reporter)
        return log is not None and 0 < self._book.of(log).signed.get(kind, 0) <= self._dag.counted_length(reporter)

    def is_closed(self, reporter: PeerId) -> bool:
        log = self._dag.log(reporter)
        return log is not None and 0 < self._book.of(log).closing <= self._dag.counted_length(reporter)

    def are_closed(self, reporters: Collection[PeerId]) -> bool:
        """Whether all these rows are closed, or frozen by a fork. What was closed stays so, hence one open row is looked at first."""
        forks = self._dag.forks
        if self._all_closed is not reporters and (self._open is None or self.is_closed(self._open) or self._open in forks):
            self._open = next((peer for peer in reporters if not self.is_closed(peer) and peer not in forks), None)
            self._all_closed = reporters if self._open is None else None
        return self._all_closed is reporters

    def value(self, reporter: PeerId, helper: PeerId) -> Credits:
        return self.row(reporter).credits.get(helper, Credits(0))

    def rows(self) -> Rows:
        """The whole ledger as plain rows, sorted, for the reward rules and for comparing two peers."""
        now = (len(self._dag), self._dag.proofs)
        if self._plain_at != now:
            self._plain_at = now
            self._plain = self._book.share(self._read_rows())
        return self._plain

    def _read_rows(self) -> dict[PeerId, Mapping[PeerId, Credits]]:
        dag, forks, book = self._dag, self._dag.forks, self._book
        rows = []
        for issuer, log, length in zip(dag.store.issuers, dag.logs, dag.lengths, strict=False):
            if log is not None:
                credits = book.of(log).credits_at(dag.counted_length(issuer) if issuer in forks else length)
                if credits:
                    rows.append((issuer, credits))
        return dict(sorted(rows, key=itemgetter(0)))

    def compute_counted(self) -> dict[PeerId, int]:
        """Up to which number the vertices of every log count in its row."""
        counted = {}
        for reporter in self._dag.have_vector():
            length, log = self._dag.counted_length(reporter), self._dag.log(reporter)
            closing = 0 if log is None else self._book.of(log).closing
            counted[reporter] = closing if 0 < closing <= length else length
        return counted

    def vectors(self) -> dict[PeerId, ContributionVector]:
        return {reporter: self.row(reporter) for reporter in self._dag.have_vector()}

    def profile(self, helper: PeerId) -> Credits:
        """What all rows say of one peer: its contribution profile (sections 1 and 6)."""
        return Credits(sum(row.get(helper, 0) for row in self.rows().values()))

    def received(self, reporter: PeerId) -> Credits:
        """What a peer says it received from all others."""
        return Credits(sum(self.row(reporter).credits.values()))
