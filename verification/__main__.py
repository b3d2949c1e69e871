"""`python -m verification COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from learnae.errors import ContractBuildError
from verification.findings import find_mistakes, read_answers
from verification.forge import find_gaps, run_tests
from verification.mutants import read_mutants, try_mutants
from verification.prove import list_proofs, run_proofs
from verification.tools import install_nodes, install_provers

ROOT = Path(__file__).parent.parent


def install(parts: Sequence[str] = ()) -> int:
    """install the pinned tools: nodes (forge and the Ethereum nodes of the tests), provers (halmos and slither), or both"""
    known = {"nodes": install_nodes, "provers": install_provers}
    if unknown := [part for part in parts if part not in known]:
        print(f"there is nothing named {unknown[0]!r} to install; choose from: {', '.join(known)}", file=sys.stderr)
        return 2
    for part in parts or known:
        print(f"{part}: {'installed' if known[part]() else 'there already'}")
    return 0


def forge() -> int:
    """unit tests, fuzzing and invariants of the contracts"""
    return run_tests(ROOT)


def coverage() -> int:
    """every line and branch of the contracts is run by the unit tests"""
    gaps = find_gaps(ROOT)
    print("\n".join(gaps) or "every line and branch of the contracts is run")
    return 1 if gaps else 0


def halmos() -> int:
    """proofs of the bit-sliced counters"""
    found = run_proofs(ROOT)
    open_proofs = [name for name in list_proofs() if not found.get(name)]
    print(f"not proved: {', '.join(open_proofs)}" if open_proofs else f"{len(found)} proofs hold")
    return 1 if open_proofs else 0


def slither() -> int:
    """known mistakes: each finding is answered in docs/verification.md"""
    found = find_mistakes(ROOT)
    answered = read_answers((ROOT / "docs" / "verification.md").read_text(encoding="utf-8"))
    for detector, where in sorted(found - answered):
        print(f"slither finds {detector} in {where}: correct it, or answer it in docs/verification.md")
    for detector, where in sorted(answered - found):
        print(f"docs/verification.md answers {detector} in {where}, which slither does not find: take the row out")
    if found == answered:
        print(f"{len(found)} findings, all answered in docs/verification.md")
    return 0 if found == answered else 1


def mutants(names: Sequence[str] = ()) -> int:
    """faults put in on purpose: is each one caught? Minutes; NAME ... picks some"""
    chosen = [mutant for mutant in read_mutants() if not names or mutant.name in names]
    if not chosen:
        print(f"there is no fault named {names[0]!r}; verification/mutants.json has their names", file=sys.stderr)
        return 2
    survived = 0
    for verdict in try_mutants(ROOT, chosen):
        survived += verdict.caught_by is None
        print(f"{verdict.caught_by or 'SURVIVED':75}  {verdict.took_s:5.1f} s  {verdict.mutant.name}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} faults are caught")
    return 1 if survived else 0


def verify() -> int:
    """forge, coverage, halmos and slither, one after the other"""
    results = {check.__name__: check() for check in (forge, coverage, halmos, slither)}
    failed = [name for name, result in results.items() if result]
    print(f"verification failed: {', '.join(failed)}" if failed else "the contracts are verified")
    return 1 if failed else 0


COMMANDS: dict[str, Callable[..., int]] = {
    command.__name__: command for command in (install, verify, forge, coverage, halmos, slither, mutants)
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m verification", description="Check the contracts of learnae.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.__doc__)
        if name == "mutants":
            subparser.add_argument("names", nargs="*", metavar="NAME")
        elif name == "install":
            subparser.add_argument("names", nargs="*", metavar="PART")
    chosen = parser.parse_args(arguments)
    try:
        return COMMANDS[chosen.command](*([chosen.names] if "names" in chosen else []))
    except ContractBuildError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
