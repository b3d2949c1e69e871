"""The side of learnae: `learnae session new` and six times `learnae node`, as the demo runs them, with an embedded chain."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import trio

from benchmarks import _peers
from benchmarks._peers import JOIN_S, KILL_S, LATE_MAX_S, MARKS_S, NEAR, PEERS, SPANS, Side
from benchmarks._swarm import enroll_member
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.keystore import Keys, create_keystore
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.demo.cast import DEMO_SCRYPT_N, Actor, run_command, start_chain, stop_all, write_password
from learnae.protocol.cycle import RECORD_LOCAL
from learnae.protocol.rules import decode_ticket
from learnae.tangle import cbor

PACE_S = 0.4  # The demo's.
FUNDING_S = 60
LOOK_S = 0.5
WORK = ("trained", "adopted", "dropped")


class OurSwarm:
    """Six members, and a seventh that comes late."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.actors: list[Actor] = []
        self._lines: list[list[dict[str, object]]] = [[] for _ in range(PEERS + 1)]

    def open(self) -> None:
        """Found the session, start six nodes, enroll the seventh member."""
        root = self._root
        words = write_password(root / "password")
        folders = [root / f"peer{number}" for number in range(PEERS + 1)]
        keys: list[Keys] = []
        for folder in folders:
            folder.mkdir()
            keys.append(create_keystore(folder / "keystore.json", words, scrypt_n=DEMO_SCRYPT_N))
        chain, rpc = start_chain(root / "chain", {key.wallet.address: 10 for key in keys})
        self.actors.append(chain)
        place = ["--folder", str(folders[0]), "--rpc", rpc, "--password-file", str(root / "password"), "--no-mdns"]
        stages = ["--funding", f"{FUNDING_S}s", "--training", "10m"]
        own = ["--task", "digits", "--data", _peers.source_of(0), "--device", "cpu", "--pace", str(PACE_S)]
        run_command(["session", "new", "--name", "peers", "--seed", str(_peers.SEED), *stages, *own, *place])
        self.ticket = decode_ticket((folders[0] / "ticket.txt").read_text(encoding="utf-8").strip())
        initial = DiskBlocks(folders[0] / "blocks", read_only=True).get_file(self.ticket.rules.initial_model, bytes_max=1 << 20)
        assert initial is not None
        self.initial = bytes(initial)
        for number, folder in enumerate(folders[1:], 1):
            listen = ("/ip4/127.0.0.1/tcp/0",)
            data = _peers.source_of(number if number < PEERS else PEERS - 1)
            settings = NodeSettings(task="digits", data=data, rpc=rpc, listen=listen, mdns=False, device="cpu", pace_s=PACE_S)
            NodeFolder(folder).write(self.ticket, settings)
        self.peers = [Actor(folder.name, folder) for folder in folders]
        self.actors += self.peers
        for peer in self.peers[:PEERS]:
            self.start(peer)
        trio.run(enroll_member, rpc, self.ticket, keys[PEERS])

    def start(self, peer: Actor) -> None:
        peer.start(["node", str(peer.folder), "--password-file", str(self._root / "password")])

    def read(self) -> None:
        for peer, lines in zip(self.peers, self._lines, strict=True):
            if peer.status:
                raise RuntimeError(f"{peer.name}'s node ended: {peer.read_last_words()}")
            lines += peer.read_progress()

    def find_times_s(self, number: int, events: Sequence[str]) -> list[float]:
        """When a peer did any of these, Unix times."""
        return [float(str(line["time_s"])) for line in self._lines[number] if line.get("event") in events]

    def read_model(self, number: int) -> bytes:
        """A peer's local model, out of the folder of its running node; the session's initial one while it has none."""
        folder = self.peers[number].folder
        try:
            with closing(sqlite3.connect(f"file:{folder / 'journal.sqlite'}?mode=ro", uri=True)) as database:
                found = database.execute("SELECT value FROM records WHERE name = ?", (RECORD_LOCAL,)).fetchone()
        except sqlite3.OperationalError:
            found = None  # It is only just making its journal.
        if found is None:
            return self.initial
        model = DiskBlocks(folder / "blocks", read_only=True).get_file(cbor.decode(found[0])[0], bytes_max=1 << 20)
        assert model is not None
        return bytes(model)


def measure_ours(root: Path) -> tuple[Side, bytes, list[float]]:
    """What was seen, the session's initial model, and how many steps a second each peer trained."""
    swarm = OurSwarm(root)
    try:
        swarm.open()
        return _measure(swarm)
    finally:
        stop_all(swarm.actors)


def _measure(swarm: OurSwarm) -> tuple[Side, bytes, list[float]]:
    side, began_s = Side(), float(swarm.ticket.rules.funding_ends_s)
    _wait_until(began_s)
    families = [_peers.list_family(peer.process.pid) for peer in swarm.peers[:PEERS] if peer.process is not None]
    cpu_s = _peers.read_cpu_s(families)
    models: dict[int, list[bytes]] = {}
    for mark_s in MARKS_S:
        _wait_until(began_s + mark_s)
        models[mark_s] = [swarm.read_model(number) for number in range(PEERS)]
    side.cpu_s = _peers.read_cpu_s(families) - cpu_s
    memory = [_peers.read_memory_mb(family) for family in families]
    side.main_mb, side.all_mb = statistics.median(one[0] for one in memory), statistics.median(map(sum, memory))
    swarm.read()
    rates = [len(swarm.find_times_s(number, ("trained",))) * _peers.count_steps(number) / MARKS_S[-1] for number in range(PEERS)]
    side.steps_s = statistics.mean(rates)
    _wait_until(began_s + KILL_S)
    swarm.peers[PEERS - 1].kill()
    _wait_until(began_s + JOIN_S)
    late = swarm.peers[PEERS]
    swarm.start(late)
    started_s = time.time()
    late_models: list[tuple[float, bytes]] = []  # as they change, each with the seconds from its start
    while time.time() < started_s + LATE_MAX_S:
        time.sleep(LOOK_S)
        model = swarm.read_model(PEERS)
        if not late_models or late_models[-1][1] != model:
            late_models.append((time.time() - started_s, model))
    others = [swarm.read_model(number) for number in range(PEERS - 1)]
    swarm.peers[PEERS - 1].process = None  # It was killed, and did not end by itself.
    swarm.read()
    side.gaps_s = {name: _find_gap_s(swarm, began_s + from_s, began_s + to_s) for name, (from_s, to_s) in SPANS.items()}
    side.accuracies = {mark_s: _peers.test_models(found) for mark_s, found in models.items()}
    side.late_others = statistics.median(_peers.test_models(others))
    tested = _peers.test_models([model for _, model in late_models])
    near = [at_s for (at_s, _), accuracy in zip(late_models, tested, strict=True) if accuracy >= side.late_others - NEAR]
    side.late_s = min(near, default=LATE_MAX_S)
    return side, swarm.initial, rates


def _find_gap_s(swarm: OurSwarm, from_s: float, to_s: float) -> float:
    """The longest time in which one of the five others ended no work cycle."""
    return max(_peers.find_longest_gap_s(swarm.find_times_s(number, WORK), from_s, to_s) for number in range(PEERS - 1))


def _wait_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))
