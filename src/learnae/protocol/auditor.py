"""One member's part in the audits: commit the own validation examples, open them to jurors, repeat what others measured.

A small machine beside the work cycle; the worker is free by then, because training is over. One receipt at a time: its four files
are fetched, the measurement repeated, the verdict published. What a file's owner does not give in `TRIES_MAX` tries is unavailable.
Pure. Source: docs/audits.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId, short_name
from learnae.protocol import events as ev
from learnae.protocol.audits import VALIDATION_BYTES_MAX, AuditBook, AuditedReceipt, Drawn, draw_receipts, judge_counts
from learnae.protocol.lane import ControlLane
from learnae.protocol.measures import TaskFacts
from learnae.protocol.messages import AuditVerdict, Finding, HelpReported, Message, ValidationCommitted
from learnae.protocol.rules import SessionRules
from learnae.protocol.validation import compute_model_bytes_max

TRIES_MAX: Final = 4  # About a second apart: the reporter may see the beacon a little later than its jurors.
TRIES_BY_PERMILLE: Final = 350  # Of the claiming stage: from then on two tries are enough, so that the others can still look.
SALT_BYTES: Final = 16

Said = ev.Effect | Message


@dataclass(slots=True)
class _Duty:
    """A receipt that this member looks at. `files`: what is still to be fetched, None while nothing is under way."""

    receipt: AuditedReceipt
    validation: Cid
    tries: int = 0
    files: list[Cid] = field(default_factory=list)


class Auditor:
    """The audits of one session as one member takes part in them. Without audits in the rules every method does nothing."""

    def __init__(self, *, rules: SessionRules, me: PeerId, lane: ControlLane, rng: Random, next_number: Callable[[], int]) -> None:
        self._rules = rules
        self._me = me
        self._lane = lane
        self._rng = rng
        self._next_number = next_number
        self._beacon: bytes | None = None
        self._can_recount = False
        self._storing: int | None = None  # number of the effect that stores the own validation file
        self._commitment: ValidationCommitted | None = None  # own, once it is stored
        self._drawn: dict[PeerId, list[Drawn]] = {}  # of every closed row, once the beacon is known
        self._duties: deque[_Duty] = deque()
        self._taken: set[Cid] = set()  # receipts that are or were a duty
        self._active: _Duty | None = None
        self._number: int | None = None  # of what the active duty waits for
        self._is_open_to_all = False
        self._connected: tuple[PeerId, ...] = ()
        self._is_late = False  # there is no time for several tries any more
        self._was_there = False  # since before the beacon: otherwise this peer cannot tell who was late

    # --- the own validation file ----------------------------------------------------------------------------

    def start(self, facts: TaskFacts | None) -> list[Said]:
        """Store the own validation file, unless an earlier start committed one: receipts are measured on that for ever."""
        book = self._lane.audits
        self._can_recount = facts is not None
        if book is None or facts is None:
            return []
        self._commitment = book.find_commitment(self._me)
        if self._commitment is not None:
            return []
        number = self._storing = self._next_number()
        return [ev.StoreValidation(number, self._rng.randbytes(SALT_BYTES))]

    def introduce(self) -> list[Said]:
        """The own commitment, once, when this peer is a member and may speak."""
        book = self._lane.audits
        if book is None or self._commitment is None or book.find_commitment(self._me) is not None:
            return []
        return [self._commitment]

    def forbids(self, said: Said) -> bool:
        """Whether this is a receipt that would not count: it was not measured on what this peer committed."""
        book = self._lane.audits
        if book is None or not isinstance(said, HelpReported):
            return False
        commitment = book.find_commitment(self._me)
        return commitment is None or commitment.total != said.total

    def keep_models(self, kept: set[Cid]) -> list[Said]:
        """Pin the models of this peer's newest receipt, and remember in `kept` that they stay."""
        book = self._lane.audits
        if book is None or not book.receipts.get(self._me):
            return []
        models = book.receipts[self._me][-1].models
        kept.update(models)
        return [ev.PinFile(cid) for cid in dict.fromkeys(models)]

    # --- once the beacon is known ---------------------------------------------------------------------------

    def step(self, beacon: bytes | None, *, connected: Collection[PeerId], is_late: bool) -> list[Said]:
        """Draw from rows that are closed, open the own file to who must see it, and go on with the next duty.

        Args:
            is_late: `TRIES_BY_PERMILLE` of the claiming stage are over.
        """
        book = self._lane.audits
        if book is None:
            return []
        if beacon is None:
            self._was_there = True
            return []
        self._beacon = beacon
        self._connected = tuple(sorted(connected))
        self._is_late = is_late
        said: list[Said] = []
        for reporter in sorted(self._lane.members):
            if self._lane.ledger.is_closed(reporter):
                said += self._look_at_row(book, reporter, beacon)
        return [*said, *self._go_on()]

    def on_row_closed(self, issuer: PeerId, sequence: int, checkpoint: Cid) -> list[Said]:
        """A row was closed, as far as this member hears now: too late if the beacon is known.

        Only the first closing checkpoint closes a row. Whoever says a thousand more makes nobody answer each of them.
        """
        if self._lane.audits is None or self._beacon is None or not self._was_there or issuer == self._me:
            return []
        if self._lane.ledger.row(issuer).closing != sequence:
            return []
        text = f"the row of {short_name(issuer)} was closed after the beacon: it should not count"
        return [ev.Tell(ev.Topic.DAO, text), AuditVerdict(subject=checkpoint, finding=Finding.LATE)]

    def on_verdict(self, subject: Cid) -> list[Said]:
        """Somebody judged a receipt. If it is an own one and a juror accuses it, everybody may look, and wants to at once."""
        book = self._lane.audits
        drawn = next((drawn for drawn in self._drawn.get(self._me, ()) if drawn.receipt == subject), None)
        is_accused = book is not None and drawn is not None and book.is_accused_by(subject, drawn.jurors)
        return self._open_to_all() if is_accused else []

    def is_settled(self) -> bool:
        """Whether no verdict is awaited any more."""
        book, members = self._lane.audits, self._lane.members
        if book is None:
            return True
        if self._beacon is None:
            return False
        receipts = {receipt.cid: receipt for rows in book.receipts.values() for receipt in rows}
        return all(
            book.is_decided(drawn, reporter, receipts[drawn.receipt].message.helper, members)
            for reporter, row in self._drawn.items()
            for drawn in row
        )

    def _look_at_row(self, book: AuditBook, reporter: PeerId, beacon: bytes) -> list[Said]:
        receipts = {receipt.cid: receipt for receipt in book.receipts.get(reporter, ())}
        said: list[Said] = []
        if reporter not in self._drawn:
            row = draw_receipts(beacon, list(receipts.values()), self._lane.members, permille=self._rules.audit_permille)
            self._drawn[reporter] = row
            if reporter == self._me and self._commitment is not None and row:
                jurors = sorted({juror for drawn in row for juror in drawn.jurors})
                said.append(ev.OpenFile(self._commitment.slice, tuple(jurors)))
        for drawn in self._drawn[reporter]:
            is_accused = book.is_accused_by(drawn.receipt, drawn.jurors)
            if reporter == self._me:
                said += self._open_to_all() if is_accused else []
            elif is_accused or self._me in drawn.jurors:
                self._take_duty(book, receipts[drawn.receipt])
        return said

    def _open_to_all(self) -> list[Said]:
        """Somebody accuses this member: everybody may look."""
        if self._is_open_to_all or self._commitment is None:
            return []
        self._is_open_to_all = True
        text = "a juror accuses one of this peer's receipts; its validation examples are open to all members now, so that they can look"
        others = tuple(sorted(self._lane.members - {self._me}))
        return [ev.Tell(ev.Topic.TROUBLE, text), ev.OpenFile(self._commitment.slice, others)]

    def _take_duty(self, book: AuditBook, receipt: AuditedReceipt) -> None:
        has_part = self._me in (receipt.reporter, receipt.message.helper)
        commitment = book.find_commitment(receipt.reporter)
        if has_part or not self._can_recount or receipt.cid in self._taken or book.has_verdict(self._me, receipt.cid):
            return
        assert commitment is not None, "rule 11d"
        self._taken.add(receipt.cid)
        self._duties.append(_Duty(receipt, commitment.slice))

    # --- one duty at a time ---------------------------------------------------------------------------------

    def _go_on(self) -> list[Said]:
        if self._active is not None or not self._duties:
            return []
        duty = self._active = self._duties.popleft()
        duty.files = [duty.validation, *dict.fromkeys(duty.receipt.models)]
        return self._fetch(duty)

    def _fetch(self, duty: _Duty) -> list[Said]:
        """Ask for the next file, or for the recount when all are here."""
        number = self._number = self._next_number()
        if not duty.files:
            before, after, remote = duty.receipt.models
            return [ev.RecountReceipt(number=number, before=before, after=after, remote=remote, validation=duty.validation)]
        cid = duty.files[0]
        helper = duty.receipt.message.helper
        providers = dict.fromkeys([duty.receipt.reporter, helper, *self._connected])
        is_private = cid == duty.validation
        asked = (duty.receipt.reporter,) if is_private else tuple(peer for peer in providers if peer != self._me)
        bytes_max = VALIDATION_BYTES_MAX if is_private else compute_model_bytes_max(self._rules)
        return [ev.FetchFile(number, cid, asked, bytes_max, public=not is_private)]

    def handle(self, event: ev.Event) -> list[Said] | None:
        """Take an answer; None if it is about something else."""
        number = getattr(event, "number", None)
        if number is None or number not in (self._storing, self._number):
            return None
        match event:
            case ev.ValidationStored(slice=cid, total=total):
                self._commitment = ValidationCommitted(slice=cid, total=total)
                return []
            case ev.LearningFailed(reason=reason) if number == self._storing:
                return [ev.Tell(ev.Topic.TROUBLE, reason)]
        duty = self._active
        assert duty is not None, "only an active duty has asked"
        self._number = None
        match event:
            case ev.FileFetched():
                duty.files.pop(0)
                return self._fetch(duty)
            case ev.ReceiptRecounted(recount=recount):
                counts = {"correct_before": recount.correct_before, "correct_after": recount.correct_after, "total": recount.total}
                finding = judge_counts(duty.receipt.message, **counts, derives=recount.derives)
                return self._say(duty, finding, **counts)
            case ev.LearningFailed(blames_remote=True):
                return self._say(duty, Finding.WRONG_COUNTS)
            case ev.FetchFailed(reason=reason):
                return self._put_off(duty, reason, Finding.UNAVAILABLE)
            case ev.LearningFailed(reason=reason):
                return self._put_off(duty, reason, None)
            case ev.FileLost():
                return self._put_off(duty, "a file was lost again", None)
        raise AssertionError(f"{type(event).__name__} answers nothing that an audit asks for")

    def _put_off(self, duty: _Duty, reason: str, finding: Finding | None) -> list[Said]:
        """Try again later, at the end of the queue; after the last try say so, or nothing if the trouble is our own."""
        self._active = None
        duty.tries += 1
        if duty.tries < (2 if self._is_late else TRIES_MAX):
            self._duties.append(duty)
            return []
        if finding is None:
            return [ev.Tell(ev.Topic.TROUBLE, f"could not audit a receipt of {short_name(duty.receipt.reporter)}: {reason}")]
        return self._say(duty, finding)

    def _say(self, duty: _Duty, finding: Finding, *, correct_before: int = 0, correct_after: int = 0, total: int = 0) -> list[Said]:
        self._active = None
        reporter = short_name(duty.receipt.reporter)
        verdict = AuditVerdict(
            subject=duty.receipt.cid, finding=finding, correct_before=correct_before, correct_after=correct_after, total=total
        )
        what = finding.name.lower().replace("_", " ")
        values = {"event": "audited", "reporter": duty.receipt.reporter, "finding": what}
        return [ev.Tell(ev.Topic.DAO, f"audited a receipt of {reporter}: {what}", values), verdict, *self._go_on()]
