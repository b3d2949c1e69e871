"""`python -m benchmarks`: the list, the table, the JSON, and a name that is none."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from benchmarks import Result
from benchmarks import __main__ as command


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("benchmarks.sample")
    module.run = lambda: [  # type: ignore[attr-defined]
        Result(case="fast", value=3.0, unit="MB/s", reference="slow", reference_value=2.0),
        Result(case="alone", value=1.0, unit="s"),
    ]
    monkeypatch.setitem(sys.modules, "benchmarks.sample", module)
    monkeypatch.setattr(command, "list_names", lambda: ["sample"])


@pytest.mark.usefixtures("sample")
def test_benchmarks__print_json_as_the_issue_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sample", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "benchmark": "sample",
        "results": [
            {"case": "fast", "value": 3.0, "unit": "MB/s", "reference": "slow", "reference_value": 2.0, "ratio": 1.5},
            {"case": "alone", "value": 1.0, "unit": "s", "reference": None, "reference_value": None, "ratio": None},
        ],
    }


@pytest.mark.usefixtures("sample")
def test_benchmarks__print_a_table_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sample"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sample"
    assert lines[2].split() == ["fast", "3.000", "MB/s", "slow", "2.000", "1.50"]
    assert command.main([]) == 0
    assert capsys.readouterr().out == "sample\n"


@pytest.mark.usefixtures("sample")
def test_benchmarks__an_unknown_name_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["other"]) == 2
    assert capsys.readouterr().err == "there is no benchmark 'other'; choose from: sample\n"


def test_benchmarks__a_case_is_chosen_by_name(capsys: pytest.CaptureFixture[str], sample: None) -> None:
    module = sys.modules["benchmarks.sample"]
    module.CASES = ("small", "large")  # type: ignore[attr-defined]
    module.run = lambda case="small": [Result(case=case, value=1.0, unit="s")]  # type: ignore[attr-defined]

    assert command.main(["sample:large", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["case"] == "large"
    assert command.main(["sample:huge"]) == 2
    assert capsys.readouterr().err == "the benchmark 'sample' has no case 'huge'; it has small, large\n"


def test_benchmarks__transfer_is_there() -> None:
    assert "transfer" in command.list_names()
