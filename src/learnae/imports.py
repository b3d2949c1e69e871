"""Loading many modules at once, as a program does when it starts."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_modules() -> Iterator[None]:
    """Load modules without the garbage collector looking through all of them again and again, a fifth of a node's start.

    What is loaded stays for good, so the collector never looks at it later either.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
