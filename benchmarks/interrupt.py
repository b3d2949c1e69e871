"""How long Ctrl+C takes: SIGINT to a whole demo, as a terminal sends it, until the last of its processes has ended.

The demo is the most that can run in one terminal: an embedded chain, six nodes, six workers with torch. It is interrupted at moments
of its life, each several times; the reference is what the project allows itself, two seconds.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import Result

RUNS = 3
LIMIT_S = 2.0
PATIENCE_S = 90.0
FUNDING_S = 25


@dataclass(frozen=True, slots=True)
class Moment:
    name: str
    has_come: Callable[[psutil.Process, Path], bool]


def _count_workers(demo: psutil.Process, out: Path) -> int:
    """Grown processes below the demo: nodes and workers that have loaded what they need."""
    infos = psutil.process_iter(["memory_info"])
    family = {process.pid for process in demo.children(recursive=True)}
    return sum(process.pid in family and process.info["memory_info"].rss > 150e6 for process in infos)


def _is_training(demo: psutil.Process, out: Path) -> bool:
    """Every peer has trained for the first time."""
    logs = list(out.glob("peers/*/progress.jsonl"))
    return len(logs) == 6 and all('"trained"' in log.read_text(encoding="utf-8") for log in logs)


MOMENTS = (
    Moment("keys are made", lambda demo, out: (out / "password").exists()),
    Moment("the session is founded", lambda demo, out: (out / "peers" / "ada" / "keystore.json").exists() and bool(demo.children())),
    Moment("workers load torch", lambda demo, out: _count_workers(demo, out) >= 3),
    Moment("all peers train", _is_training),
)


def run() -> list[Result]:
    results = []
    for moment in MOMENTS:
        times_s = [_interrupt(moment) for _ in range(RUNS)]
        values = {f"Ctrl+C while {moment.name}": statistics.median(times_s), f"Ctrl+C while {moment.name}, longest": max(times_s)}
        results += [
            Result(case=case, value=value, unit="s", reference="limit", reference_value=LIMIT_S) for case, value in values.items()
        ]
    return results


def _interrupt(moment: Moment) -> float:
    """Seconds from the signal to the end of the demo and of everything that it started."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "learnae", "demo", "--plain", "--out", str(out), "--funding", f"{FUNDING_S}s"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True)
        demo = psutil.Process(process.pid)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not moment.has_come(demo, out):
                assert process.poll() is None and time.monotonic() < deadline, f"the demo never came to: {moment.name}"
                time.sleep(0.02)
            family = [demo, *demo.children(recursive=True)]
            began_s = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            _, error = process.communicate(timeout=PATIENCE_S)
            while any(map(_runs, family)):
                assert time.monotonic() < began_s + PATIENCE_S, f"something goes on after Ctrl+C while {moment.name}"
                time.sleep(0.01)
            took_s = time.monotonic() - began_s
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 130, error
        return took_s


def _runs(process: psutil.Process) -> bool:
    """Whether a process goes on; one that has ended may still be listed until its parent asks for its status."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
