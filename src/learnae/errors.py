"""Everything that can go wrong for a caller or a machine, as one family of exceptions.

A `LearnaeError` is the caller's or the machine's fault and its text is shown to the user as it is: it says what was
got, what was expected and what to do next. Bytes from the network never raise one: they get a verdict (`Verdict`).
Our own bugs are `AssertionError`s.
"""

from __future__ import annotations


class LearnaeError(Exception):
    """Base of all errors that a user may read; `exit_code` is what the command ends with."""

    exit_code = 1
