"""The `Chain` port on an Ethereum node: sends one wallet's calls and reads sessions, each from the newest block that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from learnae.backends.ethereum.abi import session_abi
from learnae.backends.ethereum.fees import Price
from learnae.backends.ethereum.intents import Author, Intent, make_intent
from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.poid import judge_poid
from learnae.backends.ethereum.queries import make_view_call
from learnae.backends.ethereum.reader import SessionFacts, SessionReader, encode_session_creation, read_facts
from learnae.backends.ethereum.rpc import Endpoint, Fields, read_bytes
from learnae.backends.ethereum.sender import Sender
from learnae.backends.ethereum.signed_calls import sign_call
from learnae.backends.ethereum.wallet import WalletKey
from learnae.backends.ethereum.witness import Witness
from learnae.errors import TransactionError, WrongChainError
from learnae.ids import Address, PeerId, Wei
from learnae.ports import Receipt
from learnae.protocol.calls import Call, ChainView, Join, Leave, PoidRecord, Release, SessionTerms, Signable


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call would cost now: gas with its margin, the fee at the present price, and the value it sends along."""

    gas: int
    fee_wei: Wei
    value_wei: Wei


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
    async with AsyncExitStack() as stack:
        endpoint, served = await _open_endpoint(stack, url, chain_id, on_trouble, chosen)
        witness = None
        if chosen.witness_url:
            second, _ = await _open_endpoint(stack, chosen.witness_url, served, on_trouble, chosen)
            witness = Witness(endpoint, second, served)
        yield EthereumChain(endpoint, Author(wallet, peer_id, sign_identity, served), on_trouble, chosen, witness)


async def _open_endpoint(
    stack: AsyncExitStack, url: str, chain_id: int | None, on_trouble: Callable[[str], None], options: ChainOptions
) -> tuple[Endpoint, int]:
    endpoint = await stack.enter_async_context(Endpoint(url, on_trouble))
    asked = partial(endpoint.request_number, "eth_chainId")
    served = await (endpoint.patiently(asked) if options.patient else asked())
    if chain_id is not None and served != chain_id:
        raise WrongChainError(served, chain_id)
    return endpoint, served


async def ask_faucet(url: str, wallet: Address, amount_wei: Wei) -> None:
    """Ask an embedded chain (`learnae chain`) for money. Raises: ChainError leaves: it is another kind of chain, or down."""
    async with Endpoint(url, lambda sentence: None) as endpoint:
        await endpoint.request("learnae_fund", wallet, hex(amount_wei))


class EthereumChain:
    """One wallet's view of an Ethereum chain; made by `open_ethereum_chain`."""

    def __init__(
        self,
        endpoint: Endpoint,
        author: Author,
        on_trouble: Callable[[str], None],
        options: ChainOptions,
        witness: Witness | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.confirmations = options.choose_confirmations(author.chain_id)
        self.poll_s = options.choose_poll_s(author.chain_id)
        self._author, self._witness = author, witness
        others = () if witness is None else (witness.endpoint,)
        self._sender = Sender(endpoint, author, options, on_trouble=on_trouble, others=others)
        self._reading, self._comparing = trio.Lock(), trio.Lock()
        self._facts: dict[Address, SessionFacts] = {}
        self._readers: dict[Address, SessionReader] = {}

    @property
    def wallet(self) -> Address:
        return self._author.wallet.address

    @property
    def chain_id(self) -> int:
        return self._author.chain_id

    # --- reading ------------------------------------------------------------------------------------------------

    async def read_terms(self, session: Address) -> SessionTerms:
        """What the session fixed at its creation. Raises: NotASessionError."""
        return (await self.read_facts(session)).terms

    async def read_facts(self, session: Address) -> SessionFacts:
        """Its terms and the contracts that belong to it. Raises: NotASessionError."""
        if session not in self._facts:
            self._facts[session] = await self.endpoint.surely(partial(read_facts, self.endpoint, session))
        return self._facts[session]

    async def read(self, session: Address) -> ChainView:
        """The session at the newest block that counts; costs one small request if there was none since."""
        facts = await self.read_facts(session)
        async with self._reading:
            reader = self._readers.setdefault(session, SessionReader(self.endpoint, session, facts, self.chain_id))
            return await self.endpoint.surely(partial(reader.read, self.confirmations))

    async def balance_wei(self, wallet: Address) -> Wei:
        return Wei(await self._number("eth_getBalance", wallet, "latest"))

    async def read_time(self) -> int:
        """The newest block's time, Unix seconds."""
        asked = partial(self.endpoint.request, "eth_getBlockByNumber", "latest", False)
        return Fields("eth_getBlockByNumber", await self.endpoint.surely(asked)).time("timestamp")

    async def read_poid(self, contract: Address) -> PoidRecord:
        """A proof of identity by itself, without its place in the order."""
        asked = partial(self.endpoint.request, "eth_getCode", contract, "latest")
        code = read_bytes("eth_getCode", await self.endpoint.surely(asked))
        return judge_poid(contract, code, self.chain_id, (0, 0))

    async def read_price(self) -> Price:
        """What a unit of gas costs now."""
        return await self._sender.fees.read()

    async def _number(self, method: str, *params: object) -> int:
        return await self.endpoint.surely(partial(self.endpoint.request_number, method, *params))

    async def _compare(self, session: Address | None) -> None:
        """Raises: EndpointsDisagreeError: the second endpoint shows another chain, so nothing may be sent."""
        if self._witness is None:
            return
        async with self._comparing:
            if session is None:
                newest = await self._number("eth_blockNumber")
                await self._witness.compare_block(max(0, newest - self.confirmations + 1))
            else:
                await self._witness.compare(session, await self.read_facts(session), await self.read(session))

    # --- sending ------------------------------------------------------------------------------------------------

    async def sign(self, session: Address, call: Signable) -> bytes:
        """The wallet's signature of a claim or a ballot, 64 bytes, for others to send."""
        return sign_call(self._author.wallet, chain_id=self.chain_id, session=session, call=call)

    async def submit(self, session: Address, call: Call) -> Receipt:
        """Send a call and wait until it counts. Raises: TransactionError, NotEnoughMoneyError, EndpointsDisagreeError."""
        return await self.submit_intent(session, await self.make_intent(session, call))

    async def submit_intent(self, session: Address | None, intent: Intent) -> Receipt:
        """Send any transaction that belongs to a session. Raises as `submit`."""
        return await self._sender.send(intent, guard=partial(self._compare, session))

    async def deploy_session(self, terms: SessionTerms) -> Address:
        """Create a session. Raises: TransactionError, NotEnoughMoneyError."""
        receipt = await self.submit_intent(None, make_creation(terms))
        assert receipt.address is not None
        return receipt.address

    async def estimate(self, intent: Intent) -> Cost:
        """What a transaction would cost now, without sending it. Raises as `submit`."""
        gas = await self._sender.estimate_gas(intent)
        price = await self.read_price()
        return Cost(gas, Wei(gas * price.wei), Wei(intent.value))

    async def resume(self, record: bytes) -> tuple[Intent, Receipt]:
        """Go on with the transaction that `save_pending` kept before a restart; what it was, and its receipt. Raises as `submit`."""
        return await self._sender.resume(record)

    async def make_intent(self, session: Address, call: Call) -> Intent:
        """What a call says to a session, as a transaction. Raises: NotASessionError, TransactionError."""
        last = self.wallet
        if isinstance(call, Release):
            call = await self._find_due(session, call)
        if isinstance(call, Leave):  # Who leaves names the member that takes over its seat.
            members = (await self.read(session)).members
            last = members[-1].wallet if members else last
        if isinstance(call, Join) and not await self._has_code(call.poid):  # The contract does not ask: it would cost every member gas.
            raise TransactionError("joining the session", f"there is no proof of identity at {call.poid}", "NotAContract")
        return make_intent(call, self._author, session, await self.read_facts(session), last=last)

    async def _find_due(self, session: Address, call: Release) -> Release:
        """Those who are due something in the newest block: another member may have pushed the rest a moment ago."""
        asked = [("eth_call", (make_view_call(session_abi(), session, "due", wallet), "latest")) for wallet in call.wallets]
        found = await self.endpoint.surely(partial(self.endpoint.batch, asked))
        due = [session_abi().decode("due", read_bytes("eth_call", answer))[0] for answer in found]
        wallets = tuple(wallet for wallet, amount in zip(call.wallets, due, strict=True) if amount)
        if not wallets:
            raise TransactionError("the release", "nothing is due to any of these wallets", "NothingDue")
        return Release(wallets)

    async def _has_code(self, contract: Address) -> bool:
        code = await self.endpoint.surely(partial(self.endpoint.request, "eth_getCode", contract, "latest"))
        return bool(read_bytes("eth_getCode", code))


def make_creation(terms: SessionTerms) -> Intent:
    """The transaction that creates a session."""
    return Intent("creating the session", None, encode_session_creation(terms))
