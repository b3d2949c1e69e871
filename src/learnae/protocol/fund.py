"""The session's contract as a pure reference model: same rules, same integers, same refusals (section 6, Fig. 5).

`contracts/solidity/Session.sol` is what holds money; this says what it must do. Tests run both step by step and compare
everything. The simulator and the memory chain use this one. Amounts are wei; times are Unix seconds of block time.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, Claim, SessionTerms, Signable, SignedBallot, SignedClaim, Stage, SubmitClaim

MEMBERS_MAX: Final = 4095  # As the contract: 16 words of claims, and counts of 12 bits.
DEPOSIT_WEI_MAX: Final = 2**112 - 1
DURATION_S_MAX: Final = 1000 * 86400
POINTS_MAX: Final = 2**64 - 1
QUORUM_DIVISOR_MIN: Final = 2  # d of Eq. 2: more than five sixths of all tokens are never needed,
QUORUM_DIVISOR_MAX: Final = 10  # and a tenth always is.
DEBATING_S_MAX: Final = 56 * 86400
WORD_CLAIMS: Final = 256  # Claims that the contract counts at once.

IsSigned = Callable[[Address, Signable, bytes], bool]
"""Whether this wallet signed this claim or ballot for this session."""


class FundError(Exception):
    """The contract would refuse this; `reason` is the name of its error. Nothing changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Seat:
    """One member's state, by its index."""

    wallet: Address
    poid: Address
    claim: Claim | None = None
    voted: bool = False
    nays: int = 0
    rejected: bool = False
    paid: bool = False


def validate_terms(terms: SessionTerms, now_s: int) -> None:
    """Refuse terms that the contract's constructor refuses. Raises: FundError."""
    times = (now_s, terms.funding_ends_s, terms.training_ends_s, terms.claiming_ends_s, terms.voting_ends_s)
    if (
        not 0 < terms.deposit_wei <= DEPOSIT_WEI_MAX
        or not 0 < terms.members_min <= terms.members_max <= MEMBERS_MAX
        or not 0 <= terms.reject_quorum_permille <= 1000
        or any(later <= earlier for earlier, later in pairwise(times))
        or not 0 <= terms.extension_max_s <= now_s + DURATION_S_MAX - terms.voting_ends_s
        or not 0 <= terms.proposal_deposit_wei <= terms.deposit_wei
        or not QUORUM_DIVISOR_MIN <= terms.min_quorum_divisor <= QUORUM_DIVISOR_MAX
        or not 1 <= terms.debating_min_s <= DEBATING_S_MAX
    ):
        raise FundError("BadTerms")


@dataclass(slots=True)
class SessionFund:
    """The contract's state. Methods are its functions: the caller's wallet first, the block's time last."""

    terms: SessionTerms
    seats: list[Seat] = field(default_factory=list)
    ballots: int = 0
    claims: int = 0
    tallied_words: int = 0
    points: int = 0  # of all claims; after the tally of the approved ones
    training_ends_s: int = 0
    claiming_ends_s: int = 0
    voting_ends_s: int = 0
    index_of: dict[Address, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.training_ends_s = self.training_ends_s or self.terms.training_ends_s
        self.claiming_ends_s = self.claiming_ends_s or self.terms.claiming_ends_s
        self.voting_ends_s = self.voting_ends_s or self.terms.voting_ends_s

    # --- what anybody may read ----------------------------------------------------------------------------------

    @property
    def fund_wei(self) -> Wei:
        return Wei(self.terms.deposit_wei * len(self.seats))

    @property
    def words(self) -> int:
        return -(-len(self.seats) // WORD_CLAIMS)

    def compute_stage(self, now_s: int) -> Stage:
        """The stage: a pure function of time, members and tally."""
        if now_s < self.terms.funding_ends_s:
            return Stage.FUNDING
        if len(self.seats) < self.terms.members_min:
            return Stage.REFUNDED
        if now_s < self.training_ends_s:
            return Stage.TRAINING
        if now_s < self.claiming_ends_s:
            return Stage.CLAIMING
        if now_s < self.voting_ends_s:
            return Stage.VOTING
        if not self.claims or not self.ballots:
            return Stage.REFUNDED
        if self.tallied_words < self.words:
            return Stage.SETTLING
        return Stage.RELEASED if self.points else Stage.REFUNDED

    def compute_quorum(self) -> int:
        """Members that make rejecting possible: ceil(quorum * members), at least one."""
        return max(1, -(-len(self.seats) * self.terms.reject_quorum_permille // 1000))

    def compute_threshold(self) -> int:
        """Nays that reject a claim: half of the ballots and the quorum of all members; silence is no veto."""
        return max(-(-self.ballots // 2), self.compute_quorum())

    def compute_due(self, wallet: Address, now_s: int) -> Wei:
        """What a wallet can take out now: floor(fund * points / approved points), or its deposit back."""
        index = self.index_of.get(wallet)
        if index is None or self.seats[index].paid:
            return Wei(0)
        stage, seat = self.compute_stage(now_s), self.seats[index]
        if stage is Stage.REFUNDED:
            return self.terms.deposit_wei
        if stage is not Stage.RELEASED or seat.claim is None or seat.rejected:
            return Wei(0)
        return Wei(self.fund_wei * seat.claim.points // self.points)

    # --- what members do ----------------------------------------------------------------------------------------

    def join(self, wallet: Address, poid: Address, value_wei: int, now_s: int) -> int:
        """Pay the deposit and become a member; returns the index. Raises: FundError."""
        self._require(Stage.FUNDING, now_s)
        if value_wei != self.terms.deposit_wei:
            raise FundError("WrongDeposit")
        if wallet in self.index_of:
            raise FundError("AlreadyMember")
        if len(self.seats) == self.terms.members_max:
            raise FundError("SessionFull")
        self.index_of[wallet] = len(self.seats)
        self.seats.append(Seat(wallet, poid))
        return len(self.seats) - 1

    def leave(self, wallet: Address, now_s: int, *, last: Address | None = None) -> Wei:
        """Take the deposit back; the last member takes over the index. Raises: FundError.

        Args: last: who joined last, as the caller knows it; None: it is right.
        """
        self._require(Stage.FUNDING, now_s)
        index = self._find(wallet)
        if last is not None and last != self.seats[-1].wallet:
            raise FundError("NotTheLastMember")
        moved = self.seats.pop()
        if index < len(self.seats):
            self.seats[index] = moved
            self.index_of[moved.wallet] = index
        del self.index_of[wallet]
        return self.terms.deposit_wei

    def claim(self, wallet: Address, points: int, evidence: bytes, now_s: int) -> None:
        """Ask for a share; one per member, final. Raises: FundError."""
        self._require(Stage.CLAIMING, now_s)
        index = self._find(wallet)
        if self.seats[index].claim is not None:
            raise FundError("AlreadyClaimed")
        if not 0 <= points <= POINTS_MAX:
            raise FundError("TooManyPoints")
        self.seats[index].claim = Claim(index=index, points=points, evidence=evidence)
        self.claims += 1
        self.points += points

    def cast(self, wallet: Address, nays: Iterable[int], now_s: int) -> None:
        """One ballot over all claims; `nays` are the indices that it rejects. Raises: FundError."""
        self._require(Stage.VOTING, now_s)
        index, rejected = self._find(wallet), set(nays)
        if self.seats[index].voted:
            raise FundError("AlreadyVoted")
        if any(not 0 <= nay < self.words * WORD_CLAIMS for nay in rejected):
            raise FundError("BallotTooLong")
        if index in rejected:
            raise FundError("NayOnOwnClaim")
        self._require_countable(rejected)
        self._count([index], rejected, now_s)

    # --- what members signed and anybody may send -----------------------------------------------------------------

    def claim_batch(self, claims: Iterable[SignedClaim], is_signed: IsSigned, now_s: int) -> tuple[int, ...]:
        """Take every claim that `claim` would take and its member signed; returns the places of those skipped. Raises: FundError."""
        self._require(Stage.CLAIMING, now_s)
        skipped = []
        for place, item in enumerate(claims):
            try:
                if not is_signed(item.member, SubmitClaim(item.points, item.evidence), item.signature):
                    raise FundError("BadSignature")
                self.claim(item.member, item.points, item.evidence, now_s)
            except FundError:
                skipped.append(place)
        return tuple(skipped)

    def cast_grouped(self, nays: Iterable[int], ballots: Iterable[SignedBallot], is_signed: IsSigned, now_s: int) -> tuple[int, ...]:
        """Count one ballot for all members who signed it and may cast it; returns the places of those skipped.

        Raises: FundError: nobody could cast this ballot.
        """
        self._require(Stage.VOTING, now_s)
        rejected = frozenset(nays)
        if any(not 0 <= nay < self.words * WORD_CLAIMS for nay in rejected):
            raise FundError("BallotTooLong")
        self._require_countable(rejected)
        call, voters, skipped = CastBallot(tuple(sorted(rejected))), dict[int, None](), []
        for place, ballot in enumerate(ballots):
            index = self.index_of.get(ballot.member)
            may_vote = index is not None and not self.seats[index].voted and index not in rejected and index not in voters
            if index is not None and may_vote and is_signed(ballot.member, call, ballot.signature):
                voters[index] = None
            else:
                skipped.append(place)
        self._count(voters, rejected, now_s)
        return tuple(skipped)

    def _require_countable(self, rejected: Set[int]) -> None:
        if any(nay >= len(self.seats) or self.seats[nay].claim is None for nay in rejected):
            raise FundError("NayWithoutClaim")
        if len(rejected) > (len(self.seats) - 1) // 2:
            raise FundError("TooManyNays")

    def _count(self, voters: Collection[int], rejected: Iterable[int], now_s: int) -> None:
        """Add one ballot for each of these members; the one that reaches the quorum late extends the vote."""
        for index in voters:
            self.seats[index].voted = True
        for nay in rejected:
            self.seats[nay].nays += len(voters)
        before, self.ballots = self.ballots, self.ballots + len(voters)
        if before < self.compute_quorum() <= self.ballots:
            window_s = self.terms.voting_ends_s - self.terms.claiming_ends_s
            self.voting_ends_s = max(self.voting_ends_s, now_s + -(-window_s // 4))

    # --- what a proposal that passed may do -------------------------------------------------------------------------

    def extend_deadlines(self, added_s: int, now_s: int) -> None:
        """Put off the end of the stage that runs and of all later ones (5.2), within the terms. Raises: FundError."""
        stage = self.compute_stage(now_s)
        if stage not in (Stage.TRAINING, Stage.CLAIMING, Stage.VOTING):
            raise FundError("WrongStage")
        if added_s > max(0, self.terms.voting_ends_s + self.terms.extension_max_s - self.voting_ends_s):
            raise FundError("ExtensionTooLong")
        if stage is Stage.TRAINING:
            self.training_ends_s += added_s
        if stage is not Stage.VOTING:
            self.claiming_ends_s += added_s
        self.voting_ends_s += added_s

    # --- what anybody may do ------------------------------------------------------------------------------------

    def tally(self, words_max: int, now_s: int) -> None:
        """Count on after the vote, `words_max` words of 256 claims at most. Raises: FundError."""
        self._require(Stage.SETTLING, now_s)
        end = min(self.words, self.tallied_words + words_max)
        threshold = self.compute_threshold()
        for seat in self.seats[self.tallied_words * WORD_CLAIMS : end * WORD_CLAIMS]:
            if seat.claim is not None and seat.nays >= threshold:
                seat.rejected = True
                self.points -= seat.claim.points
        self.tallied_words = end

    def withdraw(self, wallet: Address, now_s: int, *, accepted: bool = True) -> Wei:
        """Pay a wallet what it is due; `accepted` says whether the recipient takes it. Raises: FundError."""
        amount = self.compute_due(wallet, now_s)
        if not amount:
            raise FundError("NothingDue")
        if not accepted:
            raise FundError("PaymentRefused")
        self.seats[self.index_of[wallet]].paid = True
        return amount

    def release(
        self, wallets: Iterable[Address], now_s: int, accepts: Callable[[Address], bool] = lambda wallet: True
    ) -> dict[Address, Wei]:
        """Pay many; who is due nothing is passed over, who does not accept keeps its credit. Returns what was paid."""
        paid: dict[Address, Wei] = {}
        for wallet in wallets:
            if self.compute_due(wallet, now_s) and accepts(wallet):
                paid[wallet] = self.withdraw(wallet, now_s)
        return paid

    def _require(self, needed: Stage, now_s: int) -> None:
        if self.compute_stage(now_s) is not needed:
            raise FundError("WrongStage")

    def _find(self, wallet: Address) -> int:
        if wallet not in self.index_of:
            raise FundError("NotAMember")
        return self.index_of[wallet]
