"""The arguments of `learnae lab`, and what they start. Light, because the parser is built for every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final

from learnae.cli import INTERRUPTED, loading


def add_lab(commands: Any, add: Any) -> None:
    """The arguments of `learnae lab`."""
    lab = commands.add_parser("lab", help="Play attacks against the reward rules.")
    labs = lab.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    add("list", "List the attacks and the rules.", labs, "lab list")
    run = add("run", "Play one attack and print every measure.", labs, "lab run")
    run.add_argument("attack", help="its name (`learnae lab list`), 'adaptive', or the path of a .py file that defines one")
    run.add_argument("--share", default="0.1", metavar="PART", help="part of the members that attack (default 0.1)")
    run.add_argument("--seeds", type=int, default=10, metavar="N", help="how many seeds (default 10)")
    table = add("table", "Play every attack against every rule.", labs, "lab table")
    table.add_argument("--attack", action="append", metavar="NAME", help="only this attack; repeatable")
    table.add_argument("--shares", default="0.1,0.3", metavar="PARTS", help="parts of the members that attack (default 0.1,0.3)")
    table.add_argument("--seeds", type=int, default=40, metavar="N", help="seeds of the attacks on the ledger (default 40)")
    about = "seeds of those that real peers play (default 8)"
    table.add_argument("--protocol-seeds", type=int, default=8, metavar="N", help=about)
    table.add_argument("--out", default="", metavar="DIR", help="also write table.json, table.csv, table.html and heat maps (SVG) there")
    for command in (run, table):
        command.add_argument("--rule", action="append", metavar="NAME", help="only this rule, or a .py file that defines one; repeatable")
        command.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first seed (default 0)")
        command.add_argument("--peers", type=int, metavar="N", help="members (default 100; 20 for attacks that real peers play)")
        command.add_argument("--cycles", type=int, metavar="N", help="work cycles (default 50; 20 for attacks that real peers play)")
        command.add_argument("--audits", type=float, default=0.1, metavar="PART", help="part of the receipts that is audited (default 0.1)")
        command.add_argument("--processes", type=int, metavar="N", help="processes on this machine (default: all cores)")
        command.add_argument("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler of your own, as tcp://HOST:8786")
        command.add_argument("--json", action="store_true", help="print JSON")


def _run(name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        with loading():
            from learnae.cli import lab

        try:
            return lab.RUNS[name](options)
        except KeyboardInterrupt:
            print("interrupted; the same command gives the same table when it is run again", file=sys.stderr)
            return INTERRUPTED

    return run


LAB_RUNS: Final = {name: _run(name) for name in ("lab list", "lab run", "lab table")}
