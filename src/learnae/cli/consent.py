"""Talking with the user of a command: asking before money is sent, telling how it gets on."""

from __future__ import annotations

import sys

from learnae.errors import UsageError


def agree(question: str, *, otherwise: str) -> bool:
    """Whether the user says yes. `otherwise`: what to give instead of an answer. Raises: UsageError: there is nobody to ask."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        raise UsageError(f"there is no terminal to ask for your consent; give {otherwise}") from None


def tell(sentence: str) -> None:
    """Progress and trouble: not part of what a program reads from standard output."""
    print(f"... {sentence}", file=sys.stderr, flush=True)
