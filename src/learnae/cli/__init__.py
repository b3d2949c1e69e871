"""The command `learnae`: reads arguments, picks backends, turns errors into one sentence and an exit status."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

INTERRUPTED = 130
"""Exit status after Ctrl+C or SIGTERM, as shells have it: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted.

    SIGTERM counts as Ctrl+C from the first moment on, and either of them ends with a sentence, also while libraries are loading.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if is_main else None
    try:
        from learnae.cli.main import run_command

        return run_command(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print("interrupted; everything needed to go on is on disk", file=sys.stderr)
        return INTERRUPTED
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


__all__ = ["INTERRUPTED", "main"]
