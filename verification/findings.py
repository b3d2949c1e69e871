"""slither: known mistakes, looked for in the contracts. Each finding is gone or answered in docs/verification.md.

The answers are the rows of a table there, `| detector | where | answer |`; one without a finding is stale and must go.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from learnae.errors import ContractBuildError
from verification.forge import BUILD, prepare_project
from verification.tools import find_prover, run_tool

_RUN_S_MAX = 600.0
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)
Finding = tuple[str, str]  # detector, and where: Contract.function


def find_mistakes(root: Path) -> set[Finding]:
    """What slither says about our contracts; what it says about OpenZeppelin's is theirs.

    Raises: ContractBuildError: slither is missing or did not answer.
    """
    folder = prepare_project(root / BUILD / "slither", tests="proofs")
    answer = folder / "slither.json"
    answer.unlink(missing_ok=True)
    command = [*find_prover("slither"), ".", "--filter-paths", "openzeppelin|test/", "--json", str(answer)]
    done = run_tool(command, folder, limit_s=_RUN_S_MAX)
    if not answer.exists():
        raise ContractBuildError(f"slither gave no answer: {done.stdout.strip()[-500:]}")
    return read_findings(answer.read_text(encoding="utf-8"))


def read_findings(text: str) -> set[Finding]:
    """The findings in slither's JSON answer."""
    answer = json.loads(text)
    if not answer["success"]:
        raise ContractBuildError(f"slither failed: {answer['error']}")
    return {(found["check"], _name(found["elements"][0])) for found in answer["results"].get("detectors", ())}


def _name(element: dict[str, object]) -> str:
    """`Contract.function`, or the contract alone."""
    specific = element.get("type_specific_fields")
    parent = specific.get("parent") if isinstance(specific, dict) else None
    names = [str(element["name"])]
    while isinstance(parent, dict) and parent.get("type") in ("function", "contract", "struct"):
        names.append(str(parent["name"]))
        fields = parent.get("type_specific_fields")
        parent = fields.get("parent") if isinstance(fields, dict) else None
    return ".".join(reversed(names))


def read_answers(page: str) -> set[Finding]:
    """The findings that docs/verification.md answers."""
    return {(detector, where) for detector, where, _ in _ROW.findall(page)}
