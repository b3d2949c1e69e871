"""The command `learnae`: reads arguments, picks backends, turns errors into one sentence and an exit status."""

from learnae.cli.main import main

__all__ = ["main"]
