"""The embedded chain: Ethereum's JSON-RPC over HTTP on loopback, for demonstrations and tests (`learnae chain`).

Any web3 client works against it. It forgets everything when it ends; real sessions use a real network through `--rpc`.
Requests are bounded, and a web page cannot use it: only loopback names are accepted as Host, and no page's Origin.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol

import h11
import trio

from learnae.backends.chain_server.engine import LocalChain
from learnae.backends.chain_server.rpc import BATCH_MAX, ChainService
from learnae.bounded_json import parse_json
from learnae.errors import ChainServerError
from learnae.ids import Address, Wei

CHAIN_ID: Final = 1337  # What local Ethereum chains usually have.
BODY_BYTES_MAX: Final = 4 << 20  # A deployment is 25 kB in hex; a batch of 1,000 calls far below this.
_CONNECTIONS_MAX: Final = 256
_IDLE_S_MAX: Final = 120.0
_CHUNK_BYTES: Final = 65536
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EXTENSIONS: Final = ("chrome-extension://", "moz-extension://")  # A wallet in the browser, not a page.
_TEXT: Final = {200: "OK", 400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 413: "Content Too Large"}


class Started(Protocol):
    """Hears the URL when the server listens: trio's task status."""

    def started(self, value: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What an embedded chain starts with."""

    chain_id: int = CHAIN_ID
    prefund: Mapping[Address, Wei] = field(default_factory=dict)  # `learnae_fund` gives more at any time
    block_time_s: float = 1.0  # an empty block is made when none came for so long
    instant: bool = False  # every transaction gets a block at once, and block time may run ahead of the clock: for tests
    clock: Callable[[], float] = time.time


async def serve_chain(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    options: ServerOptions | None = None,
    task_status: Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a new chain until cancelled; the task status carries its URL.

    Args:
        host, port: where to listen; port 0 takes a free one.
    Raises: ChainServerError: the port is in use or cannot be bound.
    """
    chosen = options or ServerOptions()
    funds = {bytes.fromhex(wallet[2:]): int(wei) for wallet, wei in chosen.prefund.items()}
    service = ChainService(LocalChain(chosen.chain_id, funds, chosen.clock), chosen.block_time_s, chosen.instant)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        why = f"{host}:{port} cannot be used: {error.strerror or error}; choose another --port, or 0 for a free one"
        raise ChainServerError(why) from error
    names = _LOOPBACK | {host}
    slots = trio.Semaphore(_CONNECTIONS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream, slots:
            await _Connection(stream, service, names).run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.make_blocks)
        await nursery.start(trio.serve_listeners, serve, listeners)
        bound = listeners[0].socket.getsockname()[1]
        task_status.started(f"http://{f'[{host}]' if ':' in host else host}:{bound}")


class _Connection:
    """One HTTP/1.1 connection, kept alive between requests."""

    def __init__(self, stream: trio.SocketStream, service: ChainService, names: frozenset[str]) -> None:
        self._stream, self._service, self._names = stream, service, names
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)

    async def run(self) -> None:
        try:
            while self._http.our_state is not h11.MUST_CLOSE:
                with trio.move_on_after(_IDLE_S_MAX) as idle:
                    request = await self._next()
                if idle.cancelled_caught or not isinstance(request, h11.Request):
                    return
                await self._answer(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(400, str(error).encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The client went away.

    async def _next(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send_all(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(await self._stream.receive_some(_CHUNK_BYTES))

    async def _answer(self, request: h11.Request) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        if _read_host(headers.get("host", "")) not in self._names or not headers.get("origin", _EXTENSIONS[0]).startswith(_EXTENSIONS):
            return await self._send(403, b"only programs on this machine may use this chain")
        if request.method != b"POST":
            return await self._send(405, b"send JSON-RPC 2.0 with POST")
        body = await self._body()
        if body is None:
            return await self._send(413, b"the request is too large")
        await self._send(200, json.dumps(await self._reply(body)).encode(), "application/json")

    async def _body(self) -> bytes | None:
        """The whole body; None if it is too large or too slow."""
        body: bytes | None = None
        with trio.move_on_after(_IDLE_S_MAX):
            body = await self._collect()
        return body

    async def _collect(self) -> bytes | None:
        body = bytearray()
        while len(body) <= BODY_BYTES_MAX:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                return None
            body += event.data
        return None

    async def _reply(self, body: bytes) -> Any:
        try:
            asked = parse_json(body)
        except ValueError:
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "not JSON"}}
        if not isinstance(asked, list):
            return await self._service.answer(asked)
        if not 0 < len(asked) <= BATCH_MAX:
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": f"a batch has 1 to {BATCH_MAX} requests"}}
        replies: list[Any] = [None] * len(asked)

        async def answer(index: int) -> None:
            replies[index] = await self._service.answer(asked[index])

        async with trio.open_nursery() as nursery:  # Transactions of one batch may share a block: they wait together.
            for index in range(len(asked)):
                if self._service.instant:
                    await answer(index)
                else:
                    nursery.start_soon(answer, index)
        return [reply for reply in replies if reply is not None]

    async def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        headers = [("content-type", kind), ("content-length", str(len(body)))]
        if status != 200:
            headers.append(("connection", "close"))
        parts = (
            h11.Response(status_code=status, headers=headers, reason=_TEXT[status].encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))


def _read_host(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    return header.partition("]")[0].lstrip("[").lower() if header.startswith("[") else header.partition(":")[0].lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """`learnae chain`: serve until SIGINT or SIGTERM. Prints one line with the URL when it is ready."""
    parser = argparse.ArgumentParser(prog="learnae chain", description="An Ethereum chain in one process, for trying things out.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8545, help="port to listen on, 0 for a free one (default 8545)")
    parser.add_argument("--chain-id", type=int, default=CHAIN_ID)
    parser.add_argument("--block-time", type=float, default=1.0, metavar="SECONDS", help="an empty block follows after so long")
    parser.add_argument("--fund", action="append", default=[], metavar="ADDRESS=ETHER", help="money of a wallet at the start; repeatable")
    options = parser.parse_args(arguments)
    failures: list[BaseException] = []
    try:
        _check_options(options)
        prefund = dict(_parse_fund(text) for text in options.fund)
        trio.run(_run, options, prefund)
    except* ChainServerError as errors:
        failures.extend(errors.exceptions)
    for failure in failures:
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        print(f"learnae: {failure}", file=sys.stderr)
    return ChainServerError.exit_code if failures else 0


def _check_options(options: argparse.Namespace) -> None:
    for name, value, least, most in (
        ("--port", options.port, 0, 65535),
        ("--chain-id", options.chain_id, 1, 2**53),
        ("--block-time", options.block_time, 0.01, 3600),
    ):
        if not least <= value <= most:
            raise ChainServerError(f"{name} is {value}, expected {least} to {most}")


def _parse_fund(text: str) -> tuple[Address, Wei]:
    wallet, _, ether = text.partition("=")
    try:
        amount = Decimal(ether)
        valid = len(bytes.fromhex(wallet.removeprefix("0x"))) == 20 and 0 < amount < 10**9
    except (ValueError, InvalidOperation):
        valid = False
    if not valid:
        raise ChainServerError(f"--fund {text[:80]!r} is not ADDRESS=ETHER, for example 0x{'0' * 39}1=10")
    return Address("0x" + wallet.removeprefix("0x")), Wei(int(amount * 10**18))


async def _run(options: argparse.Namespace, prefund: Mapping[Address, Wei]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: Started) -> None:
                chosen = ServerOptions(chain_id=options.chain_id, prefund=prefund, block_time_s=options.block_time)
                await serve_chain(options.host, options.port, options=chosen, task_status=task_status)

            url = await nursery.start(serve)
            print(f"chain ready: {url} (chain id {options.chain_id})", flush=True)
            async for _signal in signals:
                nursery.cancel_scope.cancel()
                return
