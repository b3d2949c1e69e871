"""Contract calls, logs and errors as bytes and back, by an artefact's ABI. Source: Solidity contract ABI specification."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from learnae.contracts import Artefact, load_artefact
from learnae.errors import ChainAnswerError
from learnae.ids import Address
from learnae.protocol.calls import Stage

_TIMED = ("VoteIsOver", "VoteIsRunning", "StillExecutable")  # Errors whose value is a time.
_TIME_MAX = 1 << 36  # The year 4147; a hostile contract may name any number.
WORD_CLAIMS = 256  # Claims in one word of a ballot.
STAGES = (Stage.FUNDING, Stage.TRAINING, Stage.CLAIMING, Stage.VOTING, Stage.SETTLING, Stage.RELEASED, Stage.REFUNDED)
_SENTENCES = {
    "BadTerms": "its terms are not acceptable: {0}",
    "WrongStage": "the session is {0} and this belongs to {1}",
    "WrongDeposit": "the deposit is {1} wei, not {0}",
    "AlreadyMember": "this wallet is a member already",
    "SessionFull": "the session has {0} members, as many as it takes",
    "NotAMember": "this wallet is not a member of the session",
    "NotTheLastMember": "{0} is not the member that joined last any more; leave again",
    "AlreadyClaimed": "this member has claimed already",
    "TooManyPoints": "a claim of {0} points is above 2^64 - 1",
    "AlreadyVoted": "this member has voted already",
    "BallotTooLong": "the ballot has {0} words of 256 claims and the session {1}",
    "NayOnOwnClaim": "nobody votes on its own claim",
    "NayWithoutClaim": "the ballot rejects a claim that was never made",
    "TooManyNays": "the ballot rejects {0} claims and may reject {1}, less than half of the members",
    "OnlyByGovernance": "only a proposal that passed changes the deadlines",
    "ExtensionTooLong": "the deadlines can be put off by {1} s at most, not by {0} s",
    "NothingDue": "nothing is due to {0} now",
    "PaymentRefused": "{0} does not accept the money; withdraw to another address",
    "TipRefused": "{0} does not accept the tip",
    "NoTip": "a tip of nothing was sent",
    "OverBudget": "{0} wei are more than the {1} wei that are left of the budget for tips",
    "NoSuchToken": "nobody holds the membership token {0}",
    "TokenIsLocked": "membership cannot be transferred",
    "WrongProposalDeposit": "the deposit of a proposal is {1} wei, not {0}",
    "DescriptionTooLong": "the description has {0} bytes and may have {1}",
    "TransactionTooLong": "the call has {0} bytes and may have {1}",
    "WrongDebatingTime": "{0} s are not {1} to {2} s of time to vote",
    "NotEnoughFunds": "{0} wei are more than the {1} wei that proposals may spend",
    "PaysItself": "governance does not send money to itself",
    "NoSuchProposal": "there is no proposal {0}",
    "VoteIsOver": "the vote on this proposal ended at {0}",
    "VoteIsRunning": "the vote on this proposal runs until {0}",
    "NotOpen": "this proposal was executed or closed already",
    "NotPassed": "the proposal did not pass: {0} for it, {1} against it, {2} votes needed",
    "StillExecutable": "the proposal passed and can be executed until {0}; then it can be closed",
    "WrongTransaction": "this is not the call that was proposed",
    "TransactionFailed": "the recipient refused the call of the proposal",
    "OnlyByProposal": "only a proposal that passed changes this",
    "OutOfBounds": "{0} is not in the bounds {1} to {2}",
}


class ContractAbi:
    """The ABI of one artefact."""

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact
        self._inputs: dict[str, list[str]] = {}
        self._outputs: dict[str, list[str]] = {}
        self._selectors: dict[str, bytes] = {}
        self._errors: dict[bytes, tuple[str, list[str]]] = {}
        self._events: dict[bytes, dict[str, Any]] = {}
        self.topics: dict[str, bytes] = {}
        for item in artefact.abi:
            inputs = [_type_text(field) for field in item.get("inputs", ())]
            digest = keccak(text=f"{item.get('name', '')}({','.join(inputs)})")
            if item["type"] == "function":
                self._inputs[item["name"]], self._selectors[item["name"]] = inputs, digest[:4]
                self._outputs[item["name"]] = [_type_text(field) for field in item["outputs"]]
            elif item["type"] == "constructor":
                self._inputs[""] = inputs
            elif item["type"] == "error":
                self._errors[digest[:4]] = item["name"], inputs
            elif item["type"] == "event":
                self._events[digest], self.topics[item["name"]] = item, digest

    def encode(self, function: str, *values: object) -> bytes:
        """Call data of a function."""
        return self._selectors[function] + encode(self._inputs[function], values)

    def encode_creation(self, *values: object) -> bytes:
        """Init code with the constructor's arguments."""
        return self.artefact.bytecode + encode(self._inputs.get("", []), values)

    def decode(self, function: str, output: bytes, *, text_as_bytes: bool = False) -> tuple[Any, ...]:
        """What a view returned; `text_as_bytes` for text of strangers, which need not be UTF-8. Raises: ChainAnswerError."""
        types = self._outputs[function]
        return _decode(function, [one.replace("string", "bytes") for one in types] if text_as_bytes else types, output)

    def decode_log(self, topics: Sequence[bytes], log_data: bytes) -> tuple[str, dict[str, Any]] | None:
        """The event's name and its fields; None if it is none of this contract's."""
        event = self._events.get(topics[0]) if topics else None
        if event is None:
            return None
        indexed = [field for field in event["inputs"] if field["indexed"]]
        plain = [field for field in event["inputs"] if not field["indexed"]]
        if len(topics) != len(indexed) + 1:
            return None
        found = _decode(event["name"], [_type_text(field) for field in plain], log_data)
        values = dict(zip((field["name"] for field in plain), found, strict=True))
        for field, topic in zip(indexed, topics[1:], strict=True):
            values[field["name"]] = _decode(event["name"], [_type_text(field)], topic)[0]
        return event["name"], values

    def explain(self, revert: bytes | None) -> tuple[str, str]:
        """The name of the contract's error and a sentence about it; the name is empty if the bytes say nothing known."""
        name, types = self._errors.get((revert or b"")[:4], ("", []))
        if not name or revert is None:
            return "", "the contract refused it without a reason"
        try:
            values = _decode(name, types, revert[4:])
        except ChainAnswerError:
            return "", "the contract refused it with a reason that cannot be read"
        shown = [_show(name, value) for value in values]
        return name, _SENTENCES.get(name, name).format(*shown)


def _show(name: str, value: Any) -> Any:
    """A value of a contract's error as people read it: stages by their names, times as dates."""
    if name == "WrongStage" and value < len(STAGES):
        return STAGES[value].value
    if name in _TIMED and value < _TIME_MAX:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
    return value


def _decode(what: str, types: list[str], output: bytes) -> tuple[Any, ...]:
    try:
        return tuple(decode(types, output))
    except (DecodingError, OverflowError, ValueError) as error:
        raise ChainAnswerError(what, f"its bytes do not decode: {error}") from error


def _type_text(field: dict[str, Any]) -> str:
    if not field["type"].startswith("tuple"):
        return str(field["type"])
    return "(" + ",".join(_type_text(part) for part in field["components"]) + ")" + str(field["type"])[5:]


def checksum(address: str | bytes) -> Address:
    """An address as the program names it, from text or 20 bytes."""
    return Address(to_checksum_address(address))


@cache
def session_abi() -> ContractAbi:
    return ContractAbi(load_artefact("Session"))


@cache
def poid_abi() -> ContractAbi:
    return ContractAbi(load_artefact("ProofOfIdentity"))


@cache
def governance_abi() -> ContractAbi:
    return ContractAbi(load_artefact("Governance"))


@cache
def tips_abi() -> ContractAbi:
    return ContractAbi(load_artefact("Tips"))


def explain_refusal(revert: bytes) -> tuple[str, str]:
    """The error's name and a sentence about it, whichever of the contracts gave it; the name is empty if none knows it."""
    found = [abi.explain(revert) for abi in (session_abi(), governance_abi(), tips_abi(), poid_abi())]
    return next((one for one in found if one[0]), found[0])


def pack_nays(nays: tuple[int, ...]) -> list[int]:
    """A ballot as words of 256 claims; trailing words that are zero are left out."""
    words: dict[int, int] = {}
    for index in nays:
        words[index // WORD_CLAIMS] = words.get(index // WORD_CLAIMS, 0) | 1 << index % WORD_CLAIMS
    return [words.get(word, 0) for word in range(max(words, default=-1) + 1)]
