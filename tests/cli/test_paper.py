"""`learnae paper`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learnae.cli import main

SMALL = ["--peers", "6", "--cycles", "8", "--malicious", "2"]


def test_paper__prints_json_as_the_issue_says(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: the JSON holds each figure as `paper`, `median`, `low`, `high`. Without --out nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "--seeds", "40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["through"] == "fast" and found["seeds"] == 40
    assert all(found["honest"][name]["inside"] for name in ("peers_up", "mean_gain", "mean_loss"))
    assert found["malicious"]["malicious_change"]["paper"] == -608.56
    assert list(tmp_path.iterdir()) == []


def test_paper__prints_the_table_and_says_where_the_figures_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["paper", "--seeds", "3", "--first-seed", "5", *SMALL, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out

    assert "Section 7 with 6 peers, 8 cycles, 2 malicious: 3 seeds" in printed
    assert "2 of 6 peers never report (7.2)" in printed
    assert f"Figures 6 to 10: {tmp_path / 'out' / 'paper.html'}" in printed
    summary = json.loads((tmp_path / "out" / "paper.json").read_text(encoding="utf-8"))
    assert (summary["first_seed"], summary["seeds"]) == (5, 3)


def test_paper__on_two_processes_gives_what_one_gives(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The default number of seeds runs on all cores; the figures do not hang on how many there are."""
    found = []
    for cores in (1, 2):
        monkeypatch.setattr("learnae.cli.paper.count_cores", lambda cores=cores: cores)
        assert main(["paper", "--seeds", "60", "--json"]) == 0
        found.append({**json.loads(capsys.readouterr().out), "seconds": 0})

    assert found[0] == found[1]


@pytest.mark.parametrize("through", ["protocol", "contract"])
def test_paper__through_the_protocol_gives_the_same_figures(capsys: pytest.CaptureFixture[str], through: str) -> None:
    """Section 7 with real peers: equal draws, equal figures."""
    found = []
    for way in ("fast", through):
        assert main(["paper", "--through", way, "--seeds", "1", "--peers", "4", "--cycles", "5", "--malicious", "1", "--json"]) == 0
        found.append({**json.loads(capsys.readouterr().out), "seconds": 0, "through": ""})

    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--peers", "1"], "--peers is 1, expected 2 to 4095"),
        (["--peers", "4096"], "--peers is 4096, expected 2 to 4095"),
        (["--cycles", "0"], "--cycles is 0, expected 1 to 10000"),
        (["--seeds", "0"], "--seeds is 0, expected 1 to 1000000"),
        (["--first-seed", "-1"], "--first-seed is -1, expected 0 to"),
        (["--malicious", "-1"], "--malicious is -1, expected 0 to 99: fewer than --peers"),
        (["--peers", "5", "--malicious", "5"], "--malicious is 5, expected 0 to 4: fewer than --peers"),
    ],
)
def test_paper__refuses_what_is_no_experiment(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", *words]) == 2
    shown = capsys.readouterr()

    assert shown.err.startswith(f"learnae: {sentence}")
    assert shown.err.count("\n") == 1 and shown.out == ""


def test_paper__folder_that_cannot_be_written_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An error of the machine reads like every other; it comes before a long run, not after it."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["paper", "--seeds", "1", *SMALL, "--out", str(tmp_path / "file")]) == 1

    shown = capsys.readouterr()
    assert shown.err.startswith("learnae: this machine says: file exists")
    assert shown.out == ""


def test_paper__interrupted_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("learnae.cli.paper.map_parallel", interrupt)
    assert main(["paper", "--json"]) == 130
    shown = capsys.readouterr()

    assert shown.err == "interrupted; the same command gives the same figures when it is run again\n"
    assert shown.out == ""


@pytest.mark.parametrize(("through", "words"), [("fast", "seed 40 of 40"), ("protocol", "4 of 4 sessions of 3 peers are over")])
def test_paper__shows_progress_to_people(
    through: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the progress stands on stderr, and its line is empty at the end."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    count = "40" if through == "fast" else "1"
    assert main(["paper", "--through", through, "--seeds", count, "--peers", "3", "--cycles", "3", "--malicious", "1", "--json"]) == 0
    shown = capsys.readouterr().err.split("\r\x1b[K")

    assert words in shown
    assert shown[-1] == ""
