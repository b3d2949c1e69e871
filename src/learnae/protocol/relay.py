"""A relayer inside every node: sends the claims and ballots that members signed, many in one transaction (section 6).

Everybody hears them as vertices, and anybody may send them; the contract skips what it would refuse. So that usually one node sends a
group, all nodes order the members alike, by a hash that changes with each group that got on the chain: who is first sends after a
short time of collecting, and each next one takes over when the chain did not move for `PATIENCE`. Nobody is paid for it: turns go
around, a node never spends more gas than its owner allows, and who allows none is passed over. A member that all relayers leave out
sends its own transaction before the stage ends (`DaoMember`).

Pure. Signatures are opaque; the chain's backend drops those that do not hold before they cost anything.
Source: paper 6, Fig. 5; docs/contracts.md, "Relaying". Deviation: not in the paper, where every vote is a transaction of its own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import PeerId
from learnae.protocol.calls import CastGrouped, ChainView, ClaimBatch, SignedBallot, SignedClaim, Stage
from learnae.protocol.deadlines import compute_deadlines
from learnae.protocol.fund import WORD_CLAIMS
from learnae.protocol.identity import Membership
from learnae.protocol.rules import SessionRules
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.tangle import cbor

COLLECT_PERMILLE: Final = 30  # Of the stage: members sign as soon as they see it, almost together.
COLLECT_MIN_S: Final = 1.5  # They look at the chain every second; but never more than a tenth of the stage:
COLLECT_MIN_PERMILLE: Final = 100
PATIENCE_PERMILLE: Final = 50  # Of the stage: ten turns before members send their own.
PATIENCE_MIN_S: Final = 3.0  # A block, and a look at the chain after it, where blocks come every second.
TRIES_MAX: Final = 2  # Of one item by one node; a signature that does not hold is not offered for ever.

# Gas of a group: what its parts cost at most, so that a group stays below 2^24 (EIP-7825) and a budget is never passed. Measured on the
# embedded chain: 17,700 a claim in a group of 250, 9,500 a ballot in one of 400 (`docs/contracts.md`); the rest is margin.
GROUP_GAS: Final = 500_000  # The transaction, and words of 256 members that are written for the first time, 16 at most.
CLAIM_GAS: Final = 25_000
BALLOT_GAS: Final = 15_000
NAY_WORD_GAS: Final = 300_000  # 13 planes of counters of 256 claims, each written for the first time.
CLAIMS_PER_GROUP_MAX: Final = 400
BALLOTS_PER_GROUP_MAX: Final = 600

Group = ClaimBatch | CastGrouped


def compute_group_gas(group: Group) -> int:
    """What a group costs at most."""
    if isinstance(group, ClaimBatch):
        return GROUP_GAS + CLAIM_GAS * len(group.claims)
    return GROUP_GAS + BALLOT_GAS * len(group.ballots) + _compute_nay_gas(group.nays)


def compute_patience_s(length_s: float) -> float:
    """How long each next relayer waits for the one before, in a stage of this length."""
    return max(PATIENCE_MIN_S, length_s * PATIENCE_PERMILLE / 1000)


def _compute_collect_s(length_s: float) -> float:
    return max(min(COLLECT_MIN_S, length_s * COLLECT_MIN_PERMILLE / 1000), length_s * COLLECT_PERMILLE / 1000)


def _compute_nay_gas(nays: tuple[int, ...]) -> int:
    return NAY_WORD_GAS * len({index // WORD_CLAIMS for index in nays})


@dataclass(slots=True)
class _Item:
    """What one member signed, as this node handles it."""

    message: ClaimSigned | BallotSigned
    heard_s: float
    tries: int = 0
    retry_at_s: float = 0.0


@dataclass(slots=True)
class Relay:
    """One node as a relayer. `step` says which group to send now, if any."""

    rules: SessionRules
    me: PeerId
    gas_max: int  # never more is spent on others, own items in the same groups included; 0: this node does not relay
    gas_spent: int = 0
    claims_sent: int = 0  # of others and its own, in groups that are in a block
    ballots_sent: int = 0
    _claims: dict[PeerId, _Item] = field(default_factory=dict)
    _ballots: dict[PeerId, _Item] = field(default_factory=dict)
    _progress: tuple[Stage, int] = (Stage.FUNDING, 0)  # the stage, and how many of its items are on the chain
    _length_s: float = 0.0  # of the stage
    _moved_at_s: float = 0.0  # when the progress changed
    _turn: int | None = None  # this node's place in the order since then, once it was needed
    _done: tuple[Stage, int, int] | None = None  # progress and number of items heard when nothing was left to send

    def hear(self, peer: PeerId, message: ClaimSigned | BallotSigned, *, now_s: float) -> None:
        """Take what a member signed; the first of each kind counts. `now_s`: this node's clock, of which only differences count."""
        kept = self._claims if isinstance(message, ClaimSigned) else self._ballots
        kept.setdefault(peer, _Item(message, now_s))

    def has_signed(self, peer: PeerId, stage: Stage) -> bool:
        """Whether a member's claim or ballot, whichever the stage is for, is among what was heard."""
        return peer in (self._claims if stage is Stage.CLAIMING else self._ballots)

    # --- whose turn, and what to send ---------------------------------------------------------------------------

    def step(self, view: ChainView, membership: Membership, *, expected: int, now_s: float) -> Group | None:
        """The group to send now, or None.

        Args:
            expected: how many claims or ballots this stage can bring; when all that are missing are here, nobody waits for more.
        """
        if view.stage not in (Stage.CLAIMING, Stage.VOTING):
            return None
        from_s, to_s = compute_deadlines(self.rules, view).compute_span(view.stage)
        self._length_s = to_s - from_s
        heard = self._claims if view.stage is Stage.CLAIMING else self._ballots
        there = len(view.claims) if view.stage is Stage.CLAIMING else len(view.ballots)
        if self._progress != (view.stage, there):
            self._progress, self._moved_at_s, self._turn = (view.stage, there), now_s, None
        if self._done == (*self._progress, len(heard)):
            return None  # All that was heard is there: nothing to look through again until something changes.
        waiting = self._find_waiting(view, membership, heard, now_s)
        if not waiting:
            paused = any(now_s < item.retry_at_s and item.tries < TRIES_MAX for item in heard.values())
            self._done = None if paused else (*self._progress, len(heard))
            return None
        if now_s < self._compute_turn_s(membership, waiting, missing=expected - there):
            return None
        return self._build(membership, waiting)

    @staticmethod
    def _find_waiting(view: ChainView, membership: Membership, heard: Mapping[PeerId, _Item], now_s: float) -> dict[PeerId, _Item]:
        """What was heard, could be counted and is not on the chain; not what this node offered a moment ago, or in vain."""
        claimed = {claim.index for claim in view.claims}
        on_chain = claimed if view.stage is Stage.CLAIMING else view.ballots
        waiting = {}
        for peer, item in heard.items():
            member = membership.by_peer.get(peer)
            if member is None or member.index in on_chain or item.tries >= TRIES_MAX or now_s < item.retry_at_s:
                continue
            if isinstance(item.message, BallotSigned) and not _is_countable(item.message.nays, member.index, claimed, len(view.members)):
                continue
            waiting[peer] = item
        return waiting

    def _compute_turn_s(self, membership: Membership, waiting: Mapping[PeerId, _Item], *, missing: int) -> float:
        """When this node's turn comes: the first one's after a time of collecting, unless there is nothing left to wait for."""
        stage, _ = self._progress
        if self._turn is None:
            self._turn = self._compute_turn(membership)
        heard_s = min(item.heard_s for item in waiting.values())
        full = len(waiting) >= min(missing, CLAIMS_PER_GROUP_MAX if stage is Stage.CLAIMING else BALLOTS_PER_GROUP_MAX)
        collect_s = 0.0 if full else _compute_collect_s(self._length_s)
        return max(self._moved_at_s, heard_s + collect_s) + self._turn * compute_patience_s(self._length_s)

    def _compute_turn(self, membership: Membership) -> int:
        """How many members come before this one, in an order that all nodes with this view of the chain share."""
        stage, count = self._progress
        salt = b"learnae relay\n" + self.rules.cid + stage.value.encode() + count.to_bytes(4, "big")
        mine = hashlib.sha256(salt + self.me).digest()
        return sum(hashlib.sha256(salt + peer).digest() < mine for peer in membership.by_peer)

    def _build(self, membership: Membership, waiting: Mapping[PeerId, _Item]) -> Group | None:
        """The largest of the groups that can be counted at once and that the budget allows, members in the order of joining."""
        gas_left = self.gas_max - self.gas_spent - GROUP_GAS
        members = sorted((membership.by_peer[peer] for peer in waiting), key=lambda member: member.index)
        claims: list[SignedClaim] = []
        by_nays: dict[tuple[int, ...], list[SignedBallot]] = defaultdict(list)
        for member in members:
            message = waiting[member.poid.peer_id].message
            if isinstance(message, ClaimSigned):
                claims.append(SignedClaim(member.wallet, message.points, message.evidence, message.signature))
            else:
                by_nays[message.nays].append(SignedBallot(member.wallet, message.signature))
        if claims:
            claims_max = min(CLAIMS_PER_GROUP_MAX, gas_left // CLAIM_GAS)
            return ClaimBatch(tuple(claims[:claims_max])) if claims_max > 0 else None
        for nays in sorted(by_nays, key=lambda nays: (-len(by_nays[nays]), nays)):  # Ballots with nays cost more gas than those without.
            ballots_max = min(BALLOTS_PER_GROUP_MAX, (gas_left - _compute_nay_gas(nays)) // BALLOT_GAS)
            if ballots_max > 0:
                return CastGrouped(nays, tuple(by_nays[nays][:ballots_max]))
        return None

    # --- what became of it --------------------------------------------------------------------------------------

    def submitted(self, group: Group, membership: Membership, *, now_s: float) -> None:
        """The group goes out now: its gas counts from here on, and its items are not sent again before others had their turn."""
        self.gas_spent += compute_group_gas(group)
        sent = {item.member for item in (group.claims if isinstance(group, ClaimBatch) else group.ballots)}
        for peer, item in (self._claims if isinstance(group, ClaimBatch) else self._ballots).items():
            member = membership.by_peer.get(peer)
            if member is not None and member.wallet in sent:
                item.tries += 1
                item.retry_at_s = now_s + 2 * compute_patience_s(self._length_s)

    def answered(self, group: Group, *, gas_used: int, done: bool) -> None:
        """The transaction is in a block, or never will be: what it really cost is known."""
        self.gas_spent += gas_used - compute_group_gas(group)
        if done and isinstance(group, ClaimBatch):
            self.claims_sent += len(group.claims)
        elif done and isinstance(group, CastGrouped):
            self.ballots_sent += len(group.ballots)

    def encode(self) -> bytes:
        """What survives a restart: the gas spent and what for. Items are in the log."""
        return cbor.encode([self.gas_spent, self.claims_sent, self.ballots_sent])

    def restore(self, record: bytes) -> None:
        self.gas_spent, self.claims_sent, self.ballots_sent = cbor.decode(record)


def _is_countable(nays: tuple[int, ...], own: int, claimed: set[int], members: int) -> bool:
    """Whether the contract counts such a ballot of this member: only on claims that were made, never on its own, within the budget."""
    return own not in nays and claimed.issuperset(nays) and len(nays) <= (members - 1) // 2
