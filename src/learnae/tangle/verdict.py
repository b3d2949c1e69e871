"""What a judge of network bytes may say: the three outcomes of gossipsub's extended validators."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """Outcome of judging one message from a peer."""

    ACCEPT = "accept"  # deliver and forward
    IGNORE = "ignore"  # neither; the sender is not to blame
    REJECT = "reject"  # neither; the sender loses score


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict and, unless it is ACCEPT, the reason in words."""

    verdict: Verdict
    why: str = ""


ACCEPTED = Ruling(Verdict.ACCEPT)


def ignore(why: str) -> Ruling:
    return Ruling(Verdict.IGNORE, why)


def reject(why: str) -> Ruling:
    return Ruling(Verdict.REJECT, why)
