"""The commands of `learnae dao` by their names; what they need is imported only when one of them runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

from learnae.cli import loading

_NAMES: Final = (
    "deploy", "status", "join", "leave", "claim", "vote", "release", "withdraw", "propose", "proposals", "execute", "close", "tip",
    "budget",
)  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.dao.commands import run_dao

    return run_dao(options)


DAO_RUNS: dict[str, Callable[[argparse.Namespace], int]] = {f"dao {name}": _run for name in _NAMES}
