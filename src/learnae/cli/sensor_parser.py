"""The arguments of the commands about sensors, and of the old MAM format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.ArgumentParser]


def add_sensor_commands(commands: Any, add: Add) -> None:
    """Add `learnae mam`."""
    _add_mam(commands, add)


def _add_mam(commands: Any, add: Add) -> None:
    mam = commands.add_parser("mam", help="Read and write messages of IOTA's old MAM v0 (insecure; for compatibility).")
    mams = mam.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    about = "Make MAM v0 messages: JSON lines with seed, message (trytes) or text, mode, ... in; payload, root, next_root, address out."
    add("create", about, mams, "mam create")
    about = "Read MAM v0 messages: JSON lines with payload, root, side_key in; message, text, next_root, security (or error) out."
    add("parse", about, mams, "mam parse")
