"""Everything that can go wrong for a caller or a machine, as one family of exceptions.

A `LearnaeError` is the caller's or the machine's fault and its text is shown to the user as it is: it says what was
got, what was expected and what to do next. Bytes from the network never raise one: they get a verdict (`Verdict`).
Our own bugs are `AssertionError`s.
"""

from __future__ import annotations


class LearnaeError(Exception):
    """Base of all errors that a user may read; `exit_code` is what the command ends with."""

    exit_code = 1


# --- session rules and tickets ----------------------------------------------------------------------------------


class RulesError(LearnaeError):
    """A rules document, or a value that somebody wants to put into one, is not acceptable."""

    def __init__(self, why: str) -> None:
        super().__init__(f"these session rules cannot be used: {why}")


class TicketError(LearnaeError):
    """A ticket cannot be read."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this is not a valid ticket: {why}; ask the one who invited you to send it again")


class ForeignRulesError(LearnaeError):
    """The contract of a ticket holds other rules than the ticket."""

    def __init__(self, what: str, ticket: object, contract: object) -> None:
        super().__init__(
            f"the ticket's rules do not match its contract: {what} is {ticket} in the ticket and {contract} in the contract; "
            "do not deposit, and ask the one who invited you for the right ticket"
        )
