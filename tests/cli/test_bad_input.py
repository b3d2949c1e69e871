"""Issue, "Bad input": each with one clear sentence and a status that is not 0, and nothing lost: no money, no key, no folder."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from learnae.backends.disk_journal import DiskJournal
from learnae.cli import main
from learnae.demo.cast import make_keys
from learnae.ids import Address
from learnae.protocol.rules import Ticket
from tests.cli.conftest import PASSWORD, World, check_sentence, snapshot, start
from tests.learning.tasks import write_task

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def nothing_lost(world: World) -> Iterator[None]:
    """Before and after every test here: the same members, the same money, the same keys."""
    (view, balance), keystore = world.read_chain(), (world.rich / "keystore.json").read_bytes()
    yield
    after, balance_after = world.read_chain()
    assert after.members == view.members
    assert balance_after == balance
    assert (world.rich / "keystore.json").read_bytes() == keystore


def make_node(world: World, folder: Path) -> Path:
    """A folder that holds a copy of the rich wallet and nothing else."""
    folder.mkdir(exist_ok=True)
    (folder / "keystore.json").write_bytes((world.rich / "keystore.json").read_bytes())
    (folder / "keystore.json").chmod(0o600)
    return folder


def write_ticket(folder: Path, ticket: Ticket) -> str:
    path = folder / "foreign.txt"
    path.write_text(ticket.to_text())
    return str(path)


def test_join__rules_that_do_not_match_the_contract(world: World, tmp_path: Path, refuse: Refuse) -> None:
    """A ticket that promises a smaller deposit than the contract takes."""
    cheap = replace(world.ticket, rules=replace(world.ticket.rules, voting_ends_s=world.ticket.rules.voting_ends_s + 60))
    node = make_node(world, tmp_path / "node")
    before = snapshot(node)
    error = refuse(world.join(node, ticket=write_ticket(tmp_path, cheap)))
    assert "the ticket's rules do not match its contract" in error and "do not deposit" in error
    assert snapshot(node) == before


def test_join__contract_that_is_none(world: World, tmp_path: Path, refuse: Refuse) -> None:
    nowhere = replace(world.ticket, contract=Address("0x" + "12" * 20))
    error = refuse(world.join(make_node(world, tmp_path), ticket=write_ticket(tmp_path, nowhere)))
    assert "is not a session contract" in error and "do not deposit" in error


def test_join__other_chain(world: World, tmp_path: Path, refuse: Refuse) -> None:
    elsewhere = replace(world.ticket, rules=replace(world.ticket.rules, chain_id=5))
    error = refuse(world.join(make_node(world, tmp_path), ticket=write_ticket(tmp_path, elsewhere)))
    assert "serves chain 1337, but the session is on chain 5; give another --rpc" in error


@pytest.mark.parametrize("rpc", ["http://127.0.0.1:1", "ftp://example.org", "nonsense"])
def test_join__unreachable_chain(world: World, tmp_path: Path, refuse: Refuse, rpc: str) -> None:
    error = refuse(world.join(make_node(world, tmp_path), rpc=rpc))
    assert "the Ethereum endpoint" in error and "check that it runs and that --rpc is right" in error
    assert not (tmp_path / "ticket.txt").exists()


def test_join__wrong_password(world: World, tmp_path: Path, refuse: Refuse) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    wrong.chmod(0o600)
    node = make_node(world, tmp_path / "node")
    assert "the password is wrong" in refuse(world.join(node, password_file=str(wrong)))
    wrong.write_text("short")
    assert "the password has 5 characters and at least" in refuse(world.join(tmp_path / "new", password_file=str(wrong)))
    assert not (tmp_path / "new").exists()


def test_join__files_that_others_may_read(world: World, tmp_path: Path, refuse: Refuse) -> None:
    """Keystore and password file are for their owner alone."""
    node = make_node(world, tmp_path / "node")
    (node / "keystore.json").chmod(0o644)
    assert "others may read it (mode 644); run `chmod 600" in refuse(world.join(node))
    loose = tmp_path / "loose"
    loose.write_text(PASSWORD)
    loose.chmod(0o640)
    assert "others may read it (mode 640)" in refuse(world.join(node, password_file=str(loose)))
    assert "cannot be read: No such file" in refuse(world.join(node, password_file=str(tmp_path / "none")))


def test_join__too_little_money(world: World, refuse: Refuse) -> None:
    """The sentence names the wallet, what it holds and what it needs; the keys stay for the next try."""
    before = snapshot(world.poor)
    error = refuse(world.join(world.poor))
    assert "joining the session was refused: wallet 0x" in error
    assert "holds 0.000000 ETH and 0.01" in error and "send it some and try again" in error
    assert snapshot(world.poor) == before


def test_join__task_that_is_not_the_sessions(world: World, tmp_path: Path, refuse: Refuse) -> None:
    error = refuse(world.join(tmp_path / "node", task=write_task(tmp_path)))
    assert "is not this session's: its SHA-256 begins with" in error and "read it before you run it" in error
    assert not (tmp_path / "node").exists(), "known before a key was made"


def test_join__data_that_do_not_fit(world: World, tmp_path: Path, refuse: Refuse) -> None:
    """Found by the worker, before anything is paid; with the right data the same folder joins."""
    error = refuse(world.join(make_node(world, tmp_path), data="9/3@1"))
    assert "the data '9/3@1' do not fit the task" in error


def test_join__port_in_use(world: World, tmp_path: Path, refuse: Refuse) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        error = refuse(world.join(make_node(world, tmp_path), listen=address))
    assert f"cannot listen on {address}: the port is in use" in error


def test_join__folder_of_another_session(world: World, tmp_path: Path, refuse: Refuse) -> None:
    node = make_node(world, tmp_path)
    (node / "ticket.txt").write_text(replace(world.ticket, contract=Address("0x" + "34" * 20)).to_text())
    before = snapshot(node)
    assert "a node of another session lives there" in refuse(world.join(node))
    assert "already holds a node" in refuse(["session", "new", "--name", "x", *world.own(node)], status=2)
    assert snapshot(node) == before


def test_node__second_start_on_the_same_folder(world: World, tmp_path: Path, refuse: Refuse) -> None:
    node = make_node(world, tmp_path)
    journal = DiskJournal(node)
    try:
        assert "is in use by another learnae process" in refuse(world.join(node))
    finally:
        journal.close()


def test_node__journal_that_is_none(world: World, tmp_path: Path, refuse: Refuse) -> None:
    node = make_node(world, tmp_path)
    (node / "journal.sqlite").write_bytes(b"this is no database, but it is long enough to look like one" * 100)
    error = refuse(world.join(node))
    assert "journal.sqlite cannot be used" in error and "move it away to start as a new peer" in error


def test_session_new__too_little_money(world: World, refuse: Refuse) -> None:
    before = snapshot(world.poor)
    error = refuse(["session", "new", "--name", "x", *world.own(world.poor)])
    assert "creating the session was refused: wallet 0x" in error and "send it some" in error
    assert not (world.poor / "ticket.txt").exists()
    assert before.items() <= snapshot(world.poor).items()


def test_join__asks_before_it_pays(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> None:
    words = [word for word in world.join(make_node(world, tmp_path)) if word != "--yes"]
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(words) == 1
    monkeypatch.setattr("builtins.input", lambda question: (_ for _ in ()).throw(EOFError))
    assert "give --yes to pay the deposit and join" in refuse(words, status=2)
    assert not (tmp_path / "ticket.txt").exists()


def test_join_only_check__pays_nothing(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*world.join(make_node(world, tmp_path)), "--only-check"]) == 0
    out = capsys.readouterr().out
    assert "what a member spends at most" in out and "everything fits; nothing was paid" in out
    assert set(snapshot(tmp_path)) == {"keystore.json"}


def test_faucet__wrong_wallet_and_other_chain(world: World, refuse: Refuse) -> None:
    assert "is not the address of a wallet" in refuse(["faucet", "me", "--rpc", world.rpc], status=2)
    assert "does not answer" in refuse(["faucet", "0x" + "1" * 40, "--rpc", "http://127.0.0.1:1"])


def test_chain__port_in_use_and_wrong_values(world: World, refuse: Refuse) -> None:
    port = world.rpc.rpartition(":")[2]
    assert f"the embedded chain cannot start: 127.0.0.1:{port} cannot be used" in refuse(["chain", "--port", port])
    assert "the embedded chain cannot start" in refuse(["chain", "--port", "99999"])
    assert "the embedded chain cannot start" in refuse(["chain", "--port", "0", "--fund", "me=1"])
    assert "the embedded chain cannot start" in refuse(["chain", "--port", "0", "--block-time", "-1"])
    assert "the embedded chain cannot start" in refuse(["chain", "--port", "0", "--chain-id", "0"])


def test_join__network_library_that_is_not_installed(world: World, tmp_path: Path) -> None:
    """Found inside of the node's start, where other tasks run beside it; still one sentence."""
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    (shadows / "libp2p.py").write_text("raise ModuleNotFoundError('no module', name='libp2p')\n")
    process = start(world.join(make_node(world, tmp_path / "node")), shadows=shadows)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    check_sentence(error)
    assert "the Python package 'libp2p' is not installed" in error


# --- a full disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_bytes_max", [100, 20_000])
def test_join__full_disk(world: World, tmp_path: Path, file_bytes_max: int) -> None:
    """No file may grow: the folder, the journal or the blocks cannot be written. One sentence, the key as it was, nothing paid."""
    node = make_node(world, tmp_path)
    process = start(world.join(node), file_bytes_max=file_bytes_max)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    check_sentence(error)
    assert (node / "keystore.json").read_bytes() == (world.rich / "keystore.json").read_bytes()


def test_join__full_disk_leaves_no_half_a_keystore(world: World, tmp_path: Path) -> None:
    process = start(world.join(tmp_path / "node"), file_bytes_max=50)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    check_sentence(error)
    assert "cannot be written" in error
    assert not list((tmp_path / "node").iterdir())


def test_session_new__full_disk(world: World, tmp_path: Path) -> None:
    """The initial model does not fit: told before a contract is paid for."""
    node = make_node(world, tmp_path)
    process = start(["session", "new", "--name", "x", *world.own(node)], file_bytes_max=50_000)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    check_sentence(error)
    assert "no room in the memory that the learning worker shares" in error, "which is a file too, where the limit is one of files"
    assert not (node / "ticket.txt").exists()


def test_make_keys__are_private(tmp_path: Path) -> None:
    make_keys(tmp_path, PASSWORD)
    assert (tmp_path / "keystore.json").stat().st_mode & 0o777 == 0o600
