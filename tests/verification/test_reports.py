"""What the tools of the verification answer is read right: gaps of coverage, findings, answers, and the pins of the tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from learnae.contracts.build import SOLIDITY
from learnae.errors import ContractBuildError
from verification import __main__ as command
from verification.findings import read_answers, read_findings
from verification.forge import prepare_project, read_gaps
from verification.prove import list_proofs
from verification.tools import FOLDER, find_command, run_tool

ROOT = Path(__file__).parents[2]
REPORT = """TN:
SF:src/Session.sol
DA:7,3
DA:9,{hits}
BRDA:12,4,0,{taken}
BRDA:12,4,1,2
end_of_record
SF:lib/@openzeppelin/contracts/utils/Base64.sol
DA:1,0
end_of_record
"""


def test_coverage__lines_and_branches_that_are_not_run_are_named() -> None:
    assert read_gaps(REPORT.format(hits=1, taken=5)) == []
    assert read_gaps(REPORT.format(hits=0, taken="-")) == [
        "src/Session.sol:9 is not run",
        "src/Session.sol:12: branch 0 of 4 is not taken",
    ]


def test_coverage__a_report_without_the_contracts_is_none() -> None:
    with pytest.raises(ContractBuildError, match="says nothing about the contracts"):
        read_gaps("TN:\nSF:test/Bed.sol\nDA:1,1\nend_of_record\n")


def test_slither__findings_are_named_by_detector_and_place() -> None:
    function = {"name": "pay", "type": "function", "type_specific_fields": {"parent": {"name": "Tips", "type": "contract"}}}
    variable = {"name": "left", "type": "variable", "type_specific_fields": {"parent": function}}
    detectors = [{"check": "assembly", "elements": [function]}, {"check": "uninitialized-local", "elements": [variable]}]
    answer = {"success": True, "error": None, "results": {"detectors": detectors}}
    assert read_findings(json.dumps(answer)) == {("assembly", "Tips.pay"), ("uninitialized-local", "Tips.pay.left")}
    assert read_findings(json.dumps({"success": True, "error": None, "results": {}})) == set()


def test_slither__a_failure_is_not_taken_for_no_findings() -> None:
    with pytest.raises(ContractBuildError, match="slither failed: no compiler"):
        read_findings(json.dumps({"success": False, "error": "no compiler", "results": {}}))


def test_slither__a_finding_without_an_answer_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 3: slither clean, or each finding answered in docs; and no answer to what is not found."""
    answered = read_answers((ROOT / "docs" / "verification.md").read_text(encoding="utf-8"))
    assert len(answered) > 5
    monkeypatch.setattr(command, "find_mistakes", lambda root: answered)
    assert command.slither() == 0
    monkeypatch.setattr(command, "find_mistakes", lambda root: answered | {("suicidal", "Session.leave")})
    assert command.slither() == 1
    assert "slither finds suicidal in Session.leave: correct it, or answer it in docs/verification.md" in capsys.readouterr().out
    monkeypatch.setattr(command, "find_mistakes", lambda root: set(list(answered)[1:]))
    assert command.slither() == 1
    assert "which slither does not find: take the row out" in capsys.readouterr().out


def test_halmos__a_proof_that_is_missing_or_open_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    proofs = list_proofs()
    assert len(proofs) >= 8
    monkeypatch.setattr(command, "run_proofs", lambda root: dict.fromkeys(proofs, True))
    assert command.halmos() == 0
    monkeypatch.setattr(command, "run_proofs", lambda root: {**dict.fromkeys(proofs, True), proofs[0]: False})
    assert command.halmos() == 1
    monkeypatch.setattr(command, "run_proofs", lambda root: dict.fromkeys(proofs[1:], True))
    assert command.halmos() == 1
    assert capsys.readouterr().out.count(f"not proved: {proofs[0]}") == 2


def test_tools__compile_what_is_shipped() -> None:
    """The compiler, the library and the settings of the verification are those of the artefacts."""
    shipped = json.loads((SOLIDITY / "package.json").read_text(encoding="utf-8"))["dependencies"]
    used = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: used.get(name) for name in shipped} == shipped
    settings = json.loads((ROOT / "src" / "learnae" / "contracts" / "artefacts" / "Session.json").read_text(encoding="utf-8"))["settings"]
    profile = (FOLDER / "foundry.toml").read_text(encoding="utf-8")
    assert f'evm_version = "{settings["evmVersion"]}"' in profile
    assert f"optimizer_runs = {settings['optimizer']['runs']}\n" in profile


def test_tools__are_pinned_and_name_no_registry() -> None:
    lock = (FOLDER / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    pins = [line for line in (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+", pin)] == []


def test_compiler__answers_as_the_native_one() -> None:
    """forge takes solc.mjs for the compiler's program."""
    done = run_tool([str(FOLDER / "solc.mjs"), "--version"], FOLDER, limit_s=60)
    assert re.search(r"^Version: 0\.8\.37\+commit\.[0-9a-f]{8}\.", done.stdout, re.MULTILINE)
    done = run_tool([str(FOLDER / "solc.mjs"), "--bin"], FOLDER, limit_s=60)
    assert done.returncode == 1
    assert "solc.mjs answers --version and --standard-json; got --bin" in done.stdout


def test_tool__that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("verification.tools.FOLDER", tmp_path)
    with pytest.raises(ContractBuildError, match=r"anvil is not in .*; run `python -m verification install`"):
        find_command("anvil")


def test_tool__that_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContractBuildError, match="no-such-tool could not run to its end"):
        run_tool([str(tmp_path / "no-such-tool")], tmp_path, limit_s=1)


def test_project__holds_the_contracts_as_they_are_or_with_one_fault(tmp_path: Path) -> None:
    folder = prepare_project(tmp_path, sources={"Tips.sol": "contract Tips {}"})
    assert (folder / "src" / "Tips.sol").read_text(encoding="utf-8") == "contract Tips {}"
    (folder / "test" / "Old.t.sol").write_text("", encoding="utf-8")
    prepare_project(tmp_path)
    assert (folder / "src" / "Tips.sol").read_bytes() == (SOLIDITY / "Tips.sol").read_bytes()
    assert not (folder / "test" / "Old.t.sol").exists()
    assert (folder / "test" / "Vm.sol").exists()
    assert (folder / "lib" / "@openzeppelin" / "contracts" / "utils" / "cryptography" / "ECDSA.sol").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["install", "paint"], "there is nothing named 'paint' to install; choose from: nodes, provers"),
        (["mutants", "rust"], "there is no fault named 'rust'; verification/mutants.json has their names"),
    ],
)
def test_command__an_unknown_name_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.strip() == sentence


def test_verify__fails_if_one_of_its_checks_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = list[str]()

    def make_check(name: str, result: int) -> Callable[[], int]:
        def check() -> int:
            calls.append(name)
            return result

        check.__name__ = name
        return check

    for name in ("forge", "coverage", "halmos", "slither"):
        monkeypatch.setattr(command, name, make_check(name, 0))
    assert command.verify() == 0
    monkeypatch.setattr(command, "coverage", make_check("coverage", 1))
    assert command.verify() == 1
    assert calls == ["forge", "coverage", "halmos", "slither"] * 2
    assert "verification failed: coverage" in capsys.readouterr().out


def test_page__names_only_commands_and_functions_that_exist() -> None:
    page = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"python -m verification COMMAND +# (.*)", page)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "verification").glob("*/*.sol"))
    named = re.findall(r"`(_\w+|check\w+)`", page)

    assert re.findall(r"[a-z]+", re.sub(r" ?\[.*?\]", "", listed)) == list(command.COMMANDS)
    assert len(named) > 10 and [name for name in named if f"function {name}(" not in sources] == []
