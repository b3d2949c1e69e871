"""An endpoint behind a proxy that answers with pages of its own for a while: everything waits, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from learnae.backends.ethereum.rpc import Endpoint
from tests.backends.chain_bench import TIP, make_chain, open_bench

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
