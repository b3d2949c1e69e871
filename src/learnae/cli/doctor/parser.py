"""The arguments of `learnae doctor`, and what they start. Light, because the parser is built for every command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from learnae.cli import loading


def add_doctor(add: Callable[..., Any]) -> None:
    """Add `learnae doctor`."""
    command = add("doctor", "Say in plain words what works here and towards the others, what does not, and what to do.")
    command.add_argument("folder", nargs="?", default="", help="folder of a node; without it only the machine is looked at")
    command.add_argument("--json", action="store_true", help="print the plain values")


def _run(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.doctor.run import run_doctor

    return run_doctor(options)


DOCTOR_RUNS: Final = {"doctor": _run}
