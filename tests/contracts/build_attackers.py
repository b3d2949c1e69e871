"""Builds the hostile contracts of the tests: `python -m tests.contracts.build_attackers`."""

from __future__ import annotations

from pathlib import Path

from learnae.contracts.build import compile_sources, prepare_compiler

HERE = Path(__file__).parent
ATTACKERS = {"Member": "Attackers.sol", "Raider": "Raider.sol"}


def build_attackers(folder: Path) -> dict[str, str]:
    """File name -> JSON text."""
    prepare_compiler(folder)
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted((HERE / "sol").glob("*.sol"))}
    built = compile_sources(sources, ATTACKERS, folder)
    return {f"{name}.json": text for name, text in built.items()}


if __name__ == "__main__":
    for name, text in build_attackers(Path.cwd() / "build" / "contracts").items():
        (HERE / "artefacts" / name).write_text(text, encoding="utf-8")
