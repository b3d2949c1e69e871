"""Builds the hostile contracts of the tests: `python -m tests.contracts.build_attackers`."""

from __future__ import annotations

from pathlib import Path

from learnae.contracts.build import compile_sources, prepare_compiler

HERE = Path(__file__).parent
ATTACKERS = ("Member",)


def build_attackers(folder: Path) -> dict[str, str]:
    """File name -> JSON text."""
    prepare_compiler(folder)
    source = (HERE / "sol" / "Attackers.sol").read_text(encoding="utf-8")
    built = compile_sources({"Attackers.sol": source}, dict.fromkeys(ATTACKERS, "Attackers.sol"), folder)
    return {f"{name}.json": text for name, text in built.items()}


if __name__ == "__main__":
    for name, text in build_attackers(Path.cwd() / "build" / "contracts").items():
        (HERE / "artefacts" / name).write_text(text, encoding="utf-8")
