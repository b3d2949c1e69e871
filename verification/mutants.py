"""Faults that are put into a copy of the contracts, one at a time: the tests must catch each of them.

A fault that no test notices is a rule that no test guards. The quick tests are tried first, then the random runs of the
invariants. `python -m verification mutants` says who caught what.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from learnae.contracts.build import SOLIDITY
from learnae.errors import ContractBuildError
from verification.forge import BUILD, prepare_project, run_forge

FAULTS = Path(__file__).parent / "mutants.json"
_RANDOM_RUNS = "Invariants$|HandlerTest"
# Compiled without the optimizer in a third of the time; a fault that needs more than 60 random runs is one that needs a test.
_SETTINGS = {"FOUNDRY_OPTIMIZER": "false", "FOUNDRY_INVARIANT_RUNS": "60"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: `old`, which stands in the source exactly once, becomes `new`."""

    name: str
    source: str
    old: str
    new: str

    def apply(self) -> str:
        """The source with the fault. Raises: ContractBuildError: the source has changed, so the fault needs a new place."""
        text = (SOLIDITY / self.source).read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ContractBuildError(
                f"mutant {self.name!r}: {self.old!r} is in {self.source} {found} times instead of once; correct verification/mutants.json"
            )
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    caught_by: str | None  # the first test that failed; None: it survived
    took_s: float


def read_mutants() -> list[Mutant]:
    return [Mutant(**fields) for fields in json.loads(FAULTS.read_text(encoding="utf-8"))]


def try_mutants(root: Path, mutants: list[Mutant]) -> Iterator[Verdict]:
    """Test each fault in turn. Raises: ContractBuildError: one does not compile, so that it shows nothing."""
    for mutant in mutants:
        began_s = time.monotonic()
        folder = prepare_project(root / BUILD / "mutants", sources={mutant.source: mutant.apply()})
        caught_by = _find_failure(folder, mutant, "--no-match-contract", _RANDOM_RUNS)
        if caught_by is None:
            caught_by = _find_failure(folder, mutant, "--match-contract", "^SessionInvariants$")
        yield Verdict(mutant, caught_by, time.monotonic() - began_s)


def _find_failure(folder: Path, mutant: Mutant, *which: str) -> str | None:
    done = run_forge(folder, "test", "--json", "--fail-fast", *which, settings=_SETTINGS)
    start = done.stdout.find('{"')
    if start < 0:
        raise ContractBuildError(f"mutant {mutant.name!r} could not be tested: {done.stdout.strip()[-800:]}")
    suites = json.loads(done.stdout[start : done.stdout.rindex("}") + 1])
    failed = [name for suite in suites.values() for name, test in suite["test_results"].items() if test["status"] == "Failure"]
    return min(failed).split("(")[0] if failed else None
