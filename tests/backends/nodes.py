"""Ethereum nodes of others as processes, each on a free port: anvil, hardhat and ganache, pinned in verification/package-lock.json."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from learnae.backends.ethereum.rpc import Endpoint
from learnae.contracts.build import find_node
from verification.tools import FOLDER, find_command, install_nodes, make_environment

NODES: Final = ("anvil", "hardhat", "ganache")
START_S: Final = 120.0  # hardhat loads for seconds, and more on a busy machine.
_READY: Final = re.compile(rb"(?:Listening on |JSON-RPC server at http://)127\.0\.0\.1:(\d+)")
_SET_BALANCE: Final = {"anvil": "anvil_setBalance", "hardhat": "hardhat_setBalance", "ganache": "evm_setAccountBalance"}
_GANACHE: Final = """
const server = require("ganache").server({ logging: { quiet: true }, chain: { chainId: 1337 }, wallet: { totalAccounts: 1 } });
server.listen(0, "127.0.0.1").then(() => console.log(`Listening on 127.0.0.1:${server.address().port}`));
"""


def make_command(program: str) -> list[str]:
    """How to start a node on a port that is free."""
    if program == "anvil":
        return [*find_command("anvil"), "--port", "0", "--accounts", "1"]
    if program == "hardhat":
        config = str(Path(__file__).with_name("hardhat.config.cjs"))
        return [*find_command("hardhat"), "--config", config, "node", "--hostname", "127.0.0.1", "--port", "0"]
    return [find_node()[0], "-e", _GANACHE]


@asynccontextmanager
async def open_node(program: str) -> AsyncIterator[str]:
    """The URL of a fresh node, which ends with the block."""
    install_nodes()
    with tempfile.TemporaryDirectory() as folder:
        process = await trio.lowlevel.open_process(
            make_command(program),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=FOLDER,
            env={**make_environment(), "LEARNAE_HARDHAT_FOLDER": folder},
        )
        assert process.stdout is not None
        try:
            with trio.fail_after(START_S):
                port = await _read_port(program, process.stdout)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drain, process.stdout)
                yield f"http://127.0.0.1:{port}"
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


async def _read_port(program: str, output: trio.abc.ReceiveStream) -> int:
    said = b""
    while True:
        chunk = await output.receive_some(65536)
        said += chunk
        if (found := _READY.search(said)) is not None and said[found.end() : found.end() + 1] in b"\r\n/":
            return int(found[1])
        assert chunk, f"{program} ended: {said.decode(errors='replace')[-2000:]}"


async def _drain(output: trio.abc.ReceiveStream) -> None:
    """A node that may not print stops."""
    while await output.receive_some(65536):
        pass


async def give_money(url: str, program: str, wallet: str, wei: int) -> None:
    async with Endpoint(url, lambda sentence: None) as endpoint:
        await endpoint.request(_SET_BALANCE[program], wallet, hex(wei))
