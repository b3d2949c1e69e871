"""Proposals of a session's members (5.2, Table 1, Eq. 2): reads them, and makes the transactions about them.

A description may say anything; what a proposal does is its recipient, amount and call. The call is taken from the event that
announced it, checked against the proposal's hash, and told in words where it is one of the DAO's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from learnae.backends.ethereum.abi import checksum, governance_abi, session_abi, tips_abi
from learnae.backends.ethereum.intents import Intent, encode_withdrawal
from learnae.backends.ethereum.queries import call_view, make_view_call, read_logs, read_topics
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.ethereum.rpc import Endpoint, Fields, read_bytes
from learnae.backends.ethereum.tips import read_budget
from learnae.errors import ChainAnswerError
from learnae.ids import Address, Wei, wei_text

PROPOSALS_SHOWN_MAX: Final = 50  # Making one costs a deposit, so there are not many; only the newest are read.
DESCRIPTION_SHOWN_MAX: Final = 1024  # The contract takes no more.
OWN_CALLS: Final = {
    "proposal-deposit": ("setProposalDeposit", "the deposit of a proposal becomes {0}"),
    "quorum-divisor": ("setMinQuorumDivisor", "the quorum's divisor (d of Eq. 2) becomes {0}"),
    "extend": ("extendDeadlines", "the session's deadlines are put off by {0} s"),
}
"""Changes of the DAO itself: name for people -> function and sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Table 1, as the contract holds it; times are Unix seconds of block time."""

    number: int
    recipient: Address
    amount_wei: Wei
    description: str
    voting_deadline_s: int
    is_open: bool
    passed: bool
    proposal_hash: bytes
    deposit_wei: Wei
    yea: int
    nay: int
    creator: Address
    min_quorum: int
    voted: str  # what the reading wallet voted: "yes", "no", or nothing

    @property
    def is_approved(self) -> bool:
        """More for it than against it, and as many votes as Eq. 2 asks for."""
        return self.yea > self.nay and self.yea + self.nay >= self.min_quorum


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceView:
    """The governance contract at one block."""

    contract: Address
    available_wei: Wei  # what proposals may spend
    proposal_deposit_wei: Wei
    min_quorum_divisor: int
    count: int
    proposals: tuple[Proposal, ...]  # the newest ones, in their order
    back_wei: Wei  # deposits that came back to the reading wallet and wait for it
    tips_wei: Wei  # tips that were collected for the reading wallet
    tips_budget_wei: Wei  # what is left in its budget for tips


class GovernanceReader:
    """Reads the governance of one session for one wallet."""

    def __init__(self, endpoint: Endpoint, facts: SessionFacts, wallet: Address) -> None:
        self._endpoint, self._facts, self._wallet = endpoint, facts, wallet

    async def read(self, block: int) -> GovernanceView:
        """The contract at a block. Raises: ChainAnswerError."""
        (count,) = await self._call(block, "proposalCount")
        numbers = range(max(0, count - PROPOSALS_SHOWN_MAX), count)
        asked = ["availableWei", "proposalDeposit", "minQuorumDivisor"]
        available, deposit, divisor = [(await self._call(block, name))[0] for name in asked]
        (back,) = await self._call(block, "credit", self._wallet)
        (tips,) = await call_view(self._endpoint, tips_abi(), self._facts.tips, block, "credit", self._wallet)
        return GovernanceView(
            contract=self._facts.governance,
            available_wei=Wei(available),
            proposal_deposit_wei=Wei(deposit),
            min_quorum_divisor=divisor,
            count=count,
            proposals=tuple([await self.read_proposal(block, number) for number in numbers]),
            back_wei=Wei(back),
            tips_wei=Wei(tips),
            tips_budget_wei=await read_budget(self._endpoint, self._facts, self._wallet, block),
        )

    async def read_proposal(self, block: int, number: int) -> Proposal:
        """One proposal. Raises: RpcError: there is none of that number; ChainAnswerError."""
        abi = governance_abi()
        calls = [("readProposal", (number,)), ("votedYes", (number, self._wallet)), ("votedNo", (number, self._wallet))]
        asked = [("eth_call", (make_view_call(abi, self._facts.governance, name, *values), hex(block))) for name, values in calls]
        answers = await self._endpoint.batch(asked)
        fields, yes, no = [
            abi.decode(name, read_bytes("eth_call", answer), text_as_bytes=True)[0]
            for (name, _), answer in zip(calls, answers, strict=True)
        ]
        return _make_proposal(number, fields, "yes" if yes else "no" if no else "")

    async def read_call(self, block: int, proposal: Proposal) -> bytes:
        """The call data that a proposal was announced with. Raises: ChainAnswerError: no event holds what its hash says."""
        abi = governance_abi()
        topics = [abi.topics["Proposed"], proposal.number.to_bytes(32, "big")]
        calls: list[bytes] = []

        def take(log: Fields) -> None:
            decoded = abi.decode_log(read_topics(log), log.data("data"))
            call = decoded[1].get("transactionData", b"") if decoded else b""
            if _hash(proposal.recipient, proposal.amount_wei, call) == proposal.proposal_hash:
                calls.append(bytes(call))

        await read_logs(self._endpoint, self._facts.governance, (self._facts.created_block, block), take, topics)
        if not calls:
            raise ChainAnswerError("eth_getLogs", f"the event of proposal {proposal.number} is missing")
        return calls[0]

    async def _call(self, block: int, function: str, *values: object) -> tuple[Any, ...]:
        return await call_view(self._endpoint, governance_abi(), self._facts.governance, block, function, *values)


def _make_proposal(number: int, fields: tuple[Any, ...], voted: str) -> Proposal:
    recipient, amount, description, deadline, is_open, passed, digest, deposit, yea, nay, creator, quorum = fields
    return Proposal(
        number=number,
        recipient=checksum(recipient),
        amount_wei=Wei(amount),
        description=_clean(description),
        voting_deadline_s=deadline,
        is_open=is_open,
        passed=passed,
        proposal_hash=digest,
        deposit_wei=Wei(deposit),
        yea=yea,
        nay=nay,
        creator=checksum(creator),
        min_quorum=quorum,
        voted=voted,
    )


def _clean(description: bytes) -> str:
    """A stranger's text as one line that a terminal can show: no control characters."""
    text = description[:DESCRIPTION_SHOWN_MAX].decode("utf-8", errors="replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _hash(recipient: Address, amount_wei: int, call: bytes) -> bytes:
    """Table 1: sha3(recipient, amount, transactionData)."""
    return bytes(keccak(bytes.fromhex(recipient[2:]) + amount_wei.to_bytes(32, "big") + call))


def describe_call(facts: SessionFacts, session: Address, recipient: Address, call: bytes) -> str:
    """What the call of a proposal does, in words."""
    if not call:
        return "a plain payment"
    for function, sentence in OWN_CALLS.values():
        abi, contract = (session_abi(), session) if function == "extendDeadlines" else (governance_abi(), facts.governance)
        if recipient == contract and call[:4] == abi.encode(function, 0)[:4]:
            try:
                (value,) = decode(["uint256"], call[4:])
            except DecodingError:
                break
            return sentence.format(wei_text(value) if function == "setProposalDeposit" else value)
    return f"calls {recipient} with 0x{call.hex()}, which this program does not know"


# --- transactions ---------------------------------------------------------------------------------------------------


def make_change(facts: SessionFacts, session: Address, change: str, value: int) -> tuple[Address, bytes]:
    """Recipient and call of a proposal that changes the DAO itself; `change` is a key of `OWN_CALLS`."""
    function, _ = OWN_CALLS[change]
    if function == "extendDeadlines":
        return session, session_abi().encode(function, value)
    return facts.governance, governance_abi().encode(function, value)


def propose(
    view: GovernanceView, recipient: Address, amount_wei: Wei, description: str, call: bytes, *, debating_s: int
) -> Intent:
    """A new proposal, with the deposit that the contract asks for now."""
    encoded = governance_abi().encode("newProposal", recipient, amount_wei, description, call, debating_s)
    return Intent("the proposal", view.contract, encoded, view.proposal_deposit_wei)


def vote(facts: SessionFacts, number: int, *, yes: bool) -> Intent:
    return Intent("the vote", facts.governance, governance_abi().encode("vote", number, yes))


def execute(facts: SessionFacts, number: int, call: bytes) -> Intent:
    return Intent("executing the proposal", facts.governance, governance_abi().encode("execute", number, call))


def close(facts: SessionFacts, number: int) -> Intent:
    return Intent("closing the proposal", facts.governance, governance_abi().encode("close", number))


def take_back(facts: SessionFacts, wallet: Address, to: Address | None = None) -> Intent:
    """Withdraw the deposits of proposals that passed, for `wallet`, which may send its own to another address."""
    return Intent("taking back the deposits of proposals", facts.governance, encode_withdrawal(governance_abi(), wallet, to))
