"""Proposals of a session's members as a pure reference model: same rules, same integers, same refusals (5.2, Table 1, Eq. 2).

`contracts/solidity/Governance.sol` is what holds the money; this says what it must do, and tests run both step by step. It disposes of
donations and of deposits that failed proposals left, never of what members paid into the session. Amounts are wei; times are Unix seconds
of block time. Pure: no I/O, no clock. Where the contract keeps the hash of a proposal's call, this keeps the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import Address, Wei
from learnae.protocol.calls import Stage
from learnae.protocol.fund import DEBATING_S_MAX, QUORUM_DIVISOR_MAX, QUORUM_DIVISOR_MIN, FundError, SessionFund
from learnae.protocol.rewards import compute_quorum

DESCRIPTION_BYTES_MAX: Final = 1024  # As the contract, which stores it.
EXECUTION_S: Final = 14 * 86400  # After the vote; then a proposal that nobody could execute can be closed.


@dataclass(frozen=True, slots=True)
class SetProposalDeposit:
    """Ask another deposit for new proposals; at most a member's deposit."""

    amount_wei: int


@dataclass(frozen=True, slots=True)
class SetMinQuorumDivisor:
    """Another d of Eq. 2 for new proposals."""

    divisor: int


@dataclass(frozen=True, slots=True)
class ExtendDeadlines:
    """Put off the end of the session's running stage and of all later ones."""

    added_s: int


Action = SetProposalDeposit | SetMinQuorumDivisor | ExtendDeadlines
"""The calls of a proposal that change a parameter. A plain payment has none."""


@dataclass(slots=True, kw_only=True)
class Proposal:
    """Table 1; `action` stands for the call whose hash the contract keeps as `proposalHash`."""

    creator: Address
    recipient: Address
    amount: Wei
    description: str
    action: Action | None
    voting_deadline: int  # first second that no longer belongs to the vote
    proposal_deposit: Wei
    min_quorum: int  # Eq. 2, fixed when the proposal was made
    open: bool = True
    proposal_passed: bool = False
    voted_yes: set[Address] = field(default_factory=set)
    voted_no: set[Address] = field(default_factory=set)

    @property
    def yea(self) -> int:
        return len(self.voted_yes)

    @property
    def nay(self) -> int:
        return len(self.voted_no)

    @property
    def has_majority(self) -> bool:
        """More votes for it than against it, and as many votes as Eq. 2 asks for."""
        return self.yea > self.nay and self.yea + self.nay >= self.min_quorum


@dataclass(slots=True)
class Governance:
    """The contract's state. Methods are its functions: the caller's wallet first, the block's time last."""

    address: Address  # its own: it does not pay itself
    fund: SessionFund
    balance_wei: int = 0
    held_wei: int = 0  # deposits of open proposals, and those given back and not withdrawn yet
    spent_wei: int = 0  # by executed proposals
    proposal_deposit: Wei = field(init=False)  # asked for with a new proposal
    min_quorum_divisor: int = field(init=False)  # d of Eq. 2
    proposals: list[Proposal] = field(default_factory=list)
    credit: dict[Address, Wei] = field(default_factory=dict)  # deposits given back, by creator

    def __post_init__(self) -> None:
        self.proposal_deposit = self.fund.terms.proposal_deposit_wei
        self.min_quorum_divisor = self.fund.terms.min_quorum_divisor

    @property
    def available_wei(self) -> Wei:
        """What proposals may spend: all that is here but the deposits that belong to creators."""
        return Wei(self.balance_wei - self.held_wei)

    def donate(self, amount_wei: int) -> None:
        """Give money to the members' common disposal."""
        self.balance_wei += amount_wei

    def compute_min_quorum(self, amount: Wei) -> int:
        """Votes that a new proposal of this amount needs (Eq. 2): the denominator is all that the DAO ever received."""
        received_wei = Wei(self.available_wei + self.spent_wei)
        return compute_quorum(
            tokens=len(self.fund.seats), divisor=self.min_quorum_divisor, transfer_wei=amount, received_wei=received_wei
        )

    def new_proposal(
        self,
        creator: Address,
        value_wei: int,
        payment: tuple[Address, Wei],
        description: str,
        action: Action | None,
        debating_s: int,
        *,
        now_s: int,
    ) -> int:
        """Propose to send `payment` together with a call; returns its number. Raises: FundError."""
        recipient, amount = payment
        if self.fund.compute_stage(now_s) is Stage.FUNDING:
            raise FundError("WrongStage")
        self._require_member(creator)
        if value_wei != self.proposal_deposit:
            raise FundError("WrongProposalDeposit")
        if len(description.encode()) > DESCRIPTION_BYTES_MAX:
            raise FundError("DescriptionTooLong")
        if not self.fund.terms.debating_min_s <= debating_s <= DEBATING_S_MAX:
            raise FundError("WrongDebatingTime")
        if recipient == self.address and amount:
            raise FundError("PaysItself")
        if amount > self.available_wei:
            raise FundError("NotEnoughFunds")
        self.balance_wei += value_wei
        self.held_wei += value_wei
        proposal = Proposal(
            creator=creator,
            recipient=recipient,
            amount=amount,
            description=description,
            action=action,
            voting_deadline=now_s + debating_s,
            proposal_deposit=Wei(value_wei),
            min_quorum=self.compute_min_quorum(amount),
        )
        self.proposals.append(proposal)
        return len(self.proposals) - 1

    def vote(self, wallet: Address, number: int, yes: bool, now_s: int) -> None:
        """Vote once, until the deadline. Raises: FundError."""
        proposal = self._find(number)
        if now_s >= proposal.voting_deadline:
            raise FundError("VoteIsOver")
        self._require_member(wallet)
        if wallet in proposal.voted_yes | proposal.voted_no:
            raise FundError("AlreadyVoted")
        (proposal.voted_yes if yes else proposal.voted_no).add(wallet)

    def execute(
        self, number: int, action: Action | None, now_s: int, accepts: Callable[[Address], bool] = lambda wallet: True
    ) -> tuple[Address, Wei]:
        """Carry out a proposal that passed; returns who was paid how much. Raises: FundError.

        Args: accepts: whether a recipient takes its payment.
        """
        proposal = self._find_counted(number, now_s)
        if not proposal.has_majority:
            raise FundError("NotPassed")
        if action != proposal.action:
            raise FundError("WrongTransaction")
        if proposal.amount > self.available_wei:
            raise FundError("NotEnoughFunds")
        if not accepts(proposal.recipient):
            raise FundError("TransactionFailed")
        self._apply(proposal.action, now_s)
        self._settle(proposal)
        self.spent_wei += proposal.amount
        self.balance_wei -= proposal.amount
        return proposal.recipient, proposal.amount

    def close(self, number: int, now_s: int) -> None:
        """Close a proposal that did not pass, or that passed and was not executed in time. Raises: FundError."""
        proposal = self._find_counted(number, now_s)
        if proposal.has_majority and now_s < proposal.voting_deadline + EXECUTION_S:
            raise FundError("StillExecutable")
        self._settle(proposal)

    def withdraw(self, creator: Address, *, accepted: bool = True) -> Wei:
        """Pay a creator the deposits that came back; `accepted` says whether the recipient takes it. Raises: FundError."""
        amount = self.credit.get(creator, Wei(0))
        if not amount:
            raise FundError("NothingDue")
        if not accepted:
            raise FundError("PaymentRefused")
        del self.credit[creator]
        self.held_wei -= amount
        self.balance_wei -= amount
        return amount

    def _settle(self, proposal: Proposal) -> None:
        """The creator gets its deposit back if a majority approved with the quorum; else it stays here (5.2)."""
        proposal.open, proposal.proposal_passed = False, proposal.has_majority
        if not proposal.proposal_passed:
            self.held_wei -= proposal.proposal_deposit
        elif proposal.proposal_deposit:
            self.credit[proposal.creator] = Wei(self.credit.get(proposal.creator, 0) + proposal.proposal_deposit)

    def _apply(self, action: Action | None, now_s: int) -> None:
        """Change a parameter within its bounds, or nothing and `TransactionFailed`."""
        match action:
            case SetProposalDeposit(amount_wei):
                if amount_wei > self.fund.terms.deposit_wei:
                    raise FundError("TransactionFailed")
                self.proposal_deposit = Wei(amount_wei)
            case SetMinQuorumDivisor(divisor):
                if not QUORUM_DIVISOR_MIN <= divisor <= QUORUM_DIVISOR_MAX:
                    raise FundError("TransactionFailed")
                self.min_quorum_divisor = divisor
            case ExtendDeadlines(added_s):
                try:
                    self.fund.extend_deadlines(added_s, now_s)
                except FundError:
                    raise FundError("TransactionFailed") from None

    def _require_member(self, wallet: Address) -> None:
        if wallet not in self.fund.index_of:
            raise FundError("NotAMember")

    def _find(self, number: int) -> Proposal:
        if not 0 <= number < len(self.proposals):
            raise FundError("NoSuchProposal")
        return self.proposals[number]

    def _find_counted(self, number: int, now_s: int) -> Proposal:
        proposal = self._find(number)
        if now_s < proposal.voting_deadline:
            raise FundError("VoteIsRunning")
        if not proposal.open:
            raise FundError("NotOpen")
        return proposal
