"""The seeded faults still fit the contracts: docs/verification.md says that all of them are caught."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from learnae.contracts.build import SOLIDITY
from learnae.errors import ContractBuildError
from verification.mutants import Mutant, read_mutants

PAGE = Path(__file__).parents[2] / "docs" / "verification.md"


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.name)
def test_mutant__applies_to_the_contract_as_it_is(mutant: Mutant) -> None:
    """Its place is found exactly once, and the source is another one afterwards."""
    assert mutant.apply() != (SOLIDITY / mutant.source).read_text(encoding="utf-8")


def test_mutants__are_many_and_different() -> None:
    mutants = read_mutants()
    assert len(mutants) >= 25
    assert len({mutant.name for mutant in mutants}) == len({(m.source, m.old, m.new) for m in mutants}) == len(mutants)


def test_mutants__are_listed_on_the_page() -> None:
    """docs/verification.md names each fault, and no other."""
    section = PAGE.read_text(encoding="utf-8").split("## Seeded faults")[1].split("\n## ")[0]
    assert re.findall(r"^\| `\w+` \| (.+) \| `\w+` \|$", section, re.MULTILINE) == [mutant.name for mutant in read_mutants()]


def test_mutant__without_a_place_is_refused() -> None:
    with pytest.raises(
        ContractBuildError, match=r"mutant 'lost': 'no such text' is in Tips.sol 0 times instead of once; correct verification/"
    ):
        Mutant("lost", "Tips.sol", "no such text", "").apply()
    with pytest.raises(ContractBuildError, match="instead of once"):
        Mutant("many", "Tips.sol", "amountWei", "").apply()
