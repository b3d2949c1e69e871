"""Judges of what a control-lane vertex claims, as numbered rules in the order in which they are tried, cheapest first.

Every rule depends only on the vertex, the session's rules and what the vertex itself depends on, never on what else this peer
happens to have heard; so all honest peers reach the same verdict and their ledgers stay equal. Two rules are local and
therefore never reject: the clock (rule 5) and membership (rule 6).
Source: docs/protocol.md, reading order of checks; paper 4.1, 4.4, 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.messages import (
    AuditVerdict,
    Checkpoint,
    DatasliceConsumed,
    Finding,
    ForkProved,
    HashlistPublished,
    HelpReported,
    Message,
    ModelAnnounced,
    ValidationCommitted,
    parse_message,
)
from learnae.protocol.rewards import compute_credits
from learnae.protocol.rules import SessionRules
from learnae.protocol.signed import BallotSigned, ClaimSigned, to_vertex_cid
from learnae.tangle.verdict import ACCEPTED, Ruling, ignore, reject
from learnae.tangle.vertex import Vertex, VertexCodec, verify_statement

TIME_AHEAD_MAX_MS: Final = 120_000  # Ordinary computers' clocks are off by seconds; two minutes forgive a bad one.
VERTEX_RATE_PER_S: Final = 5  # A busy peer issues about two a second.
VERTEX_BURST: Final = 50
HASHLIST_SLICES_MAX: Final = 16_384  # The list of so many CIDs has 576 KiB: it still moves in one fetch.
MODEL_OVERSIZE_PERMILLE: Final = 1020  # A model may be 2 % larger than the session's (longer header, padding).


class ControlCodec(VertexCodec):
    """The codec of the control lane: also reads what a vertex says. The simulator shares one that remembers."""

    def parse(self, vertex: Vertex) -> Message | None:
        """The message of a vertex, None if its body is not one of its kind."""
        return parse_message(vertex.kind, vertex.body)


def compute_model_bytes_max(rules: SessionRules) -> int:
    """The most bytes that a model of this session may have: 2 % over the initial one, and room for a header."""
    return rules.model_bytes * MODEL_OVERSIZE_PERMILLE // 1000 + 1024


def validate_alone(vertex: Vertex, message: Message | None, rules: SessionRules, net: bytes, *, now_ms: int) -> Message | Ruling:
    """Judge a decoded vertex and its parsed message by themselves, without the signature; the message if nothing speaks against it."""
    # 1. It belongs to this session and lane.
    if vertex.net != net:
        return reject("another session or lane")
    # 2. Control-lane vertices carry no tag (tags mark sensor heads, 4.2).
    if vertex.tag:
        return reject("a control vertex with a tag")
    # 3. Its body is what its kind writes.
    if message is None:
        return reject(f"not a body of kind {vertex.kind}")
    # 4. It is not older than the session.
    if vertex.time_ms < rules.starts_s * 1000:
        return reject("older than the session")
    # 5. Its clock is not far ahead of ours. Ours may be the wrong one: nobody is blamed.
    if vertex.time_ms > now_ms + TIME_AHEAD_MAX_MS:
        return ignore("its time is more than two minutes ahead")
    # 6. (issuer admitted: `ControlLane`) 7. What it claims is possible under the rules.
    fault = _find_impossible(message, vertex, rules)
    return reject(fault) if fault else message


def compute_dependencies(message: Message) -> tuple[Cid, ...]:
    """Vertices that a message refers to and that must be known before it can be judged."""
    match message:
        case HelpReported(announcement=announcement):
            return (announcement,)
        case AuditVerdict(subject=subject):
            return (subject,)
    return ()


def validate_place(vertex: Vertex, *, get: Callable[[Cid], Vertex | None], first_ms: int | None) -> Ruling:
    """Judge where a vertex stands, once all that it depends on is known.

    Args:
        get: looks up a known vertex; the genesis gives None.
        first_ms: the time of the issuer's first vertex, None if this is it.
    """
    # 8. It continues its issuer's log by one.
    previous = get(vertex.parents[0])
    if (0 if previous is None else previous.sequence) + 1 != vertex.sequence:
        return reject("its number does not follow its issuer's previous vertex")
    if previous is not None and previous.issuer != vertex.issuer:
        return reject("its first parent is another issuer's")
    # 9. It is later than all that it has seen.
    for cid in vertex.parents:
        parent = get(cid)
        if parent is not None and parent.time_ms >= vertex.time_ms:
            return reject("not later than its parents")
    # 10. Its issuer stays within its budget. By the vertices' own times, so that it holds in gossip and in sync alike.
    if vertex.time_ms < compute_time_allowed_ms(first_ms, vertex.sequence):
        return reject(f"its issuer says more than {VERTEX_RATE_PER_S} things a second")
    return ACCEPTED


def validate_fork(proof: ForkProved, net: bytes) -> Ruling:
    """Rule 12: both statements of a fork proof are signed by the issuer, for this lane and number."""
    for statement in (proof.first, proof.second):
        if not verify_statement(statement, net=net, issuer=proof.issuer, sequence=proof.sequence):
            return reject("a fork proof with a wrong signature")
    return ACCEPTED


def compute_time_allowed_ms(first_ms: int | None, sequence: int) -> int:
    """The earliest time that rule 10 allows for a number of a log that begins at `first_ms`."""
    late = sequence - VERTEX_BURST
    return 0 if first_ms is None or late <= 0 else first_ms - (-late * 1000 // VERTEX_RATE_PER_S)


def _find_impossible(message: Message, vertex: Vertex, rules: SessionRules) -> str:
    """What no state of the world could make right, in words, or an empty string."""
    match message:
        case ModelAnnounced():
            if not 0 <= message.correct <= message.total or message.total == 0:
                return "more correct answers than questions"
            if not 0 < message.size_bytes <= compute_model_bytes_max(rules):
                return f"a model of {message.size_bytes} bytes, the session's has {rules.model_bytes}"
        case HelpReported():
            if message.helper == vertex.issuer:
                return "help from itself"
            if not 0 <= message.correct_before < message.correct_after <= message.total:
                return "not an improvement"
            credits = compute_credits(
                reward_factor=rules.reward_factor,
                correct_before=message.correct_before,
                correct_after=message.correct_after,
                total=message.total,
            )
            if message.credits != credits or credits == 0:
                return f"credits {message.credits}, Eq. 1 gives {credits}"
        case HashlistPublished():
            if message.slices > HASHLIST_SLICES_MAX:
                return f"a hashlist of {message.slices} slices, at most {HASHLIST_SLICES_MAX} are allowed"
        case Checkpoint():
            if len(message.heads) > rules.members_max:
                return f"a checkpoint of {len(message.heads)} logs, the session has at most {rules.members_max} members"
        case ValidationCommitted() | AuditVerdict():
            if not rules.audit_permille:
                return "receipts are not audited in this session"
        case DatasliceConsumed():
            if len(message.slices) > rules.slices_per_cycle:
                return f"{len(message.slices)} slices in one cycle, the session allows {rules.slices_per_cycle}"
        case ClaimSigned() | BallotSigned():
            return _find_wrong_settlement(message, vertex, rules)
        case _:
            pass
    return ""


def _find_wrong_settlement(message: ClaimSigned | BallotSigned, vertex: Vertex, rules: SessionRules) -> str:
    if rules.reward_mode != "dao":
        return f"a claim or a ballot in a session that pays by {rules.reward_mode}"
    claims = isinstance(message, ClaimSigned)
    if vertex.time_ms < 1000 * (rules.training_ends_s if claims else rules.claiming_ends_s):
        return "a claim before training is over" if claims else "a ballot before claiming is over"
    if isinstance(message, BallotSigned):
        if message.nays and message.nays[-1] >= rules.members_max:
            return f"a ballot on claim {message.nays[-1]}, the session has at most {rules.members_max} members"
        if len(message.nays) > (rules.members_max - 1) // 2:
            return f"a ballot with {len(message.nays)} nays, at most half of the other members can be rejected"
    return ""


def validate_help(
    vertex: Vertex, message: HelpReported, *, get: Callable[[Cid], Vertex | None], owed: int, credited: bool
) -> Ruling:
    """Rule 11: judge a receipt against its issuer's row, folded up to the vertex before it.

    Args:
        get: looks up a known vertex.
        owed: what the row owes the helper so far.
        credited: whether the row holds a receipt for this announcement already.
    """
    # 11a. The receipt names a model announcement of the helper, made before the receipt.
    announcement = get(message.announcement)
    announced = None if announcement is None else parse_message(announcement.kind, announcement.body)
    if announcement is None or announcement.issuer != message.helper or not isinstance(announced, ModelAnnounced):
        return reject("its announcement is not a model of the helper")
    if announcement.time_ms >= vertex.time_ms:
        return reject("older than the model that helped")
    # 11b. One announcement earns one receipt of one issuer: credit cannot be printed from a single model.
    if credited:
        return reject("this announcement was credited before")
    # 11c. The running total is the total so far and this receipt: the row is a fold, never an assertion.
    if message.owed != owed + message.credits:
        return reject("the running total does not add up")
    return ACCEPTED


def validate_measured(message: HelpReported, commitment: ValidationCommitted | None) -> Ruling:
    """Rule 11d: where receipts are audited, a receipt was measured on what its issuer committed before it."""
    if commitment is None or commitment.total != message.total:
        return reject("not measured on what its issuer committed for audits")
    return ACCEPTED


def validate_verdict(vertex: Vertex, message: AuditVerdict, *, get: Callable[[Cid], Vertex | None]) -> Ruling:
    """Rule 14: a verdict names a receipt in which its issuer has no part, or, if it says late, the end of another's row."""
    subject = get(message.subject)
    said = None if subject is None else parse_message(subject.kind, subject.body)
    if subject is None or subject.issuer == vertex.issuer:
        return reject("a verdict in an own cause")
    match said:
        case HelpReported(helper=helper) if message.finding is not Finding.LATE:
            return reject("a verdict in an own cause") if helper == vertex.issuer else ACCEPTED
        case Checkpoint(closing=True) if message.finding is Finding.LATE:
            return ACCEPTED
    return reject("a verdict on what cannot be audited")


def validate_signed(
    vertex: Vertex, message: ClaimSigned | BallotSigned, *, get: Callable[[Cid], Vertex | None], signed: bool
) -> Ruling:
    """Rule 13: judge a signed claim or ballot against its issuer's log up to the vertex before it; `signed`: it said one before."""
    # 13a. A member claims once and votes once: the others need keep one of each, and relay one.
    if signed:
        return reject("its issuer signed one before")
    # 13b. A claim commits a checkpoint that its issuer said before it; so whoever has the claim has what it follows from.
    if isinstance(message, ClaimSigned):
        sealed = get(to_vertex_cid(message.evidence))
        if sealed is None or sealed.issuer != vertex.issuer or not isinstance(parse_message(sealed.kind, sealed.body), Checkpoint):
            return reject("its evidence is no checkpoint that its issuer said before")
    return ACCEPTED


def is_of_members(vertex: Vertex, message: Message, members: frozenset[PeerId]) -> Ruling:
    """Rule 6: only members with a valid proof of identity are heard (4.4), and only of members. We may lag behind the chain: IGNORE."""
    if isinstance(message, ForkProved) and message.issuer not in members:
        return ignore("it proves a fork of somebody who is not a member")  # Keys cost nothing: there could be any number of these.
    return ACCEPTED if vertex.issuer in members else ignore("its issuer is not a member")
