"""`learnae dao`: a session and its governance by hand, from the deployment to the last withdrawal, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from learnae.backends.disk_journal import DiskJournal
from learnae.backends.ethereum import ChainOptions, EthereumChain, open_ethereum_chain
from learnae.backends.ethereum.intents import Intent
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.ethereum.tips import Tip
from learnae.backends.keystore import open_keystore
from learnae.cli import main
from learnae.cli.dao import tipping
from learnae.cli.dao.opening import RECORD_POID
from learnae.cli.dao.tipping import read_list
from learnae.errors import UsageError
from learnae.ids import Address, Wei
from learnae.node.runtime import RECORD_TRANSACTION
from learnae.protocol.calls import Call, ChainView, DeployPoid, PayTip
from learnae.protocol.rules import Ticket
from tests.cli.conftest import World, start
from tests.cli.dao_bench import ETHER, EVIDENCE, PASSWORD, DaoBench, run_chain

HELPER = "0x00000000000000000000000000000000000A11cE"
MODULES = ("torch", "numpy", "safetensors", "libp2p", "multiaddr", "mlxtend", "eth", "psutil")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_chain() as url:
        yield url


@pytest.fixture
def bench(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DaoBench:
    return DaoBench(url, tmp_path, capsys)


@pytest.fixture
def funding(bench: DaoBench) -> DaoBench:
    """A session that can be joined; ada founded it and is a member."""
    bench.make_wallet("ada")
    bench.deploy("ada", "--proposal-deposit", "0.001", "--debating", "60s", "--extension", "500s", "--members-min", "1")
    bench.send("ada", "join")
    return bench


# --- a session ------------------------------------------------------------------------------------------------------


def test_session__from_its_deployment_to_the_last_withdrawal(bench: DaoBench) -> None:
    """Fig. 5 by hand, without a node: amounts to the wei, and the stage with the time that is left of it."""
    wallets = {name: bench.make_wallet(name) for name in ("ada", "ben", "cleo")}
    bench.deploy("ada", "--members-max", "3")
    for number, name in enumerate(wallets):
        before = bench.balance(wallets[name])
        out, _ = bench.send(name, "join")
        assert "0.1 ETH (100000000000000000 wei)" in out and f"{wallets[name]} is member {number} of {number + 1}" in out
        assert 0 < before - bench.balance(wallets[name]) - ETHER // 10 < ETHER // 1000
    values = bench.read(name="ben")
    assert values["stage"] == "funding" and 900 < values["stage_left_s"] <= 1030 and values["number"] == 1
    assert values["fund_wei"] == str(3 * ETHER // 10)
    assert values["rules_sha256"] == hashlib.sha256(b"We train birds together.\n").hexdigest()
    assert "already" in bench.send("ben", "join")[0] and bench.read()["fund_wei"] == str(3 * ETHER // 10)

    bench.travel(2100)
    assert "claiming, " in bench.show("status") and " min " in bench.show("status")
    for name, points in (("ada", 100), ("ben", 50), ("cleo", 9999)):
        bench.send(name, "claim", "--points", str(points), "--evidence", EVIDENCE)
    bench.travel(1000)
    out, _ = bench.send("ada", "vote", "--reject", "2")
    assert f"against the claim of member 2, {wallets['cleo']}: 9999 points" in out and "for the claim of member 1" in out
    bench.send("ben", "vote", "--reject", "2")
    bench.send("cleo", "vote", "--approve-all")
    bench.travel(1000)
    assert bench.read()["stage"] == "settling"
    assert "settling: the votes are being counted; `learnae dao release` goes on" in bench.show("status")
    before = bench.balance(wallets["ben"])
    out, _ = bench.send("cleo", "release")
    assert "the tally: costs at most" in out and "the release: costs at most" in out
    assert bench.balance(wallets["ben"]) - before == ETHER // 10
    members = bench.read()["members"]
    assert [member["approved"] for member in members] == [True, True, False]
    assert [int(member["paid_wei"]) for member in members] == [2 * ETHER // 10, ETHER // 10, 0]
    assert "paid 0.2 ETH (200000000000000000 wei)" in bench.show("status")
    assert "nothing is due to anybody now; the session is released" in bench.refused("ada", "release")


def test_refunds__are_taken_out_to_another_wallet(funding: DaoBench) -> None:
    """Nobody claims: everybody is due its deposit, and may send it anywhere."""
    funding.travel(4100)
    before = funding.balance(HELPER)
    funding.send("ada", "withdraw", "--to", HELPER)
    assert funding.balance(HELPER) - before == ETHER // 10
    assert "nothing is due to 0x" in funding.refused("ada", "withdraw")


def test_leave__gives_the_deposit_back(funding: DaoBench) -> None:
    funding.send("ada", "leave")
    assert funding.read()["members"] == []
    assert "this wallet is not a member of the session" in funding.refused("ada", "leave")


def test_tip__is_paid_directly_and_a_stranger_is_pointed_out(funding: DaoBench) -> None:
    before = funding.balance(HELPER)
    _, error = funding.send("ada", "tip", HELPER, "5000wei", "--receipt", EVIDENCE)
    assert funding.balance(HELPER) - before == 5000
    assert f"{HELPER} is not the wallet of a member of this session" in error
    assert "a tip of nothing was sent" in funding.refused("ada", "tip", HELPER, "0")


def test_budget__pays_many_helpers_and_is_never_passed(funding: DaoBench, tmp_path: Path) -> None:
    """Small amounts are collected for each helper, who takes them out together (4.3)."""
    ada, ben = Address(funding.read(name="ada")["wallet"]), funding.make_wallet("ben")
    assert "0.001 ETH (1000000000000000 wei) are asked for and 0 ETH (0 wei) are in the budget" in funding.refused(
        "ada", "tip", ben, "0.001", "--budget"
    )
    out, _ = funding.send("ada", "budget", "--fill", "1000wei")
    assert "the budget for tips is" in out and "1000 wei" in out
    out, error = funding.send("ada", "tip", ben, "100wei", "--receipt", EVIDENCE, "--budget")
    assert "900 wei" in out and f"{ben} is not the wallet of a member" in error
    tips = tmp_path / "tips.txt"
    tips.write_text(f"# for last week\n{ben} 200wei {EVIDENCE}\n\n{ada} 3wei\n{ben} 50wei # more\n")
    out, _ = funding.send("ada", "tip", "--list", str(tips))
    assert "3 tips out of the budget" in out and "647 wei" in out
    values = funding.read(name="ben")
    assert (values["tips_wei"], values["tips_budget_wei"]) == ("350", "0")
    assert "(3 wei) collected for you" in funding.show("status", name="ada") and "(647 wei) left" in funding.show("status", name="ada")
    before = funding.balance(HELPER)
    funding.send("ben", "withdraw", "--to", HELPER)
    assert funding.balance(HELPER) - before == 350

    tips.write_text(f"{ben} 600wei\n{ada} 48wei\n")
    assert "(648 wei) are asked for" in funding.refused("ada", "tip", "--list", str(tips)), "not even the first"
    assert "648 wei are more than the 647 wei that are left" in funding.refused("ada", "budget", "--reclaim", "648wei")
    funding.send("ada", "budget", "--reclaim", "600wei")
    out, _ = funding.send("ada", "budget", "--reclaim", "all")
    assert "the budget for tips is 0 ETH (0 wei)" in out
    assert "there is nothing in it" in funding.refused("ada", "budget", "--reclaim", "all")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lists no tip"),
        (b"# nobody\n", "lists no tip"),
        (b"\xff\xfe", "is not a text file"),
        (f"{HELPER}\n".encode(), "line 1 of .* has 1 words"),
        (f"\n{HELPER} 1 {EVIDENCE} x".encode(), "line 2 of .* has 4 words"),
        (f"{HELPER} much".encode(), "line 1 of .*'much' is not an amount"),
        (f"{HELPER} 0".encode(), "line 1 of .*a tip of nothing"),
        (f"{HELPER.lower()} 1".encode(), "line 1 of .*carries no checksum"),
        (f"{HELPER} 1 beef".encode(), "line 1 of .*not 32 bytes in hex"),
        (b"#\n" * 10_001, "more than 10000 lines"),
    ],
)
def test_tip__list_that_is_none_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "tips.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_list(path)


# --- governance -----------------------------------------------------------------------------------------------------


def test_proposal__to_change_the_dao_is_voted_on_and_executed(funding: DaoBench) -> None:
    """Section 5.2, Table 1: deposit, vote, quorum, execution, deposit back."""
    funding.make_wallet("ben")
    funding.send("ben", "join")
    assert "the session is funding and this belongs to training" in funding.refused(
        "ada", "propose", "--text", "early", "--change", "quorum-divisor", "4"
    )
    funding.travel(1100)
    out, _ = funding.send("ada", "propose", "--text", "dearer \x1b[31mproposals", "--change", "proposal-deposit", "0.002")
    assert "the deposit of a proposal becomes 0.002 ETH (2000000000000000 wei)" in out
    assert "sends 0.001 ETH (1000000000000000 wei), and costs" in out and "it is proposal 0" in out
    (shown,) = funding.read("proposals")["proposals"]
    assert shown["state"] == "voting" and shown["deposit_wei"] == str(10**15) and "\x1b" not in shown["description"]
    out, _ = funding.send("ben", "vote", "--proposal", "0", "--for")
    assert "proposal 0: the deposit of a proposal becomes 0.002 ETH" in out, "nobody votes blindly"
    assert "this member has voted already" in funding.refused("ben", "vote", "--proposal", "0", "--against")
    assert "the vote on this proposal runs until 20" in funding.refused("ben", "execute", "0")
    funding.travel(100)
    assert "approved, can be executed: 1 for, 0 against, votes needed: 1; you voted yes" in funding.show("proposals", name="ben")
    funding.send("ben", "execute", "0")
    state = funding.read("proposals", name="ada")
    assert state["proposal_deposit_wei"] == str(2 * 10**15) and state["back_wei"] == str(10**15)
    assert state["proposals"][0]["state"] == "passed"
    assert "was executed or closed already" in funding.refused("ada", "execute", "0")
    before = funding.balance(HELPER)
    funding.send("ada", "withdraw", "--to", HELPER)
    assert funding.balance(HELPER) - before == 10**15, "--to is also for deposits of proposals"
    assert funding.read("proposals", name="ada")["back_wei"] == "0"


def test_proposal__that_fails_is_closed_and_its_deposit_can_be_spent(funding: DaoBench) -> None:
    """Table 1: without the quorum the DAO keeps the deposit; a later proposal may pay with it."""
    funding.travel(1100)
    assert "more than the 0 wei that proposals may spend" in funding.refused("ada", "propose", "--text", "gift", "--pay", HELPER, "1")
    funding.send("ada", "propose", "--text", "nobody cares", "--change", "extend", "100s")
    assert "the session's deadlines are put off by 100 s" in funding.show("proposals")
    funding.travel(100)
    assert "failed, can be closed" in funding.show("proposals")
    assert "the proposal did not pass: 0 for it, 0 against it, 1 votes needed" in funding.refused("ada", "execute", "0")
    funding.send("ada", "close", "0")
    assert funding.read("proposals")["available_wei"] == str(10**15)
    funding.send("ada", "propose", "--text", "gift", "--pay", HELPER, "0.0004", "--debate", "2m")
    funding.send("ada", "vote", "--proposal", "1", "--for")
    funding.travel(130)
    before = funding.balance(HELPER)
    funding.send("ada", "execute", "1")
    assert funding.balance(HELPER) - before == 4 * 10**14


def test_proposal__that_puts_off_the_deadlines_is_seen_in_the_status(funding: DaoBench) -> None:
    funding.travel(1100)
    before = funding.read()["stage_ends_s"]
    funding.send("ada", "propose", "--text", "more time", "--change", "extend", "300s")
    funding.send("ada", "vote", "--proposal", "0", "--for")
    funding.travel(70)
    funding.send("ada", "execute", "0")
    assert funding.read()["stage_ends_s"] == before + 300


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vote", "--proposal", "0"], "a vote on a proposal is --for or --against"),
        (["vote", "--approve-all", "--for"], "--for and --against belong to --proposal"),
        (["propose", "--text", "x", "--change", "colour", "red"], "--change 'colour' is unknown; expected one of proposal-deposit"),
        (["propose", "--text", "x", "--change", "quorum-divisor", "many"], "the quorum's divisor 'many' is not a whole number"),
        (["propose", "--text", "x", "--change", "extend", "soon"], "'soon' is not a duration"),
        (["propose", "--text", "x", "--pay", HELPER, "much"], "'much' is not an amount"),
        (["propose", "--text", "x", "--pay", HELPER.lower(), "1"], "carries no checksum"),
        (["tip", HELPER.replace("A11", "a11"), "1"], "has a wrong checksum (EIP-55): a digit is mistyped"),
        (["tip", HELPER], "give HELPER AMOUNT, or --list FILE"),
        (["tip", HELPER, "1", "--list", "tips.txt"], "give the list alone, or HELPER AMOUNT"),
        (["budget", "--fill", "0"], "the budget changes by an amount above zero"),
        (["budget", "--reclaim", "some"], "'some' is not an amount"),
        (["withdraw", "--to", "0x12"], "'0x12' is not an address; expected 0x and 40 hex digits"),
        (["claim", "--points", "-1", "--evidence", EVIDENCE], "--points is -1, expected 0 to 18446744073709551615"),
        (["claim", "--points", "1", "--evidence", "07"], "--evidence '07' is not 32 bytes in hex"),
        (["leave", "--fee-cap", "cheap"], "'cheap' is not a price of gas; write gwei"),
        (["leave", "--fee-cap", "0"], "'0' is not a price of gas"),
        (["leave", "--confirmations", "-2"], "--confirmations is -2, expected 1 to 1000"),
        (["leave", "--rpc", "http://a", "--rpc", "http://b", "--rpc", "http://c"], "--rpc is given 3 times, expected once, or twice"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_wrong_words__are_refused_in_a_sentence(bench: DaoBench, words: list[str], sentence: str) -> None:
    """Before the chain is asked anything."""
    bench.make_wallet("ada", ether=0)
    assert sentence in bench.refused("ada", *words, status=2)


# --- refused --------------------------------------------------------------------------------------------------------


def test_refusals__of_the_contract_are_told_in_words(funding: DaoBench) -> None:
    """Wrong stage, not a member, no such proposal: found before anything is paid."""
    funding.make_wallet("stranger")
    claim = ("claim", "--points", "1", "--evidence", EVIDENCE)
    assert "the claim was refused: the session is funding and this belongs to claiming" in funding.refused("ada", *claim)
    assert "the ballot was refused: the session is funding and this belongs to voting" in funding.refused("ada", "vote", "--approve-all")
    funding.travel(1100)
    assert "joining the session was refused: the session is training and joining belongs to funding" in funding.refused("stranger", "join")
    assert "there is no proposal 3; `learnae dao proposals` lists them" in funding.refused("ada", "vote", "--proposal", "3", "--for")
    funding.travel(1000)
    assert "this wallet is not a member of the session" in funding.refused("stranger", *claim)
    funding.send("ada", *claim)
    assert "this member has claimed already" in funding.refused("ada", *claim)
    funding.travel(1000)
    assert "9 is not among the members' numbers 0 to 0" in funding.refused("ada", "vote", "--reject", "9", status=2)
    assert "nobody votes on its own claim" in funding.refused("ada", "vote", "--reject", "0")


def test_join__that_cannot_be_paid_loses_nothing(funding: DaoBench) -> None:
    wallet = funding.make_wallet("poor", ether=0.1)
    error = funding.refused("poor", "join")
    assert f"wallet {wallet} holds 0.100000 ETH and 0.10" in error and "send it some and try again" in error
    assert funding.balance(wallet) == ETHER // 10


def test_endpoint__that_lags_after_a_payment_is_told(funding: DaoBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one address there may be a node that does not show yet what was just paid: a sentence, and no traceback."""
    read = EthereumChain.read
    views: list[ChainView] = []

    async def lag(chain: EthereumChain, session: Address) -> ChainView:
        views.append(await read(chain, session))
        return views[0]

    monkeypatch.setattr(EthereumChain, "read", lag)
    funding.make_wallet("ben")
    assert "the deposit is paid, but the endpoint does not show it yet" in funding.send("ben", "join")[0]
    views.clear()
    funding.travel(1100)
    out, _ = funding.send("ben", "propose", "--text", "late", "--change", "quorum-divisor", "4")
    assert "it is made, but the endpoint does not show it yet" in out
    views.clear()
    assert funding.read()["members"][1]["number"] == 1
    assert len(funding.read("proposals")["proposals"]) == 1


def test_join__of_a_full_session_is_refused_before_a_proof_of_identity_is_paid_for(bench: DaoBench) -> None:
    for name in ("ada", "ben"):
        bench.make_wallet(name)
    bench.deploy("ada", "--members-min", "1", "--members-max", "1")
    bench.send("ada", "join")
    assert "the session has 1 members, as many as it takes" in bench.refused("ben", "join")


def test_keystore_and_session__that_are_wrong_are_told(funding: DaoBench, tmp_path: Path) -> None:
    assert "the keystore" in funding.refused("nobody", "leave") and not (tmp_path / "nobody").exists()
    assert "there is no contract" in funding.refused("ada", "leave", session=HELPER)
    assert "is not a valid ticket" in funding.refused("ada", "leave", session="hello")
    (tmp_path / "password").write_text("another password\n")
    assert "the password is wrong" in funding.refused("ada", "leave")


def test_folder__of_a_node_that_runs_is_left_alone(funding: DaoBench, tmp_path: Path) -> None:
    """One wallet is one program's: two would take each other's transaction numbers."""
    journal = DiskJournal(tmp_path / "ada")
    try:
        assert "is in use by another learnae process; stop that one first" in funding.refused("ada", "leave")
        assert funding.read(name="ada")["number"] == 0, "looking is free"
        assert "leaving the session: costs at most" in funding.send("ada", "leave", "--dry-run")[0]
    finally:
        journal.close()


def test_chain__that_is_not_there_is_told_at_once(funding: DaoBench, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--folder", str(funding.root / "ada"), "--password-file", funding.password_file]
    for words in (["status", funding.session], ["leave", funding.session, *own]):
        assert main(["dao", *words, "--rpc", "http://127.0.0.1:1"]) == 1
        assert "the Ethereum endpoint http://127.0.0.1:1 does not answer" in capsys.readouterr().err


# --- money is asked for, told, and never sent twice --------------------------------------------------------------------


def test_dry_run__tells_what_a_member_will_spend_and_sends_nothing(funding: DaoBench, tmp_path: Path) -> None:
    """Issue 3: deposit, gas of each call with current fees, total in ether and wei."""
    wallet, block = funding.make_wallet("ben"), funding.block
    out, _ = funding.send("ben", "join", "--dry-run")
    lines = {line.split("  ")[0].strip() or line.strip().split("  ")[0]: line for line in out.splitlines()}
    assert "deposit  0.1 ETH (100000000000000000 wei)" in out and "nothing was sent" in out
    for name in ("proof of identity", "join", "claim", "ballot", "withdrawal"):
        assert f"{name}  " in out and " gas, 0.00" in out
    total = next(line for line in lines.values() if " total " in f" {line} ")
    fees = next(line for line in lines.values() if "all fees" in line)
    amounts = [int(line.split("(")[1].split(" wei")[0]) for line in (total, fees)]
    assert amounts[0] == ETHER // 10 + amounts[1] > ETHER // 10
    assert funding.balance(wallet) == 10 * ETHER and not (tmp_path / "ben" / "journal.sqlite").exists()
    out, error = funding.send("newcomer", "join", "--dry-run")
    assert "total" in out and "there is no keystore" in error and not (tmp_path / "newcomer").exists()
    out, _ = funding.send("ada", "tip", HELPER, "0.5", "--dry-run")
    assert "the tip: sends 0.5 ETH (500000000000000000 wei), and costs at most" in out and "gwei" in out
    assert funding.block == block


def test_consent__is_asked_before_money_is_sent(funding: DaoBench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", refuse)
    wallet = funding.make_wallet("ben")
    _, error = funding.send("ben", "join", yes=False, status=2)
    assert asked == ["Pay the deposit of 0.1 ETH (100000000000000000 wei) and join? [y/N] "] and "you did not agree" in error
    funding.send("ada", "tip", HELPER, "0.5", yes=False, status=2)
    assert asked[1] == "Send 0.5 ETH (500000000000000000 wei) and the fee? [y/N] "
    assert funding.balance(wallet) == 10 * ETHER
    monkeypatch.setattr("builtins.input", lambda question: (_ for _ in ()).throw(EOFError))
    _, error = funding.send("ben", "join", yes=False, status=2)
    assert "there is no terminal to ask for your consent; give --yes" in error
    monkeypatch.setattr("builtins.input", lambda question: "y")
    funding.send("ben", "join", yes=False)
    assert funding.read(name="ben")["number"] == 1


class Killed(BaseException):
    """The process dies here."""


def submit_and_die(bench: DaoBench, name: str, call: Call, *, dies: bool) -> tuple[bytes | None, Address | None]:
    """Send a call as this wallet; if it dies, right after the signed transaction is on disk. Returns the record, and the new contract."""
    keys = open_keystore(bench.root / name / "keystore.json", PASSWORD)
    saved: list[bytes | None] = []

    def save(record: bytes | None) -> None:
        saved.append(record)
        if dies:
            raise Killed

    async def run() -> Address | None:
        options = ChainOptions(save_pending=save, poll_s=0.005)
        opened = open_ethereum_chain(
            bench.url, wallet=keys.wallet, peer_id=keys.identity.peer_id, sign_identity=keys.identity.sign, options=options
        )
        async with opened as chain:
            return (await chain.submit(bench.session, call)).address

    if not dies:
        return None, trio.run(run)
    with pytest.raises(Killed):
        trio.run(run)
    return saved[-1], None


def test_command__that_was_killed_is_finished_by_the_next_one_and_nothing_is_paid_twice(funding: DaoBench, tmp_path: Path) -> None:
    record, _ = submit_and_die(funding, "ada", PayTip(Address(HELPER), Wei(777), bytes(32)), dies=True)
    journal = DiskJournal(tmp_path / "ada")
    journal.append([], [(RECORD_TRANSACTION, record)])
    journal.close()
    before = funding.balance(HELPER)
    _, error = funding.send("ada", "tip", HELPER, "50wei")
    assert "a transaction from before is still under way; finishing it first" in error and "is done in block" in error
    assert funding.balance(HELPER) - before == 777 + 50
    _, error = funding.send("ada", "tip", HELPER, "50wei")
    assert "from before" not in error and funding.balance(HELPER) - before == 777 + 100


def test_join__that_was_killed_uses_the_proof_of_identity_that_it_paid_for(funding: DaoBench, tmp_path: Path) -> None:
    funding.make_wallet("ben")
    _, poid = submit_and_die(funding, "ben", DeployPoid(), dies=False)
    assert poid is not None
    journal = DiskJournal(tmp_path / "ben")
    journal.append([], [(RECORD_POID, poid.encode())])
    journal.close()
    out, error = funding.send("ben", "join")
    assert f"using the proof of identity {poid}" in error and "deploying" not in out
    assert funding.read()["members"][1]["fault"] == ""


def test_join__that_was_killed_while_its_proof_of_identity_was_under_way_pays_for_one(funding: DaoBench, tmp_path: Path) -> None:
    funding.make_wallet("ben")
    record, _ = submit_and_die(funding, "ben", DeployPoid(), dies=True)
    journal = DiskJournal(tmp_path / "ben")
    journal.append([], [(RECORD_TRANSACTION, record)])
    journal.close()
    out, error = funding.send("ben", "join")
    assert "it created the contract 0x" in error and "using the proof of identity 0x" in error and "deploying" not in out
    assert funding.read()["members"][1]["fault"] == ""


def test_two_endpoints__that_disagree_stop_everything_that_sends(bench: DaoBench) -> None:
    """Two chains of one id: the session is on the first only, and no command goes by what one of them says alone."""
    with run_chain() as one, run_chain() as other:
        here, fork = replace(bench, url=one), replace(bench, url=other)
        here.make_wallet("ada")
        here.deploy("ada")
        here.send("ada", "join")
        while fork.block < here.block:
            fork.rpc("evm_mine")
        error = here.refused("ada", "leave", "--rpc", one, "--rpc", other)
        assert f"disagree about block {here.block} (its hash); nothing was sent" in error


def test_two_endpoints__of_different_chains_are_refused(funding: DaoBench) -> None:
    with run_chain(chain_id=7) as other:
        assert "serves chain 7, but the session is on chain 1337" in funding.refused("ada", "leave", "--rpc", funding.url, "--rpc", other)


def test_two_endpoints__of_one_chain_let_a_command_pass(funding: DaoBench) -> None:
    funding.send("ada", "leave", "--rpc", funding.url, "--rpc", funding.url)
    assert funding.read()["members"] == []


# --- tickets and light installations ----------------------------------------------------------------------------------


def test_status__of_a_ticket_a_file_and_a_nodes_folder(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for session in (str(world.ticket_file), world.ticket.to_text(), str(world.ticket_file.parent), world.ticket.contract):
        assert main(["dao", "status", session, "--rpc", world.rpc, "--json", "--wallet", HELPER]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert {values["contract"] for values in shown} == {world.ticket.contract}
    assert {values["wallet"] for values in shown} == {HELPER} and shown[0]["rules_sha256"] == world.ticket.rules.cid[4:].hex()


def test_join__of_a_ticket_with_foreign_rules_is_refused(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = replace(world.ticket.rules, voting_ends_s=world.ticket.rules.voting_ends_s + 60)
    path = tmp_path / "foreign.txt"
    path.write_text(Ticket(rules=rules, contract=world.ticket.contract, addresses=()).to_text())
    own = ["--folder", str(world.rich), "--password-file", str(world.password_file), "--rpc", world.rpc]
    assert main(["dao", "join", str(path), "--yes", *own]) == 1
    error = capsys.readouterr().err
    assert "the ticket's rules do not match its contract" in error and "do not deposit" in error


def test_light_installation__joins_and_votes_without_torch_and_libp2p(funding: DaoBench, tmp_path: Path) -> None:
    """`pip install learnae[chain]` is enough for a member who only deposits, votes and withdraws."""
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    for module in MODULES:
        (shadows / f"{module}.py").write_text(f"raise ModuleNotFoundError('no module', name={module!r})\n")
    funding.make_wallet("ben")
    place = [funding.session, "--folder", str(tmp_path / "ben"), "--rpc", funding.url]
    for words in (["join", *place, "--yes", "--password-file", funding.password_file], ["status", *place]):
        process = start(["dao", *words], shadows=shadows)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert "member 1" in out


def test_list_of_tips__that_was_killed_between_two_transactions_is_gone_on_with(
    funding: DaoBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each helper gets its tip once; a list that was given as a whole may be given again, next week."""
    ben, tips, asked = funding.make_wallet("ben"), tmp_path / "tips.txt", list[int]()
    tips.write_text(f"{ben} 100wei\n{ben} 20wei\n{ben} 3wei\n")
    funding.send("ada", "budget", "--fill", "246wei")
    monkeypatch.setattr(tipping, "TIPS_MAX", 1)
    give = tipping.give_tips

    def die_before_the_second(facts: SessionFacts, some: Sequence[Tip]) -> Intent:
        asked.append(some[0].amount_wei)
        if some[0].amount_wei == 20:
            raise Killed
        return give(facts, some)

    monkeypatch.setattr(tipping, "give_tips", die_before_the_second)
    with pytest.raises(BaseExceptionGroup):
        funding.send("ada", "tip", "--list", str(tips))
    assert asked == [100, 20] and funding.read(name="ben")["tips_wei"] == "100"
    monkeypatch.setattr(tipping, "give_tips", give)

    _, error = funding.send("ada", "tip", "--list", str(tips))
    assert "gave the first 1 tips of this list" in error and funding.read(name="ben")["tips_wei"] == "123"
    _, error = funding.send("ada", "tip", "--list", str(tips))
    assert "gave the first" not in error and funding.read(name="ben")["tips_wei"] == "246"
