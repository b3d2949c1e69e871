"""The demo's timeline: chain, session, six peers, a kill and a return, the settlement, the report."""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from learnae.backends.keystore import describe_keystore
from learnae.demo import scanners
from learnae.demo.cast import Actor, make_keys, run_command, start_chain, stop_all, write_password
from learnae.demo.evidence import Baselines, Evidence, assemble_report
from learnae.errors import DemoError
from learnae.protocol.rules import SessionRules, Ticket, decode_ticket
from learnae.report import format_table, write_report
from learnae.report.live import LiveView
from learnae.report.model import Role

NAMES: Final = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Fay")
ROLES: Final[Mapping[str, Role]] = {"Cleo": "restarted", "Eve": "silent"}
STREAMED: Final = "Fay"  # She trains on what two sensors publish, and on nothing else; her own digits only validate.
SHARES: Final = {"Ada": "0.1"}  # Ada opens a tenth of her data to the others; everybody else's stays private.
ETHER: Final = 10  # Play money of each wallet.
AWAY_S: Final = 2.0  # How long the killed peer stays away.
KILL_PART: Final = 0.5  # When in the training stage it is killed.
SCANNERS_EARLY_S: Final = 8.0  # Before training begins, so that there are dataslices by then.
TAIL_S: Final = 45.0  # After the vote: the demo gives up on a session that is not settled by then.
POLL_S: Final = 0.25
MARKER: Final = ".learnae-demo"


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What a user may choose; durations in seconds."""

    out: Path
    seed: int = 0
    funding_s: int = 45
    training_s: int = 75
    final_s: int = 15
    claiming_s: int = 12
    voting_s: int = 12
    plain: bool | None = None


@dataclass(slots=True)
class Stage:
    """What the demo keeps while it runs."""

    plan: DemoPlan
    password_file: Path
    rpc: str
    ticket: Ticket
    peers: list[Actor]
    began_s: float
    names: Mapping[str, str]  # the short form of a peer id -> the peer's name
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    killed_at_s: float | None = None
    restarted_at_s: float | None = None
    back_after_s: float | None = None
    baselines: Baselines | None = None
    scanners: scanners.ScannerPlan | None = None
    scanning: Actor | None = None
    dataslices: int = 0  # that sensors filled


def run_demo(plan: DemoPlan) -> int:
    """Run the whole demo; returns the exit status. Raises: DemoError and what the started commands say."""
    with hold_folder(plan.out):
        return _run(plan)


def _run(plan: DemoPlan) -> int:
    began_s = time.time()
    actors: list[Actor] = []
    try:
        stage = _open_session(plan, actors, began_s)
        with LiveView(NAMES, title=f"learnae demo: {stage.ticket.rules.name}", plain=plan.plain) as view:
            view.event(f"session founded, contract {stage.ticket.contract}; the ticket is in {plan.out}/ticket.txt")
            _start_peers(stage)
            _watch(stage, view, actors)
        evidence = Evidence(
            ticket=stage.ticket,
            rpc=stage.rpc,
            folders={actor.name: actor.folder for actor in stage.peers},
            roles={name: ROLES.get(name, "honest") for name in NAMES},
            seed=plan.seed,
            began_s=began_s,
            restarted_at_s=stage.restarted_at_s,
            password_file=stage.password_file,
            funded_wei=ETHER * 10**18,
        )
        print("reading the chain back and measuring all models on the held-out test set ...", flush=True)
        assert stage.baselines is not None
        report = assemble_report(evidence, stage.baselines)
    finally:
        stop_all(actors)
    page = write_report(report, plan.out)
    print(format_table(report))
    own = ", ".join(f"{peer.name} {peer.transactions}" for peer in report.peers)
    print(f"own transactions: {own}; proof of identity and deposit are two, the founder's contract is one; the rest was for all")
    print(f"\nreport: {page}\n        {plan.out / 'summary.json'}")
    return 0


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """An empty folder for this run and nobody else; an earlier demo in it is removed, anything else is not touched. Raises: DemoError."""
    try:
        if out.exists() and any(out.iterdir()):
            if not (out / MARKER).is_file():
                raise DemoError(f"the folder {out} is not empty and not from an earlier demo; choose another with --out")
            with _lock_marker(out):
                shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        marker = _lock_marker(out)
    except OSError as error:
        raise DemoError(f"the folder {out} cannot be used: {error.strerror or error}") from error
    with marker:
        yield


def _lock_marker(out: Path) -> IO[bytes]:
    """Held until it is closed. Raises: DemoError: another demo runs there."""
    marker = (out / MARKER).open("ab")
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        marker.close()
        raise DemoError(f"another demo is running in {out}; wait for it, or choose another folder with --out") from error
    return marker


def _open_session(plan: DemoPlan, actors: list[Actor], began_s: float) -> Stage:
    """Keys, chain and session: what a founder does."""
    folders = {name: plan.out / "peers" / name.lower() for name in NAMES}
    password_file = plan.out / "password"
    password = write_password(password_file)
    scanner_plan = scanners.ScannerPlan(
        out=plan.out,
        follower=folders[STREAMED],
        node=f"127.0.0.1:{_find_port()}",
        shares=len(NAMES),
        seed=plan.seed,
        password_file=password_file,
    )
    scanning = scanners.start_scanning(scanner_plan)
    actors.append(scanning)
    print("making six wallets with play money, starting an Ethereum chain ...", flush=True)
    wallets = {name: make_keys(folder, password) for name, folder in folders.items()}
    chain, rpc = start_chain(plan.out / "chain", dict.fromkeys(wallets.values(), ETHER))
    actors.append(chain)
    peers = [Actor(name, folder) for name, folder in folders.items()]
    actors.extend(peers)
    print(f"the chain listens at {rpc}; {NAMES[0]} founds the session ...", flush=True)
    stages = {"funding": plan.funding_s, "training": plan.training_s, "final": plan.final_s}
    stages |= {"claiming": plan.claiming_s, "voting": plan.voting_s}
    run_command(
        [
            "session", "new", "--name", "digits together", *_own_arguments(plan, NAMES[0], folders[NAMES[0]], password_file, rpc),
            "--members-min", "3", "--members-max", str(len(NAMES)), "--seed", str(plan.seed), "--overuse", "300",
            *(part for name, seconds in stages.items() for part in (f"--{name}", f"{seconds}s")),
        ]
    )  # fmt: skip
    text = (folders[NAMES[0]] / "ticket.txt").read_text(encoding="utf-8").strip()
    (plan.out / "ticket.txt").write_text(text + "\n", encoding="utf-8")
    print(f"the ticket, with which others would join:\n{text}", flush=True)
    names = {describe_keystore(folder / "keystore.json")["peer_id"][-6:]: name for name, folder in folders.items()}
    stage = Stage(plan, password_file, rpc, decode_ticket(text), peers, began_s, names)
    stage.scanners, stage.scanning = scanner_plan, scanning
    scanners.prepare_follower(scanner_plan, stage.ticket.rules.codename)
    return stage


def _own_arguments(plan: DemoPlan, name: str, folder: Path, password_file: Path, rpc: str) -> list[str]:
    part = NAMES.index(name) + 1
    return [
        "--task", "digits", "--data", f"{part}/{len(NAMES)}@{plan.seed}", "--share", SHARES.get(name, "0"), "--folder", str(folder),
        "--rpc", rpc, "--password-file", str(password_file), "--listen", f"/ip4/127.0.0.1/tcp/{_find_port()}", "--device", "cpu",
        "--no-mdns",
        "--pace", "0.4",
    ]  # fmt: skip


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _start_peers(stage: Stage) -> None:
    """The founder starts the own node; the others join with the ticket."""
    for actor in stage.peers:
        if actor.name == NAMES[0]:
            actor.start(["node", str(actor.folder), "--password-file", str(stage.password_file)])
            continue
        own = _own_arguments(stage.plan, actor.name, actor.folder, stage.password_file, stage.rpc)
        silent = ["--never-report"] if ROLES.get(actor.name) == "silent" else []
        actor.start(["join", str(stage.plan.out / "ticket.txt"), "--yes", *own, *silent])


def _watch(stage: Stage, view: LiveView, actors: list[Actor]) -> None:
    """Show what happens until every peer has ended; kill one on the way and start it again. Raises: DemoError."""
    rules = stage.ticket.rules
    training_s = rules.training_ends_s - rules.funding_ends_s
    kill_at_s = rules.funding_ends_s + KILL_PART * training_s
    victim = next(actor for actor in stage.peers if ROLES.get(actor.name) == "restarted")
    while any(actor.status is None for actor in stage.peers):
        now_s = time.time()
        _show_stage(rules, view, now_s)
        for actor in stage.peers:
            for line in actor.read_progress():
                _show_line(stage, view, actor, line)
            if actor.status:
                raise DemoError(f"{actor.name}'s node ended: {actor.read_last_words()}")
        if stage.scanning is not None and stage.scanning.status is not None and now_s >= rules.funding_ends_s - SCANNERS_EARLY_S:
            _start_scanners(stage, view, actors)
        if stage.killed_at_s is None and now_s >= kill_at_s:
            victim.kill()
            stage.killed_at_s = now_s
            view.update(victim.name, state="killed")
            view.event(f"{victim.name} is killed with SIGKILL")
            time.sleep(AWAY_S)
            victim.start(["node", str(victim.folder), "--password-file", str(stage.password_file)])
            stage.restarted_at_s = time.time()
            view.update(victim.name, state="restarting")
        if stage.baselines is None and now_s >= rules.training_ends_s + 2:
            stage.baselines = Baselines(stage.plan.seed, len(NAMES), stage.ticket, stage.peers[0].folder)
            stage.baselines.start()
            view.event("training is over; meanwhile: every peer's data alone, and all data pooled, for comparison")
        if now_s > rules.voting_ends_s + TAIL_S:
            waiting = ", ".join(actor.name for actor in stage.peers if actor.status is None)
            raise DemoError(f"the session did not settle in time; still running: {waiting}; their folders are in {stage.plan.out}/peers")
        time.sleep(POLL_S)


def _start_scanners(stage: Stage, view: LiveView, actors: list[Actor]) -> None:
    """Two sensors begin to publish (4.2). Raises: DemoError: their digits could not be read."""
    assert stage.scanning is not None and stage.scanners is not None
    if stage.scanning.status:
        raise DemoError(f"the digits of the scanners could not be read: {stage.scanning.read_last_words()}")
    stage.scanning = None
    actors.extend(scanners.start_scanners(stage.scanners, stage.ticket.rules))
    view.event(f"two scanners publish labelled digits; {STREAMED} trains on what they say, and on nothing else")


def _show_stage(rules: SessionRules, view: LiveView, now_s: float) -> None:
    stages: Sequence[tuple[str, float]] = (
        ("Funding: peers start, prove who they are, deposit", rules.funding_ends_s),
        ("Training", rules.training_ends_s - rules.final_s),
        ("Final optimisation", rules.training_ends_s),
        ("Claiming", rules.claiming_ends_s),
        ("Voting", rules.voting_ends_s),
    )
    for name, ends_s in stages:
        if now_s < ends_s:
            view.stage(name, ends_s - now_s)
            return
    view.stage("Release", 0.0)


def _show_line(stage: Stage, view: LiveView, actor: Actor, line: dict[str, Any]) -> None:
    """One line of a peer's progress on the screen."""
    counts = stage.counts.setdefault(actor.name, {"adoptions": 0, "given": 0, "received": 0})
    match line.get("event"):
        case "opened" | "trained" | "dropped" | "adopted" as event:
            _note_return(stage, view, actor, line["time_s"])
            counts["adoptions"] += event == "adopted"
            state = {"trained": "training", "opened": "ready"}.get(event, "averaging")
            view.update(
                actor.name, state=state, cycles=line.get("cycles", 0), accuracy=line["accuracy"], adoptions=counts["adoptions"]
            )
        case "helped":
            counts["given"] += line["credits"]
            view.update(actor.name, help_given=counts["given"])
        case "reported":
            counts["received"] += line["credits"]
            view.update(actor.name, help_received=counts["received"])
        case "slice":
            stage.dataslices += 1
            view.event(f"{line['rows']} digits of the {line['sensor']} became a dataslice of {actor.name}'s")
        case "call" if "members" in line:
            kind = "claim" if line["call"] == "ClaimBatch" else "ballot"
            view.event(f"{line['members']} {kind}{'s are' if line['members'] > 1 else ' is'} relayed by {actor.name}, in one transaction")
        case "call":
            view.event(f"{actor.name} sends {line['call']}")
        case _ if line["topic"] == "trouble":
            view.event(f"{actor.name}: {_put_names(stage, line['text'])}")


def _put_names(stage: Stage, text: str) -> str:
    """A peer's sentence of trouble, short, with names for peer ids."""
    words = text.split(": ", maxsplit=1)[0] if text.startswith("no model from") else text
    for short_id, name in stage.names.items():
        words = words.replace(short_id, name)
    return words


def _note_return(stage: Stage, view: LiveView, actor: Actor, time_s: float) -> None:
    """The first sign of work of the peer that was killed."""
    if ROLES.get(actor.name) != "restarted" or stage.restarted_at_s is None or stage.back_after_s is not None:
        return
    if time_s > stage.restarted_at_s:
        stage.back_after_s = time_s - stage.restarted_at_s
        view.event(f"{actor.name} works again {stage.back_after_s:.1f} s after its restart, from its journal")
