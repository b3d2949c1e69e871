"""The processes of a demo: an embedded chain and six peers, each started with the command that a user would give.

Every process is in a group of its own and dies with it, so nothing is left behind, however the demo ends.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from learnae.backends.keystore import create_keystore
from learnae.errors import DemoError
from learnae.learning.process import find_import_path

COMMAND: Final = (sys.executable, "-m", "learnae")
READY_S: Final = 60.0  # For the chain to say that it listens, on a slow machine.
STOP_S: Final = 1.5
LAST_LINES: Final = 3
DEMO_SCRYPT_N: Final = 1 << 12  # The demo's wallets hold play money: opening them may be quick.


@dataclass(slots=True)
class Actor:
    """One process of the demo: a peer's node, or the chain."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    position: int = 0  # how much of its progress was read

    def start(self, arguments: Sequence[str], *, module: str = "") -> None:
        """Start `learnae`, or another module in the folder, with these arguments; what it prints goes to `output.txt` in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments] if module else [*COMMAND, *arguments],
                cwd=self.folder if module else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=make_environment(),
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs."""
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """SIGKILL to the process alone, as a power cut would do it; its worker ends by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if there is one left."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # It may have ended by itself.
                os.killpg(self.process.pid, number)

    def read_progress(self) -> Iterator[dict[str, Any]]:
        """The lines of progress that are new since the last call."""
        path = self.folder / "progress.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)

    def read_last_words(self) -> str:
        """The end of what it printed, for an error message."""
        path = self.folder / "output.txt"
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
        return " / ".join(lines[-LAST_LINES:]) or "(it printed nothing)"


def make_environment() -> dict[str, str]:
    """This process's environment, in which a new process finds the same package."""
    return {**os.environ, "PYTHONPATH": find_import_path()}


def stop_all(actors: Sequence[Actor]) -> None:
    """Ask every process to end, then make it end; takes at most two seconds, and an impatient user cannot cut it short."""
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        _stop_all(actors)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_all(actors: Sequence[Actor]) -> None:
    for actor in actors:
        actor.end(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and any(actor.process is not None and actor.status is None for actor in actors):
        time.sleep(0.05)
    for actor in actors:
        actor.end(signal.SIGKILL)
        if actor.process is not None:
            actor.process.wait()
            actor.end(signal.SIGKILL)


def start_chain(folder: Path, money: Mapping[str, int]) -> tuple[Actor, str]:
    """Start the embedded chain with money (ether) in these wallets; its URL. Raises: DemoError."""
    actor = Actor("chain", folder)
    funds = [part for wallet, ether in money.items() for part in ("--fund", f"{wallet}={ether}")]
    ready = False
    try:
        actor.start(["chain", "--port", "0", *funds])
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and actor.status is None:
            for line in (folder / "output.txt").read_text(encoding="utf-8").splitlines():
                if line.startswith("chain ready: "):
                    ready = True
                    return actor, line.split()[2]
            time.sleep(0.05)
        raise DemoError(f"the embedded chain did not start: {actor.read_last_words()}")
    finally:
        if not ready:
            stop_all([actor])


def run_command(arguments: Sequence[str]) -> None:
    """Run one `learnae` command to its end. Raises: DemoError: it failed; with its own sentence."""
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=make_environment(), text=True, check=False)
    if done.returncode:
        raise DemoError(f"`learnae {arguments[0]}` failed: {done.stderr.strip() or done.stdout.strip()}")


def make_keys(folder: Path, password: str) -> str:
    """A keystore in a peer's folder; the address of its wallet."""
    return create_keystore(folder / "keystore.json", password, scrypt_n=DEMO_SCRYPT_N).wallet.address


def write_password(path: Path) -> str:
    """A random password in a file that only its owner can read."""
    password = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password)
    return password
