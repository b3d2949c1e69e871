"""Issue, Ctrl+C at any time: ends, in a sentence, without a traceback, and resumes later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from learnae.cli import main
from tests.cli.conftest import World, check_sentence, start
from tests.cli.test_bad_input import make_node
from tests.processes import HANGS_S, find_left


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are gone, with all that they started, when the test is."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal to the whole group, as a terminal does; what it says on standard error. Nothing of it is left."""
    family = [*psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=HANGS_S)
    assert not find_left(family), "its worker ended too"
    return error


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool], *, limit_s: float = 40.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True)
class Moment:
    """A time in a node's start, by what can be seen of it from outside."""

    name: str
    has_come: Callable[[subprocess.Popen[str], Path], bool]


def has_worker(process: subprocess.Popen[str], node: Path) -> bool:
    return bool(psutil.Process(process.pid).children())


MOMENTS = (
    Moment("libraries load", lambda process, node: psutil.Process(process.pid).memory_info().rss > 30e6),
    Moment("the journal is open", lambda process, node: (node / "journal.sqlite").exists()),
    Moment("the worker loads torch", has_worker),
    Moment("it has a status", lambda process, node: (node / "status.json").exists()),
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.name)
def test_node__interrupted_while_it_starts(
    world: World, tmp_path: Path, running: list[subprocess.Popen[str]], moment: Moment, number: signal.Signals
) -> None:
    node = make_poor_node(world, tmp_path)
    process = start(["node", str(node), "--password-file", str(world.password_file)])
    running.append(process)
    wait_for(process, lambda: moment.has_come(process, node))
    error = interrupt(process, number)
    assert process.returncode == 130
    check_sentence(error)
    assert error == "interrupted; everything needed to go on is on disk\n"


def make_poor_node(world: World, folder: Path) -> Path:
    """A folder that is ready to run, whose session asks so long to be joined that nothing is paid meanwhile: votes only, then torch."""
    make_node(world, folder)
    assert main([*world.join(folder), "--only-check"]) == 0
    (folder / "ticket.txt").write_text(world.ticket.to_text())
    settings = {"task": "digits", "data": "2/3@1", "rpc": world.rpc, "listen": ["/ip4/127.0.0.1/tcp/0"], "device": "cpu"}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_session_new__interrupted(world: World, tmp_path: Path, running: list[subprocess.Popen[str]], number: signal.Signals) -> None:
    node = make_node(world, tmp_path)
    process = start(["session", "new", "--name", "x", *world.own(node)])
    running.append(process)
    wait_for(process, lambda: has_worker(process, node))
    assert interrupt(process, number) == "interrupted; everything needed to go on is on disk\n"
    assert process.returncode == 130
    assert not (node / "ticket.txt").exists()


def test_chain__ends_at_once(running: list[subprocess.Popen[str]]) -> None:
    process = start(["chain", "--port", "0"])
    running.append(process)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("chain ready: http://127.0.0.1:")
    assert interrupt(process, signal.SIGINT) == ""
    assert process.returncode == 0


def read_status(node: Path, capsys: pytest.CaptureFixture[str]) -> Mapping[str, object]:
    capsys.readouterr()
    assert main(["status", str(node), "--json"]) == 0
    status: Mapping[str, object] = json.loads(capsys.readouterr().out)
    return status


def test_node__alone_second_start_stop_kill_and_return(
    world: World, tmp_path: Path, running: list[subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """One node through its user's day: nobody answers, started twice, stopped, started again, killed, looked at."""
    node = make_node(world, tmp_path / "node")
    output = tmp_path / "output.txt"
    process = start(world.join(node), output=output)
    running.append(process)
    wait_for(process, lambda: "no peer answers at /ip4/" in output.read_text())
    assert "trying on" in output.read_text()
    assert read_status(node, capsys)["state"] == "running"
    assert read_status(node, capsys)["member"] is True, "it joined"

    assert main(["node", str(node), "--password-file", str(world.password_file)]) == 1
    check_sentence(capsys.readouterr().err)

    assert interrupt(process, signal.SIGINT) == "interrupted; everything needed to go on is on disk\n"
    assert process.returncode == 130
    assert "goes on" in output.read_text()
    assert read_status(node, capsys)["state"] == "stopped"

    again = start(["node", str(node), "--password-file", str(world.password_file)], output=output)
    running.append(again)
    wait_for(again, lambda: read_status(node, capsys)["state"] == "running")
    view, _ = world.read_chain()
    again.kill()
    again.wait()
    assert len(view.members) == 1, "it paid once"
    status = {**read_status(node, capsys), "time_s": time.time() - 60}
    (node / "status.json").write_text(json.dumps(status))
    assert str(read_status(node, capsys)["state"]).startswith("not running (it was killed")
    assert main(["status", str(node)]) == 0
    assert "not running" in capsys.readouterr().out
