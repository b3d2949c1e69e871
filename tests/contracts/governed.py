"""A session with its governance: every call goes to the contract and to the model, and both must say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_utils.crypto import keccak

from learnae.backends.chain_server.engine import RefusedError
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import checksum, explain_refusal, governance_abi, session_abi
from learnae.ids import Address, Wei
from learnae.protocol.calls import SessionTerms
from learnae.protocol.fund import FundError
from learnae.protocol.governance import Action, ExtendDeadlines, Governance, SetMinQuorumDivisor, SetProposalDeposit
from tests.contracts.bed import DEPOSIT, Bed, make_terms, make_wallet

PROPOSAL_DEPOSIT = Wei(1000)
DEBATING_S = 500


def make_governed_terms(**changes: Any) -> SessionTerms:
    governed = {"extension_max_s": 5_000, "proposal_deposit_wei": PROPOSAL_DEPOSIT, "min_quorum_divisor": 5, "debating_min_s": 100}
    return make_terms(**(governed | changes))


@dataclass(slots=True)
class GovernedBed(Bed):
    """`Bed` with governance beside the session."""

    terms: SessionTerms = field(default_factory=make_governed_terms)
    governance: Address = field(init=False)
    council: Governance = field(init=False)
    received: dict[Address, int] = field(default_factory=dict)  # paid by governance

    def __post_init__(self) -> None:
        Bed.__post_init__(self)
        self.governance = checksum(self.view("governance")[0])
        self.council = Governance(self.governance, self.model)

    def encode_action(self, action: Action | None) -> bytes:
        match action:
            case SetProposalDeposit(amount):
                return governance_abi().encode("setProposalDeposit", amount)
            case SetMinQuorumDivisor(divisor):
                return governance_abi().encode("setMinQuorumDivisor", divisor)
            case ExtendDeadlines(added_s):
                return session_abi().encode("extendDeadlines", added_s)
        return b""

    def get_recipient(self, action: Action) -> Address:
        return self.session if isinstance(action, ExtendDeadlines) else self.governance

    def govern(self, wallet: WalletKey, function: str, *values: object, value: int = 0) -> str:
        """One call on both; returns the error's name, or nothing. An `Action` stands for the call that it encodes to."""
        sent = [self.encode_action(v) if isinstance(v, Action) or v is None else v for v in values]
        try:
            mined = self.transact(wallet, self.governance, governance_abi().encode(function, *sent), value)
        except RefusedError as error:
            contract = explain_refusal(error.revert)[0] if error.revert else str(error)
        else:
            contract = ""
            self.gas[function] = max(self.gas.get(function, 0), mined.gas_used)
        try:
            self._apply_to_council(wallet.address, function, values, value)
            model = ""
        except FundError as error:
            model = error.reason
        assert contract == model, (function, values, contract, model)
        return contract

    def _apply_to_council(self, wallet: Address, function: str, values: Sequence[Any], value: int) -> None:
        council, now_s = self.council, self.now_s
        match function:
            case "newProposal":
                recipient, amount, description, action, debating_s = values
                council.new_proposal(wallet, value, (recipient, amount), description, action, debating_s, now_s=now_s)
            case "vote":
                council.vote(wallet, values[0], values[1], now_s)
            case "execute":
                recipient, amount = council.execute(values[0], values[1], now_s)
                self.received[recipient] = self.received.get(recipient, 0) + amount
            case "close":
                council.close(values[0], now_s)
            case "withdraw":
                council.withdraw(values[0])
            case "withdrawTo":
                council.withdraw(wallet)
            case _:
                raise AssertionError(function)

    def donate(self, amount: int) -> None:
        self.transact(make_wallet(299), self.governance, b"", amount)
        self.council.donate(amount)

    def propose(
        self,
        index: int,
        payment: tuple[Address, int] | None = None,
        action: Action | None = None,
        *,
        debating_s: int = DEBATING_S,
        description: str = "why not",
        value: int | None = None,
    ) -> str:
        """A member's proposal: a payment, or a call to the contract that it changes."""
        recipient, amount = payment or (self.get_recipient(action) if action else make_wallet(150).address, 0)
        deposit = self.council.proposal_deposit if value is None else value
        return self.govern(make_wallet(index), "newProposal", recipient, amount, description, action, debating_s, value=deposit)

    def vote(self, number: int, yes: Sequence[int] = (), no: Sequence[int] = ()) -> None:
        for index in (*yes, *no):
            assert self.govern(make_wallet(index), "vote", number, index in yes) == ""

    def end_debate(self, number: int = -1) -> None:
        self.travel(self.council.proposals[number].voting_deadline)

    def execute(self, number: int, action: Action | None = None) -> str:
        return self.govern(make_wallet(299), "execute", number, action)

    def close(self, number: int) -> str:
        return self.govern(make_wallet(299), "close", number)

    def look(self, function: str, *values: object) -> tuple[Any, ...]:
        """A view of the governance contract."""
        return self.ask(governance_abi(), self.governance, function, *values)

    def check(self) -> None:
        """Everything that can be read of both contracts is equal, and each holds its own money."""
        Bed.check(self)
        council = self.council
        for function, expected in (
            ("proposalDeposit", council.proposal_deposit),
            ("minQuorumDivisor", council.min_quorum_divisor),
            ("heldWei", council.held_wei),
            ("spentWei", council.spent_wei),
            ("availableWei", council.available_wei),
            ("proposalCount", len(council.proposals)),
        ):
            assert self.look(function) == (expected,), function
        assert self.balance(self.governance) == council.balance_wei
        assert council.held_wei == sum(p.proposal_deposit for p in council.proposals if p.open) + sum(council.credit.values())
        for number, proposal in enumerate(council.proposals):
            (found,) = self.look("readProposal", number)
            recipient, amount, description, deadline, is_open, passed, digest, deposit, yea, nay, creator, quorum = found
            assert (checksum(recipient), amount, description) == (proposal.recipient, proposal.amount, proposal.description)
            assert (deadline, is_open, passed) == (proposal.voting_deadline, proposal.open, proposal.proposal_passed)
            assert (deposit, yea, nay, quorum) == (proposal.proposal_deposit, proposal.yea, proposal.nay, proposal.min_quorum)
            assert checksum(creator) == proposal.creator
            packed = bytes.fromhex(proposal.recipient[2:]) + proposal.amount.to_bytes(32, "big") + self.encode_action(proposal.action)
            assert digest == keccak(packed), "Table 1: sha3(recipient, amount, transactionData)"
        for creator, amount in council.credit.items():
            assert self.look("credit", creator) == (amount,)


def start_governed(members: int = 5, **changes: Any) -> GovernedBed:
    """Members joined, the training runs, and governance has 9,000 wei to dispose of."""
    bed = GovernedBed(make_governed_terms(**changes))
    bed.join(*range(members))
    bed.travel(bed.terms.funding_ends_s)
    bed.donate(9_000)
    assert bed.balance(bed.session) == members * DEPOSIT
    return bed
