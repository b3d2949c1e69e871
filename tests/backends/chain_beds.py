"""Chains for tests: an embedded one on a free port, or one in memory, with wallets that hold money."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from nacl.signing import SigningKey

from learnae.backends.chain_server import ServerOptions, Started, serve_chain
from learnae.backends.ethereum import ChainOptions, EthereumChain, WalletKey, ask_faucet, open_ethereum_chain
from learnae.backends.ethereum.rpc import Endpoint
from learnae.backends.memory_chain import MemoryChain, MemoryLedger
from learnae.ids import PeerId, Wei
from tests.backends.nodes import give_money, open_node
from tests.conformance.chain import ChainBed

ETHER = 10**18


def make_wallet(name: str) -> WalletKey:
    """The same key for the same name."""
    return WalletKey(hashlib.sha256(b"wallet " + name.encode()).digest())


def make_identity(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(b"peer " + name.encode()).digest())


@asynccontextmanager
async def open_server(*, instant: bool = True) -> AsyncIterator[str]:
    """The URL of a fresh embedded chain on a free port; blocks come with transactions only."""
    async with trio.open_nursery() as nursery:

        async def serve(task_status: Started) -> None:
            await serve_chain(options=ServerOptions(instant=instant, block_time_s=3600.0 if instant else 1.0), task_status=task_status)

        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_wallet(
    url: str,
    name: str,
    *,
    ether: float = 10.0,
    options: ChainOptions | None = None,
    on_trouble: Callable[[str], None] = lambda sentence: None,
    program: str = "embedded",
) -> AsyncIterator[EthereumChain]:
    """A funded wallet on an embedded chain, or on the node of another program."""
    key, identity = make_wallet(name), make_identity(name)
    if program == "embedded":
        await ask_faucet(url, key.address, Wei(int(ether * ETHER)))
    else:
        await give_money(url, program, key.address, int(ether * ETHER))
    async with open_ethereum_chain(
        url,
        wallet=key,
        peer_id=PeerId(bytes(identity.verify_key)),
        sign_identity=lambda message: identity.sign(message).signature,
        on_trouble=on_trouble,
        options=options or ChainOptions(poll_s=0.003),
    ) as chain:
        yield chain


@asynccontextmanager
async def open_ethereum_bed(program: str = "embedded") -> AsyncIterator[ChainBed]:
    """A bed on the embedded chain, or on anvil, hardhat or ganache."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_server() if program == "embedded" else open_node(program))
        rich = [await stack.enter_async_context(open_wallet(url, f"member {index}", program=program)) for index in range(5)]
        poor = await stack.enter_async_context(open_wallet(url, "poor", ether=0.05, program=program))
        endpoint = await stack.enter_async_context(Endpoint(url, lambda sentence: None))

        async def now_s() -> int:
            return int((await endpoint.request("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

        async def travel_to(time_s: int) -> None:
            await endpoint.request("evm_mine")
            while (ahead := time_s - await now_s()) > 0:  # Blocks may be ahead of the chain's clock: then once is not enough.
                await endpoint.request("evm_increaseTime", hex(ahead))
                await endpoint.request("evm_mine")

        yield ChainBed(chains=[*rich, poor], now_s=now_s, travel_to=travel_to)


def make_memory_bed() -> ChainBed:
    clock = [int(time.time())]
    ledger = MemoryLedger(lambda: clock[0])
    wallets = [*(f"member {index}" for index in range(5)), "poor"]
    chains = [MemoryChain(ledger, make_wallet(name).address, PeerId(bytes(make_identity(name).verify_key))) for name in wallets]
    for chain in chains:
        ledger.move(chain.wallet, Wei(ETHER // 20 if chain is chains[-1] else 10 * ETHER))

    async def now_s() -> int:
        return clock[0]

    async def travel_to(time_s: int) -> None:
        clock[0] = max(clock[0], time_s)

    return ChainBed(chains=chains, now_s=now_s, travel_to=travel_to)
