"""An embedded chain in a thread of this process, whose time the test moves, and wallets with money on it."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from learnae.backends.chain_server import ServerOptions, serve_chain
from learnae.backends.keystore import create_keystore
from learnae.cli import main
from learnae.ids import Address

PASSWORD = "correct horse battery staple"
ETHER = 10**18
EVIDENCE = "07" * 32
CLIENT = httpx.Client(trust_env=False, timeout=30)
NOWHERE = Address("0x00000000000000000000000000000000000A11cE")


@contextmanager
def run_chain(chain_id: int = 1337) -> Iterator[str]:
    """The URL of a chain that makes a block for every transaction at once."""
    urls: queue.Queue[str] = queue.Queue()
    scopes: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            options = ServerOptions(chain_id=chain_id, instant=True, block_time_s=3600.0)
            url = await nursery.start(lambda task_status: serve_chain(options=options, task_status=task_status))
            scopes.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            urls.put(url)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        yield urls.get(timeout=30)
    finally:
        token, scope = scopes[0]
        token.run_sync_soon(scope.cancel)
        thread.join(timeout=30)


@dataclass
class DaoBench:
    """Runs `learnae dao` against one chain. Wallets are named; each has its own folder."""

    url: str
    root: Path
    capture: pytest.CaptureFixture[str]
    session: Address = NOWHERE

    def rpc(self, method: str, *params: object) -> Any:
        return CLIENT.post(self.url, json={"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).json()["result"]

    def make_wallet(self, name: str, *, ether: float = 10.0) -> Address:
        wallet = create_keystore(self.root / name / "keystore.json", PASSWORD, scrypt_n=1 << 12).wallet.address
        if ether:
            self.rpc("learnae_fund", wallet, hex(int(ether * ETHER)))
        return wallet

    def balance(self, wallet: str) -> int:
        return int(self.rpc("eth_getBalance", wallet, "latest"), 16)

    @property
    def block(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def travel(self, seconds: int) -> None:
        """The newest block is so much later than the one before."""
        self.rpc("evm_mine")
        self.rpc("evm_increaseTime", hex(seconds))
        self.rpc("evm_mine")

    @property
    def password_file(self) -> str:
        path = self.root / "password"
        if not path.exists():
            path.write_text(PASSWORD + "\n")
            path.chmod(0o600)
        return str(path)

    def send(self, name: str, *words: str, session: str = "", status: int = 0, yes: bool = True) -> tuple[str, str]:
        """Run a command that sends, for one wallet. Returns what it printed: output, errors."""
        head, *rest = words
        target = [] if head == "deploy" else [session or self.session]
        own = ["--folder", str(self.root / name), "--password-file", self.password_file, *(["--yes"] if yes else [])]
        return self.run("dao", head, *target, *rest, *own, *([] if "--rpc" in rest else ["--rpc", self.url]), status=status)

    def refused(self, name: str, *words: str, status: int = 1, session: str = "") -> str:
        """The one sentence of a command that must not be carried out; nothing happens on the chain."""
        block = self.block
        _, error = self.send(name, *words, status=status, session=session)
        assert self.block == block, "nothing was sent"
        sentences = [line for line in error.splitlines() if not line.startswith("... ")]
        assert len(sentences) == 1 and sentences[0].startswith("learnae: "), error
        return sentences[0]

    def show(self, *words: str, name: str = "") -> str:
        own = ["--folder", str(self.root / name)] if name else ["--folder", str(self.root / "nowhere")]
        out, _ = self.run("dao", words[0], self.session, *words[1:], *own, "--rpc", self.url)
        return out

    def read(self, command: str = "status", *, name: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.show(command, "--json", name=name))
        return found

    def run(self, *words: str, status: int = 0) -> tuple[str, str]:
        self.capture.readouterr()
        assert main(list(words)) == status, self.capture.readouterr().err
        said = self.capture.readouterr()
        return said.out, said.err

    def deploy(self, name: str, *words: str) -> None:
        """A session of stages of 1,000 s each with a deposit of 0.1 ether; it becomes the bench's session."""
        rules = self.root / "rules.txt"
        rules.write_text("We train birds together.\n")
        stages = [part for stage in ("funding", "training", "claiming", "voting") for part in (f"--{stage}", "1000s")]
        out, _ = self.send(name, "deploy", "--rules", str(rules), "--deposit", "0.1", *stages, *words)
        self.session = Address(out.split("contract is ")[1].split()[0])
