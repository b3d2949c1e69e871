"""Where the tools of the verification are, and how they are installed.

Everything comes from npm with pinned versions (package-lock.json) into `verification/node_modules`: forge, and the
Ethereum nodes anvil, hardhat and ganache, which tests and benchmarks use too. halmos and slither come from PyPI, pinned
by requirements.txt, into an environment of their own. forge asks a Solidity compiler for its
answers through `solc.mjs`, so nothing is ever downloaded by forge itself.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from learnae.contracts.build import find_node
from learnae.errors import ContractBuildError

FOLDER = Path(__file__).parent
_STAMP = FOLDER / "node_modules" / ".installed.sha256"
_PROVERS = FOLDER / ".venv"
_PROGRAMS = {
    "anvil": "@foundry-rs/anvil-linux-amd64/bin/anvil",
    "forge": "@foundry-rs/forge-linux-amd64/bin/forge",
    "hardhat": "hardhat/internal/cli/bootstrap.js",
    "ganache": "ganache/dist/node/cli.js",
}
_INSTALL_S_MAX = 600.0


def install_nodes() -> bool:
    """Install the npm packages that package-lock.json names; False: they were there already.

    Raises: ContractBuildError: no Node, or npm failed.
    """
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    if _STAMP.exists() and _STAMP.read_text(encoding="utf-8") == digest:
        return False
    npm = [*find_node()[1], "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(npm, cwd=FOLDER, env=make_environment(), timeout=_INSTALL_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContractBuildError(f"npm could not install verification/package-lock.json: {error}") from error
    if done.returncode:
        raise ContractBuildError(f"npm ended with {done.returncode} while it installed verification/package-lock.json")
    _STAMP.write_text(digest, encoding="utf-8")
    return True


def find_command(program: str) -> list[str]:
    """How to start anvil, forge, hardhat or ganache: the first words of its command line.

    Raises: ContractBuildError: it is not installed.
    """
    path = FOLDER / "node_modules" / _PROGRAMS[program]
    if not path.exists():
        raise ContractBuildError(
            f"{program} is not in {path.parent}; run `python -m verification install` (anvil and forge are there for Linux on x86-64 only)"
        )
    return [str(path)] if path.suffix != ".js" else [find_node()[0], str(path)]


def install_provers() -> bool:
    """Install halmos and slither into `verification/.venv`; False: they were there already.

    Raises: ContractBuildError: pip failed.
    """
    wanted = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    stamp = _PROVERS / "installed.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    python = _PROVERS / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--no-input", "--no-deps", "-q"]
    for command in ([sys.executable, "-m", "venv", str(_PROVERS)], [*pip, "-r", str(FOLDER / "requirements.txt")]):
        done = run_tool(command, FOLDER, limit_s=_INSTALL_S_MAX)
        if done.returncode:
            raise ContractBuildError(f"halmos and slither could not be installed into {_PROVERS}: {done.stdout.strip()[-500:]}")
    stamp.write_text(wanted, encoding="utf-8")
    return True


def find_prover(program: str) -> list[str]:
    """How to start halmos or slither. Raises: ContractBuildError: it is not installed."""
    path = _PROVERS / "bin" / program
    if not path.exists():
        raise ContractBuildError(f"{program} is not in {path.parent}; run `python -m verification install`")
    return [str(path)]


def make_environment() -> dict[str, str]:
    """The environment for these tools: `node` and this Python's programs are on the PATH, and nobody reports home."""
    folders = [str(Path(find_node()[0]).parent), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    forge = str(FOLDER / "node_modules" / _PROGRAMS["forge"])
    folders.insert(1, str(Path(forge).parent))  # halmos and slither start it by name.
    settings = {
        "FOUNDRY_SOLC": str(FOLDER / "solc.mjs"),
        "FOUNDRY_DISABLE_NIGHTLY_WARNING": "1",
        "HARDHAT_DISABLE_TELEMETRY_PROMPT": "true",
    }
    return {**os.environ, **settings, "PATH": os.pathsep.join(folders)}


def run_tool(
    command: Sequence[str], folder: Path, *, limit_s: float, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return what it printed, standard error included; `settings` are environment variables.

    Raises: ContractBuildError: it could not be started or took longer than `limit_s`.
    """
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**make_environment(), **(settings or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContractBuildError(f"{Path(command[0]).name} could not run to its end: {error}") from error
