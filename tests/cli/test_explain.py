"""Errors as the user reads them, also when they come out of tasks that ran side by side."""

from __future__ import annotations

import errno

import pytest

from learnae.cli.commands import _explain_group
from learnae.errors import DiskFullError, FolderInUseError, LearnaeError, MachineError, MissingExtraError, UsageError

FULL = DiskFullError("the journal", 10, "disk is full")


@pytest.mark.parametrize(
    ("errors", "status", "lines"),
    [
        ([FULL], 1, [str(FULL)]),
        ([FULL, ExceptionGroup("", [FULL])], 1, [str(FULL)]),
        ([FULL, FolderInUseError("me")], 1, [str(FULL), str(FolderInUseError("me"))]),
        ([UsageError("--share is 2")], 2, ["--share is 2"]),
        ([LearnaeError("two\nlines   and more")], 1, ["two lines and more"]),
        ([OSError(errno.ENOSPC, "No space left on device", "me/a")], 1, ["this machine says: no space left on device (me/a)"]),
        ([ModuleNotFoundError("no", name="libp2p")], 1, ["the Python package 'libp2p' is not installed"]),
    ],
)
def test_group__is_told_in_its_sentences(
    errors: list[Exception], status: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every sentence once, each on a line of its own."""
    assert _explain_group(ExceptionGroup("tasks", errors)) == status
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(lines)
    assert all(line.startswith(f"learnae: {expected}") for line, expected in zip(told, lines, strict=True))


def test_group__with_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        _explain_group(ExceptionGroup("tasks", [FULL, ZeroDivisionError()]))
    assert len(raised.value.exceptions) == 2


def test_group__with_a_module_of_our_own_missing_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        _explain_group(ExceptionGroup("tasks", [ModuleNotFoundError("no", name="learnae.gone")]))


def test_group__with_an_interruption_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        _explain_group(BaseExceptionGroup("tasks", [FULL, KeyboardInterrupt()]))


def test_sentences__say_what_was_got_and_what_to_do_next() -> None:
    told = str(MachineError(OSError(errno.EACCES, "Permission denied", "/etc/node")))
    assert told == "this machine says: permission denied (/etc/node); nothing was lost, so put that right and start again"
    assert str(MissingExtraError("torch")).endswith("install learnae[demo] to have everything")
