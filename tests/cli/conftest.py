"""A chain and a founded session that the tests of commands share: made once, and never changed by a bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from learnae.backends.ethereum import open_ethereum_chain
from learnae.backends.keystore import open_keystore
from learnae.cli import main
from learnae.demo.cast import Actor, make_environment, make_keys, run_command, start_chain, stop_all
from learnae.protocol.calls import ChainView
from learnae.protocol.rules import Ticket, decode_ticket

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class World:
    """Where everything is. `ticket_file` holds the ticket of a session in FUNDING for ten minutes; `rich` and `poor` are wallets."""

    root: Path
    rpc: str
    ticket_file: Path
    password_file: Path
    rich: Path
    poor: Path

    @property
    def ticket(self) -> Ticket:
        return decode_ticket(self.ticket_file.read_text())

    def own(self, folder: Path | None = None, **changes: str) -> list[str]:
        """The options of a node of one's own, some of them changed."""
        options = {"task": "digits", "data": "2/3@1", "folder": str(folder or self.rich), "rpc": self.rpc, "device": "cpu"}
        options |= {"password-file": str(self.password_file), "listen": "/ip4/127.0.0.1/tcp/0"}
        options |= {name.replace("_", "-"): value for name, value in changes.items()}
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def join(self, folder: Path | None = None, *, ticket: str = "", **changes: str) -> list[str]:
        return ["join", ticket or str(self.ticket_file), "--yes", *self.own(folder, **changes)]

    def read_chain(self) -> tuple[ChainView, int]:
        """The session, and the money of the rich wallet."""
        keys = open_keystore(self.rich / "keystore.json", PASSWORD)

        async def read() -> tuple[ChainView, int]:
            opened = open_ethereum_chain(self.rpc, wallet=keys.wallet, peer_id=keys.identity.peer_id, sign_identity=keys.identity.sign)
            async with opened as chain:
                return await chain.read(self.ticket.contract), await chain.balance_wei(chain.wallet)

        return trio.run(read)


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    password_file = root / "password"
    password_file.write_text(PASSWORD + "\n")
    password_file.chmod(0o600)
    folders = {name: root / name for name in ("founder", "rich", "poor")}
    wallets = {name: make_keys(folder, PASSWORD) for name, folder in folders.items()}
    chain, rpc = start_chain(root / "chain", {wallets["founder"]: 10, wallets["rich"]: 10})
    try:
        made = World(root, rpc, folders["founder"] / "ticket.txt", password_file, folders["rich"], folders["poor"])
        run_command(["session", "new", "--name", "shared", "--funding", "10m", *made.own(folders["founder"], data="1/3@1")])
        yield made
    finally:
        stop_all([chain])


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that has to be refused: one line on standard error, an exit status that is not 0. Returns the line."""

    def run(arguments: Sequence[str], *, status: int = 1) -> str:
        assert main(arguments) == status
        error = capsys.readouterr().err
        check_sentence(error)
        return error

    return run


def check_sentence(error: str) -> None:
    assert error.count("\n") == 1 and error.endswith("\n"), error
    assert error.startswith(("learnae: ", "interrupted")), error
    assert "Traceback" not in error


_LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("learnae", run_name="__main__", alter_sys=True)
"""


def start(
    arguments: Sequence[str],
    *,
    shadows: Path | None = None,
    output: Path | None = None,
    folder: Path | None = None,
    file_bytes_max: int = 0,
) -> subprocess.Popen[str]:
    """A command in a process of its own.

    Args:
        shadows: a folder of modules that hide installed ones.
        output: where standard output goes; a pipe otherwise.
        folder: where it runs.
        file_bytes_max: no file may grow beyond it, which programs see as a full disk.
    """

    environment = make_environment()
    if shadows is not None:
        environment["PYTHONPATH"] = os.pathsep.join((str(shadows), environment["PYTHONPATH"]))
    command = [sys.executable, "-m", "learnae", *arguments]
    if file_bytes_max:
        command[1:3] = ["-c", _LIMITED, str(file_bytes_max)]
    out = subprocess.PIPE if output is None else output.open("w")
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
            cwd=folder,
        )
    finally:
        if not isinstance(out, int):
            out.close()


def snapshot(folder: Path) -> Mapping[str, bytes]:
    """Every file of a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


__all__ = ["PASSWORD", "Actor", "World", "check_sentence", "snapshot", "start"]
