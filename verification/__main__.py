"""`python -m verification COMMAND`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from learnae.errors import ContractBuildError
from verification.forge import BUILD, prepare_project, run_forge
from verification.tools import install_nodes


def install() -> int:
    """install forge and the Ethereum nodes of the tests (npm, pinned)"""
    print("installed forge, anvil, hardhat and ganache" if install_nodes() else "forge, anvil, hardhat and ganache are there")
    return 0


def forge() -> int:
    """unit tests, fuzzing and invariants of the contracts"""
    done = run_forge(prepare_project(Path.cwd() / BUILD / "forge"), "test")
    print(done.stdout)
    return done.returncode


COMMANDS = {"install": install, "forge": forge}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m verification", description="Check the contracts of learnae.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__)
    chosen = parser.parse_args(arguments)
    try:
        return COMMANDS[chosen.command]()
    except ContractBuildError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
