"""Calls of the protocol as what a transaction says: where it goes, its data, its value. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hexbytes import HexBytes

from learnae.backends.ethereum.abi import ContractAbi, checksum, explain_refusal, pack_nays, session_abi, tips_abi
from learnae.backends.ethereum.poid import build_poid_creation
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.ethereum.rpc import RpcError
from learnae.backends.ethereum.signed_calls import encode_group
from learnae.backends.ethereum.wallet import WalletKey, load_accounts
from learnae.errors import TransactionError
from learnae.ids import Address, PeerId
from learnae.protocol.calls import (
    Call,
    CastBallot,
    CastGrouped,
    ClaimBatch,
    DeployPoid,
    Join,
    Leave,
    PayTip,
    Release,
    SubmitClaim,
    Tally,
    Withdraw,
    WithdrawTo,
)

TALLY_WORDS: Final = 16  # Of 256 claims: about 9 million gas if every claim were rejected, below the cap of 2^24 (EIP-7825).


@dataclass(frozen=True, slots=True)
class Intent:
    """What a transaction is to do; equal intents are the same transaction asked for again."""

    what: str  # for people
    to: Address | None  # None creates a contract
    data: bytes
    value: int = 0

    def is_same(self, other: Intent) -> bool:
        return (self.to, self.data, self.value) == (other.to, other.data, other.value)


@dataclass(frozen=True, slots=True)
class Author:
    """Who a transaction is from: the wallet, and the peer that its proof of identity names."""

    wallet: WalletKey
    peer_id: PeerId
    sign_identity: Callable[[bytes], bytes]  # Ed25519, 64 bytes
    chain_id: int


def make_intent(call: Call, author: Author, session: Address, facts: SessionFacts, *, last: Address) -> Intent:
    """What `call` says to `session`.

    Args: last: the member that joined last; `Leave` needs it.
    Raises: TransactionError: no item of a group is signed by its member.
    """
    abi = session_abi()
    match call:
        case DeployPoid():
            creation = build_poid_creation(author.peer_id, author.wallet, author.chain_id, author.sign_identity)
            return Intent("deploying the proof of identity", None, creation)
        case Join(poid):
            return Intent("joining the session", session, abi.encode("join", poid), facts.terms.deposit_wei)
        case Leave():
            return Intent("leaving the session", session, abi.encode("leave", last))
        case SubmitClaim(points, evidence):
            return Intent("the claim", session, abi.encode("claim", points, evidence))
        case CastBallot(nays):
            return Intent("the ballot", session, abi.encode("cast", pack_nays(nays)))
        case ClaimBatch() | CastGrouped():
            what, data = encode_group(call, chain_id=author.chain_id, session=session)
            return Intent(what, session, data)
        case Tally():
            return Intent("the tally", session, abi.encode("tally", TALLY_WORDS))
        case Release(wallets):
            return Intent("the release", session, abi.encode("releaseBatch", list(wallets)))
        case Withdraw():
            return Intent("the withdrawal", session, abi.encode("withdraw", author.wallet.address))
        case WithdrawTo(wallet):
            return Intent("the withdrawal", session, abi.encode("withdrawTo", wallet))
        case PayTip(helper, amount_wei, receipt):
            return Intent("the tip", facts.tips, tips_abi().encode("pay", helper, receipt), amount_wei)


def encode_withdrawal(abi: ContractAbi, wallet: Address, to: Address | None) -> bytes:
    """The call that sends `wallet` its due, or the sender's own to another address."""
    return abi.encode("withdraw", wallet) if to is None else abi.encode("withdrawTo", to)


def read_intent(raw: bytes) -> tuple[Intent, dict[str, int]]:
    """What a signed transaction says, and its nonce, gas and offer."""
    fields = load_accounts().typed_transactions.TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    to = bytes(HexBytes(fields["to"]))
    data = bytes(HexBytes(fields["data"]))
    numbers = {name: int(str(fields[name])) for name in ("nonce", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "value")}
    intent = Intent("the transaction from before the restart", checksum(to) if to else None, data, numbers["value"])
    return intent, numbers


def refuse(intent: Intent, error: RpcError) -> TransactionError:
    """A node's error about a transaction in words; the contract's own reason if it gave one."""
    if error.revert:
        name, sentence = explain_refusal(error.revert)
        return TransactionError(intent.what, sentence, name)
    return TransactionError(intent.what, f"the node says: {error.message}")
