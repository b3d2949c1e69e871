"""Sends one wallet's transactions, one at a time, and never pays twice.

A transaction is signed, handed to `save_pending`, and broadcast again and again until a block holds it deeply enough. One that
no block takes is replaced by another with the same number (nonce) that pays more: at most one of them can ever be in a block.
One that fell out of its block, because the chain was reorganised, is broadcast again. The number is given to another call only
when nothing that was signed with it can be under way any more, or by replacing it. After a restart `resume` goes on with what was saved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio
from eth_utils.crypto import keccak

from learnae.backends.ethereum.abi import checksum
from learnae.backends.ethereum.fees import Fees, Offer
from learnae.backends.ethereum.intents import Author, Intent, read_intent, refuse
from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.rpc import Endpoint, Fields, RpcError
from learnae.errors import ChainAnswerError, ChainError, NotEnoughMoneyError, TransactionError
from learnae.ids import Wei
from learnae.ports import Receipt
from learnae.tangle import cbor

GAS_MAX: Final = 1 << 24  # Of one transaction (EIP-7825). Nodes for development do not ask for it, so it is asked for here.
_GAS_MARGIN: Final = 20_000  # Above the estimate and its quarter: a late ballot extends the vote, a first nay opens a plane.
_REBROADCAST_POLLS: Final = 20
_LOST_POLLS: Final = 20  # Looks for a receipt after the number was used: behind one address there may be nodes that lag.
_VERSIONS_MAX: Final = 16  # Of one transaction; each pays an eighth more, the last almost six times the first.
_KNOWN: Final = ("already known", "known transaction", "already imported", "already exists")


@dataclass(frozen=True, slots=True)
class _Version:
    """One signed version of a transaction."""

    raw: bytes
    offer: Offer

    @property
    def digest(self) -> str:
        return "0x" + keccak(self.raw).hex()


@dataclass(slots=True)
class _Pending:
    """A transaction that may be anywhere between here and a block, in all its versions; they share the number and what they do."""

    intent: Intent
    nonce: int
    gas: int
    versions: list[_Version] = field(default_factory=list)
    only_here: bool = True  # Nothing but refusals came back: no node has it.
    told: set[str] = field(default_factory=set)


class Sender:
    """The sending side of one wallet."""

    def __init__(
        self,
        endpoint: Endpoint,
        author: Author,
        options: ChainOptions,
        *,
        on_trouble: Callable[[str], None],
        others: Sequence[Endpoint] = (),
    ) -> None:
        self._endpoint, self._others, self._author, self._options = endpoint, others, author, options
        self._on_trouble = on_trouble
        self._fees = Fees(endpoint, options, on_trouble)
        self._confirmations = options.choose_confirmations(author.chain_id)
        self._poll_s = options.choose_poll_s(author.chain_id)
        self._lock = trio.Lock()
        self._pending: _Pending | None = None

    @property
    def fees(self) -> Fees:
        return self._fees

    async def send(self, intent: Intent, guard: Callable[[], Awaitable[None]]) -> Receipt:
        """Send and wait until it counts. Asked again for what is still under way, it waits for that.

        Args: guard: asked before the signature, once the price is good; raises if nothing may be sent.
        Raises: TransactionError, NotEnoughMoneyError.
        """
        async with self._lock:
            before = self._pending
            if before is not None:
                same = before.intent.is_same(intent)
                try:
                    receipt = await self._finish(before)
                except TransactionError as error:
                    if same:
                        raise
                    self._on_trouble(f"an earlier transaction failed: {error}")
                else:
                    if same:
                        return receipt  # The caller was cancelled while it waited, and asks for the same again.
            pending = await self._prepare(intent, guard)
            self._keep(pending)
            return await self._finish(pending)

    async def resume(self, record: bytes) -> tuple[Intent, Receipt]:
        """Go on with what `save_pending` kept before a restart; what it was, and how it ended. Raises as `send`."""
        versions = []
        for raw in cbor.decode(record):
            intent, numbers = read_intent(raw)
            versions.append(_Version(raw, Offer(numbers["maxFeePerGas"], numbers["maxPriorityFeePerGas"])))
        async with self._lock:
            self._pending = _Pending(intent, numbers["nonce"], numbers["gas"], versions, only_here=False)
            return intent, await self._finish(self._pending)

    async def estimate_gas(self, intent: Intent) -> int:
        """Gas to send along: the estimate and a margin. Raises: TransactionError, NotEnoughMoneyError."""
        got = await self._balance()
        if got < intent.value:
            raise NotEnoughMoneyError(intent.what, self._author.wallet.address, got, intent.value)
        try:
            gas = await self._number("eth_estimateGas", self._message(intent))
        except RpcError as error:
            raise refuse(intent, error) from error
        if gas > GAS_MAX:
            why = f"it takes {gas} gas and one transaction may take {GAS_MAX}; do it in smaller parts"
            raise TransactionError(intent.what, why, "TooMuchGas")
        return min(gas + gas // 4 + _GAS_MARGIN, GAS_MAX)

    # --- signing ------------------------------------------------------------------------------------------------

    async def _prepare(self, intent: Intent, guard: Callable[[], Awaitable[None]]) -> _Pending:
        """Sign. The price may keep it waiting for hours, so everything else is asked after that."""
        offer = self._fees.offer(await self._fees.wait())
        await guard()
        gas = await self.estimate_gas(intent)
        await self._check_money(intent, gas, offer)
        left = self._pending  # Refused by the node just now, though another may have it: only its own number replaces it surely.
        nonce = await self._number("eth_getTransactionCount", self._author.wallet.address, "pending") if left is None else left.nonce
        pending = _Pending(intent, nonce, gas)
        pending.versions.append(self._sign(pending, offer))
        return pending

    def _sign(self, pending: _Pending, offer: Offer) -> _Version:
        intent = pending.intent
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self._author.chain_id,
            "nonce": pending.nonce,
            "gas": pending.gas,
            "maxFeePerGas": offer.most_wei,
            "maxPriorityFeePerGas": offer.tip_wei,
            "value": intent.value,
            "data": intent.data,
        }
        if intent.to is not None:
            fields["to"] = intent.to
        raw, _ = self._author.wallet.sign_transaction(fields)
        return _Version(raw, offer)

    async def _check_money(self, intent: Intent, gas: int, offer: Offer) -> None:
        needed, got = intent.value + gas * offer.most_wei, await self._balance()
        if got < needed:
            raise NotEnoughMoneyError(intent.what, self._author.wallet.address, got, needed)

    def _message(self, intent: Intent) -> dict[str, str]:
        message = {"from": self._author.wallet.address, "value": hex(intent.value), "data": "0x" + intent.data.hex()}
        return message if intent.to is None else {**message, "to": intent.to}

    def _keep(self, pending: _Pending | None) -> None:
        """On disk first: whatever is broadcast can be found again."""
        if self._options.save_pending is not None:
            self._options.save_pending(None if pending is None else cbor.encode([version.raw for version in pending.versions]))
        self._pending = pending

    # --- until it is in a block ---------------------------------------------------------------------------------

    async def _finish(self, pending: _Pending) -> Receipt:
        """Broadcast until a version is in a block that is deep enough."""
        polls = lost = 0
        seen = False
        since_s = trio.current_time()
        while True:
            refusal = await self._broadcast(pending) if polls % _REBROADCAST_POLLS == 0 else None
            polls += 1
            found = await self._find(pending)
            if found is not None:
                seen = True
                if await self._counts(pending, found):
                    return await self._conclude(pending, found)
            elif seen:
                self._on_trouble(f"{pending.intent.what} fell out of its block, because the chain was reorganised; sending it again")
                seen, polls, since_s = False, 0, trio.current_time()
            elif refusal is not None:
                polls, lost = 0, lost + 1
                await self._judge_refusal(pending, refusal, lost)
            elif trio.current_time() - since_s >= self._options.bump_after_s:
                polls, since_s = 0, trio.current_time()
                await self._outbid(pending)
            await trio.sleep(self._poll_s)

    async def _broadcast(self, pending: _Pending) -> RpcError | None:
        """Send the newest version; returns what the node has against it, if anything."""
        newest = pending.versions[-1]
        raw = "0x" + newest.raw.hex()
        for other in self._others:
            try:
                await other.request("eth_sendRawTransaction", raw)
            except ChainError:
                pass  # It is a second way only: the first one is asked again until it answers.
            else:
                pending.only_here = False
        only_here, pending.only_here = pending.only_here, False  # Until the node says that it did not take it.

        async def send() -> None:
            nonlocal only_here
            try:
                await self._endpoint.request("eth_sendRawTransaction", raw)
            except RpcError:
                raise
            except ChainError:
                only_here = False  # It may have arrived all the same.
                raise

        try:
            await self._endpoint.patiently(send)
        except RpcError as error:
            if not any(words in error.message.lower() for words in _KNOWN):
                pending.only_here = only_here
                return error
        self._progress(pending, f"{pending.intent.what}: sent as {newest.digest}, waiting for a block")
        return None

    async def _find(self, pending: _Pending) -> Fields | None:
        """The receipt of the version that is in a block."""
        for version in reversed(pending.versions):
            receipt = await self._endpoint.surely(partial(self._ask_receipt, version.digest, pending.gas))
            if receipt is not None:
                return receipt
        return None

    async def _ask_receipt(self, digest: str, gas: int) -> Fields | None:
        """The receipt of a transaction that may use so much gas. Raises: ChainAnswerError: what is read of it later is not there."""
        method = "eth_getTransactionReceipt"
        found = await self._endpoint.request(method, digest)
        if found is None:
            return None
        receipt = Fields(method, found)
        for name in ("blockNumber", "status", "effectiveGasPrice"):
            receipt.number(name)
        if receipt.number("gasUsed") > gas:
            raise ChainAnswerError(method, f"it used {receipt.number('gasUsed')} gas and may use {gas}")
        if len(receipt.data("transactionHash")) != 32 or len(receipt.maybe_data("contractAddress") or bytes(20)) != 20:
            raise ChainAnswerError(method, "its hash or its contract has another length")
        return receipt

    async def _counts(self, pending: _Pending, found: Fields) -> bool:
        """Whether the block of a receipt is deep enough, and still the same."""
        if self._confirmations <= 1:
            return True
        block = found.number("blockNumber")
        depth = await self._number("eth_blockNumber") - block + 1
        if depth < self._confirmations:
            self._progress(pending, f"{pending.intent.what}: in block {block}, {max(depth, 0)} of {self._confirmations} confirmations")
            return False
        again = await self._find(pending)
        return again is not None and again.data("blockHash") == found.data("blockHash")

    async def _judge_refusal(self, pending: _Pending, refusal: RpcError, times: int) -> None:
        """Whether a transaction that a node refuses is lost. Raises: TransactionError: it is, or this node will never take it."""
        tag = "latest"
        if self._confirmations > 1:
            tag = hex(max(0, await self._number("eth_blockNumber") - self._confirmations + 1))
        taken = await self._number("eth_getTransactionCount", self._author.wallet.address, tag) > pending.nonce
        if taken and times >= _LOST_POLLS:
            self._keep(None)
            why = f"another transaction of this wallet took its number {pending.nonce} ({refusal.message}); one wallet serves one peer only"
            raise TransactionError(pending.intent.what, why, "Replaced")
        if taken or "nonce" in refusal.message.lower():
            if not taken and "too low" not in refusal.message.lower():
                why = f"the node says: {refusal.message}; an earlier transaction of this wallet is missing there"
                self._tell_once(pending, f"{pending.intent.what} waits, and is sent again until it is taken: {why}")
            return  # Used in a block that this node does not show yet, or that does not count yet.
        price = await self._fees.read()
        if pending.versions[-1].offer.most_wei < price.wei and await self._outbid(pending):
            return
        if pending.only_here:
            self._keep(None)
        raise refuse(pending.intent, refusal)

    async def _outbid(self, pending: _Pending) -> bool:
        """Replace a transaction that no block takes by one with the same number that pays more, if the cap and the money allow it."""
        price = await self._fees.read()
        before = pending.versions[-1].offer
        offer = self._fees.outbid(before, price)
        what = pending.intent.what
        if offer is None:
            offered, cap = before.most_wei / 1e9, self._options.fee_cap_wei / 1e9
            self._tell_once(pending, f"{what} waits: it offers {offered:.2f} gwei for gas, and more would be above the cap of {cap:.2f}")
            return False
        needed = pending.intent.value + pending.gas * offer.most_wei
        if len(pending.versions) >= _VERSIONS_MAX or await self._balance() < needed:
            self._tell_once(pending, f"{what} waits: this wallet cannot pay more for gas than the {before.most_wei / 1e9:.2f} gwei offered")
            return False
        refusal = await self._call(pending.intent, "latest")
        if refusal is not None:
            self._tell_once(pending, f"{what} waits without paying more for gas, because it would fail now: {refusal}")
            return False
        pending.versions.append(self._sign(pending, offer))
        self._keep(pending)
        self._on_trouble(f"no block took {what} yet; sending it again under the same number, with {offer.most_wei / 1e9:.2f} gwei for gas")
        return True

    async def _conclude(self, pending: _Pending, found: Fields) -> Receipt:
        block = found.number("blockNumber")
        self._keep(None)
        gas_used = found.number("gasUsed")
        if not found.number("status"):
            refusal = await self._explain(pending, block)
            refusal.gas_used = gas_used
            raise refusal
        contract = found.maybe_data("contractAddress")
        return Receipt(
            transaction="0x" + found.data("transactionHash").hex(),
            block_number=block,
            gas_used=gas_used,
            fee_wei=Wei(gas_used * found.number("effectiveGasPrice")),
            address=checksum(contract) if contract else None,
        )

    async def _explain(self, pending: _Pending, block: int) -> TransactionError:
        """Ask why a transaction in a block reverted, by calling the same once more."""
        refusal = await self._call(pending.intent, hex(block))
        why = "it is in a block but reverted; the session changed meanwhile"
        return refusal or TransactionError(pending.intent.what, why)

    async def _call(self, intent: Intent, block: str) -> TransactionError | None:
        """What the contract has against a call in a block's state."""
        try:
            await self._endpoint.patiently(partial(self._endpoint.request, "eth_call", self._message(intent), block))
        except RpcError as error:
            return refuse(intent, error)
        return None

    # --- small questions ----------------------------------------------------------------------------------------

    async def _balance(self) -> int:
        return await self._number("eth_getBalance", self._author.wallet.address, "latest")

    async def _number(self, method: str, *params: object) -> int:
        asked = partial(self._endpoint.request_number, method, *params)
        meaningful = method == "eth_estimateGas"  # There an error is an answer: the contract refuses.
        return await (self._endpoint.patiently(asked) if meaningful else self._endpoint.surely(asked))

    def _progress(self, pending: _Pending, sentence: str) -> None:
        if sentence not in pending.told:
            pending.told.add(sentence)
            self._options.on_progress(sentence)

    def _tell_once(self, pending: _Pending, sentence: str) -> None:
        if sentence not in pending.told:
            pending.told.add(sentence)
            self._on_trouble(sentence)
