"""What the calls of a session cost in gas, as measured: for telling a member beforehand what it will spend.

A call can be estimated only in its stage. These figures are what the embedded chain used in a session of few members, rounded up;
a test measures them again. docs/contracts.md has the figures for many members.
"""

from __future__ import annotations

from typing import Final

MEASURED_GAS: Final = {
    "session": 5_750_000,
    "proof of identity": 232_000,
    "join": 56_000,
    "claim": 78_000,
    "ballot": 83_000,
    "tally": 84_000,
    "withdrawal": 67_000,
    "tip": 59_000,
    "proposal": 360_000,
    "vote on a proposal": 81_000,
    "execution of a proposal": 86_000,
}
"""Gas of one transaction, the first of its kind in a session, which is the dearest."""

MEMBER_CALLS: Final = ("proof of identity", "join", "claim", "ballot", "tally", "withdrawal")
"""What a member may have to send in a session at most; others may tally, and send its claim, its ballot and its money."""
