"""What is shipped can be rebuilt (dao.md, threats.md: supply chain): the same sources give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learnae.contracts import load_artefact
from learnae.contracts.build import ARTEFACTS, CONTRACTS, build_artefacts, compile_sources
from learnae.errors import ContractBuildError
from tests.contracts.build_attackers import HERE, build_attackers

BUILD = Path(__file__).parents[2] / "build" / "contracts"


def test_artefacts__are_rebuilt_byte_for_byte() -> None:
    built = build_artefacts(BUILD)
    assert sorted(built) == sorted(f"{name}.json" for name in CONTRACTS)
    for name, text in built.items():
        assert (ARTEFACTS / name).read_text(encoding="utf-8") == text, f"{name} differs: run python -m learnae.contracts.build"


def test_attackers_of_the_tests__are_rebuilt_byte_for_byte() -> None:
    for name, text in build_attackers(BUILD).items():
        kept = (HERE / "artefacts" / name).read_text(encoding="utf-8")
        assert kept == text, f"{name} differs: run python -m tests.contracts.build_attackers"


def test_compiler__says_what_is_wrong() -> None:
    with pytest.raises(ContractBuildError, match=r"the contracts cannot be built: the compiler says: .*Expected"):
        compile_sources({"A.sol": "contract {"}, {"A": "A.sol"}, BUILD)


@pytest.mark.parametrize("name", CONTRACTS)
def test_code__is_recognised_whatever_its_immutables_and_nothing_else_is(name: str) -> None:
    artefact = load_artefact(name)
    code = bytearray(artefact.runtime)
    for position, offsets in enumerate(artefact.immutables.values()):
        for offset in offsets:
            code[offset : offset + 32] = (position + 1).to_bytes(32, "big")
    found = artefact.read_immutables(bytes(code))
    assert found == {field: (position + 1).to_bytes(32, "big") for position, field in enumerate(artefact.immutables)}
    assert artefact.read_immutables(bytes(code) + b"\x00") is None
    for position in (0, len(code) // 2, len(code) - 1):
        other = bytearray(code)
        other[position] ^= 1
        changed = any(offset <= position < offset + 32 for offsets in artefact.immutables.values() for offset in offsets)
        assert changed or artefact.read_immutables(bytes(other)) is None
    several = [offsets for offsets in artefact.immutables.values() if len(offsets) > 1]
    for offsets in several:
        torn = bytearray(code)
        torn[offsets[0]] ^= 1
        assert artefact.read_immutables(bytes(torn)) is None, "copies of one immutable that differ"


@pytest.mark.parametrize("name", CONTRACTS)
def test_artefact__fits_the_chain_and_names_no_place(name: str) -> None:
    text = (ARTEFACTS / f"{name}.json").read_text(encoding="utf-8")
    fields = json.loads(text)
    assert len(fields["runtime"]) // 2 - 1 <= 24576  # EIP-170
    assert fields["settings"]["metadata"]["bytecodeHash"] == "none" and fields["compiler"].startswith("0.8.37+")
    assert "://" not in text
    assert all("/" not in source or source.startswith("@openzeppelin/contracts/") for source in fields["sources_sha256"])
    lock = (ARTEFACTS.parent / "solidity" / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in lock and '"integrity"' in lock
