"""A session on an embedded chain, seen through an endpoint that fails as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from learnae.backends.ethereum import ChainOptions, EthereumChain
from learnae.backends.ethereum.intents import Author
from learnae.backends.ethereum.rpc import Endpoint
from learnae.backends.ethereum.witness import Witness
from learnae.errors import ChainUnreachableError
from learnae.ids import Address, PeerId, Wei
from learnae.protocol.calls import PayTip, SessionTerms
from tests.backends.chain_beds import make_identity, make_wallet, open_server, open_wallet
from tests.conformance.chain import EVIDENCE, STRANGER, make_terms

TIP = PayTip(STRANGER, Wei(777), EVIDENCE)


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Faults:
    """What goes wrong at the n-th request of an endpoint."""

    at: int = -1
    kind: str = "none"  # "before": not delivered; "after": delivered, the answer is lost; "kill": the process dies
    count: int = 0
    methods: list[str] = field(default_factory=list)
    rewrite: Callable[[Any, Any], Any] = lambda asked, answer: answer
    instead: Callable[[Any], Any] = lambda asked: None  # an answer that the node never hears the question of; None asks the node


class FaultyEndpoint(Endpoint):
    """An endpoint that fails as told; nothing else differs."""

    def __init__(self, url: str, faults: Faults, on_trouble: Callable[[str], None]) -> None:
        super().__init__(url, on_trouble, retry_s=(0.001,))
        self.faults = faults

    async def _post(self, asked: object, what: str) -> Any:
        faults, faults.count = self.faults, self.faults.count + 1
        faults.methods.append(what)
        instead = faults.instead(asked)
        now = faults.count - 1 == faults.at
        if now and faults.kind == "before":
            raise ChainUnreachableError(self.name, "connection refused")
        answer = await super()._post(asked, what) if instead is None else instead
        if now and faults.kind == "after":
            raise ChainUnreachableError(self.name, "connection reset")
        if now and faults.kind == "kill":
            raise Killed
        return faults.rewrite(asked, answer)


@dataclass
class Bench:
    """A session on an embedded chain, seen through a faulty endpoint."""

    url: str
    session: Address
    terms: SessionTerms
    good: EthereumChain
    faults: Faults
    chain: EthereumChain
    troubles: list[str]
    saved: list[bytes | None]

    async def tipped(self) -> int:
        return await self.good.balance_wei(STRANGER)


def make_chain(
    endpoint: Endpoint, name: str, troubles: list[str], saved: list[bytes | None], *, witness: Witness | None = None, **options: Any
) -> EthereumChain:
    identity = make_identity(name)
    chosen = ChainOptions(poll_s=0.002, fee_poll_s=0.002, save_pending=saved.append, **options)
    author = Author(make_wallet(name), PeerId(bytes(identity.verify_key)), lambda message: identity.sign(message).signature, 1337)
    return EthereumChain(endpoint, author, troubles.append, chosen, witness)


@asynccontextmanager
async def open_bench(name: str = "payer", **options: Any) -> AsyncIterator[Bench]:
    troubles: list[str] = []
    saved: list[bytes | None] = []
    faults = Faults()
    async with (
        open_server() as url,
        open_wallet(url, "good") as good,
        open_wallet(url, name),
        FaultyEndpoint(url, faults, troubles.append) as endpoint,
    ):
        terms = make_terms(await now_s(endpoint))
        session = await good.deploy_session(terms)
        chain = make_chain(endpoint, name, troubles, saved, **options)
        await chain.read_terms(session)
        faults.count = 0
        faults.methods.clear()
        yield Bench(url, session, terms, good, faults, chain, troubles, saved)


async def now_s(endpoint: Endpoint) -> int:
    return int((await endpoint.request("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
