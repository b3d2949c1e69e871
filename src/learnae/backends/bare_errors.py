"""Errors that leave nurseries as they are and not in groups, so that whoever called can name them in an `except`."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class BareError:
    """Keeps the error of a block within nurseries until they are closed.

    `with kept: ...` inside, `kept.raise_it()` behind them. What their tasks raise still comes in a group, and cancellation passes.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self._error = error
        return self._error is not None

    def raise_it(self) -> None:
        error, self._error = self._error, None  # which would keep its frames, and they this
        if error is not None:
            raise error


def find_first(group: BaseExceptionGroup[E]) -> E:
    """The first error in a group, however deep."""
    error = group.exceptions[0]
    return find_first(error) if isinstance(error, BaseExceptionGroup) else error
