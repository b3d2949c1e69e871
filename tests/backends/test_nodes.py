"""A real node (anvil) that lets a transaction wait, and one whose chain is reorganised."""

from __future__ import annotations

from functools import partial

import trio

from learnae.backends.ethereum import ChainOptions
from learnae.backends.ethereum.rpc import Endpoint
from learnae.ids import Wei
from learnae.protocol.calls import DeployPoid, Join, PayTip
from tests.backends.chain_beds import open_wallet
from tests.backends.nodes import open_node
from tests.backends.test_sending import has, until
from tests.conformance.chain import EVIDENCE, STRANGER, make_terms


async def now_s(node: Endpoint) -> int:
    return int((await node.request("eth_getBlockByNumber", "latest", False))["timestamp"], 16)


async def balance(node: Endpoint) -> int:
    return int(await node.request("eth_getBalance", STRANGER, "latest"), 16)


def test_stuck_transaction__on_a_real_node_is_replaced_and_pays_once() -> None:
    """No block is made for a while; the node keeps one transaction of that number, the one that pays more."""

    async def run() -> None:
        troubles: list[str] = []
        options = ChainOptions(poll_s=0.005, bump_after_s=0.05)
        async with (
            open_node("anvil") as url,
            Endpoint(url, troubles.append) as node,
            open_wallet(url, "payer", options=options, on_trouble=troubles.append, program="anvil") as chain,
        ):
            session = await chain.deploy_session(make_terms(await now_s(node)))
            await node.request("evm_setAutomine", False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.submit, session, PayTip(STRANGER, Wei(777), EVIDENCE))
                await until(partial(has, troubles, "sending it again under the same number"))
                while (await node.request("txpool_status"))["pending"] != "0x1":
                    await trio.lowlevel.checkpoint()
                await node.request("evm_mine")
            assert await balance(node) == 777
            await node.request("evm_mine")
            assert await balance(node) == 777 and (await node.request("txpool_status"))["pending"] == "0x0"

    trio.run(run)


def test_reorganised_chain__of_a_real_node_is_noticed_and_the_transaction_sent_again() -> None:
    async def run() -> None:
        troubles: list[str] = []
        told: list[str] = []
        options = ChainOptions(poll_s=0.005, confirmations=3, on_progress=told.append)
        async with (
            open_node("anvil") as url,
            Endpoint(url, troubles.append) as node,
            open_wallet(url, "payer", options=options, on_trouble=troubles.append, program="anvil") as chain,
            open_wallet(url, "founder", program="anvil") as founder,
        ):
            session = await founder.deploy_session(make_terms(await now_s(node)))
            poid = (await founder.submit(session, DeployPoid())).address
            assert poid is not None
            await founder.submit(session, Join(poid))
            assert len((await founder.read(session)).members) == 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.submit, session, PayTip(STRANGER, Wei(777), EVIDENCE))
                await until(partial(has, told, "1 of 3 confirmations"))
                assert await balance(node) == 777
                await node.request("anvil_reorg", 2, [])  # The last two blocks again, empty: the tip and the member are gone.
                assert await balance(node) == 0
                await until(partial(has, troubles, "fell out of its block"))
                while await balance(node) != 777:
                    await trio.lowlevel.checkpoint()
                await node.request("anvil_mine", 3)
            assert await balance(node) == 777
            assert (await founder.read(session)).members == (), "what was read from blocks that are gone is forgotten"

    trio.run(run)
