"""What a member does in each stage of the session's DAO (Fig. 5): join, claim, vote, tally, release.

Everything is derived from the chain's own view, so a restart at any point goes on where the chain stands, and calls that
anybody may make (tally, release) are made by the next member if the first one is gone. One transaction at a time.
Pure. Source: paper 6, Fig. 5; docs/contracts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import Address, PeerId
from learnae.protocol.calls import (
    Call,
    CastBallot,
    ChainView,
    Claim,
    DeployPoid,
    Join,
    Member,
    Release,
    Stage,
    SubmitClaim,
    Tally,
    Withdraw,
)
from learnae.protocol.deadlines import Deadlines, compute_deadlines
from learnae.protocol.identity import Membership
from learnae.protocol.known import Known
from learnae.protocol.rewards import REWARD_RULES, Rows
from learnae.protocol.rules import SessionRules
from learnae.tangle import cbor

KNOWN_BY_PERMILLE: Final = 300  # Of the claiming stage: what a member knew by then, every claim must be computed from.
CLAIM_BY_PERMILLE: Final = 600  # Of the claiming stage: by then a member claims, also if somebody's log is not closed.
TURN_S: Final = 2.0  # Calls that anybody may make are made by the member whose turn it is; each waits this long for the one before.
"""Longer where a block takes longer (`Settlement.turn_s`): of two members that send the same, both pay."""
TURNS_MAX: Final = 10  # With many members the turns of the later ones coincide: nobody waits longer than ten turns.
RETRY_S: Final = 2.0
RETRY_MAX_S: Final = 30.0
RELEASE_WALLETS_MAX: Final = 100  # A push of 100 payouts stays far below the gas limit of a transaction.

CATCH_UP_PERMILLE: Final = 100  # Of either stage: who comes back late first hears what it missed; a claim without it would be rejected.
OWN_BY_PERMILLE: Final = 800  # Of either stage: whose claim or ballot no relayer brought to the chain by then sends its own transaction.
VOTE_BY_PERMILLE: Final = 600  # Of the voting stage: by then a member votes, also if a claim's evidence never came.

Points = Mapping[PeerId, int]


def compute_expected_points(rules: SessionRules, rows: Rows, membership: Membership) -> dict[PeerId, int]:
    """What each member may claim: the session's reward rule on the ledger; the same numbers on every honest peer."""
    return REWARD_RULES[rules.reward_rule](rows, sorted(membership.peers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """This peer's ledger as settlement needs it; what takes work is a function, called only when something follows from it."""

    read_rows: Callable[[], Rows]
    is_closed: Callable[[], bool]  # whether every member's log is closed and complete here
    evidence: bytes  # 32 bytes: the digest of this peer's newest checkpoint, from which its claim follows
    lacks_evidence: Callable[[], bool]  # whether some claim commits a checkpoint that is not here yet
    read_claimed: Callable[[Claim], Rows | None] = lambda claim: None  # the ledger that a claim commits; None: not acceptable
    compute_points: Callable[[SessionRules, Rows, Membership], Points] = compute_expected_points


def keep_poid(record: bytes | None, poid: Address) -> bytes:
    """What `Settlement.encode` made, if anything, with the own proof of identity that an interrupted peer deployed."""
    _, *others = (None, None, None, None) if record is None else cbor.decode(record)
    return cbor.encode([poid, *others])


def compute_nays(
    claims: tuple[Claim, ...],
    membership: Membership,
    accepted: tuple[Points, ...],
    committed: Callable[[Claim], Points | None],
    *,
    me: int,
    members: int,
) -> tuple[int, ...]:
    """The claims to vote against (section 6): those that follow neither from this peer's ledger nor from the one that they commit.

    Args:
        accepted: expected points by the ledger when claims were due and by the ledger now.
        committed: expected points by the ledger that a claim commits as its evidence. A member that reports help after the others
            claimed changes everybody's ledger; it must not make the honest claims before it wrong.
        me: own index; nobody votes on its own claim.
        members: how many joined; a ballot holds at most floor((members - 1) / 2) nays, so the worst excess goes first.
    """
    peer_of = {member.index: peer for peer, member in membership.by_peer.items()}
    wrong = []
    for claim in claims:
        expected = [points.get(peer_of[claim.index], 0) if claim.index in peer_of else 0 for points in accepted]
        if claim.index == me or claim.points in expected:
            continue
        points = committed(claim) if claim.index in peer_of else None
        if points is None or points.get(peer_of[claim.index], 0) != claim.points:
            wrong.append((max(expected) - claim.points, claim.index))
    budget = (members - 1) // 2
    return tuple(sorted(index for _, index in sorted(wrong)[:budget]))


@dataclass(slots=True)
class Settlement:
    """One member's part in the contract's life. `step` says which call to make now, if any."""

    rules: SessionRules
    me: PeerId
    poid: Address | None = None  # own proof of identity, once deployed
    snapshot: dict[PeerId, int] | None = None  # expected points when this peer's claim was due
    ballot: tuple[int, ...] | None = None  # the claims that this peer votes against, once it decided: it never signs another ballot
    least: Known | None = None  # what every claim must be computed from: known when all rows were closed, or late in the claiming stage
    pending: bool = False
    failures: int = 0
    retry_at_s: float = 0.0
    turn_s: float = TURN_S
    deadlines: Deadlines = field(init=False)  # as the chain had them when it was read last
    _stage_since: dict[Stage, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deadlines = compute_deadlines(self.rules, None)

    def step(self, view: ChainView, membership: Membership, books: Books | None, *, now_s: float) -> Call | None:
        """The next call, or None. `books` are needed while claiming and voting; `now_s` estimates the newest block's time."""
        since_s = self._stage_since.setdefault(view.stage, now_s)
        member = membership.by_peer.get(self.me)
        if self.pending or now_s < self.retry_at_s:
            return None
        match view.stage:
            case Stage.FUNDING:
                return self._join(member)
            case Stage.CLAIMING if member and books:
                return self._claim(view, member, membership, books, now_s)
            case Stage.VOTING if member and books:
                return self._vote(view, member, membership, books, now_s)
            case Stage.SETTLING if member:
                return Tally() if now_s - since_s >= self._turn_s(member) else None
            case Stage.RELEASED | Stage.REFUNDED if member:
                return self._collect(view, member, waited_s=now_s - since_s)
            case _:
                return None

    def _join(self, member: Member | None) -> Call | None:
        if member is not None:
            return None
        return DeployPoid() if self.poid is None else Join(self.poid)

    def is_claim_due(self, books: Books, now_s: float) -> bool:
        """Whether the ledger is as it will be claimed by: all logs are closed, or it is time to claim without the others."""
        return books.is_closed() or self._is_late(Stage.CLAIMING, CLAIM_BY_PERMILLE, now_s)

    def _is_late(self, stage: Stage, permille: int, now_s: float) -> bool:
        """Whether so much of a stage is over, and this peer has followed the chain for a part of it."""
        from_s, to_s = self.deadlines.compute_span(stage)
        heard_s = self._stage_since.get(stage, now_s) + (to_s - from_s) * CATCH_UP_PERMILLE / 1000
        return now_s >= max(heard_s, self.deadlines.compute_part_s(stage, permille))

    def needs_seal(self, view: ChainView, membership: Membership, books: Books, *, now_s: float) -> bool:
        """Whether the checkpoint that the claim will commit must be said now, right before the claim is computed."""
        may_claim = view.stage is Stage.CLAIMING and self.me in membership.by_peer and self.rules.reward_mode == "dao"
        free = not self.pending and now_s >= self.retry_at_s
        return may_claim and free and self.snapshot is None and self.is_claim_due(books, now_s)

    def _claim(self, view: ChainView, member: Member, membership: Membership, books: Books, now_s: float) -> Call | None:
        rules = self.rules
        if self.snapshot is None:
            if not self.is_claim_due(books, now_s):
                return None
            self.snapshot = dict(books.compute_points(rules, books.read_rows(), membership))
        points = self.snapshot.get(self.me, 0)
        if points == 0 or rules.reward_mode != "dao" or any(claim.index == member.index for claim in view.claims):
            return None
        return SubmitClaim(points, books.evidence)

    def _vote(self, view: ChainView, member: Member, membership: Membership, books: Books, now_s: float) -> Call | None:
        rules = self.rules
        if member.index in view.ballots or not view.claims:
            return None
        if self.ballot is not None:
            return CastBallot(self.ballot)
        if not self._is_late(Stage.VOTING, VOTE_BY_PERMILLE, now_s) and books.lacks_evidence():
            return None
        now = books.compute_points(rules, books.read_rows(), membership)
        accepted = (now,) if self.snapshot is None else (self.snapshot, now)

        def committed(claim: Claim) -> Points | None:
            claimed = books.read_claimed(claim)
            return None if claimed is None else books.compute_points(rules, claimed, membership)

        self.ballot = compute_nays(view.claims, membership, accepted, committed, me=member.index, members=len(view.members))
        return CastBallot(self.ballot)

    def compute_own_due_s(self, stage: Stage) -> float:
        """When a member sends its claim or ballot itself, because relayers did not."""
        return self.deadlines.compute_part_s(stage, OWN_BY_PERMILLE)

    def _collect(self, view: ChainView, member: Member, *, waited_s: float) -> Call | None:
        due = {wallet for wallet, amount in (view.due_wei or {}).items() if amount > 0}
        if not due:
            return None
        turn_s = self._turn_s(member)
        # A push that left my own money there failed for me: pull it.
        if member.wallet in due and waited_s >= turn_s + self.turn_s * 2:
            return Withdraw()
        if waited_s >= turn_s:
            wallets = sorted(due)[:RELEASE_WALLETS_MAX]
            return Release(tuple(wallets))
        return None

    def _turn_s(self, member: Member) -> float:
        return self.turn_s * min(member.index, TURNS_MAX)

    def is_over(self, view: ChainView, membership: Membership) -> bool:
        """Whether nothing is left to do for this member: released or refunded, and its own money is out."""
        member = membership.by_peer.get(self.me)
        if view.stage not in (Stage.RELEASED, Stage.REFUNDED) or self.pending:
            return False
        return member is None or (view.due_wei or {}).get(member.wallet, 0) == 0

    def submitted(self) -> None:
        self.pending = True

    def confirmed(self) -> None:
        self.pending, self.failures = False, 0

    def failed(self, *, now_s: float) -> None:
        """Try again later; each failure doubles the pause."""
        self.pending = False
        self.failures += 1
        self.retry_at_s = now_s + min(RETRY_MAX_S, RETRY_S * 2 ** (self.failures - 1))

    # --- what survives a restart ----------------------------------------------------------------------------

    def encode(self) -> bytes:
        snapshot = None if self.snapshot is None else [[peer, points] for peer, points in sorted(self.snapshot.items())]
        ballot = None if self.ballot is None else list(self.ballot)
        return cbor.encode([self.poid, snapshot, ballot, None if self.least is None else self.least.encode()])

    def restore(self, record: bytes) -> None:
        self.poid, snapshot, ballot, *known = cbor.decode(record)
        self.least = Known.decode(known[0]) if known and known[0] is not None else None  # Older records have none.
        self.ballot = None if ballot is None else tuple(ballot)
        self.snapshot = None if snapshot is None else {PeerId(peer): points for peer, points in snapshot}
