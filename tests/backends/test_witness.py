"""Two endpoints are given: what they do not agree on stops every transaction (issue 3, client)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from learnae.backends.chain_server import ServerOptions, serve_chain
from learnae.backends.ethereum import ChainOptions, EthereumChain, open_ethereum_chain
from learnae.backends.ethereum.witness import Witness
from learnae.errors import EndpointsDisagreeError, WrongChainError
from learnae.ids import PeerId, Wei
from learnae.protocol.calls import DeployPoid, Join
from tests.backends.chain_beds import make_wallet, open_server
from tests.backends.chain_bench import TIP, Bench, Faults, FaultyEndpoint, make_chain, open_bench
from tests.conformance.chain import make_terms


@asynccontextmanager
async def open_pair(**options: Any) -> AsyncIterator[tuple[Bench, Faults, EthereumChain]]:
    """A bench, the faults of a second endpoint of the same node, and a chain that compares both."""
    async with open_bench() as bench:
        second = Faults()
        async with FaultyEndpoint(bench.url, second, bench.troubles.append) as endpoint:
            witness = Witness(bench.chain.endpoint, endpoint, 1337)
            pair = make_chain(bench.chain.endpoint, "payer", bench.troubles, bench.saved, witness=witness, **options)
            yield bench, second, pair


def test_endpoints__that_agree_let_everything_pass() -> None:
    async def run() -> None:
        async with open_pair() as (bench, second, pair):
            poid = (await pair.submit(bench.session, DeployPoid())).address
            assert poid is not None
            await pair.submit(bench.session, Join(poid))
            await pair.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and bench.troubles == []
            await pair.deploy_session(make_terms(bench.terms.funding_ends_s))
            assert second.count > 6, "both were asked"
            assert "eth_sendRawTransaction" in second.methods, "and both were given the transactions"

    trio.run(run)


def test_endpoints__are_compared_after_the_price_of_gas_was_waited_for() -> None:
    """What was true hours ago is no reason to sign: comparison and estimate come once the price is good."""

    async def run() -> None:
        async with open_pair(fee_cap_wei=50 * 10**9) as (bench, second, pair):

            def dear(asked: Any, answer: Any) -> Any:
                told = any("waiting until it falls" in trouble for trouble in bench.troubles)
                if isinstance(asked, dict) and asked["method"] == "eth_getBlockByNumber" and not told:
                    answer["result"]["baseFeePerGas"] = hex(60 * 10**9)
                return answer

            def fork(asked: Any, answer: Any) -> Any:
                told = any("waiting until it falls" in trouble for trouble in bench.troubles)
                if isinstance(asked, dict) and asked["method"] == "eth_getBlockByNumber" and told:
                    answer["result"]["hash"] = "0x" + "ab" * 32
                return answer

            bench.faults.rewrite, second.rewrite = dear, fork
            with pytest.raises(EndpointsDisagreeError):
                await pair.submit(bench.session, TIP)
            assert await bench.tipped() == 0 and bench.saved == [] and "eth_estimateGas" not in bench.faults.methods

    trio.run(run)


def test_endpoints__with_different_blocks_stop_every_transaction() -> None:
    async def run() -> None:
        async with open_pair() as (bench, second, pair):

            def fork(asked: Any, answer: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getBlockByNumber":
                    answer["result"]["hash"] = "0x" + "ab" * 32
                return answer

            second.rewrite = fork
            sentence = r"the endpoints http://\S+:\d+ and http://\S+:\d+ disagree about block \d+ \(its hash\); nothing was sent"
            with pytest.raises(EndpointsDisagreeError, match=sentence) as caught:
                await pair.submit(bench.session, TIP)
            assert caught.value.reason == "EndpointsDisagree"
            with pytest.raises(EndpointsDisagreeError):
                await pair.deploy_session(bench.terms)
            assert bench.saved == [] and await bench.tipped() == 0
            second.rewrite = lambda asked, answer: answer
            await pair.submit(bench.session, TIP)
            assert await bench.tipped() == 777

    trio.run(run)


@pytest.mark.parametrize("liar", ["first", "second"])
def test_endpoints__with_different_sessions_in_one_block_stop_every_transaction(liar: str) -> None:
    """A node may give the right hash and a wrong event: here another member's wallet."""

    async def run() -> None:
        async with open_pair() as (bench, second, pair):
            poid = (await bench.good.submit(bench.session, DeployPoid())).address
            assert poid is not None
            await bench.good.submit(bench.session, Join(poid))
            joined, liar_wallet = bench.good.wallet[2:].lower(), make_wallet("liar").address[2:].lower()

            def lie(asked: Any, answer: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getLogs":
                    for log in answer["result"]:
                        log["topics"] = [topic.replace(joined, liar_wallet) for topic in log["topics"]]
                return answer

            (second if liar == "second" else bench.faults).rewrite = lie
            with pytest.raises(EndpointsDisagreeError, match=r"disagree about block \d+ \(the session's members\)"):
                await pair.submit(bench.session, TIP)
            assert bench.saved == [] and await bench.tipped() == 0

    trio.run(run)


def test_second_endpoint__that_is_behind_or_down_is_waited_for() -> None:
    async def run() -> None:
        async with open_pair() as (bench, second, pair):
            left = [2]

            def behind(asked: Any, answer: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getBlockByNumber" and left[0]:
                    left[0] -= 1
                    return {"result": None}
                return answer

            second.rewrite = behind
            await pair.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and left == [0]
            assert "it has no block" in bench.troubles[0] and "answers again" in bench.troubles[1]
            second.kind, second.at = "before", second.count
            await pair.submit(bench.session, TIP)
            assert await bench.tipped() == 2 * 777

    trio.run(run)


def test_second_endpoint__of_another_chain_is_refused_at_once() -> None:
    async def run() -> None:
        async with open_server() as url, trio.open_nursery() as nursery:
            other = await nursery.start(lambda task_status: serve_chain(options=ServerOptions(chain_id=5), task_status=task_status))

            async def open_both(second: str) -> None:
                options = ChainOptions(witness_url=second)
                opened = open_ethereum_chain(url, wallet=make_wallet("x"), peer_id=PeerId(bytes(32)), sign_identity=bytes, options=options)
                async with opened as chain:
                    assert await chain.balance_wei(chain.wallet) == Wei(0)

            with pytest.raises(WrongChainError, match="serves chain 5, but the session is on chain 1337"):
                await open_both(other)
            await open_both(url)
            nursery.cancel_scope.cancel()

    trio.run(run)
