"""A session of real node processes with the synthetic learner, on an embedded chain and loopback: made, killed, started again, judged.

The founder (member 0) has the initial model; every ticket names its address and two others'. Members that are to come late are
enrolled by `Swarm.enroll` while the session is funded, as they would do themselves, and their node starts for the first time later.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import trio

from benchmarks._swarm_node import PASSWORD_FILE
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.ethereum import EthereumChain, open_ethereum_chain
from learnae.backends.keystore import Keys, create_keystore
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.cli.sessions import SessionPlan, compute_rules
from learnae.demo.cast import DEMO_SCRYPT_N, Actor, make_environment, start_chain, stop_all, write_password
from learnae.ids import peer_text
from learnae.learning.synthetic import SyntheticLearner
from learnae.protocol.calls import ChainView, DeployPoid, Join
from learnae.protocol.rules import Ticket

ROOT = Path(__file__).parents[1]
ETHER = 10
NAMED = 3  # Members whose addresses the ticket tells.
WORK = ("trained", "dropped", "adopted")  # What a work cycle ends with.


@dataclass(slots=True)
class Start:
    """One start of a node. Times are Unix seconds; None: not yet."""

    at_s: float
    worked_s: float | None = None  # its first work cycle ended
    adopted_s: float | None = None  # it first adopted something
    cpu_s: float | None = None  # processor time used by then, seconds
    killed_s: float | None = None


@dataclass(slots=True)
class Member:
    """One member, its node's process, and what the node told."""

    number: int
    keys: Keys
    actor: Actor
    listen: str
    starts: list[Start] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        return self.actor.process is not None and self.actor.status is None

    @property
    def address(self) -> str:
        return f"{self.listen}/p2p/{peer_text(self.keys.identity.peer_id)}"

    def read(self) -> None:
        """Take what the node told since the last look."""
        for line in self.actor.read_progress():
            self.lines.append(line)
            start, event = self.starts[-1], line.get("event")
            if event in WORK and start.worked_s is None and line["time_s"] > start.at_s:
                start.worked_s, start.cpu_s = line["time_s"], self.read_cpu_s()
            if event == "adopted" and start.adopted_s is None and line["time_s"] > start.at_s:
                start.adopted_s = line["time_s"]

    def read_cpu_s(self) -> float | None:
        """Processor time of the running process, None if there is none."""
        try:
            times = psutil.Process(self.actor.process.pid).cpu_times() if self.actor.process is not None else None
        except psutil.NoSuchProcess:
            return None
        return None if times is None else float(times.user + times.system)

    def kill(self) -> None:
        self.actor.kill()
        self.read()
        self.starts[-1].killed_s = time.time()

    def count_cycles(self, since_s: float, until_s: float) -> int:
        return sum(line.get("event") in WORK and since_s <= line["time_s"] < until_s for line in self.lines)

    def find_last_work_s(self) -> float | None:
        """Unix time of the newest work cycle."""
        return next((line["time_s"] for line in reversed(self.lines) if line.get("event") in WORK), None)

    def troubles(self) -> list[str]:
        return [str(line["text"]) for line in self.lines if line["topic"] == "trouble"]


@dataclass(slots=True)
class Swarm:
    """All members of one session."""

    root: Path
    rpc: str
    chain: Actor
    members: list[Member]
    ticket: Ticket

    def start(self, member: Member, *, module: str = "benchmarks._swarm_node") -> None:
        """Start the member's node, for the first time or again; `module` is what runs it."""
        environment = make_environment()
        environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), environment["PYTHONPATH"]))
        command = [sys.executable, "-m", module, str(member.actor.folder), str(member.number)]
        member.starts.append(Start(time.time()))
        with (member.actor.folder / "output.txt").open("ab") as log:
            member.actor.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def check_alive(self) -> None:
        """Every node that was not killed still runs. Raises: RuntimeError."""
        for member in self.members:
            if member.actor.process is not None and member.actor.status not in (None, 0, -signal.SIGKILL):
                raise RuntimeError(f"{member.actor.name}'s node ended by itself: {member.actor.read_last_words()}")

    def read(self) -> None:
        for member in self.members:
            member.read()

    def enroll(self, members: Sequence[Member]) -> None:
        """Proof of identity and deposit of members whose nodes start later."""

        async def enroll_all() -> None:
            async with trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(enroll_member, self.rpc, self.ticket, member.keys)

        trio.run(enroll_all)

    def read_chain(self) -> ChainView:
        async def read() -> ChainView:
            async with _open_chain(self.rpc, self.members[0].keys) as chain:
                return await chain.read(self.ticket.contract)

        return trio.run(read)


@contextmanager
def open_swarm(
    root: Path, members: int, plan: SessionPlan, *, pace_s: float, initial: bytes = b"", train_permille: int = 0
) -> Iterator[Swarm]:
    """A founded session whose nodes are yet to be started; afterwards no process of it is left.

    Args:
        initial: the session's initial model; of the synthetic learner if empty.
        train_permille: how often a node trains rather than averages; as usual if 0.
    """
    password = write_password(root / PASSWORD_FILE)
    made = [_make_member(root, number, password) for number in range(members)]
    chain, rpc = start_chain(root / "chain", {member.keys.wallet.address: ETHER for member in made})
    try:
        ticket = trio.run(_found, rpc, made, plan, initial or SyntheticLearner(0).initial_model(plan.seed), train_permille)
        for member in made:
            settings = NodeSettings(task="", data="", rpc=rpc, listen=(member.listen,), mdns=False, pace_s=pace_s)
            NodeFolder(member.actor.folder).write(ticket, settings)
        yield Swarm(root, rpc, chain, made, ticket)
    finally:
        stop_all([*(member.actor for member in made), chain])


def _make_member(root: Path, number: int, password: str) -> Member:
    folder = root / f"member{number}"
    folder.mkdir()
    keys = create_keystore(folder / "keystore.json", password, scrypt_n=DEMO_SCRYPT_N)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"
    return Member(number, keys, Actor(folder.name, folder), listen)


def _open_chain(rpc: str, keys: Keys) -> AbstractAsyncContextManager[EthereumChain]:
    return open_ethereum_chain(rpc, wallet=keys.wallet, peer_id=keys.identity.peer_id, sign_identity=keys.identity.sign)


async def _found(rpc: str, members: Sequence[Member], plan: SessionPlan, model: bytes, train_permille: int) -> Ticket:
    founder = members[0]
    blocks = DiskBlocks(founder.actor.folder / "blocks")
    initial = blocks.put_file(model)
    blocks.pin(initial)
    async with _open_chain(rpc, founder.keys) as chain:
        digest = bytes(32)  # Of no task: these nodes have a learner of their own.
        rules = compute_rules(plan, task_digest=digest, initial=(initial, len(model)), chain_id=chain.chain_id, now_s=int(time.time()))
        rules = replace(rules, train_permille=train_permille or rules.train_permille)
        contract = await chain.deploy_session(rules.compute_terms())
    return Ticket(rules=rules, contract=contract, addresses=tuple(member.address for member in members[:NAMED]))


async def enroll_member(rpc: str, ticket: Ticket, keys: Keys) -> None:
    """Proof of identity and deposit, as the member's own node would send them."""
    async with _open_chain(rpc, keys) as chain:
        receipt = await chain.submit(ticket.contract, DeployPoid())
        assert receipt.address is not None
        await chain.submit(ticket.contract, Join(receipt.address))
