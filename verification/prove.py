"""halmos: proofs that hold for all inputs of the widths that they name, not for some that were tried."""

from __future__ import annotations

import re
from pathlib import Path

from verification.forge import BUILD, prepare_project
from verification.tools import find_prover, run_tool

_RUN_S_MAX = 1200.0
_LOOPS_MAX = "14"  # A counter has 12 planes, 13 after an addition.
_RESULT = re.compile(r"\[(PASS|FAIL|TIMEOUT|ERROR)\]\S* (\w+)\(")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run_proofs(root: Path) -> dict[str, bool]:
    """Prove everything in `verification/proofs`.

    Returns: proof -> whether it holds. A proof that halmos could not finish does not hold.
    Raises: ContractBuildError: halmos is missing or could not run.
    """
    folder = prepare_project(root / BUILD / "proofs", tests="proofs")
    command = [*find_prover("halmos"), "--contract", "BitCountersProof", "--loop", _LOOPS_MAX, "--no-status"]
    output = _COLOUR.sub("", run_tool(command, folder, limit_s=_RUN_S_MAX).stdout)
    print(output[output.find("Running ") :], flush=True)
    found = {name: result == "PASS" for result, name in _RESULT.findall(output)}
    # A loop that was not followed to its end proves less than it says.
    return {name: holds and "not been" not in output for name, holds in found.items()}


def list_proofs() -> list[str]:
    """The names of all proofs, as their source has them."""
    path = Path(__file__).parent / "proofs" / "BitCounters.t.sol"
    return re.findall(r"function (check_\w+)\(", path.read_text(encoding="utf-8"))
