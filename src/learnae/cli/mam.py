"""`learnae mam create | parse`: JSON lines through the codec of the old format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from learnae.sensors.mam_lines import LINE_BYTES_MAX, WARNING, answer_create, answer_parse


def run_create(_options: argparse.Namespace) -> int:
    return _run(answer_create)


def run_parse(_options: argparse.Namespace) -> int:
    return _run(answer_parse)


def _run(answer: Callable[[bytes], dict[str, Any]]) -> int:
    """Answer each line of standard input. What cannot be done is an answer too, so that a pipe goes on."""
    print(WARNING, file=sys.stderr)
    while line := sys.stdin.buffer.readline(LINE_BYTES_MAX + 1):
        if not line.endswith(b"\n") and len(line) > LINE_BYTES_MAX:
            _skip_line()
        if not line.strip():
            continue
        print(json.dumps(answer(line)), flush=True)
    return 0


def _skip_line() -> None:
    """Leave out the rest of a line that is longer than any that is read."""
    while (part := sys.stdin.buffer.readline(LINE_BYTES_MAX)) and not part.endswith(b"\n"):
        pass
