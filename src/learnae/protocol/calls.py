"""What the core and the chain tell one another: contract calls, and what can be read back, as plain values.

Nothing here knows an ABI: `backends.ethereum` translates calls to transactions, and logs and views to these values;
`protocol.fund` is the pure reference model of the contract over the same values. Source: dao.md; paper 4.4, 6, Fig. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from learnae.ids import Address, PeerId, Wei

RELAY_GAS_MAX: Final = 20_000_000
"""Gas that a node spends on others' claims and ballots, if its owner says nothing else: 0.02 ether where a unit costs one gwei."""

_NO_WEI = Wei(0)


class Stage(Enum):
    """Stages of the session's contract (Fig. 5); they only move forward, top to bottom."""

    FUNDING = "funding"  # members join and deposit
    TRAINING = "training"
    CLAIMING = "claiming"
    VOTING = "voting"
    SETTLING = "settling"  # votes are over; counters being tallied
    RELEASED = "released"  # payouts by approved claims
    REFUNDED = "refunded"  # everyone is due its deposit back


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What a session contract fixed at its creation. Times are Unix seconds of block time; amounts are wei."""

    rules_digest: bytes  # SHA-256 digest inside the CID of the SessionRules, 32 bytes
    deposit_wei: Wei
    members_min: int  # creation objective: fewer members at the end of FUNDING means refunds
    members_max: int  # cap; FUNDING does not end early when it is reached
    funding_ends_s: int
    training_ends_s: int
    claiming_ends_s: int
    voting_ends_s: int
    reject_quorum_permille: int  # of all members, for rejecting a claim
    extension_max_s: int = 0  # by which governance may put off the end of the vote in all
    proposal_deposit_wei: Wei = _NO_WEI  # governance: deposit of a proposal, at first (Table 1)
    min_quorum_divisor: int = 5  # governance: d of Eq. 2, at first
    debating_min_s: int = 1  # governance: least time to vote on a proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class PoidRecord:
    """A proof of identity as read from the chain (4.4). `fault` is empty if both signatures and the code are right."""

    contract: Address
    peer_id: PeerId
    wallet: Address
    public_key: bytes  # the wallet's public key, 64 bytes uncompressed without prefix
    timestamp_s: int
    position: tuple[int, int]  # block number and transaction index of the deployment; orders records
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One who paid the deposit; `index` is its order of joining, the column of its claim in ballots."""

    index: int
    wallet: Address
    poid: PoidRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Asked share of the fund: `points` relative to all approved points; `evidence` commits the claimant's log head."""

    index: int  # of the member
    points: int
    evidence: bytes  # 32 bytes


# --- calls: what a peer may ask the chain to do -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeployPoid:
    """Deploy this peer's proof of identity (4.4). The node adds both signatures."""


@dataclass(frozen=True, slots=True)
class Join:
    """Pay the deposit and become a member."""

    poid: Address


@dataclass(frozen=True, slots=True)
class Leave:
    """Take the deposit back; only while the session is FUNDING. The last member takes over the index."""


@dataclass(frozen=True, slots=True)
class SubmitClaim:
    points: int
    evidence: bytes


@dataclass(frozen=True, slots=True)
class CastBallot:
    """One ballot over all claims; `nays` are the member indices whose claims are rejected."""

    nays: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SignedClaim:
    """A claim that its member's wallet signed, so that anybody may send it: EIP-712 in the 64 bytes of EIP-2098."""

    member: Address
    points: int
    evidence: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    """Claims of several members in one transaction; one that the contract would refuse is skipped, the others count."""

    claims: tuple[SignedClaim, ...]


@dataclass(frozen=True, slots=True)
class SignedBallot:
    """A wallet's signature of a ballot whose nays stand beside it (`CastGrouped`): EIP-712 in the 64 bytes of EIP-2098."""

    member: Address
    signature: bytes


@dataclass(frozen=True, slots=True)
class CastGrouped:
    """One ballot that several members signed alike, counted at once; a voter that the contract would refuse is skipped."""

    nays: tuple[int, ...]
    ballots: tuple[SignedBallot, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Count on after the vote; anybody may call it, any number of times."""


@dataclass(frozen=True, slots=True)
class Release:
    """Push what is due to these members; anybody may call it."""

    wallets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Pull what is due to this peer's own wallet."""


@dataclass(frozen=True, slots=True)
class WithdrawTo:
    """Pull what is due to this peer to another wallet, when its own cannot receive."""

    wallet: Address


@dataclass(frozen=True, slots=True)
class PayTip:
    """Pay Eq. 1 directly to a helper (4.3); `receipt` is the CID digest of the HelpReported vertex."""

    helper: Address
    amount_wei: Wei
    receipt: bytes


Signable = SubmitClaim | CastBallot
"""A call that a member can also sign and give to others to send."""

Call = DeployPoid | Join | Leave | SubmitClaim | CastBallot | ClaimBatch | CastGrouped | Tally | Release | Withdraw | WithdrawTo | PayTip


# --- views: what can be read back -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainView:
    """The session as the chain stands at one block; monotone except `time_s`-derived stage and balances."""

    block_number: int
    time_s: int
    stage: Stage
    members: tuple[Member, ...] = ()  # by index; PoIDs that are not valid carry their fault
    claims: tuple[Claim, ...] = ()
    ballots: frozenset[int] = frozenset()  # indices of the members who voted
    nay_counts: Mapping[int, int] | None = None  # per claim index, from VOTING on
    approved: frozenset[int] = frozenset()  # claims approved, known once SETTLING is over
    fund_wei: Wei = _NO_WEI
    paid_wei: Mapping[Address, Wei] | None = None  # what each wallet was paid so far
    due_wei: Mapping[Address, Wei] | None = None  # what each member's wallet is still due (RELEASED, REFUNDED)
    training_ends_s: int = 0  # when TRAINING, CLAIMING and VOTING end now: governance may have put them off,
    claiming_ends_s: int = 0
    voting_ends_s: int = 0  # and a late ballot that reaches the quorum extends the vote once
    newest_s: int = 0  # time of the newest block, which has no confirmations yet; 0: the same as `time_s`
    beacon: bytes | None = None  # hash of the first block after the rows are closed (docs/audits.md); None before
