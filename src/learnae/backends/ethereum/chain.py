"""The `Chain` port on an Ethereum node: sends one wallet's calls and reads sessions.

A call becomes one signed transaction. It is handed to `save_pending` before it is broadcast, and broadcast again, the same
bytes, until it is in a block; the next call waits for it. So whatever breaks in between, nothing is paid twice: after a
restart `resume` goes on with the saved bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from learnae.backends.ethereum.abi import ContractAbi, checksum, pack_nays, poid_abi, session_abi, tips_abi
from learnae.backends.ethereum.poid import build_poid_creation
from learnae.backends.ethereum.reader import SessionFacts, SessionReader, encode_session_creation, read_facts
from learnae.backends.ethereum.rpc import Endpoint, Fields, RpcError, read_number
from learnae.backends.ethereum.signed_calls import encode_group, sign_call
from learnae.backends.ethereum.wallet import WalletKey
from learnae.errors import NotEnoughMoneyError, TransactionError, WrongChainError
from learnae.ids import Address, PeerId, Wei
from learnae.ports import Receipt
from learnae.protocol.calls import (
    Call,
    CastBallot,
    CastGrouped,
    ChainView,
    ClaimBatch,
    DeployPoid,
    Join,
    Leave,
    PayTip,
    Release,
    SessionTerms,
    Signable,
    SubmitClaim,
    Tally,
    Withdraw,
    WithdrawTo,
)

TALLY_WORDS: Final = 16  # Of 256 claims: about 9 million gas if every claim were rejected, below the cap of 2^24 (EIP-7825).
_GAS_MARGIN: Final = 20_000  # Above the estimate and its quarter: a late ballot extends the vote, a first nay opens a plane.
_REBROADCAST_POLLS: Final = 20
_LOST_POLLS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """How a wallet pays and waits."""

    fee_cap_wei: int = 200 * 10**9  # Most that is paid for a unit of gas; above it a call waits.
    poll_s: float = 0.5  # Between looks for a receipt.
    fee_poll_s: float = 12.0  # Between looks at the price while it is above the cap: a block of the main network.
    patient: bool = False  # Whether opening waits for an endpoint that is down, instead of raising.
    save_pending: Callable[[bytes | None], None] | None = None  # Signed transaction before its broadcast; None when it is done.


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call would cost now: gas, the fee at the present price, and the value it sends along."""

    gas: int
    fee_wei: Wei
    value_wei: Wei


@dataclass(frozen=True, slots=True)
class _Intent:
    """A call on its way to a transaction."""

    what: str
    abi: ContractAbi
    to: Address | None
    data: bytes
    value: int = 0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A signed transaction that may be anywhere between here and a block."""

    raw: bytes
    digest: str
    nonce: int
    intent: _Intent


@asynccontextmanager
async def open_ethereum_chain(
    url: str,
    *,
    wallet: WalletKey,
    peer_id: PeerId,
    sign_identity: Callable[[bytes], bytes],
    chain_id: int | None = None,
    on_trouble: Callable[[str], None] = lambda sentence: None,
    options: ChainOptions | None = None,
) -> AsyncIterator[EthereumChain]:
    """Open the chain behind an endpoint for one wallet.

    Args:
        sign_identity: signs bytes with the peer's Ed25519 key, 64 bytes; for the proof of identity.
        chain_id: what the session says; None accepts the endpoint's.
        on_trouble: hears a sentence when the endpoint goes down, and when it is back.
    Raises: ChainUnreachableError (only here, and not if `options.patient`; later calls wait), WrongChainError.
    """
    chosen = options or ChainOptions()
    async with Endpoint(url, on_trouble) as endpoint:
        asked = partial(endpoint.request, "eth_chainId")
        served = read_number("eth_chainId", await (endpoint.patiently(asked) if chosen.patient else asked()))
        if chain_id is not None and served != chain_id:
            raise WrongChainError(served, chain_id)
        yield EthereumChain(endpoint, served, wallet, peer_id, sign_identity, on_trouble, chosen)


async def ask_faucet(url: str, wallet: Address, amount_wei: Wei) -> None:
    """Ask an embedded chain (`learnae chain`) for money. Raises: ChainError leaves: it is another kind of chain, or down."""
    async with Endpoint(url, lambda sentence: None) as endpoint:
        await endpoint.request("learnae_fund", wallet, hex(amount_wei))


class EthereumChain:
    """One wallet's view of an Ethereum chain; made by `open_ethereum_chain`."""

    def __init__(
        self,
        endpoint: Endpoint,
        chain_id: int,
        wallet: WalletKey,
        peer_id: PeerId,
        sign_identity: Callable[[bytes], bytes],
        on_trouble: Callable[[str], None],
        options: ChainOptions,
    ) -> None:
        self._endpoint, self._chain_id, self._key, self._options = endpoint, chain_id, wallet, options
        self._peer_id, self._sign_identity, self._on_trouble = peer_id, sign_identity, on_trouble
        self._sending, self._reading = trio.Lock(), trio.Lock()
        self._pending: _Pending | None = None
        self._facts: dict[Address, SessionFacts] = {}
        self._readers: dict[Address, SessionReader] = {}

    @property
    def wallet(self) -> Address:
        return self._key.address

    @property
    def chain_id(self) -> int:
        return self._chain_id

    # --- reading ------------------------------------------------------------------------------------------------

    async def read_terms(self, session: Address) -> SessionTerms:
        """What the session fixed at its creation. Raises: NotASessionError."""
        return (await self._read_facts(session)).terms

    async def read(self, session: Address) -> ChainView:
        """The session at the newest block; costs one small request if there was no block since."""
        facts = await self._read_facts(session)
        async with self._reading:
            reader = self._readers.setdefault(session, SessionReader(self._endpoint, session, facts, self._chain_id))
            return await self._endpoint.patiently(reader.read)

    async def balance_wei(self, wallet: Address) -> Wei:
        return Wei(await self._number("eth_getBalance", wallet, "latest"))

    async def _read_facts(self, session: Address) -> SessionFacts:
        if session not in self._facts:
            self._facts[session] = await self._endpoint.patiently(partial(read_facts, self._endpoint, session))
        return self._facts[session]

    async def _number(self, method: str, *params: object) -> int:
        return read_number(method, await self._endpoint.patiently(partial(self._endpoint.request, method, *params)))

    # --- sending ------------------------------------------------------------------------------------------------

    async def sign(self, session: Address, call: Signable) -> bytes:
        """The wallet's signature of a claim or a ballot, 64 bytes, for others to send."""
        return sign_call(self._key, chain_id=self._chain_id, session=session, call=call)

    async def submit(self, session: Address, call: Call) -> Receipt:
        """Send a call and wait until it is in a block. Raises: TransactionError, NotEnoughMoneyError."""
        return await self._send(await self._intend(session, call))

    async def deploy_session(self, terms: SessionTerms) -> Address:
        """Create a session. Raises: TransactionError, NotEnoughMoneyError."""
        receipt = await self._send(_Intent("creating the session", session_abi(), None, encode_session_creation(terms)))
        assert receipt.address is not None
        return receipt.address

    async def estimate(self, session: Address, call: Call) -> Cost:
        """What a call would cost now, without sending it. Raises as `submit`."""
        intent = await self._intend(session, call)
        gas = await self._estimate_gas(intent)
        price, _ = await self._read_fees()
        return Cost(gas, Wei(gas * price), Wei(intent.value))

    async def resume(self, raw: bytes) -> Receipt:
        """Go on with a signed transaction that `save_pending` kept before a restart. Raises as `submit`."""
        nonce = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()["nonce"]
        intent = _Intent("the transaction from before the restart", session_abi(), None, raw)
        async with self._sending:
            self._pending = _Pending(raw, "0x" + keccak(raw).hex(), int(str(nonce)), intent)
            return await self._finish(self._pending)

    async def _intend(self, session: Address, call: Call) -> _Intent:
        abi = session_abi()
        match call:
            case DeployPoid():
                creation = build_poid_creation(self._peer_id, self._key, self._chain_id, self._sign_identity)
                return _Intent("deploying the proof of identity", poid_abi(), None, creation)
            case Join(poid):
                deposit = (await self._read_facts(session)).terms.deposit_wei
                return _Intent("joining the session", abi, session, abi.encode("join", poid), deposit)
            case Leave():
                members = (await self.read(session)).members
                last = members[-1].wallet if members else self.wallet
                return _Intent("leaving the session", abi, session, abi.encode("leave", last))
            case SubmitClaim(points, evidence):
                return _Intent("the claim", abi, session, abi.encode("claim", points, evidence))
            case CastBallot(nays):
                return _Intent("the ballot", abi, session, abi.encode("cast", pack_nays(nays)))
            case ClaimBatch() | CastGrouped():
                what, data = encode_group(call, chain_id=self._chain_id, session=session)
                return _Intent(what, abi, session, data)
            case Tally():
                return _Intent("the tally", abi, session, abi.encode("tally", TALLY_WORDS))
            case Release(wallets):
                return _Intent("the release", abi, session, abi.encode("releaseBatch", list(wallets)))
            case Withdraw():
                return _Intent("the withdrawal", abi, session, abi.encode("withdraw", self.wallet))
            case WithdrawTo(wallet):
                return _Intent("the withdrawal", abi, session, abi.encode("withdrawTo", wallet))
            case PayTip(helper, amount_wei, receipt):
                tips = (await self._read_facts(session)).tips
                return _Intent("the tip", tips_abi(), tips, tips_abi().encode("pay", helper, receipt), amount_wei)

    async def _send(self, intent: _Intent) -> Receipt:
        async with self._sending:
            if self._pending is not None:
                before = self._pending
                try:
                    receipt = await self._finish(before)
                except TransactionError as error:
                    if before.intent == intent:
                        raise
                    self._on_trouble(f"an earlier transaction failed: {error}")
                else:
                    if before.intent == intent:
                        return receipt  # The caller was cancelled while it waited, and asks for the same again.
            pending = await self._sign(intent)
            if self._options.save_pending is not None:
                self._options.save_pending(pending.raw)
            self._pending = pending
            return await self._finish(pending)

    async def _sign(self, intent: _Intent) -> _Pending:
        gas = await self._estimate_gas(intent)
        price, tip = await self._read_fees()
        most = min(2 * price, max(self._options.fee_cap_wei, price))
        needed, got = intent.value + gas * most, await self.balance_wei(self.wallet)
        if got < needed:
            raise NotEnoughMoneyError(intent.what, self.wallet, got, needed)
        nonce = await self._number("eth_getTransactionCount", self.wallet, "pending")
        fields = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": most,
            "maxPriorityFeePerGas": min(tip, most),
            "value": intent.value,
            "data": intent.data,
        }
        if intent.to is not None:
            fields["to"] = intent.to
        raw, digest = self._key.sign_transaction(fields)
        return _Pending(raw, "0x" + digest.hex(), nonce, intent)

    async def _estimate_gas(self, intent: _Intent) -> int:
        got = await self.balance_wei(self.wallet)
        if got < intent.value:
            raise NotEnoughMoneyError(intent.what, self.wallet, got, intent.value)
        try:
            gas = await self._number("eth_estimateGas", self._message(intent))
        except RpcError as error:
            raise _refusal(intent, error) from error
        return gas + gas // 4 + _GAS_MARGIN

    def _message(self, intent: _Intent) -> dict[str, str]:
        message = {"from": self.wallet, "value": hex(intent.value), "data": "0x" + intent.data.hex()}
        return message if intent.to is None else {**message, "to": intent.to}

    async def _read_fees(self) -> tuple[int, int]:
        """The price of a unit of gas now, tip included, and the tip; waits while it is above the cap."""
        told = False
        while True:
            asked = partial(self._endpoint.request, "eth_getBlockByNumber", "latest", False)
            base = Fields("eth_getBlockByNumber", await self._endpoint.patiently(asked)).number("baseFeePerGas")
            try:
                tip = await self._number("eth_maxPriorityFeePerGas")
            except RpcError:
                tip = 10**9  # A node without that method; a gwei was always enough.
            if base + tip <= self._options.fee_cap_wei:
                return base + tip, tip
            if not told:
                told = True
                cap = self._options.fee_cap_wei
                self._on_trouble(f"gas costs {(base + tip) / 1e9:.1f} gwei, more than the cap of {cap / 1e9:.1f}; waiting until it falls")
            await trio.sleep(self._options.fee_poll_s)

    # --- until it is in a block ---------------------------------------------------------------------------------

    async def _finish(self, pending: _Pending) -> Receipt:
        """Broadcast until the transaction is in a block."""
        polls = lost = 0
        while True:
            refusal = await self._broadcast(pending) if polls % _REBROADCAST_POLLS == 0 else None
            polls += 1
            receipt = await self._endpoint.patiently(partial(self._endpoint.request, "eth_getTransactionReceipt", pending.digest))
            if receipt is not None:
                return await self._conclude(pending, Fields("eth_getTransactionReceipt", receipt))
            if refusal is not None:
                taken = await self._number("eth_getTransactionCount", self.wallet, "latest") > pending.nonce
                lost = lost + 1 if taken else _LOST_POLLS
                polls = 0
                if lost >= _LOST_POLLS:  # Its number is used up by another transaction, or the node will never take it.
                    self._forget()
                    raise self._lost(pending, refusal) if taken else _refusal(pending.intent, refusal)
            await trio.sleep(self._options.poll_s)

    async def _broadcast(self, pending: _Pending) -> RpcError | None:
        try:
            await self._endpoint.patiently(partial(self._endpoint.request, "eth_sendRawTransaction", "0x" + pending.raw.hex()))
        except RpcError as error:
            known = "already known" in error.message or "known transaction" in error.message or "already imported" in error.message
            return None if known else error
        return None

    async def _conclude(self, pending: _Pending, found: Fields) -> Receipt:
        block = found.number("blockNumber")
        self._forget()
        if not found.number("status"):
            raise await self._explain(pending, block)
        contract = found.maybe_data("contractAddress")
        gas_used = found.number("gasUsed")
        return Receipt(
            transaction=pending.digest,
            block_number=block,
            gas_used=gas_used,
            fee_wei=Wei(gas_used * found.number("effectiveGasPrice")),
            address=checksum(contract) if contract else None,
        )

    def _forget(self) -> None:
        self._pending = None
        if self._options.save_pending is not None:
            self._options.save_pending(None)

    async def _explain(self, pending: _Pending, block: int) -> TransactionError:
        """Ask why a transaction in a block reverted, by calling the same once more."""
        intent = pending.intent
        if intent.data == pending.raw:
            return TransactionError(intent.what, "it is in a block but reverted")
        try:
            await self._endpoint.patiently(partial(self._endpoint.request, "eth_call", self._message(intent), hex(block)))
        except RpcError as error:
            return _refusal(intent, error)
        return TransactionError(intent.what, "it is in a block but reverted; the session changed meanwhile")

    @staticmethod
    def _lost(pending: _Pending, refusal: RpcError) -> TransactionError:
        why = f"another transaction of this wallet took its number {pending.nonce} ({refusal.message}); one wallet serves one peer only"
        return TransactionError(pending.intent.what, why, "Replaced")


def _refusal(intent: _Intent, error: RpcError) -> TransactionError:
    if error.revert:
        name, sentence = intent.abi.explain(error.revert)
        return TransactionError(intent.what, sentence, name)
    return TransactionError(intent.what, f"the node says: {error.message}")
