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
from functools import partial
from typing import Any, Final, Protocol

import trio

from learnae.backends.chain_server.engine import LocalChain
from learnae.backends.chain_server.rpc import BATCH_MAX, ChainService
from learnae.backends.loopback_http import LOOPBACK, Answer, HttpService, Request, serve_http
from learnae.bounded_json import parse_json
from learnae.errors import ChainServerError
from learnae.ids import Address, Wei

CHAIN_ID: Final = 1337  # What local Ethereum chains usually have.
BODY_BYTES_MAX: Final = 4 << 20  # A deployment is 25 kB in hex; a batch of 1,000 calls far below this.


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

    async def answer(request: Request) -> Answer:
        return Answer(200, json.dumps(await _reply(service, request.body)).encode())

    http = HttpService(
        answer=answer, what="this chain", methods=("POST",), hint="send JSON-RPC 2.0 with POST", body_bytes_max=BODY_BYTES_MAX
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.make_blocks)
        await nursery.start(partial(serve_http, listeners, http, LOOPBACK | {host}))
        bound = listeners[0].socket.getsockname()[1]
        task_status.started(f"http://{f'[{host}]' if ':' in host else host}:{bound}")


async def _reply(service: ChainService, body: bytes) -> Any:
    """JSON-RPC 2.0: one request or a batch of them."""
    try:
        asked = parse_json(body)
    except ValueError:
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "not JSON"}}
    if not isinstance(asked, list):
        return await service.answer(asked)
    if not 0 < len(asked) <= BATCH_MAX:
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": f"a batch has 1 to {BATCH_MAX} requests"}}
    replies: list[Any] = [None] * len(asked)

    async def answer(index: int) -> None:
        replies[index] = await service.answer(asked[index])

    async with trio.open_nursery() as nursery:  # Transactions of one batch may share a block: they wait together.
        for index in range(len(asked)):
            if service.instant:
                await answer(index)
            else:
                nursery.start_soon(answer, index)
    return [reply for reply in replies if reply is not None]


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
