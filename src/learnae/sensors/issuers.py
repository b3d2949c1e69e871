"""Who may issue in the sensors lane: whom members admitted, how many that may be, and who found no place (4.2).

An issuer takes a place when its head enters, and already while its head waits for the beginning of its log: else a member could mint
issuers that cost nothing until all of them enter at once. A member that mints them fills its own places, not those of the others.
Pure. Source: docs/sensors.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Final

from learnae.ids import PeerId
from learnae.sensors.messages import Admission

ISSUERS_MAX: Final = 4096  # Admitted by members; more than a session of sensors has. With all members' logs they fit into one sync.
ISSUERS_PER_MEMBER_MAX: Final = 256  # A gateway with a thousand channels is one; sixteen members together can fill a session.
REFUSED_MAX: Final = 4096  # Remembered, the newest, so that sync does not bring their vertices again and again.
REFUSED_MS: Final = 600_000  # Then they are heard again: there may be a place now.


class Issuers:
    """The places of one lane. `admissions`: by issuer, as its newest head says."""

    def __init__(self) -> None:
        self.admissions: dict[PeerId, Admission] = {}
        self._members: dict[PeerId, PeerId] = {}  # issuer -> member among whose places it has one
        self._taken: Counter[PeerId] = Counter()  # places of each member
        self._waiting: dict[PeerId, None] = {}  # issuers with a place whose head waits for the beginning of their log
        self._refused: dict[PeerId, int] = {}  # issuer -> when; the oldest first
        self._now_ms = 0

    def __len__(self) -> int:
        return len(self._members)

    @property
    def refused(self) -> list[PeerId]:
        """Issuers that found no place lately."""
        return list(self._refused)

    def has_place(self, issuer: PeerId) -> bool:
        """Whether this issuer is admitted, or waits with a place."""
        return issuer in self._members

    def has_room(self, issuer: PeerId, member: PeerId) -> bool:
        """Whether the member may admit this issuer, or goes on to."""
        held_by = self._members.get(issuer)
        if held_by == member:
            return True
        return self._taken[member] < ISSUERS_PER_MEMBER_MAX and (held_by is not None or len(self._members) < ISSUERS_MAX)

    def refuse(self, issuer: PeerId) -> None:
        """There was no room."""
        self._refused.pop(issuer, None)
        self._refused[issuer] = self._now_ms
        if len(self._refused) > REFUSED_MAX:
            del self._refused[next(iter(self._refused))]

    def wait(self, issuer: PeerId, member: PeerId) -> None:
        """The issuer's head waits for the beginning of its log: it takes a place."""
        if issuer not in self._members:
            self._take(issuer, member)
            self._waiting[issuer] = None

    def admit(self, issuer: PeerId, admission: Admission) -> None:
        """The issuer's head entered."""
        self._take(issuer, admission.member)
        self.admissions[issuer] = admission
        self._waiting.pop(issuer, None)
        self._refused.pop(issuer, None)

    def turn(self, waiting: Container[PeerId], now_ms: int) -> None:
        """Time passes: who waits no more gives its place back, and whoever was refused long ago is heard again."""
        self._now_ms = now_ms
        for issuer in [issuer for issuer in self._waiting if issuer not in waiting]:
            del self._waiting[issuer]
            self._give_back(issuer)
        while self._refused and not 0 <= now_ms - next(iter(self._refused.values())) < REFUSED_MS:
            del self._refused[next(iter(self._refused))]

    def _take(self, issuer: PeerId, member: PeerId) -> None:
        self._give_back(issuer)
        self._members[issuer] = member
        self._taken[member] += 1

    def _give_back(self, issuer: PeerId) -> None:
        member = self._members.pop(issuer, None)
        if member is not None:
            self._taken[member] -= 1
            if not self._taken[member]:
                del self._taken[member]
