"""An endpoint that answers nonsense for a while, as a proxy with pages of its own does: everything waits, and nothing is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from eth_utils.crypto import keccak

from learnae.backends.ethereum.abi import explain_refusal, session_abi
from learnae.backends.ethereum.reader import SessionReader
from learnae.backends.ethereum.rpc import Endpoint
from learnae.errors import ChainAnswerError
from learnae.protocol.calls import Stage
from tests.backends.chain_bench import TIP, Bench, make_chain, open_bench

PAGES = (b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 200 OK")
LOGIN = b"<html><body>please log in</body></html>"


@asynccontextmanager
async def open_proxy(url: str, method: str, left: list[int]) -> AsyncIterator[str]:
    """The address of a proxy that answers the next `left[0]` questions for `method` with HTML, and passes on all others."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            got = b""
            while b"\r\n\r\n" not in got:
                got += await stream.receive_some(65536)
            head, _, body = got.partition(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            while len(body) < length:
                body += await stream.receive_some(65536)
            status, page = b"HTTP/1.1 200 OK", LOGIN
            asked = json.loads(body)
            if isinstance(asked, dict) and asked["method"] == method and left[0]:
                left[0] -= 1
                status = PAGES[left[0] % 2]
            else:
                page = (await client.post(url, content=body)).content
            await stream.send_all(status + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(page) + page)

    async with httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_estimateGas", "eth_maxPriorityFeePerGas", "eth_getTransactionReceipt"])
def test_payment__waits_while_a_proxy_answers_with_pages(method: str) -> None:
    """docs/testnet.md: when an endpoint answers nonsense, everything waits, says so, and goes on where it was."""

    async def run() -> None:
        left = [15]
        async with (
            open_bench() as bench,
            open_proxy(bench.url, method, left) as url,
            Endpoint(url, bench.troubles.append, retry_s=(0.001,)) as endpoint,
        ):
            await make_chain(endpoint, "payer", bench.troubles, bench.saved).submit(bench.session, TIP)
            assert await bench.tipped() == 777 and left == [0] and bench.saved[-1] is None
            assert len(bench.troubles) == 2 and "its answers are of no use" in bench.troubles[0] and "answers again" in bench.troubles[1]
            assert "not JSON (HTTP 200)" in bench.troubles[0] or "not JSON (HTTP 403)" in bench.troubles[0]

    trio.run(run)

# --- answers of the right form that cannot be true ------------------------------------------------------------------


def lie(bench: Bench, times: int, change: Callable[[Any, Any], None]) -> list[int]:
    """Let `change` spoil the next answers, each a copy, until it did so many times; how many are left."""
    left = [times]

    def rewrite(asked: Any, answer: Any) -> Any:
        spoiled = copy.deepcopy(answer)
        if left[0]:
            change(asked, spoiled)
        if spoiled != answer:
            left[0] -= 1
        return spoiled

    bench.faults.rewrite = rewrite
    return left


@pytest.mark.parametrize("false_s", [1000 * 1_700_000_000, 2**255, 2**35])
def test_block_of_a_false_time__is_not_believed(false_s: int) -> None:
    """A node that said something under such a time would never be heard again."""

    async def run() -> None:
        async with open_bench() as bench:

            def spoil(asked: Any, answer: Any) -> None:
                for one, found in zip(*((asked, answer) if isinstance(asked, list) else ([asked], [answer])), strict=True):
                    if one["method"] == "eth_getBlockByNumber":
                        found["result"]["timestamp"] = hex(false_s)

            left = lie(bench, 6, spoil)
            view = await bench.chain.read(bench.session)
            assert left == [0] and view.stage is Stage.FUNDING and abs(view.time_s - bench.terms.funding_ends_s) < 10_000
            assert view.newest_s == view.time_s and "its answers are of no use" in bench.troubles[0]

    trio.run(run)


@pytest.mark.parametrize(
    "field, false", [("gasUsed", hex(2**70)), ("gasUsed", "-0x5"), ("contractAddress", "0x1234"), ("blockNumber", None)]
)
def test_receipt_that_cannot_be_true__is_asked_for_again(field: str, false: object) -> None:
    async def run() -> None:
        async with open_bench() as bench:

            def spoil(asked: Any, answer: Any) -> None:
                if isinstance(asked, dict) and asked["method"] == "eth_getTransactionReceipt" and answer["result"]:
                    answer["result"][field] = false

            left = lie(bench, 3, spoil)
            receipt = await bench.chain.submit(bench.session, TIP)
            assert left == [0] and 21_000 < receipt.gas_used < 200_000 and await bench.tipped() == 777

    trio.run(run)


def test_batch__answers_without_a_number_are_missing() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            bench.faults.rewrite = lambda asked, answer: [{"id": [], "result": "0x1"}]
            with pytest.raises(ChainAnswerError, match="an answer is missing"):
                await bench.chain.endpoint.batch([("eth_chainId", ())])

    trio.run(run)


def test_ballot__of_members_that_there_are_not_is_refused_unread() -> None:
    """Two megabytes of ones would become millions of votes."""

    async def run() -> None:
        async with open_bench() as bench:
            place = {"blockNumber": "0x1", "transactionIndex": "0x0"}
            words = b"".join(number.to_bytes(32, "big") for number in (32, 60_000)) + b"\xff" * 32 * 60_000
            joined, cast = session_abi().topics["Joined"], session_abi().topics["BallotCast"]
            logs = [
                {"topics": ["0x" + topic.hex() for topic in (joined, bytes(32), bytes(32))], "data": "0x" + bytes(32).hex(), **place},
                {"topics": ["0x" + topic.hex() for topic in (cast, bytes(32))], "data": "0x" + words.hex(), **place},
            ]

            def invent(asked: Any, answer: Any) -> Any:
                return {"result": logs} if isinstance(asked, dict) and asked["method"] == "eth_getLogs" else answer

            bench.faults.rewrite = invent
            facts = await bench.good.read_facts(bench.session)
            with pytest.raises(ChainAnswerError, match="names members beyond the 1 that there are"):
                await SessionReader(bench.chain.endpoint, bench.session, facts, 1337).read(1)

    trio.run(run)


def test_refusal__whose_values_cannot_be_read_is_told_without_them() -> None:
    revert = keccak(text="BadTerms(string)")[:4] + (32).to_bytes(32, "big") + (2**255).to_bytes(32, "big")
    assert explain_refusal(revert) == ("", "the contract refused it with a reason that cannot be read")
