"""The public IPFS DHT as far as a machine without internet has it: real Kubo nodes that are its servers, at public addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from learnae.ids import cid_text, compute_cid
from tests.kubo_node import KuboNode, open_kubo
from tests.processes import HANGS_S
from tests.routers import Public, World, find_obstacle, open_world

RULES = "the rules of a session"
SERVERS = ("first", "second", "third")


@contextmanager
def open_dht(world: World, folder: Path) -> Iterator[list[KuboNode]]:
    """Servers of the IPFS DHT in their default settings, but for the bootstrap list, and for being told that they can be reached."""
    with ExitStack() as stack:
        nodes: list[KuboNode] = []
        for name in SERVERS:
            config = {
                "Addresses": {"Swarm": [f"/ip4/{world.addresses[name]}/tcp/4001"], "API": [], "Gateway": []},
                "Bootstrap": [node.addresses[0] for node in nodes],
                "Internal": {"Libp2pForceReachability": "public"},
            }
            nodes.append(stack.enter_context(open_kubo(folder / name, config, place=world.command(name, []))))
            for node in nodes[:-1]:
                nodes[-1].connect(node.addresses[0])
        yield nodes


class Node:
    """`tests.backends.wide_node` somewhere in the world."""

    def __init__(self, world: World, place: str, *, number: int, bootstrap: Sequence[str]) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        command = [sys.executable, "-m", "tests.backends.wide_node"]
        pipe = subprocess.PIPE
        self._process = world.start(place, command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout
        self._in.write(json.dumps({"number": number, "rules": RULES, "bootstrap": list(bootstrap)}) + "\n")
        self._in.flush()
        self.peer_id = self._out.readline().strip()

    def wait_for(self, peer_id: str) -> None:
        """Until it is connected to that peer; others pass by, as those that look around in the DHT do."""
        late = threading.Timer(HANGS_S, self._process.kill)
        late.start()
        try:
            assert peer_id in (line.strip() for line in self._out), "the node ended, or did not meet the other"
        finally:
            late.cancel()

    def close(self) -> None:
        self._in.close()
        self._out.close()


def test_session__is_found_in_the_ipfs_dht_by_nodes_and_by_kubo(tmp_path: Path) -> None:
    """Issue: DHT records under the session's CID. Servers that know nothing of learnae keep and tell them, with addresses.

    This Kubo takes addresses from Identify only: before nodes told them there, nobody got any.
    """
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    with (
        open_world([Public(name) for name in (*SERVERS, "member", "newcomer")]) as world,
        open_dht(world, tmp_path) as (first, second, third),
        ExitStack() as stack,
    ):
        member = Node(world, "member", number=1, bootstrap=first.addresses)
        stack.callback(member.close)
        newcomer = Node(world, "newcomer", number=2, bootstrap=third.addresses)
        stack.callback(newcomer.close)
        newcomer.wait_for(member.peer_id)
        member.wait_for(newcomer.peer_id)
        assert member.peer_id not in second.peers(), "questions and records go out over connections that end"

        second.download(cid_text(compute_cid(RULES.encode())), tmp_path / "rules")
        assert (tmp_path / "rules").read_text() == RULES, "only the two nodes have it"
        assert {member.peer_id, newcomer.peer_id} & set(second.peers())
