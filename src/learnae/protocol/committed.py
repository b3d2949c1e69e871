"""The ledger that claims are computed from: now, or as it stood at the checkpoint that a claim commits as its evidence.

A member that reports help, or accuses somebody, after the others claimed changes everybody's ledger; it must not make the honest
claims before it wrong. So a claim names a checkpoint, and voters rebuild the ledger from it.
Pure. Source: paper 6; docs/protocol.md, docs/audits.md; deviation D10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from learnae.ids import Cid, PeerId
from learnae.protocol import validation
from learnae.protocol.audits import LIES
from learnae.protocol.contribution import ContributionVector, ReceiptFold
from learnae.protocol.known import Known
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import HEADS_MAX, Checkpoint, HelpReported, ValidationCommitted
from learnae.protocol.rewards import Rows
from learnae.tangle.store import Entry
from learnae.tangle.verdict import ACCEPTED

Heads = Mapping[PeerId, tuple[int, Cid]]
"""What a checkpoint says of each issuer: the number and the name of its newest vertex."""


def compute_known(lane: ControlLane) -> Known:
    counted = lane.ledger.compute_counted()
    accused = {} if lane.audits is None else lane.audits.compute_accused()
    return Known(counted, frozenset(lane.dag.forks), accused)


def compute_rows(lane: ControlLane) -> Rows:
    """The ledger that counts now: where receipts are audited, without rows that are frozen or not closed, and without liars."""
    rows = lane.ledger.rows()
    if lane.audits is None:
        return rows
    closed = {issuer: row for issuer, row in rows.items() if lane.ledger.is_closed(issuer)}
    return _heed_audits(lane, closed, lane.dag.counted_length)


def compute_rows_at(lane: ControlLane, evidence: Cid, claimant: PeerId, least: Known) -> Rows | None:
    """The ledger that a claim was computed from, rebuilt from the checkpoint that it commits (section 6).

    None if that checkpoint is not the claimant's or not complete here, leaves out what it must have known (`least`), or
    names a branch with a receipt that breaks a rule: branches are not judged when they enter.
    """
    seal = lane.dag.find(evidence)
    sealed = None if seal is None else seal.message
    if seal is None or seal.vertex.issuer != claimant or not isinstance(sealed, Checkpoint):
        return None
    heads = {issuer: (sequence, cid) for issuer, sequence, cid in sealed.heads}
    vectors = {}
    for issuer, row in lane.ledger.vectors().items():
        vector = _read_row(lane, row, heads, least)
        if vector is None:
            return None
        vectors[issuer] = vector
    if lane.audits is None:
        return {issuer: vector.credits for issuer, vector in vectors.items() if vector.credits}
    closed = {issuer: vector.credits for issuer, vector in vectors.items() if vector.credits and vector.closed}
    return _heed_audits(lane, closed, lambda auditor: _count_log(lane, auditor, heads))


def _heed_audits(lane: ControlLane, rows: Rows, counted: Callable[[PeerId], int]) -> Rows:
    """The rows without those that are frozen; whoever was found to lie is not credited by anybody either, so its claim is void."""
    assert lane.audits is not None
    frozen = lane.audits.compute_frozen(lane.members, counted)
    liars = lane.audits.compute_frozen(lane.members, counted, findings=LIES)
    kept = {issuer: row for issuer, row in rows.items() if issuer not in frozen}
    if liars:
        kept = {issuer: {helper: owed for helper, owed in row.items() if helper not in liars} for issuer, row in kept.items()}
    return {issuer: row for issuer, row in kept.items() if row}


def _read_row(lane: ControlLane, row: ContributionVector, heads: Heads, least: Known) -> ContributionVector | None:
    """One row as those heads have it; None if they leave out what they must have known, or a receipt breaks a rule.

    Of a fork that came to light later nobody can name more than the common prefix, whatever was known before.
    """
    issuer = row.reporter
    if not _fits(issuer, heads):
        return row
    sequence, cid = heads.get(issuer, (0, lane.dag.genesis))
    needed = min(max(least.counted.get(issuer, 0), least.accused.get(issuer, 0)), lane.dag.counted_length(issuer))
    if sequence < needed or (sequence and cid not in lane.dag):
        return None
    if sequence >= row.counted and (issuer in least.forked or issuer not in lane.dag.forks):
        return row
    if sequence == 0:
        return ContributionVector(issuer)
    head = lane.dag.find(cid)
    if head is None or (head.vertex.issuer, head.sequence) != (issuer, sequence):
        return None
    return lane.ledger.row_before(head) or _fold_branch(lane, head)


def _fold_branch(lane: ControlLane, head: Entry) -> ContributionVector | None:
    """The row of an issuer along the branch that ends in `head`; None if a receipt in it breaks rule 11."""
    fold = ReceiptFold(head.vertex.issuer)
    commitment: ValidationCommitted | None = None
    for entry in reversed(list(lane.dag.ancestry(head.vertex.cid, vertices_max=head.sequence))):
        message, number = entry.message, 0
        if isinstance(message, ValidationCommitted):
            commitment = commitment or message
        elif isinstance(message, HelpReported):
            announcement = lane.dag.find(message.announcement)
            number = 0 if announcement is None else announcement.number
            owed, credited = fold.credits.get(message.helper, 0), fold.has_credited(number, entry.sequence)
            ruling = validation.validate_help(entry.vertex, message, get=lane.dag.get, owed=owed, credited=credited)
            if ruling is ACCEPTED and lane.audits is not None:
                ruling = validation.validate_measured(message, commitment)
            if ruling is not ACCEPTED:
                return None
        fold.fold(entry.sequence, message, number)
    return fold.at(head.sequence)


def _count_log(lane: ControlLane, issuer: PeerId, heads: Heads) -> int:
    """Up to which number the log of an issuer counts, as far as those heads have heard of it."""
    known = lane.dag.counted_length(issuer)
    return min(known, heads.get(issuer, (0, None))[0]) if _fits(issuer, heads) else known


def _fits(issuer: PeerId, heads: Heads) -> bool:
    """Whether a checkpoint would name the issuer: a full one leaves out those that came last."""
    return len(heads) < HEADS_MAX or issuer in heads
