"""Errors that leave nurseries as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from learnae.backends.bare_errors import BareError, find_first


@asynccontextmanager
async def _open() -> AsyncIterator[None]:
    kept = BareError()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        with kept:
            yield
        nursery.cancel_scope.cancel()
    kept.raise_it()


def test_bare_error__leaves_the_nursery_without_a_group() -> None:
    async def run() -> None:
        async with _open():
            raise ZeroDivisionError("as it is")

    with pytest.raises(ZeroDivisionError, match="as it is"):
        trio.run(run)


def test_bare_error__lets_cancellation_and_the_end_of_the_block_pass() -> None:
    async def run() -> list[str]:
        passed = []
        with trio.move_on_after(0):
            async with _open():
                await trio.sleep_forever()
            passed.append("a cancelled block goes on")
        async with _open():
            passed.append("in")
        passed.append("out")
        return passed

    assert trio.run(run) == ["in", "out"]


def test_find_first__is_the_innermost() -> None:
    inner, later = KeyError("first"), ValueError("later")
    assert find_first(ExceptionGroup("", [ExceptionGroup("", [inner]), later])) is inner
