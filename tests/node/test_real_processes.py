"""The main job with real processes: libp2p, an embedded chain, torch in worker processes, one SIGKILL in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from learnae.backends.ethereum import open_ethereum_chain
from learnae.backends.keystore import Keys, open_keystore
from learnae.demo.cast import Actor, make_keys, run_command, start_chain, stop_all, write_password
from learnae.protocol.calls import ChainView, Stage
from learnae.protocol.rules import Ticket, decode_ticket
from learnae.tangle.vertex import Vertex
from tests.backends.kubo_standin import Daemon, open_daemon
from tests.node.bed import fold_ledger, read_vertices
from tests.processes import HANGS_S

NAMES = ("ada", "ben", "cleo")
STAGES = {"funding": 16, "training": 20, "final": 4, "claiming": 10, "voting": 6}
PASSWORD_FILE = "password"
ETHER = 10**18


def wait_until(condition: Callable[[], bool], actors: list[Actor], *, limit_s: float) -> None:
    """Look until it holds; a process that ended with an error ends the test with its last words."""
    deadline = time.monotonic() + limit_s
    while not condition():
        for actor in actors:
            assert not actor.status, f"{actor.name} ended: {actor.read_last_words()}"
        assert time.monotonic() < deadline, [f"{actor.name}: {actor.read_last_words()}" for actor in actors]
        time.sleep(0.1)


@pytest.fixture
def actors() -> Iterator[list[Actor]]:
    """Processes that are gone when the test is."""
    started: list[Actor] = []
    yield started
    stop_all(started)


def read_chain(url: str, ticket: Ticket, keys: Keys) -> ChainView:
    async def read() -> ChainView:
        opened = open_ethereum_chain(url, wallet=keys.wallet, peer_id=keys.identity.peer_id, sign_identity=keys.identity.sign)
        async with opened as chain:
            return await chain.read(ticket.contract)

    return trio.run(read)


def find_secrets(keys: Keys, password: str) -> dict[str, bytes]:
    """The canaries: all that must never be found outside of the keystore and the password file."""
    seed, secret = keys.identity.export_seed(), keys.wallet.export_secret()
    return {
        "the password": password.encode(),
        "the identity's seed": seed,
        "the identity's seed in hex": seed.hex().encode(),
        "the wallet's key": secret,
        "the wallet's key in hex": secret.hex().encode(),
    }


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """The IPFS daemon of one of them: a stand-in."""
    with open_daemon() as daemon:
        yield daemon


def test_three_processes__train_settle_and_survive_a_kill(tmp_path: Path, actors: list[Actor], daemon: Daemon) -> None:
    """Issue, main job: one of three is killed with SIGKILL and started again; the fund is paid out to the last wei; no secret leaks.

    One of the others uses an IPFS daemon as well, for its public blocks and for gossip.
    """
    password = write_password(tmp_path / PASSWORD_FILE)
    folders = {name: tmp_path / name for name in NAMES}
    wallets = {name: make_keys(folder, password) for name, folder in folders.items()}
    chain, url = start_chain(tmp_path / "chain", dict.fromkeys(wallets.values(), 10))
    actors.append(chain)

    def own(name: str) -> list[str]:
        part = f"{NAMES.index(name) + 1}/{len(NAMES)}@1"
        data = ["--task", "digits", "--data", part, "--device", "cpu", "--pace", "0.2"]
        place = ["--folder", str(folders[name]), "--rpc", url, "--password-file", str(tmp_path / PASSWORD_FILE)]
        place += ["--kubo", daemon.url] if name == "ben" else []
        return [*data, *place, *([] if name == "ada" else ["--listen", "/ip4/127.0.0.1/tcp/0"])]

    stages = [part for stage, seconds in STAGES.items() for part in (f"--{stage}", f"{seconds}s")]
    run_command(["session", "new", "--name", "three", "--members-max", "3", "--audit", "0.2", *own("ada"), *stages])
    ticket = decode_ticket((folders["ada"] / "ticket.txt").read_text())
    peers = {name: Actor(name, folder) for name, folder in folders.items()}
    actors.extend(peers.values())
    node = ["node", "--password-file", str(tmp_path / PASSWORD_FILE)]
    peers["ada"].start([*node, str(folders["ada"])])
    for name in ("ben", "cleo"):
        peers[name].start(["join", str(folders["ada"] / "ticket.txt"), "--yes", *own(name)])

    keys = {name: open_keystore(folder / "keystore.json", password) for name, folder in folders.items()}
    cleo = peers["cleo"]
    wait_until(lambda: any(line.get("event") == "trained" for line in cleo.read_progress()), actors, limit_s=45)
    cleo.kill()
    before = read_vertices(folders["cleo"], issuer=keys["cleo"].identity.peer_id)
    cleo.start([*node, str(folders["cleo"])])
    wait_until(lambda: any(line["topic"] == "training" for line in cleo.read_progress()), actors, limit_s=HANGS_S)
    wait_until(lambda: all(actor.status == 0 for actor in peers.values()), [*peers.values()], limit_s=60)

    view = read_chain(url, ticket, keys["ada"])
    assert view.stage is Stage.RELEASED
    assert view.paid_wei is not None
    assert sum(view.paid_wei.values()) == view.fund_wei == 3 * ticket.rules.deposit_wei
    ledgers = [fold_ledger(folder, ticket.rules) for folder in folders.values()]
    assert ledgers[0] == ledgers[1] == ledgers[2] != {}
    check_log(before, read_vertices(folders["cleo"], issuer=keys["cleo"].identity.peer_id))
    calls = [json.loads(line) for folder in folders.values() for line in (folder / "progress.jsonl").read_text().splitlines()]
    relayed = [line["members"] for line in calls if line.get("call") in ("ClaimBatch", "CastGrouped") and line["event"] == "call"]
    assert relayed and max(relayed) >= 2, "one node sent what several had signed"
    findings = [line["finding"] for line in calls if line.get("event") == "audited"]
    assert findings and set(findings) == {"upheld"}, "honest receipts hold when real models are measured again elsewhere"
    assert {"pubsub/pub", "routing/findprovs"} <= set(daemon.calls) and ticket.rules.cid in daemon.dht
    assert len(daemon.direct_pins) > 1, "its models are in the daemon"
    for name, folder in folders.items():
        assert not any(secret in block for block in daemon.blocks.values() for secret in find_secrets(keys[name], password).values())
        check_canaries(folder, find_secrets(keys[name], password))
    assert json.loads((folders["cleo"] / "status.json").read_text())["state"] == "stopped"


def check_log(before: list[Vertex], after: list[Vertex]) -> None:
    """The log of a killed peer goes on: nothing acknowledged was lost, no number was used twice."""
    assert before, "it spoke before the kill"
    assert [vertex.sequence for vertex in after] == list(range(1, len(after) + 1))
    assert after[: len(before)] == before
    assert len(after) > len(before)


def check_canaries(folder: Path, secrets: dict[str, bytes]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "keystore.json":
            content = path.read_bytes()
            assert not [what for what, secret in secrets.items() if secret in content], path
