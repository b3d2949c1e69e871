"""What a node costs that has nothing to do: one member with torch loaded, connected to five others, in a session that has not begun.

All are real processes with the commands that a user gives; the five others have no task (they only vote), so that the machine
is not filled by their workers. Processor time over `WINDOW_S` seconds in per cent of one core; memory as resident set size.
The reference is what the project allows itself: 3 % and 400 MB.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import Result
from learnae.demo.cast import Actor, make_keys, run_command, start_chain, stop_all, write_password

OTHERS = 5
WINDOW_S = 30.0
READY_S = 60.0
CPU_MAX_PERCENT = 3.0
MEMORY_MAX_MB = 400.0


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        actors: list[Actor] = []
        try:
            return _measure(Path(folder), actors)
        finally:
            stop_all(actors)


def _measure(root: Path, actors: list[Actor]) -> list[Result]:
    password = root / "password"
    words = write_password(password)
    names = ["node", *(f"other{number}" for number in range(OTHERS))]
    wallets = {name: make_keys(root / name, words) for name in names}
    chain, rpc = start_chain(root / "chain", dict.fromkeys(wallets.values(), 10))
    actors.append(chain)

    def own(name: str) -> list[str]:
        return ["--folder", str(root / name), "--rpc", rpc, "--password-file", str(password), "--device", "cpu"]

    task = ["--task", "digits", "--data", "1/6@0"]
    run_command(["session", "new", "--name", "idle", "--funding", "1h", *task, *own("node")])
    node, *others = (Actor(name, root / name) for name in names)
    actors.extend([node, *others])
    node.start(["node", str(node.folder), "--password-file", str(password)])
    for other in others:
        other.start(["join", str(node.folder / "ticket.txt"), "--yes", "--listen", "/ip4/127.0.0.1/tcp/0", *own(other.name)])
    _wait_until_connected(actors[1:])
    assert node.process is not None
    family = [psutil.Process(node.process.pid), *psutil.Process(node.process.pid).children(recursive=True)]
    assert len(family) == 2, "a node and its worker"
    before = [_cpu_s(process) for process in family]
    began_s = time.monotonic()
    time.sleep(WINDOW_S)
    took_s = time.monotonic() - began_s
    cpu = [100 * (_cpu_s(process) - start) / took_s for process, start in zip(family, before, strict=True)]
    memory = [process.memory_info().rss / 1e6 for process in family]
    return [
        Result(case="node and worker, processor", value=sum(cpu), unit="% of a core", reference="limit", reference_value=CPU_MAX_PERCENT),
        Result(case="node, processor", value=cpu[0], unit="% of a core"),
        Result(case="worker, processor", value=cpu[1], unit="% of a core"),
        Result(case="node and worker, memory", value=sum(memory), unit="MB", reference="limit", reference_value=MEMORY_MAX_MB),
        Result(case="node, memory", value=memory[0], unit="MB"),
        Result(case="worker with torch, memory", value=memory[1], unit="MB"),
    ]


def _wait_until_connected(actors: list[Actor]) -> None:
    deadline = time.monotonic() + READY_S
    while not all(_count_connections(actor.folder) == OTHERS for actor in actors[:1]):
        assert time.monotonic() < deadline, [actor.read_last_words() for actor in actors]
        time.sleep(0.5)
    time.sleep(3.0)  # Introductions and first syncs are over then.


def _count_connections(folder: Path) -> int:
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    return int(status["connected"])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
