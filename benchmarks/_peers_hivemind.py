"""The side of hivemind: six processes that average in groups, each with its DHT, its averager and its libp2p daemon below it."""

from __future__ import annotations

import json
import os
import queue
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _peers
from benchmarks._hivemind import install_hivemind
from benchmarks._peers import JOIN_S, KILL_S, LATE_MAX_S, MARKS_S, NEAR, PEERS, SPANS, Side

TRAINER = Path(__file__).with_name("_hivemind_trainer.py")
READY_S = 90.0
ANSWER_S = 30.0
LOOK_S = 0.5


class HivemindPeer:
    """One process in hivemind's environment, driven by lines."""

    def __init__(self, root: Path, number: int, rate: float, addresses: Sequence[str]) -> None:
        command = [str(install_hivemind()), str(TRAINER), str(root / f"{number}.npz"), str(rate), *addresses]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.started_s = time.time()
        with (root / f"{number}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True, start_new_session=True
            )
        self.lines: list[dict[str, Any]] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            self.lines.append(told)
            if told["event"] in ("ready", "accuracy"):
                self._answers.put(told)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def wait(self, limit_s: float) -> dict[str, Any]:
        """The next answer. Raises: RuntimeError: none came in time."""
        try:
            return self._answers.get(timeout=limit_s)
        except queue.Empty as error:
            raise RuntimeError(f"a hivemind peer said nothing for {limit_s} s") from error

    def find_merges_s(self) -> list[float]:
        return [line["time_s"] for line in self.lines if line["event"] == "merged"]

    def kill(self) -> None:
        """The main process and all below it, as a power cut would."""
        for process in _peers.list_family(self.process.pid):
            process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            family = _peers.list_family(self.process.pid)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for process in family[1:]:
                if process.is_running():
                    process.kill()
            psutil.wait_procs(family, timeout=5)


def measure_hivemind(root: Path, initial: bytes, rates: Sequence[float]) -> Side:
    """The same as ours: six peers, each with so many steps a second."""
    peers: list[HivemindPeer] = []
    try:
        for number in range(PEERS + 1):
            _peers.write_share(root / f"{number}.npz", min(number, PEERS - 1), initial=initial, late=number == PEERS)
        for number in range(PEERS):
            addresses = [peers[0].lines[0]["address"]] if peers else []
            peers.append(HivemindPeer(root, number, rates[number], addresses))
            if number == 0:
                peers[0].wait(READY_S)
        for peer in peers[1:]:
            peer.wait(READY_S)
        return _measure(root, peers, rates)
    finally:
        for peer in peers:
            peer.end()


def _measure(root: Path, peers: list[HivemindPeer], rates: Sequence[float]) -> Side:
    side, began_s = Side(), time.time()
    families = [_peers.list_family(peer.process.pid) for peer in peers]
    cpu_s = _peers.read_cpu_s(families)
    for peer in peers:
        peer.say("go")
    for mark_s in MARKS_S:
        _wait_until(began_s + mark_s)
        side.accuracies[mark_s] = _test(peers)
    steps = [next(line["steps"] for line in reversed(peer.lines) if line["event"] == "accuracy") for peer in peers]
    side.steps_s = statistics.mean(steps) / MARKS_S[-1]
    side.cpu_s = _peers.read_cpu_s(families) - cpu_s
    memory = [_peers.read_memory_mb(family) for family in families]
    side.main_mb, side.all_mb = statistics.median(one[0] for one in memory), statistics.median(map(sum, memory))
    _wait_until(began_s + KILL_S)
    peers[-1].kill()
    others = peers[: PEERS - 1]
    _wait_until(began_s + JOIN_S)
    peers.append(HivemindPeer(root, PEERS, rates[PEERS - 1], [others[0].lines[0]["address"]]))
    late = peers[-1]
    late.say("go")
    late.wait(READY_S)  # Until it is ready.
    side.late_others = statistics.median(_test(others))
    while time.time() < late.started_s + LATE_MAX_S:
        told = _test([late])[0]
        if told >= side.late_others - NEAR:
            side.late_s = time.time() - late.started_s
            break
        time.sleep(LOOK_S)
    _wait_until(began_s + SPANS["one comes late"][1])
    side.gaps_s = {
        name: max(_peers.find_longest_gap_s(peer.find_merges_s(), began_s + from_s, began_s + to_s) for peer in others)
        for name, (from_s, to_s) in SPANS.items()
    }
    return side


def _test(peers: Sequence[HivemindPeer]) -> list[float]:
    for peer in peers:
        peer.say("test")
    return [float(peer.wait(ANSWER_S)["accuracy"]) for peer in peers]


def _wait_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))
