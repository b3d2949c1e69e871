"""Transactions that get stuck, fall out of their block, are refused or lost on the way: sent until they count, and never paid twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio

from learnae.backends.ethereum.chain import EthereumChain
from learnae.backends.ethereum.fees import Fees, Offer, Price
from learnae.backends.ethereum.intents import Intent, read_intent
from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.rpc import Endpoint
from learnae.errors import ChainUnreachableError, TransactionError
from learnae.ids import Wei
from learnae.protocol.calls import DeployPoid, Join, PayTip
from learnae.tangle import cbor
from tests.backends.chain_beds import ETHER
from tests.backends.chain_bench import TIP, Bench, Killed, make_chain, open_bench
from tests.conformance.chain import EVIDENCE, STRANGER
from tests.processes import HANGS_S

GWEI = 10**9


def swallow(count: int, kept: list[bytes]) -> Callable[[Any], Any]:
    """The node takes the first `count` transactions and never puts them into a block."""

    def instead(asked: Any) -> Any:
        if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction":
            raw = bytes.fromhex(asked["params"][0][2:])
            if raw in kept or len(kept) < count:
                kept.extend([raw] if raw not in kept else [])
                return {"result": "0x" + "00" * 32}
        return None

    return instead


def has(sentences: Sequence[str], words: str) -> bool:
    return any(words in sentence for sentence in sentences)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until something has happened."""
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


# --- stuck ----------------------------------------------------------------------------------------------------------


def test_stuck_transaction__is_replaced_under_its_number_and_pays_once() -> None:
    """Issue 3, client: a replacement has the same number, so that only one of them can ever be in a block."""

    async def run() -> None:
        async with open_bench(bump_after_s=0.02) as bench:
            kept: list[bytes] = []
            bench.faults.instead = swallow(2, kept)
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777
            versions = max((cbor.decode(record) for record in bench.saved if record is not None), key=len)
            assert len(versions) == 3 and versions[:2] == kept and bench.saved[-1] is None
            facts = [read_intent(raw) for raw in versions]
            assert len({numbers["nonce"] for _, numbers in facts}) == 1 and len({intent.data for intent, _ in facts}) == 1
            for (_, before), (_, after) in pairwise(facts):
                assert after["maxFeePerGas"] * 10 >= before["maxFeePerGas"] * 11
                assert after["maxPriorityFeePerGas"] * 10 >= before["maxPriorityFeePerGas"] * 11
            assert sum("sending it again under the same number" in trouble for trouble in bench.troubles) == 2
            assert "nonce too low" in await refusal_of(bench, kept[0]) and await bench.tipped() == 777

    trio.run(run)


async def refusal_of(bench: Bench, raw: bytes) -> str:
    """What the chain says to a transaction that arrives after all."""
    async with Endpoint(bench.url, bench.troubles.append) as endpoint:
        with pytest.raises(Exception) as caught:
            await endpoint.request("eth_sendRawTransaction", "0x" + raw.hex())
    return str(caught.value)


def test_stuck_transaction__whose_first_version_is_mined_after_all_counts_as_done() -> None:
    async def run() -> None:
        async with open_bench(bump_after_s=0.02) as bench:
            kept: list[bytes] = []
            bench.faults.instead = swallow(1, kept)

            def first_instead_of_second(asked: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction" and kept:
                    asked["params"] = ("0x" + kept[0].hex(),)
                return swallow(1, kept)(asked) if not kept else None

            bench.faults.instead = first_instead_of_second
            receipt = await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and receipt.gas_used > 0

    trio.run(run)


def test_kill__after_a_replacement_resumes_with_every_version() -> None:
    """The older version may be the one that a block takes while this program is dead."""

    async def run() -> None:
        async with open_bench(bump_after_s=0.02) as bench:
            kept: list[bytes] = []
            swallowing = swallow(9, kept)

            def die_at_second(asked: Any) -> Any:
                answer = swallowing(asked)
                if len(kept) == 2:
                    raise Killed
                return answer

            bench.faults.instead = die_at_second
            with pytest.raises(Killed):
                await bench.chain.submit(bench.session, TIP)
            bench.faults.instead = lambda asked: None
            record = bench.saved[-1]
            assert record is not None and cbor.decode(record) == kept
            async with Endpoint(bench.url, bench.troubles.append) as endpoint:
                await endpoint.request("eth_sendRawTransaction", "0x" + kept[0].hex())
            restarted = make_chain(bench.chain.endpoint, "payer", bench.troubles, bench.saved)
            intent, receipt = await restarted.resume(record)
            assert intent.value == 777
            assert receipt.gas_used > 0 and await bench.tipped() == 777 and bench.saved[-1] is None

    trio.run(run)


def test_stuck_transaction__is_not_replaced_above_the_cap() -> None:
    async def run() -> None:
        async with open_bench(bump_after_s=0.02, fee_cap_wei=2 * GWEI) as bench:
            kept: list[bytes] = []
            bench.faults.instead = swallow(99, kept)
            with trio.move_on_after(5) as scope:

                def stop(asked: Any, answer: Any) -> Any:
                    if any("above the cap of 2.00" in trouble for trouble in bench.troubles):
                        scope.cancel()
                    return answer

                bench.faults.rewrite = stop
                await bench.chain.submit(bench.session, TIP)
            offers = [read_intent(raw)[1]["maxFeePerGas"] for record in bench.saved if record for raw in cbor.decode(record)]
            assert max(offers) <= 2 * GWEI and sum("above the cap of 2.00" in trouble for trouble in bench.troubles) == 1
            assert await bench.tipped() == 0

    trio.run(run)


def test_stuck_transaction__that_would_revert_now_does_not_raise_its_bid() -> None:
    """Nobody pays more and more for what the session does not take any more: here a deposit after the funding stage."""

    async def run() -> None:
        async with open_bench(bump_after_s=0.2) as bench, trio.open_nursery() as nursery:
            poid = (await bench.chain.submit(bench.session, DeployPoid())).address
            assert poid is not None
            kept: list[bytes] = []
            bench.faults.instead = swallow(99, kept)
            nursery.start_soon(bench.chain.submit, bench.session, Join(poid))
            await until(lambda: bool(kept))
            async with Endpoint(bench.url, bench.troubles.append) as endpoint:
                await endpoint.request("evm_increaseTime", hex(100_000))
                await endpoint.request("evm_mine")
            await until(partial(has, bench.troubles, "without paying more for gas, because it would fail now: joining the session"))
            versions, asked = len(kept), bench.faults.methods.count("eth_call")
            await until(lambda: bench.faults.methods.count("eth_call") >= asked + 2)
            assert len(kept) == versions and sum("would fail now" in trouble for trouble in bench.troubles) == 1
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_offer__never_exceeds_the_cap_and_a_replacement_pays_an_eighth_more() -> None:
    fees = Fees(Endpoint("http://127.0.0.1:1", print), ChainOptions(fee_cap_wei=100), print)
    assert fees.offer(Price(30, 5)) == Offer(65, 5)
    assert fees.offer(Price(90, 5)) == Offer(100, 5)
    assert fees.outbid(Offer(65, 5), Price(10, 5)) == Offer(74, 6)
    assert fees.outbid(Offer(65, 5), Price(40, 20)) == Offer(100, 20)
    assert fees.outbid(Offer(90, 5), Price(10, 5)) is None, "an eighth more is above the cap"
    assert fees.outbid(Offer(20, 5), Price(98, 5)) is None, "the price itself is above the cap"


# --- blocks that do not count yet, and blocks that are replaced -------------------------------------------------------


async def mine(bench: Bench, blocks: int = 1) -> None:
    async with Endpoint(bench.url, bench.troubles.append) as endpoint:
        for _ in range(blocks):
            await endpoint.request("evm_mine")


def test_confirmations__are_waited_for_and_told() -> None:
    """Issue 3, client: nothing counts before its block has the blocks on top that the user asked for."""

    async def run() -> None:
        sentences: list[str] = []
        async with open_bench(confirmations=3, on_progress=sentences.append) as bench, trio.open_nursery() as nursery:
            done = trio.Event()
            before = await bench.chain.read(bench.session)

            async def send() -> None:
                await bench.chain.submit(bench.session, TIP)
                done.set()

            nursery.start_soon(send)
            for depth in (1, 2):
                await until(partial(has, sentences, f", {depth} of 3 confirmations"))
                assert not done.is_set()
                await mine(bench)
            with trio.fail_after(HANGS_S):
                await done.wait()
            after = await bench.chain.read(bench.session)
            assert after.block_number >= before.block_number
            assert len([sentence for sentence in sentences if "sent as 0x" in sentence]) == 1

    trio.run(run)


def test_view__is_of_a_block_that_counts() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            patient = make_chain(bench.chain.endpoint, "watcher", [], [], confirmations=4)
            poid = (await bench.chain.submit(bench.session, DeployPoid())).address
            assert poid is not None
            joined = await bench.chain.submit(bench.session, Join(poid))
            for _ in range(3):
                assert (await patient.read(bench.session)).members == ()
                await mine(bench)
            view = await patient.read(bench.session)
            assert len(view.members) == 1 and view.block_number == joined.block_number

    trio.run(run)


def test_view__does_not_go_back_with_a_node_that_lags() -> None:
    """Behind one address there may be several nodes."""

    async def run() -> None:
        async with open_bench() as bench:
            await mine(bench, 3)
            newest = await bench.chain.read(bench.session)

            def lag(asked: Any, answer: Any) -> Any:
                for request, reply in zip(asked, answer, strict=True) if isinstance(asked, list) else ():
                    if request["method"] == "eth_getBlockByNumber":
                        older = {**reply["result"], "number": hex(newest.block_number - 2)}
                        reply["result"] = older if request["params"][0] == "latest" else None
                return answer

            bench.faults.rewrite = lag
            assert await bench.chain.read(bench.session) is newest

    trio.run(run)


def test_reorganised_transaction__is_seen_and_sent_again() -> None:
    """Issue 3, client: a transaction whose block was replaced before it counted is broadcast again, the same bytes."""

    async def run() -> None:
        async with open_bench(confirmations=2) as bench, trio.open_nursery() as nursery:
            receipts = [3]  # Looks at which the block is still there.

            def forget(asked: Any, answer: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getTransactionReceipt" and answer["result"] is not None:
                    receipts[0] -= 1
                    if receipts[0] <= 0 and not any("fell out" in trouble for trouble in bench.troubles):
                        return {"result": None}
                return answer

            bench.faults.rewrite = forget
            raws: list[str] = []

            def note(asked: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction":
                    raws.append(asked["params"][0])
                return None

            bench.faults.instead = note

            async def send() -> None:
                await bench.chain.submit(bench.session, TIP)
                nursery.cancel_scope.cancel()

            nursery.start_soon(send)
            await until(partial(has, bench.troubles, "fell out of its block"))
            sent = len(raws)
            await until(lambda: len(raws) > sent)
            assert len(set(raws)) == 1 and bench.saved[-1] is not None
            await mine(bench, 2)
            with trio.fail_after(HANGS_S):
                await trio.sleep_forever()
        assert bench.saved[-1] is None

    trio.run(run)


def test_view__of_a_block_that_is_replaced_while_it_is_read_is_thrown_away() -> None:
    """Events of one block and counters of another would make a session that never was."""

    async def run() -> None:
        async with open_bench() as bench:
            left = [1]

            def replaced(asked: Any, answer: Any) -> Any:
                if isinstance(asked, list) and any(request["method"] == "eth_call" for request in asked) and left:
                    left.pop()
                    answer[1]["result"]["hash"] = "0x" + "ab" * 32
                return answer

            bench.faults.rewrite = replaced
            view = await bench.chain.read(bench.session)
            assert view.members == () and left == []
            assert "was replaced while it was read" in bench.troubles[0] and "answers again" in bench.troubles[1]

    trio.run(run)


# --- refused --------------------------------------------------------------------------------------------------------


def refuse_with(message: str, times: int) -> Callable[[Any], Any]:
    left = [times]

    def instead(asked: Any) -> Any:
        if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction" and left[0]:
            left[0] -= 1
            return {"error": {"code": -32000, "message": message}}
        return None

    return instead


def test_refused_transaction__that_no_node_has_is_given_up_and_asked_for_anew() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            bench.faults.instead = refuse_with("transaction type not supported", 1)
            with pytest.raises(TransactionError, match="the tip was refused: the node says: transaction type not supported"):
                await bench.chain.submit(bench.session, TIP)
            assert bench.saved[-1] is None
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777

    trio.run(run)


@pytest.mark.parametrize("same", [True, False], ids=["the same call", "another call"])
def test_refused_transaction__that_some_node_may_have_keeps_its_number(same: bool) -> None:
    """The answer to the first broadcast was lost: whatever is sent next must not be able to pay beside it."""

    async def run() -> None:
        async with open_bench() as bench:
            kept: list[bytes] = []
            refuse_once = refuse_with("insufficient funds for gas * price + value", 1)

            def lose(asked: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction":
                    kept.append(bytes.fromhex(asked["params"][0][2:]))
                    bench.faults.instead = refuse_once
                    raise ChainUnreachableError("http://node", "connection reset")
                return None

            bench.faults.instead = lose
            with pytest.raises(TransactionError, match="insufficient funds"):
                await bench.chain.submit(bench.session, TIP)
            assert bench.saved[-1] is not None, "it may be in a block one day"
            if same:
                await bench.chain.submit(bench.session, TIP)
                assert await bench.tipped() == 777
                return
            bench.faults.instead = refuse_with("insufficient funds for gas * price + value", 1)

            def has_it_waiting(asked: Any, answer: Any) -> Any:
                counts = isinstance(asked, dict) and asked["method"] == "eth_getTransactionCount" and asked["params"][1] == "pending"
                return {"result": "0x1"} if counts else answer

            bench.faults.rewrite = has_it_waiting
            await bench.chain.submit(bench.session, PayTip(STRANGER, Wei(50), EVIDENCE))
            assert await bench.tipped() == 50
            assert "nonce too low" in await refusal_of(bench, kept[0]) and await bench.tipped() == 50

    trio.run(run)


def test_refused_transaction__whose_number_was_just_used_is_looked_for() -> None:
    """The broadcast arrived and its answer did not; the node that is asked next lags with everything but the number."""

    async def run() -> None:
        async with open_bench() as bench:
            lagging = [6]

            def lag(asked: Any, answer: Any) -> Any:
                method = asked["method"] if isinstance(asked, dict) else ""
                if method == "eth_getTransactionReceipt" and lagging[0]:
                    lagging[0] -= 1
                    return {"result": None}
                return {"result": "0x0"} if method == "eth_getTransactionCount" else answer

            bench.faults.rewrite = lag
            bench.faults.instead = lose_once(bench)
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and lagging == [0] and bench.saved[-1] is None

    trio.run(run)


def lose_once(bench: Bench) -> Callable[[Any], Any]:
    """The next request after the first broadcast's answer is on its way is as if that answer never came."""
    sent: list[str] = []

    def instead(asked: Any) -> Any:
        if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction":
            sent.append(asked["params"][0])
            if len(sent) == 1:
                bench.faults.at, bench.faults.kind = bench.faults.count - 1, "after"
            elif len(sent) == 2:
                return {"error": {"code": -32000, "message": "nonce too low: next nonce 1, tx nonce 0"}}
        return None

    return instead


@pytest.mark.parametrize("message", ["nonce too high: next nonce 1, tx nonce 7", "gapped-nonce tx from delegated accounts"])
def test_refused_transaction__after_a_missing_one_waits_and_says_so_once(message: str) -> None:
    async def run() -> None:
        async with open_bench() as bench:
            bench.faults.instead = refuse_with(message, 3)
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777
            assert len(bench.troubles) == 1 and "the tip waits, and is sent again until it is taken" in bench.troubles[0]
            assert f"the node says: {message}; an earlier transaction of this wallet is missing there" in bench.troubles[0]

    trio.run(run)


def test_gas__above_what_one_transaction_may_take_is_refused_here() -> None:
    """EIP-7825: 2^24 gas. Nodes for development take more."""

    async def run() -> None:
        async with open_bench() as bench:
            bench.faults.rewrite = lambda asked, answer: {"result": hex(2**24 + 1)} if "eth_estimateGas" in str(asked) else answer
            with pytest.raises(TransactionError, match="takes 16777217 gas and one transaction may take 16777216") as caught:
                await bench.chain.submit(bench.session, TIP)
            assert caught.value.reason == "TooMuchGas" and bench.saved == []
            bench.faults.rewrite = lambda asked, answer: {"result": hex(2**24 - 5)} if "eth_estimateGas" in str(asked) else answer
            assert (await bench.chain.estimate(await bench.chain.make_intent(bench.session, TIP))).gas == 2**24

    trio.run(run)


def test_replacement__that_cannot_be_paid_for_is_not_made() -> None:
    async def run() -> None:
        async with open_bench(bump_after_s=0.02) as bench:
            balance = await bench.good.balance_wei(bench.chain.wallet)
            cost = await bench.chain.estimate(await bench.chain.make_intent(bench.session, TIP))
            amount = Wei(balance - 2 * cost.fee_wei - cost.fee_wei // 100)
            kept: list[bytes] = []
            bench.faults.instead = swallow(1, kept)
            with trio.move_on_after(5) as scope:

                def stop(asked: Any, answer: Any) -> Any:
                    if any("cannot pay more for gas" in trouble for trouble in bench.troubles):
                        scope.cancel()
                    return answer

                bench.faults.rewrite = stop
                await bench.chain.submit(bench.session, PayTip(STRANGER, amount, EVIDENCE))
            assert scope.cancelled_caught and len(kept) == 1

    trio.run(run)


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [{"code": 429, "message": "slow down"}, {"code": -32005, "message": "daily request limit reached"}])
def test_endpoint__whose_limit_is_reached_is_waited_for(error: dict[str, Any]) -> None:
    async def run() -> None:
        async with open_bench() as bench:
            left = [4]

            def limited(asked: Any) -> Any:
                if isinstance(asked, dict) and left[0]:
                    left[0] -= 1
                    return {"error": error}
                return None

            bench.faults.instead = limited
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and any("it is busy" in trouble for trouble in bench.troubles)

    trio.run(run)


def test_endpoint__down_for_hundreds_of_tries_in_the_middle_of_a_payment_loses_nothing() -> None:
    """Issue 3: down for minutes. With the pauses of a real node, 300 tries are almost an hour."""

    async def run() -> None:
        async with open_bench() as bench:
            left = [300]

            def down(asked: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getTransactionReceipt" and left[0]:
                    left[0] -= 1
                    raise ChainUnreachableError("http://node", "connection refused")
                return None

            bench.faults.instead = down
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and left == [0] and len(bench.troubles) == 2

    trio.run(run)


def test_endpoint__useless_answers_are_asked_for_again() -> None:
    """A provider in trouble answers with errors of its own for a while; a payment under way survives that."""

    async def run() -> None:
        async with open_bench() as bench:
            left = [15]

            def broken(asked: Any) -> Any:
                if isinstance(asked, dict) and asked["method"] == "eth_getTransactionReceipt" and left[0]:
                    left[0] -= 1
                    return {"error": {"code": -32603, "message": "internal error"}}
                return None

            bench.faults.instead = broken
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777 and left == [0]
            assert "its answers are of no use" in bench.troubles[0] and "answers again" in bench.troubles[-1]

    trio.run(run)


def test_intent__is_read_back_from_its_signed_bytes() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            await bench.chain.submit(bench.session, TIP)
            record = next(record for record in bench.saved if record is not None)
            intent, numbers = read_intent(cbor.decode(record)[0])
            assert isinstance(bench.chain, EthereumChain) and intent.value == 777 and numbers["nonce"] == 0
            again = Intent("the tip", intent.to, intent.data, 777)
            assert again.is_same(intent) and not again.is_same(Intent("the tip", intent.to, intent.data, 778))
            assert ETHER > numbers["maxFeePerGas"] > 0

    trio.run(run)
