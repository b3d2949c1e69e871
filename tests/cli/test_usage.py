"""Commands that need nothing but themselves: help, version, wrong words, tickets, status, simulations, task checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from learnae import __version__
from learnae.backends.keystore import open_keystore
from learnae.backends.memory_journal import MemoryJournal
from learnae.cli import main
from learnae.cli.amounts import parse_duration, parse_ether
from learnae.cli.commands import _RUNS, _read_settings
from learnae.cli.compose import make_peer
from learnae.cli.dao.runs import DAO_RUNS
from learnae.cli.folder import NodeSettings
from learnae.cli.parser import build_parser
from learnae.cli.sessions import SessionPlan, compute_rules, describe_ticket
from learnae.cli.status import _describe_relayed
from learnae.errors import UsageError
from learnae.ids import PeerId, Wei, peer_text
from tests.cli.conftest import PASSWORD, World, snapshot, start
from tests.learning.tasks import LINES, write_task

COMMANDS: tuple[list[str], ...] = (
    [], ["demo"], ["session"], ["session", "new"], ["session", "show"], ["join"], ["node"], ["status"], ["model"], ["chain"], ["faucet"],
    *(["dao", *words] for words in ([], *([name.split()[1]] for name in DAO_RUNS))),
    ["sim"], ["sim", "list"], ["sim", "run"], ["lab"], ["lab", "list"], ["lab", "run"], ["lab", "table"], ["task"], ["task", "check"],
    ["doctor"], ["ipfs"], *(["ipfs", name] for name in ("add", "get", "pin", "unpin", "ls", "export", "import")),
)  # fmt: skip
NEW = ["session", "new", "--name", "x", "--task", "digits"]

Refuse = Callable[..., str]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help__every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "usage: learnae" in out and len(out.splitlines()) > 3


def test_version__is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"learnae {__version__}\n"


@pytest.mark.parametrize("words", [[], ["fly"], ["session"], ["join"], ["node", "a", "b"], [*NEW, "--members-min", "two"]], ids=" ".join)
def test_wrong_words__end_with_status_2_and_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: learnae" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--funding", "soon", "'soon' is not a duration; write for example 90s"),
        ("--funding", "15", "'15' is not a duration"),
        ("--training", "-1h", "'-1h' is not a duration"),
        ("--deposit", "much", "'much' is not an amount; write ether such as 0.01"),
        ("--deposit", "1e3", "'1e3' is not an amount"),
        ("--deposit", "0", "deposit_wei is 0, expected 1 to"),
        ("--share", "1.5", "--share is 1.5, expected a part from 0"),
        ("--share", "nan", "--share is nan, expected"),
        ("--pace", "-1", "--pace is -1.0, expected 0 to"),
        ("--relay-gas-max", "-1", "--relay-gas-max is -1, expected 0"),
        ("--listen", "0.0.0.0:4001", "'0.0.0.0:4001' is not an address; write a multiaddr such as /ip4/0.0.0.0/tcp/4001"),
        ("--announce", "example.org", "'example.org' is not an address"),
        (
            "--bootstrap",
            "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
            " names no DHT server; names of /dnsaddr and other transports than TCP are not read; write a multiaddr such as /ip4/",
        ),
        (
            "--bootstrap",
            "/ip4/192.0.2.7/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRwAwe3N8SzbUtfsmvsqQLuvuJ",
            " names no DHT server that can be asked: its key is not Ed25519",
        ),
        ("--bootstrap", "/ip4/192.0.2.7/tcp/4001", "'/ip4/192.0.2.7/tcp/4001' names no DHT server; write a multiaddr such as /ip4/"),
        ("--members-max", "1", "members_max is 1, expected 2 to 4095"),
        ("--overuse", "0", "overuse_threshold is 0"),
        ("--name", "a/b", "name 'a/b' is not 1 to 64 printable characters"),
        ("--task", "no_such.py", "there is no such file; give the path of a Python file, or a built-in task: digits"),
    ],
)
def test_session_new__wrong_values_are_refused_before_anything_is_made(
    tmp_path: Path, refuse: Refuse, option: str, value: str, sentence: str
) -> None:
    """Every value is looked at before a password is asked for, a key made, or a chain spoken to."""
    folder = tmp_path / "node"
    usage = " is not a" in sentence or " names no " in sentence or "--" in sentence
    assert sentence in refuse([*NEW, "--folder", str(folder), f"{option}={value}"], status=2 if usage else 1)
    assert not folder.exists()


def test_session_new__audits_of_models_that_are_rounded_too_much_are_refused(tmp_path: Path, refuse: Refuse) -> None:
    """docs/compression.md: before anything is made."""
    folder = tmp_path / "node"
    error = refuse([*NEW, "--folder", str(folder), "--codec", "delta4", "--audit", "0.1"], status=1)
    assert "audits cannot tell how models were made" in error and "use one of raw, float16, int8, delta8, or no audits" in error
    assert not folder.exists()


def test_session_new__codec_is_in_the_rules_and_told_to_who_wants_to_join(world: World) -> None:
    options = build_parser(_RUNS).parse_args([*NEW, "--folder", "x", "--codec", "delta2"])
    plan = SessionPlan(
        name="x", deposit_wei=Wei(1), funding_s=9, training_s=9, final_s=1, claiming_s=9, voting_s=9, model_codec=options.codec
    )
    rules = compute_rules(plan, task_digest=bytes(32), initial=(world.ticket.rules.initial_model, 407_392), chain_id=1, now_s=10**9)
    assert rules.model_codec == "delta2"
    told = describe_ticket(replace(world.ticket, rules=rules))
    assert "models travel as differences from the initial model in 3 values (delta2), a twentieth of the bytes of float32 or less" in told
    assert "models travel in full precision (raw)" in describe_ticket(world.ticket)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800)])
def test_duration__is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "wei"), [("1", 10**18), ("0.01", 10**16), ("0.000000000000000001", 1), ("7wei", 7)])
def test_amount__is_read_to_the_last_wei(text: str, wei: int) -> None:
    assert parse_ether(text) == wei


@pytest.mark.parametrize("text", ["", "0.0000000000000000001", "1,5", "-1", "1 ETH", "0x10", "٣"])
def test_amount__that_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an amount"):
        parse_ether(text)


# --- tickets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["session", "show"], ["join", "--task", "digits"]], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("ticket", "sentence"),
    [
        ("hello", "it begins with 'hello', a ticket begins with 'learnae1'"),
        ("learnae1", "its checksum is wrong"),
        ("learnae1!!!!", "characters that no ticket has"),
        ("learnae1" + "a" * 20_000, "at most 16384 are allowed"),
    ],
)
def test_ticket__that_is_broken_is_refused(command: list[str], refuse: Refuse, ticket: str, sentence: str) -> None:
    """Issue, bad input: broken ticket."""
    error = refuse([*command[:1], *command[1:2], ticket, *command[2:]] if command[0] == "session" else ["join", ticket, *command[1:]])
    assert "not a valid ticket" in error and sentence in error


def test_ticket__that_is_cut_off_or_mistyped_is_refused(world: World, refuse: Refuse) -> None:
    text = world.ticket.to_text()
    assert "cut off" in refuse(["session", "show", text[:-9]])
    assert "cut off or mistyped" in refuse(["session", "show", text[:100] + ("a" if text[100] != "a" else "b") + text[101:]])


def test_session_show__tells_the_rules_in_words(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody must know before a deposit: money, times, task, model. From a file or as pasted, with line breaks."""
    ticket = world.ticket
    text = ticket.to_text()
    assert main(["session", "show", str(world.ticket_file)]) == 0
    shown = capsys.readouterr().out
    assert main(["session", "show", text[:70] + "\n  " + text[70:]]) == 0
    assert capsys.readouterr().out == shown
    for words in ("shared", "0.01 ETH", "2 to 100", ticket.contract, ticket.rules.task_digest.hex(), "chain 1337"):
        assert words in shown


# --- status -----------------------------------------------------------------------------------------------------


def test_status__of_a_folder_without_a_node(tmp_path: Path, refuse: Refuse) -> None:
    assert "there is no status.json in it; `learnae join TICKET`" in refuse(["status", str(tmp_path)])
    (tmp_path / "status.json").write_text("{")
    assert "status.json is damaged" in refuse(["status", str(tmp_path)])
    (tmp_path / "status.json").write_text("[]")
    assert "status.json is damaged" in refuse(["status", str(tmp_path)])
    (tmp_path / "status.json").write_text("{}")
    assert "status.json is damaged" in refuse(["status", str(tmp_path)])


def test_node__folder_that_is_none_is_told(tmp_path: Path, refuse: Refuse) -> None:
    before = snapshot(tmp_path)
    assert "there is no ticket.txt in it" in refuse(["node", str(tmp_path / "nowhere")])
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ('{"task": 7}', "task is 7"),
        ('{"colour": "red"}', "unknown setting 'colour'"),
        ('{"task": ""}', "damaged"),
        ('{"backend": "ipfs"}', "backend is 'ipfs', expected libp2p or kubo"),
    ],
)
def test_node__damaged_settings_are_told(world: World, tmp_path: Path, refuse: Refuse, text: str, words: str) -> None:
    (tmp_path / "ticket.txt").write_text(world.ticket.to_text())
    (tmp_path / "settings.json").write_text(text)
    error = refuse(["node", str(tmp_path), "--password-file", str(world.password_file)])
    assert "settings.json is damaged" in error and words in error


def test_status__says_what_was_relayed() -> None:
    """docs/contracts.md, Relaying: its owner sees what it spends for others, and that it spends nothing."""
    assert _describe_relayed({"claims": 6, "ballots": 1, "gas": 270_000, "gas_max": 20_000_000}) == (
        "6 claims and 1 ballot for all members, 270,000 gas of at most 20,000,000"
    )
    assert _describe_relayed({"claims": 0, "ballots": 0, "gas": 0, "gas_max": 0}).startswith("nothing: this node does not")


@pytest.mark.parametrize(("relay", "budget"), [(True, 123), (False, 0)])
def test_settings__of_relaying_reach_the_peer(world: World, relay: bool, budget: int) -> None:
    settings = NodeSettings(task="", data="", rpc=world.rpc, relay=relay, relay_gas_max=123)
    keys = open_keystore(world.rich / "keystore.json", PASSWORD)

    assert make_peer(world.ticket, settings, keys, MemoryJournal()).dao.relay.gas_max == budget


@pytest.mark.parametrize(("chain_id", "turn_s"), [(1337, 2.0), (31337, 2.0), (560048, 24.0), (1, 24.0)])
def test_node__waits_two_blocks_for_the_others_on_a_public_network(world: World, chain_id: int, turn_s: float) -> None:
    ticket = replace(world.ticket, rules=replace(world.ticket.rules, chain_id=chain_id))
    keys = open_keystore(world.rich / "keystore.json", PASSWORD)

    peer = make_peer(ticket, NodeSettings(task="", data="", rpc=world.rpc), keys, MemoryJournal())
    assert peer.dao.settlement.turn_s == turn_s


def test_settings__are_what_a_folder_gives_back() -> None:
    """Every field has a type that the folder knows how to read."""
    settings = asdict(NodeSettings(task="digits", data="", rpc="http://127.0.0.1:1"))
    assert all(isinstance(value, str | int | float | bool | tuple) for value in settings.values())


# --- simulations and tasks --------------------------------------------------------------------------------------


def test_sim__unknown_scenario_lists_the_known_ones(refuse: Refuse) -> None:
    assert "there is no scenario 'wild'; choose one of calm, silent" in refuse(["sim", "run", "wild"], status=2)
    assert "--peers is 0, expected 1 to" in refuse(["sim", "run", "calm", "--peers", "0"], status=2)


def test_sim__json_is_the_same_for_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    traces = []
    for _ in range(2):
        assert main(["sim", "run", "calm", "--peers", "3", "--cycles", "4", "--seed", "5", "--json"]) == 0
        traces.append(json.loads(capsys.readouterr().out)["trace"])
    assert traces[0] == traces[1]


def test_sim_list__names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "list"]) == 0
    assert {"calm", "crash", "storm"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_task_check__good_and_bad_tasks(tmp_path: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "check", write_task(tmp_path), "--data", "mine", "--device", "cpu"]) == 0
    assert "the task is good" in capsys.readouterr().out
    task = write_task(tmp_path, LINES, extra="\ndef load_data(source):\n    return torch.zeros(3, 7), torch.zeros(3)\n")
    assert "learnae: " in refuse(["task", "check", task, "--data", "mine", "--device", "cpu"])
    assert "there is no such file" in refuse(["task", "check", str(tmp_path / "none.py")])
    (tmp_path / "task.py").write_text("def build_model(:")
    assert "cannot be used" in refuse(["task", "check", str(tmp_path / "task.py")])


# --- the machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words"),
    [("eth_keys", NEW), ("torch", ["task", "check", "digits", "--data", "1/3@1"])],
    ids=["eth_keys", "torch"],
)
def test_missing_extra__is_named_in_a_sentence(tmp_path: Path, module: str, words: list[str]) -> None:
    """A light installation says what it lacks and how to get it."""
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('no module', name={module!r})\n")
    folder = tmp_path / "learnae-node"
    process = start(words, shadows=tmp_path, folder=tmp_path)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    sentence = f"learnae: the Python package {module!r} is not installed, but this command needs it; install learnae[demo]"
    assert error.startswith(sentence) and error.count("\n") == 1
    assert not folder.exists()


def test_join__asks_no_router_and_no_dht_unless_told_to() -> None:
    """docs/finding-peers.md: nothing is asked of others by itself; what was asked for is kept in the node's settings."""
    server = f"/ip4/192.0.2.7/tcp/4001/p2p/{peer_text(PeerId(bytes(32)))}"
    for words, bootstrap, upnp in (([], (), False), (["--bootstrap", server, "--upnp"], (server,), True)):
        settings = _read_settings(build_parser(_RUNS).parse_args(["join", "ticket", *words]))
        assert (settings.bootstrap, settings.upnp) == (bootstrap, upnp)


@pytest.mark.parametrize(("words", "expected"), [([], True), (["--no-mdns"], False)])
def test_join__looks_into_the_local_network_unless_told_not_to(words: list[str], expected: bool) -> None:
    """docs/finding-peers.md: on by default, off by one word, and kept in the node's settings."""
    options = build_parser(_RUNS).parse_args(["join", "ticket", *words])
    assert _read_settings(options).mdns is expected
