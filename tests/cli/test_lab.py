"""`learnae lab`: list, run, table, files, and what is said to wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learnae.cli import main
from tests.lab.jobs import A_RULE, AN_ATTACK

SMALL = ["--peers", "10", "--cycles", "6", "--seeds", "2", "--processes", "1"]


def test_list__names_attacks_and_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0

    out = capsys.readouterr().out
    assert "ring-inflated       ledger" in out and "voting-cartel       protocol" in out and "  eigentrust" in out


def test_run__prints_every_measure_of_one_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "ring", "--rule", "raw", "--rule", "audited", *SMALL]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["attack", "rule", "share", "gain"]
    assert [line.split()[:3] for line in lines[1:3]] == [["ring", "raw", "10%"], ["ring", "audited", "10%"]]


def test_run__as_json_and_by_real_peers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--share", "0.25", "--rule", "budgeted", "--peers", "6", "--cycles", "4", "--seeds", "1", "--processes", "1", "--json"]
    assert main(["lab", "run", "replay", *words]) == 0

    (cell,) = json.loads(capsys.readouterr().out)["measures"]
    assert (cell["attack"], cell["level"], cell["gain"], cell["share"]) == ("replay", "protocol", 1.0, 0.25)


def test_run__takes_an_attack_and_a_rule_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/add-an-attack.md: a file of one's own, by its path."""
    attack, rule = tmp_path / "loud.py", tmp_path / "equal.py"
    attack.write_text(AN_ATTACK)
    rule.write_text(A_RULE)

    assert main(["lab", "run", str(attack), "--rule", str(rule), "--rule", "raw", "--json", *SMALL]) == 0

    cells = json.loads(capsys.readouterr().out)["measures"]
    assert [(cell["attack"], cell["rule"], cell["gain"]) for cell in cells[:1]] == [("loud-ring", "equal", 1.0)]


def test_run__of_the_adaptive_attacker_says_its_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "adaptive", "--rule", "raw", *SMALL]) == 0

    assert "adaptive against raw at 10%: " in capsys.readouterr().out


def test_table__writes_csv_json_page_and_drawings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--attack", "ring", "--attack", "withhold", "--rule", "raw", "--rule", "budgeted", "--shares", "0.1,0.3"]
    assert main(["lab", "table", *words, "--out", str(tmp_path / "out"), *SMALL]) == 0

    told = capsys.readouterr()
    assert "10% attackers" in told.out and "30% attackers" in told.out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["gain-10.svg", "gain-30.svg", "table.csv", "table.html", "table.json"]
    assert all(name in told.err for name in names)
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())["measures"]) == 8


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "heist"], "there is no attack 'heist'; choose from: "),
        (["run", "ring", "--rule", "luck"], "there is no rule 'luck'; choose from: "),
        (["run", "ring", "--share", "0"], "the share of attackers is 0, expected more than 0 and at most 0.5"),
        (["run", "ring", "--share", "0.6"], "the share of attackers is 0.6, expected"),
        (["run", "ring", "--share", "many"], "the share of attackers is 'many', expected a number such as 0.1"),
        (["run", "ring", "--share", "nan"], "the share of attackers is nan, expected"),
        (["table", "--shares", "0.1,,0.2"], "the share of attackers is '', expected a number"),
        (["run", "ring", "--seeds", "0"], "--seeds is 0, expected 1 to 100000"),
        (["table", "--protocol-seeds", "-1"], "--protocol-seeds is -1, expected 1 to 100000"),
        (["run", "ring", "--peers", "3"], "--peers is 3, expected 4 to 1000"),
        (["run", "ring", "--cycles", "-2"], "--cycles is -2, expected 1 to 10000"),
        (["run", "ring", "--audits", "1.5"], "--audits is 1.5, expected a part of all receipts, 0 to 1"),
        (["run", "ring", "--first-seed", "-1"], "--first-seed is -1, expected 0 to "),
        (["run", "ring", "--processes", "-1"], "--processes is -1, expected 1 to 1024"),
        (["run", "nowhere.py"], "nowhere.py gives the laboratory no attack: there is no such file"),
    ],
)  # fmt: skip
def test_wrong_argument__is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *words]) != 0

    told = capsys.readouterr()
    assert sentence in told.err and told.out == ""
    assert len(told.err.splitlines()) == 1


def test_table__into_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert main(["lab", "table", "--attack", "ring", "--out", str(tmp_path / "file" / "out"), *SMALL]) != 0
    assert "this machine says: not a directory" in capsys.readouterr().err
