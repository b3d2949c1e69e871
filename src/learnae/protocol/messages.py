"""The body of every control-lane kind as a frozen type.

Each type turns itself into plain dag-cbor values (`to_body`) and is read back by `parse_message`, which accepts nothing
that the type could not have written. What a message may claim is judged in `protocol.validation`.
Source: paper 4.1 (announcements), 4.4 (PoID), 6 (Shared Contribution Vector); docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

from learnae.ids import PEER_ID_BYTES, Cid, Credits, PeerId, is_cid
from learnae.protocol.rules import ADDRESSES_MAX, is_address
from learnae.protocol.signed import BallotSigned, ClaimSigned, parse_ballot, parse_claim
from learnae.tangle.vertex import DIGEST_BYTES, SIGNATURE_BYTES, Statement

COUNT_MAX: Final = 2**40  # Larger than any count, size or number of examples here; keeps sums inside 64 bits.
HEADS_MAX: Final = 700  # A checkpoint of this many issuers fits into one vertex.
REASON_CHARS_MAX: Final = 200


class Kind(IntEnum):
    """Kinds of the control lane."""

    JOINED = 1
    HASHLIST_PUBLISHED = 2
    DATASLICE_CONSUMED = 3
    MODEL_ANNOUNCED = 4
    HELP_REPORTED = 5
    DEPARTED = 6
    FORK_PROVED = 7
    CHECKPOINT = 8
    CLAIM_SIGNED = 9
    BALLOT_SIGNED = 10
    VALIDATION_COMMITTED = 11
    AUDIT_VERDICT = 12


class Finding(IntEnum):
    """What an auditor says of a receipt, or of the checkpoint that closed a row."""

    UPHELD = 0
    WRONG_COUNTS = 1  # the repeated measurement differs by more than the tolerance, or is impossible
    NOT_DERIVED = 2  # the new model was not made from the old one and the helper's
    UNAVAILABLE = 3  # the reporter did not give the models or the validation slice
    LATE = 4  # the row was closed when the beacon was known already


class Origin(IntEnum):
    """How an announced model came to be."""

    TRAINED = 1
    AVERAGED = 2
    ADOPTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """I am a member: my proof of identity is this contract, and I can be reached here (4.4)."""

    poid: bytes  # contract address, 20 bytes
    addresses: tuple[str, ...]  # multiaddrs

    def to_body(self) -> list[object]:
        return [self.poid, list(self.addresses)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashlistPublished:
    """I share dataslices: their CIDs are listed in this file (4.1)."""

    hashlist: Cid
    slices: int

    def to_body(self) -> list[object]:
        return [self.hashlist, self.slices]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasliceConsumed:
    """I trained on these shared slices once (4.1)."""

    slices: tuple[Cid, ...]

    def to_body(self) -> list[object]:
        return [list(self.slices)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnnounced:
    """I have this model, and on my own validation set it is this good (4.1). A claim until somebody measures it."""

    model: Cid
    size_bytes: int
    correct: int
    total: int
    maturity_cycles: int  # work cycles behind the model
    examples: int  # training examples of the announcer, a hint for choosing and weighting
    origin: Origin
    parents: tuple[Cid, ...] = ()  # the models that it was made from

    @property
    def accuracy_claimed(self) -> float:
        return self.correct / self.total

    def to_body(self) -> list[object]:
        return [
            self.model,
            self.size_bytes,
            self.correct,
            self.total,
            self.maturity_cycles,
            self.examples,
            int(self.origin),
            list(self.parents),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpReported:
    """A receipt: a model of `helper` improved mine. The newest receipts of an issuer are its Shared Contribution Vector (6)."""

    helper: PeerId
    announcement: Cid  # the helper's ModelAnnounced vertex
    before: Cid  # own model before and after
    after: Cid
    correct_before: int
    correct_after: int
    total: int
    credits: Credits  # Eq. 1
    owed: Credits  # running total owed to this helper, this receipt included

    def to_body(self) -> list[object]:
        return [
            self.helper,
            self.announcement,
            self.before,
            self.after,
            self.correct_before,
            self.correct_after,
            self.total,
            self.credits,
            self.owed,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """I leave; others need not wait for me. I may come back."""

    reason: str

    def to_body(self) -> list[object]:
        return [self.reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkProved:
    """Two different vertices of one issuer with one number: what it signed for each, so that everybody can check.

    Two signatures of the same fields are two vertices as well.
    """

    issuer: PeerId
    sequence: int
    first: Statement
    second: Statement

    def to_body(self) -> list[object]:
        first, second = self.first, self.second
        return [self.issuer, self.sequence, first.digest, first.signature, second.digest, second.signature]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What I have folded: per issuer its sequence and vertex. A closing one ends my own row: nothing after it counts (6)."""

    closing: bool
    heads: tuple[tuple[PeerId, int, Cid], ...]  # sorted by issuer

    def to_body(self) -> list[object]:
        return [self.closing, [list(head) for head in self.heads]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationCommitted:
    """My receipts are measured on the examples in this file, which I open to auditors; `total` as in my receipts (docs/audits.md)."""

    slice: Cid
    total: int

    def to_body(self) -> list[object]:
        return [self.total, self.slice]  # Not in the order of a hashlist: no body fits two kinds.


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """I looked at this receipt, or row, and this is what I found; the counts are my own measurement, zeros where there was none."""

    subject: Cid  # the HelpReported vertex; for LATE the closing Checkpoint
    finding: Finding
    correct_before: int = 0
    correct_after: int = 0
    total: int = 0

    def to_body(self) -> list[object]:
        return [self.subject, int(self.finding), self.correct_before, self.correct_after, self.total]


Message = (
    Joined
    | HashlistPublished
    | DatasliceConsumed
    | ModelAnnounced
    | HelpReported
    | Departed
    | ForkProved
    | Checkpoint
    | ValidationCommitted
    | AuditVerdict
    | ClaimSigned
    | BallotSigned
)

KIND_OF: Final[Mapping[type, Kind]] = {
    Joined: Kind.JOINED,
    HashlistPublished: Kind.HASHLIST_PUBLISHED,
    DatasliceConsumed: Kind.DATASLICE_CONSUMED,
    ModelAnnounced: Kind.MODEL_ANNOUNCED,
    HelpReported: Kind.HELP_REPORTED,
    Departed: Kind.DEPARTED,
    ForkProved: Kind.FORK_PROVED,
    Checkpoint: Kind.CHECKPOINT,
    ClaimSigned: Kind.CLAIM_SIGNED,
    BallotSigned: Kind.BALLOT_SIGNED,
    ValidationCommitted: Kind.VALIDATION_COMMITTED,
    AuditVerdict: Kind.AUDIT_VERDICT,
}
_ORIGINS = frozenset(map(int, Origin))
_FINDINGS = frozenset(map(int, Finding))
SLICES_PER_MESSAGE_MAX: Final = 1024  # As many as a training cycle may consume.


def parse_message(kind: int, body: object) -> Message | None:
    """Read a body of the control lane; None if it is not exactly what that kind writes."""
    parse = _PARSERS.get(kind)
    return parse(body) if parse else None


def _parse_joined(body: Any) -> Message | None:
    match body:
        case [bytes() as poid, list() as addresses] if len(poid) == 20 and len(addresses) <= ADDRESSES_MAX:
            if all(map(is_address, addresses)):
                return Joined(poid=poid, addresses=tuple(addresses))
    return None


def _parse_hashlist(body: Any) -> Message | None:
    match body:
        case [hashlist, slices] if is_cid(hashlist) and _is_count(slices, least=1):
            return HashlistPublished(hashlist=hashlist, slices=slices)
    return None


def _parse_consumed(body: Any) -> Message | None:
    match body:
        case [list() as slices] if 1 <= len(slices) <= SLICES_PER_MESSAGE_MAX and all(map(is_cid, slices)):
            if len(set(slices)) < len(slices):
                return None  # Once per cycle: otherwise one message could use a slice up for everybody.
            return DatasliceConsumed(slices=tuple(slices))
    return None


def _parse_announced(body: Any) -> Message | None:
    match body:
        case [model, size, correct, total, maturity, examples, origin, list() as parents]:
            counts = all(map(_is_count, (size, correct, total, maturity, examples)))
            known = type(origin) is int and origin in _ORIGINS
            if counts and known and is_cid(model) and len(parents) <= 2 and all(map(is_cid, parents)):
                return ModelAnnounced(
                    model=model,
                    size_bytes=size,
                    correct=correct,
                    total=total,
                    maturity_cycles=maturity,
                    examples=examples,
                    origin=Origin(origin),
                    parents=tuple(parents),
                )
    return None


def _parse_help(body: Any) -> Message | None:
    match body:
        case [bytes() as helper, announcement, before, after, *counts] if len(counts) == 5:
            if len(helper) == PEER_ID_BYTES and all(map(is_cid, (announcement, before, after))) and all(map(_is_count, counts)):
                correct_before, correct_after, total, credits, owed = counts
                return HelpReported(
                    helper=PeerId(helper),
                    announcement=announcement,
                    before=before,
                    after=after,
                    correct_before=correct_before,
                    correct_after=correct_after,
                    total=total,
                    credits=credits,
                    owed=owed,
                )
    return None


def _parse_departed(body: Any) -> Message | None:
    match body:
        case [str() as reason] if len(reason) <= REASON_CHARS_MAX and reason.isprintable():
            return Departed(reason=reason)
    return None


def _parse_fork(body: Any) -> Message | None:
    match body:
        case [bytes() as issuer, sequence, bytes() as d1, bytes() as s1, bytes() as d2, bytes() as s2]:
            sizes = len(issuer) == PEER_ID_BYTES and len(d1) == len(d2) == DIGEST_BYTES and len(s1) == len(s2) == SIGNATURE_BYTES
            if sizes and (d1, s1) != (d2, s2) and _is_count(sequence, least=1):
                first, second = Statement(digest=d1, signature=s1), Statement(digest=d2, signature=s2)
                return ForkProved(issuer=PeerId(issuer), sequence=sequence, first=first, second=second)
    return None


def _parse_checkpoint(body: Any) -> Message | None:
    match body:
        case [bool() as closing, list() as heads] if len(heads) <= HEADS_MAX:
            parsed = []
            for head in heads:
                match head:
                    case [bytes() as issuer, sequence, cid] if (
                        len(issuer) == PEER_ID_BYTES and _is_count(sequence, least=1) and is_cid(cid)
                    ):
                        parsed.append((PeerId(issuer), sequence, cid))
                    case _:
                        return None
            issuers = [head[0] for head in parsed]
            if all(a < b for a, b in pairwise(issuers)):
                return Checkpoint(closing=closing, heads=tuple(parsed))
    return None


def _parse_commitment(body: Any) -> Message | None:
    match body:
        case [total, slice_cid] if is_cid(slice_cid) and _is_count(total, least=1):
            return ValidationCommitted(slice=slice_cid, total=total)
    return None


def _parse_verdict(body: Any) -> Message | None:
    match body:
        case [subject, finding, *counts] if is_cid(subject) and type(finding) is int and finding in _FINDINGS:
            if len(counts) == 3 and all(map(_is_count, counts)):
                before, after, total = counts
                return AuditVerdict(subject=subject, finding=Finding(finding), correct_before=before, correct_after=after, total=total)
    return None


def _is_count(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value <= COUNT_MAX


_PARSERS: Mapping[int, Callable[[Any], Message | None]] = {
    Kind.JOINED: _parse_joined,
    Kind.HASHLIST_PUBLISHED: _parse_hashlist,
    Kind.DATASLICE_CONSUMED: _parse_consumed,
    Kind.MODEL_ANNOUNCED: _parse_announced,
    Kind.HELP_REPORTED: _parse_help,
    Kind.DEPARTED: _parse_departed,
    Kind.FORK_PROVED: _parse_fork,
    Kind.CHECKPOINT: _parse_checkpoint,
    Kind.CLAIM_SIGNED: parse_claim,
    Kind.BALLOT_SIGNED: parse_ballot,
    Kind.VALIDATION_COMMITTED: _parse_commitment,
    Kind.AUDIT_VERDICT: _parse_verdict,
}
