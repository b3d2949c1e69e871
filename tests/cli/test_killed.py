"""Commands and nodes that are killed while their transaction waits for a block: the next start finishes it, and nothing is paid twice."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learnae.cli import main
from learnae.cli.folder import NodeFolder
from learnae.ids import Address
from tests.cli.conftest import start
from tests.cli.dao_bench import EVIDENCE, NOWHERE, DaoBench, run_chain


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[DaoBench]:
    """On a chain that makes a block for each transaction at once. Commands wait for a second block, which only the test makes."""
    with run_chain() as url:
        yield DaoBench(url, tmp_path, capsys)


def count_sent(bench: DaoBench, wallet: str) -> int:
    return int(bench.rpc("eth_getTransactionCount", wallet, "latest"), 16)


def kill_once(process: subprocess.Popen[str], has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    try:
        while not has_come():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()


def test_dao_commands__killed_while_they_wait_are_finished_and_pay_once(bench: DaoBench) -> None:
    wallet = bench.make_wallet("ada")
    rules = bench.root / "rules.txt"
    rules.write_text("We train birds together.\n")
    own = ["--folder", str(bench.root / "ada"), "--password-file", bench.password_file, "--yes", "--rpc", bench.url, "--confirmations", "2"]

    def kill(number: int, *words: str) -> None:
        """Kill the command while its transaction waits for a second block; then the chain makes one."""
        kill_once(start(["dao", *words, *own]), lambda: count_sent(bench, wallet) == number)
        bench.rpc("evm_mine")

    deploy = ("deploy", "--rules", str(rules), "--deposit", "0.1", "--funding", "1h")
    kill(1, *deploy)
    out, error = bench.run("dao", *deploy, *own)
    assert "no other one is sent" in out and count_sent(bench, wallet) == 1
    bench.session = Address(out.split("contract is ")[1].split()[0])
    assert bench.session in error, "what the finished transaction created"

    kill(2, "join", bench.session)
    kill(3, "join", bench.session)
    out, _ = bench.run("dao", "join", bench.session, *own)
    assert f"{wallet} is member 0 already" in out and count_sent(bench, wallet) == 3
    assert bench.read()["members"][0]["fault"] == "", "with the one proof of identity that was paid for"

    tip = ("tip", bench.session, NOWHERE, "777wei", "--receipt", EVIDENCE)
    kill(4, *tip)
    out, _ = bench.run("dao", *tip, *own)
    assert "the interrupted command had sent it, and it is done now; it is not sent again" in out
    assert bench.balance(NOWHERE) == 777 and count_sent(bench, wallet) == 4


def test_session_new_and_node__killed_while_they_wait_are_finished_and_pay_once(bench: DaoBench) -> None:
    wallet = bench.make_wallet("ada")
    folder = bench.root / "ada"
    own = ["--folder", str(folder), "--password-file", bench.password_file, "--rpc", bench.url, "--confirmations", "2"]
    new = ["session", "new", "--name", "x", "--funding", "1h", "--task", "digits", "--data", "1/3@1", "--device", "cpu"]
    new += ["--listen", "/ip4/127.0.0.1/tcp/0", *own]
    kill_once(start(new), lambda: count_sent(bench, wallet) == 1)
    bench.rpc("evm_mine")
    assert main(new) == 0
    assert "the one you ask for; no other one is made" in bench.capture.readouterr().err and count_sent(bench, wallet) == 1
    ticket = NodeFolder(folder).read_ticket()
    bench.session = ticket.contract

    node = ["node", str(folder), "--password-file", bench.password_file]
    kill_once(start(node), lambda: count_sent(bench, wallet) == 2)
    bench.rpc("evm_mine")
    kill_once(start(node), lambda: count_sent(bench, wallet) == 3)
    bench.rpc("evm_mine")
    (member,) = bench.read()["members"]
    assert member["wallet"] == wallet and member["fault"] == "", "the third transaction was joining, with the one proof of identity"
    assert bench.read()["rules_sha256"] == ticket.rules.digest.hex()
