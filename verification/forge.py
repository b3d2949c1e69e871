"""forge: unit tests, fuzzing, invariants and coverage of the contracts.

The project that forge sees is put together in `build/verification`, where a copy can also be given faults (mutants.py).
Raises ContractBuildError wherever a tool is missing or cannot run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

from learnae.contracts.build import SOLIDITY
from learnae.errors import ContractBuildError
from verification.tools import FOLDER, find_command, run_tool

BUILD = Path("build") / "verification"
_LIBRARY = FOLDER / "node_modules" / "@openzeppelin"
_RUN_S_MAX = 1800.0


def prepare_project(folder: Path, *, tests: str = "test", sources: Mapping[str, str] | None = None) -> Path:
    """Put the contracts and the tests of `verification/TESTS` together where forge finds them.

    Args:
        folder: made if it is not there; what forge compiled before is kept.
        sources: file name -> text, in place of the shipped contract of that name.
    """
    for name, texts in (
        ("src", {path.name: path.read_text(encoding="utf-8") for path in SOLIDITY.glob("*.sol")} | dict(sources or {})),
        ("test", {path.name: path.read_text(encoding="utf-8") for path in _list_tests(tests)}),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for old in (folder / name).glob("*.sol"):
            if old.name not in texts:
                old.unlink()
        for file, text in texts.items():
            (folder / name / file).write_text(text, encoding="utf-8")
    shutil.copyfile(FOLDER / "foundry.toml", folder / "foundry.toml")
    library = folder / "lib" / "@openzeppelin"
    if not library.exists():
        if not _LIBRARY.exists():
            raise ContractBuildError(f"{_LIBRARY} is not there; run `python -m verification install`")
        library.parent.mkdir(parents=True, exist_ok=True)
        library.symlink_to(_LIBRARY, target_is_directory=True)
    return folder


def _list_tests(tests: str) -> list[Path]:
    """The tests of a folder, and what all of them share: the cheat codes."""
    return sorted({FOLDER / "test" / "Vm.sol", *(FOLDER / tests).glob("*.sol")})


def run_forge(folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run forge in a project that `prepare_project` made; `settings` (FOUNDRY_...) go before those of foundry.toml."""
    return run_tool([*find_command("forge"), *arguments], folder, limit_s=_RUN_S_MAX, settings=settings)


def run_tests(root: Path) -> int:
    """Unit tests, fuzzing and invariants; prints what forge says and returns its exit status."""
    done = run_forge(prepare_project(root / BUILD / "forge"), "test")
    print(done.stdout, flush=True)
    return done.returncode


def find_gaps(root: Path) -> list[str]:
    """Lines and branches of the contracts that no unit test runs. Random runs do not count: what they reach is luck.

    Raises: ContractBuildError: the tests failed, so nothing was measured.
    """
    folder = prepare_project(root / BUILD / "coverage")
    report = folder / "lcov.info"
    report.unlink(missing_ok=True)
    which = ("--no-match-contract", "Invariants$|HandlerTest")
    done = run_forge(folder, "coverage", *which, "--report", "lcov", "--report-file", report.name)
    if done.returncode or not report.exists():
        raise ContractBuildError(f"forge measured no coverage: {done.stdout.strip()[-800:]}")
    return read_gaps(report.read_text(encoding="utf-8"))


def read_gaps(report: str) -> list[str]:
    """What an LCOV report says was not run in our contracts, as sentences.

    Raises: ContractBuildError: the report says nothing about them.
    """
    gaps, source, ours = list[str](), "", set[str]()
    for line in report.splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            source = value
        elif source.startswith("src/"):
            fields = value.split(",")
            ours.add(source)
            if kind == "DA" and fields[1] == "0":
                gaps.append(f"{source}:{fields[0]} is not run")
            elif kind == "BRDA" and fields[3] in ("0", "-"):
                gaps.append(f"{source}:{fields[0]}: branch {fields[2]} of {fields[1]} is not taken")
    if not ours:
        raise ContractBuildError("the coverage report says nothing about the contracts")
    return gaps
