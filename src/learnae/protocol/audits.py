"""Audits of receipts: what is drawn, who looks at it, and when a row of the ledger is frozen because of what they found.

After the rows are closed a random beacon of the chain, which nobody could know before, draws receipts of every row, the larger the
likelier, and jurors for each of them. A juror repeats the measurement from the models and the opened validation set and
publishes an `AuditVerdict`. If a juror accuses, every member looks. A row is frozen when more than half of the members, without the
reporter and the helper, accuse the same receipt; a frozen row counts as a silent one. If more than half find that the receipt is a lie,
the liar's claim is void as well.

Pure functions of what is in the lane, so that the same vertices freeze the same rows on every peer.
Source: docs/audits.md; paper 6 and 8 (what one gains by false reports); deviation D14.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.calls import SessionTerms
from learnae.protocol.messages import AuditVerdict, Checkpoint, Finding, HelpReported, ValidationCommitted

BEACON_PERMILLE: Final = 200  # Of the claiming stage: the first block from then on is the beacon; rows must be closed before.
SETTLED_BY_PERMILLE: Final = 500  # Of the claiming stage: every claim must heed the accusations that were known by then.
JURORS: Final = 3  # With 30 % of the members dishonest, 97 % of the drawn receipts have an honest juror.
TOLERANCE_PARTS: Final = 200  # Other machines may count one example in so many differently: floats tie and round otherwise.
VALIDATION_BYTES_MAX: Final = 64 << 20  # Of a file of validation examples; a stranger's larger one is not fetched.
LIES: Final = frozenset({Finding.WRONG_COUNTS, Finding.NOT_DERIVED})
"""What can only be found if the reporter opened its files, and they show that a receipt is false."""
ACCUSATIONS: Final = LIES | {Finding.UNAVAILABLE, Finding.LATE}
_DOMAIN: Final = b"learnae audit 1\n"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A receipt that the beacon drew, and who looks at it first."""

    receipt: Cid
    jurors: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class AuditedReceipt:
    """A receipt as an audit needs it."""

    cid: Cid
    reporter: PeerId
    message: HelpReported
    remote: Cid  # the helper's announced model

    @property
    def models(self) -> tuple[Cid, Cid, Cid]:
        """The models that its reporter keeps until the audits are over: before, after, and the helper's."""
        return self.message.before, self.message.after, self.remote


@dataclass(slots=True)
class _Case:
    """What the members found of one subject: a receipt, or the checkpoint that closed a row."""

    reporter: PeerId
    helper: PeerId | None
    findings: dict[PeerId, tuple[int, Finding]] = field(default_factory=dict)  # auditor -> number of its verdict, what it says

    def may_judge(self, member: PeerId) -> bool:
        return member not in (self.reporter, self.helper)


class AuditBook:
    """All receipts that can be drawn and all verdicts, as far as this peer has heard. Grows with the lane."""

    def __init__(self) -> None:
        self.receipts: dict[PeerId, list[AuditedReceipt]] = {}
        self._cases: dict[Cid, _Case] = {}
        self._commitments: dict[PeerId, ValidationCommitted] = {}

    def add_commitment(self, issuer: PeerId, commitment: ValidationCommitted) -> None:
        """Take what an issuer commits; only the first counts."""
        self._commitments.setdefault(issuer, commitment)

    def find_commitment(self, issuer: PeerId) -> ValidationCommitted | None:
        return self._commitments.get(issuer)

    def add_receipt(self, receipt: AuditedReceipt) -> None:
        self.receipts.setdefault(receipt.reporter, []).append(receipt)

    def add_verdict(
        self, auditor: PeerId, sequence: int, verdict: AuditVerdict, *, issuer: PeerId, subject: HelpReported | Checkpoint
    ) -> None:
        """Take a verdict of one auditor's log; of several on one subject the first counts. `issuer` is the subject's."""
        helper = subject.helper if isinstance(subject, HelpReported) else None
        case = self._cases.setdefault(verdict.subject, _Case(issuer, helper))
        case.findings.setdefault(auditor, (sequence, verdict.finding))

    def has_verdict(self, auditor: PeerId, subject: Cid) -> bool:
        case = self._cases.get(subject)
        return case is not None and auditor in case.findings

    def is_accused_by(self, subject: Cid, auditors: Collection[PeerId]) -> bool:
        """Whether one of these auditors accuses the subject."""
        case = self._cases.get(subject)
        return case is not None and any(case.findings.get(a, (0, Finding.UPHELD))[1] is not Finding.UPHELD for a in auditors)

    def is_decided(self, drawn: Drawn, reporter: PeerId, helper: PeerId, members: Collection[PeerId]) -> bool:
        """Whether nothing more is awaited: all jurors uphold, or more than half of all have said the same."""
        case = self._cases.get(drawn.receipt)
        if case is None:
            return not drawn.jurors
        if all(juror in case.findings for juror in drawn.jurors) and not self.is_accused_by(drawn.receipt, drawn.jurors):
            return True
        eligible = [member for member in members if member not in (reporter, helper)]
        said = [case.findings[member][1] is Finding.UPHELD for member in eligible if member in case.findings]
        return max(sum(said), len(said) - sum(said)) * 2 > len(eligible) or len(said) == len(eligible)

    def compute_accused(self) -> dict[PeerId, int]:
        """For each auditor that accuses somebody, the highest number of such a verdict: what a claim must have heeded."""
        newest: dict[PeerId, int] = {}
        for case in self._cases.values():
            for auditor, (sequence, finding) in case.findings.items():
                if finding is not Finding.UPHELD:
                    newest[auditor] = max(sequence, newest.get(auditor, 0))
        return newest

    def compute_frozen(
        self, members: frozenset[PeerId], counted: Callable[[PeerId], int], *, findings: Collection[Finding] = ACCUSATIONS
    ) -> frozenset[PeerId]:
        """The reporters of whom more than half of the other members accuse one and the same subject.

        Args:
            counted: up to which number an auditor's log counts.
            findings: what counts as an accusation: any, or only `LIES`.
        """
        frozen = set()
        for case in self._cases.values():
            eligible = sum(map(case.may_judge, members))
            accusers = sum(
                finding in findings and sequence <= counted(auditor) and auditor in members and case.may_judge(auditor)
                for auditor, (sequence, finding) in case.findings.items()
            )
            if accusers * 2 > eligible:
                frozen.add(case.reporter)
        return frozenset(frozen)


def compute_beacon_s(terms: SessionTerms, training_ends_s: int) -> int:
    """The time from which on the first block is the beacon, Unix seconds.

    Args:
        training_ends_s: when TRAINING ends now; governance may have put it off. The part of CLAIMING that follows is as agreed at genesis.
    """
    return training_ends_s + (terms.claiming_ends_s - terms.training_ends_s) * BEACON_PERMILLE // 1000


def draw_receipts(
    beacon: bytes, receipts: Sequence[AuditedReceipt], members: Collection[PeerId], *, permille: int
) -> list[Drawn]:
    """The receipts of one row that are audited: so many points, at random, on the line of its credits; at least one.

    The larger a receipt the likelier it is drawn, so that nothing is gained by hiding one large lie among many small truths.

    Args:
        beacon: 32 bytes that nobody could know when the row was closed.
        receipts: the whole row, in the order of its issuer's log.
        members: of whom the jurors are drawn.
        permille: how many of a thousand receipts are drawn, rounded up.
    """
    if not receipts or permille == 0:
        return []
    ends = list(accumulate(max(1, receipt.message.credits) for receipt in receipts))
    points = -(-len(receipts) * permille // 1000)
    reporter = receipts[0].reporter
    chosen = {bisect_right(ends, _draw(beacon, reporter + number.to_bytes(4, "big")) % ends[-1]) for number in range(points)}
    return [Drawn(receipts[index].cid, draw_jurors(beacon, receipts[index], members)) for index in sorted(chosen)]


def draw_jurors(beacon: bytes, receipt: AuditedReceipt, members: Collection[PeerId]) -> tuple[PeerId, ...]:
    """Up to `JURORS` members other than the reporter and the helper, in an order that only the beacon decides."""
    eligible = [member for member in members if member not in (receipt.reporter, receipt.message.helper)]
    return tuple(sorted(eligible, key=lambda member: (_draw(beacon, receipt.cid + member), member))[:JURORS])


def compute_tolerance(total: int) -> int:
    """By how many answers a repeated count may differ from the reported one."""
    return 1 + total // TOLERANCE_PARTS


def judge_counts(message: HelpReported, *, correct_before: int, correct_after: int, total: int, derives: bool) -> Finding:
    """What a repeated measurement says of a receipt."""
    tolerance = compute_tolerance(message.total)
    differs = max(abs(correct_before - message.correct_before), abs(correct_after - message.correct_after)) > tolerance
    if total != message.total or differs:
        return Finding.WRONG_COUNTS
    return Finding.UPHELD if derives else Finding.NOT_DERIVED


def _draw(beacon: bytes, what: bytes) -> int:
    return int.from_bytes(hashlib.sha256(_DOMAIN + beacon + what).digest()[:16], "big")
