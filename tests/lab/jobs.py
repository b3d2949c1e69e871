"""A job for tests, in a module that is quick to load: every process that is started anew loads it."""

from __future__ import annotations

from dataclasses import dataclass

from learnae.errors import UsageError


@dataclass(frozen=True)
class Halving:
    """A job that fails for 0."""

    number: int

    @property
    def command(self) -> str:
        return f"halve {self.number}"

    def run(self) -> float:
        if self.number < 0:
            raise UsageError("less than nothing")
        return 1 / self.number
