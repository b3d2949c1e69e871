"""The command `learnae`: reads arguments, picks backends, turns errors into one sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from learnae.imports import loading_modules

INTERRUPTED: Final = 130
"""Exit status after Ctrl+C or SIGTERM, as shells have it: 128 + SIGINT."""
INTERRUPTED_TEXT: Final = "interrupted; everything needed to go on is on disk"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted.

    SIGTERM counts as Ctrl+C from the first moment on, and either of them ends with a sentence.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if is_main else None
    try:
        with loading():
            from learnae.cli.commands import run_command
        return run_command(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print(INTERRUPTED_TEXT, file=sys.stderr)
        return INTERRUPTED
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def run_program() -> None:
    """What a shell starts: `main`, then the end of the process.

    After an interruption the process ends without the interpreter's clean-up of its objects: everything is closed by then, and that
    clean-up takes a third of a second of processor time in a node, which six nodes on two cores feel.
    """
    status = main()
    if status == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def loading() -> Iterator[None]:
    """While libraries load, a signal ends the program at once: nothing is open yet, and inside of an import an exception can get lost."""
    if threading.current_thread() is not threading.main_thread():
        with loading_modules():
            yield
        return
    before = [signal.signal(number, _leave) for number in _SIGNALS]
    try:
        with loading_modules():
            yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, INTERRUPTED_TEXT.encode() + b"\n")
    os._exit(INTERRUPTED)


__all__ = ["INTERRUPTED", "INTERRUPTED_TEXT", "loading", "main", "run_program"]
