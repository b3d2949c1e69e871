"""Two hivemind peers in processes of their own, to compare with: see `_hivemind_peer.py` for what they do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks._hivemind import install_hivemind

PEER = Path(__file__).with_name("_hivemind_peer.py")


class HivemindPeer:
    """One process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self.read_line()

    def ask(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a hivemind peer ended: what it wrote to standard error says why")
        return line.strip()

    def read_seconds(self) -> float:
        return float(self.read_line())


class HivemindPair:
    """Two peers that know each other, with an averager for each size."""

    def __init__(self, one: HivemindPeer, other: HivemindPeer) -> None:
        self._one, self._other = one, other

    def load(self, size_bytes: int) -> float:
        """Seconds in which one loads the state of the other."""
        self._one.ask("load", size_bytes)
        return self._one.read_seconds()

    def step(self, size_bytes: int) -> float:
        """Seconds until both have the average, if both are ready."""
        peers = (self._one, self._other)
        for peer in peers:
            peer.ask("step", size_bytes)
        return max(peer.read_seconds() for peer in peers)

    def miss(self, size_bytes: int, timeout_s: float) -> float:
        """Seconds that one waits where the other does not come."""
        self._one.ask("miss", size_bytes, timeout_s)
        return self._one.read_seconds()


@contextmanager
def start_hivemind(sizes_bytes: Sequence[int]) -> Iterator[HivemindPair]:
    """Two peers in processes of their own, ended with the block."""
    command = [str(install_hivemind()), str(PEER), ",".join(map(str, sizes_bytes))]
    processes: list[subprocess.Popen[str]] = []

    def start(*more: str) -> HivemindPeer:
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen([*command, *more], stdin=pipe, stdout=pipe, text=True))
        return HivemindPeer(processes[-1])

    with ExitStack() as stack:
        stack.callback(_end, processes)
        donor = start()
        yield HivemindPair(start(donor.address), donor)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
