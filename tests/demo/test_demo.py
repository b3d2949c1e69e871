"""The demo as a program: what it may overwrite, how it ends, and that nothing of it is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from learnae.demo.cast import Actor, make_environment, run_command, start_chain, stop_all, write_password
from learnae.demo.run import MARKER, hold_folder
from learnae.errors import DemoError
from tests.processes import HANGS_S, find_left

# --- folders ----------------------------------------------------------------------------------------------------


def test_folder__of_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with hold_folder(out):
        (out / "peers").mkdir()
        (out / "peers" / "old").touch()
    with hold_folder(out):
        assert [path.name for path in out.iterdir()] == [MARKER]


def test_folder__of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DemoError, match="is not empty and not from an earlier demo; choose another with --out"), hold_folder(tmp_path):
        pytest.fail("it went on")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_folder__of_a_running_demo_is_not_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with hold_folder(out):
        (out / "journal").touch()
        with pytest.raises(DemoError, match="another demo is running in"), hold_folder(out):
            pytest.fail("it went on")
        assert (out / "journal").exists()


def test_folder__that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match="cannot be used: Not a directory"), hold_folder(tmp_path / "file" / "demo"):
        pytest.fail("it went on")


def test_password__is_its_owners_alone(tmp_path: Path) -> None:
    password = write_password(tmp_path / "password")
    assert len(password) >= 24
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
    assert write_password(tmp_path / "other") != password


# --- processes --------------------------------------------------------------------------------------------------


def test_actor__progress_is_read_once_and_in_whole_lines(tmp_path: Path) -> None:
    actor = Actor("ada", tmp_path)
    assert list(actor.read_progress()) == []
    path = tmp_path / "progress.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b"')
    assert list(actor.read_progress()) == [{"a": 1}]
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n')
    assert list(actor.read_progress()) == [{"b": 2}]
    assert actor.read_last_words() == "(it printed nothing)"


def test_stop_all__ends_also_who_does_not_want_to(tmp_path: Path) -> None:
    """And with all that it started, long before that would have ended by itself."""
    actor = Actor("stubborn", tmp_path)
    script = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); " + (
        "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)']); time.sleep(99)"
    )
    with (tmp_path / "output.txt").open("wb") as log:
        actor.process = subprocess.Popen([sys.executable, "-c", script], stdout=log, start_new_session=True)
    deadline = time.monotonic() + 10
    while not (family := psutil.Process(actor.process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop_all([actor, Actor("never started", tmp_path)])
    assert actor.status == -signal.SIGKILL
    assert not find_left(family)


def test_run_command__tells_what_the_command_said(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"`learnae node` failed: learnae: the folder .* there is no ticket\.txt in it"):
        run_command(["node", str(tmp_path)])


def test_start_chain__that_cannot_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="the embedded chain did not start: learnae: the embedded chain cannot start: --fund"):
        start_chain(tmp_path, {"nobody": 1})


# --- Ctrl+C -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """A time in the demo's run, by what can be seen of it from outside."""

    name: str
    has_come: Callable[[Path], bool]


MOMENTS = (
    Moment("the chain starts", lambda out: (out / "chain" / "output.txt").exists()),
    Moment("the session is founded", lambda out: (out / "peers" / "ada" / "blocks").exists()),
    Moment("all nodes run", lambda out: len(list(out.glob("peers/*/status.json"))) == 6),
)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.name)
def test_demo__interrupted_ends_everything(tmp_path: Path, moment: Moment) -> None:
    """Issue, Ctrl+C at any time: one sentence, status 130, and no process is left."""
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "learnae", "demo", "--out", str(out), "--plain"]
    number = signal.SIGTERM if moment is MOMENTS[1] else signal.SIGINT
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=make_environment(), text=True, start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not moment.has_come(out):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            family = psutil.Process(process.pid).children(recursive=True)
            assert family
            os.killpg(process.pid, number)
            _, error = process.communicate(timeout=HANGS_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 130
    assert error == "the demo was interrupted; all that it started has ended\n"
    assert not find_left(family)
