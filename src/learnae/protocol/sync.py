"""The direct messages of the sync protocol `/learnae/sync/1`: what a peer has, what it lacks, pages of vertices.

Source: docs/protocol.md, "Sync".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import PEER_ID_BYTES, Cid, PeerId, is_cid
from learnae.protocol.messages import COUNT_MAX
from learnae.tangle import cbor
from learnae.tangle.dag import OrphanPool

SENSORS_LANE: Final = 2  # The first value of a sync message of the sensors lane; the control lane's is 1.
SYNC_HAVE_MAX: Final = 8192  # Twice the most members that a session can have.
SYNC_CLOSED: Final = COUNT_MAX  # In a have-vector, instead of a number: send nothing of this issuer, there is no room for it here.
SYNC_WANT_MAX: Final = 256
SYNC_VERTICES_MAX: Final = 256
SYNC_BYTES_MAX: Final = 1 << 20
SYNC_ITEMS_MAX: Final = 6 + SYNC_WANT_MAX + SYNC_VERTICES_MAX  # The message, its five parts, and what is in two of them.
SYNC_EVERY_S: Final = 5.0  # Gossip brings nearly everything at once; sync finds what it lost within seconds.
SYNC_SOON_S: Final = 0.3  # When an orphan waited so long, something was lost; twice as long each time that asking did not help.
PARTNERS: Final = 3  # Asked for what an orphan waits for: one of them will have it.
ANSWERS_PER_S: Final = 10  # Pages of half a megabyte for one neighbour: a newcomer gets 2,500 vertices a second.
ANSWERS_BURST: Final = 40.0
STRANGERS: Final = PeerId(b"")  # The name of one bucket for all who are no members: identities cost nothing, an answer some milliseconds.
NEIGHBOURS_MAX: Final = 1024  # Buckets remembered, over reconnects; eight times the connections of a node.
_PAIR: Final = struct.Struct(f">{PEER_ID_BYTES}sQ")  # issuer and sequence
_PAIR_BYTES: Final = _PAIR.size


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMessage:
    """One page of the sync protocol `/learnae/sync/1`; every part may be empty.

    `have` (issuer -> highest sequence without a gap) asks the other to send what is lacking; `answer` says that this
    have-vector was itself asked for, so that two peers do not answer one another for ever.
    """

    have: Mapping[PeerId, int] | None = None
    answer: bool = False
    want: tuple[Cid, ...] = ()  # single vertices: parents that an orphan waits for
    vertices: tuple[bytes, ...] = field(default=())

    def encode(self) -> bytes:
        have = None if self.have is None else _encode_have(self.have)
        return cbor.encode([1, have, self.answer, list(self.want), list(self.vertices)])


def _encode_have(have: Mapping[PeerId, int]) -> bytes:
    """A have-vector: issuer (32 bytes) and sequence (8 bytes), sorted by issuer, in one string, because every sync carries one."""
    return b"".join([_PAIR.pack(issuer, have[issuer]) for issuer in sorted(have)])


class SyncClock:
    """When to ask others for what is lacking: every few seconds, and soon when something waits for what gossip did not bring."""

    def __init__(self) -> None:
        self._at_s = 0.0  # the next turn
        self._asked_at_s = 0.0
        self._soon_s = SYNC_SOON_S
        self._awaited: Cid | None = None  # the orphan that waited longest when a turn was planned for its sake

    def start(self, now_s: float) -> float:
        """The time of the first turn."""
        self._at_s = now_s + SYNC_EVERY_S
        return self._at_s

    def note(self, orphans: OrphanPool, now_s: float) -> float | None:
        """Something was heard. The time of the next turn if it must come earlier than planned."""
        if not orphans:
            self._soon_s = SYNC_SOON_S
            return None
        if now_s < self._at_s <= now_s + self._soon_s:
            return None
        self._awaited = orphans.oldest
        self._at_s = now_s + self._soon_s
        return self._at_s

    def turn(self, orphans: OrphanPool, now_s: float) -> tuple[int, float]:
        """How many others to ask now, and the time of the next turn."""
        regular_at_s = self._asked_at_s + SYNC_EVERY_S
        is_stuck = self._awaited is not None and self._awaited in orphans
        if not is_stuck and now_s < regular_at_s:  # Gossip brought what was missing then; something else may be missing now.
            self._awaited, self._soon_s = orphans.oldest, SYNC_SOON_S
            self._at_s = min(regular_at_s, now_s + SYNC_SOON_S) if orphans else regular_at_s
            return 0, self._at_s
        if is_stuck:
            self._soon_s = min(SYNC_EVERY_S, 2 * self._soon_s)  # Somebody may name what does not exist: ask less and less.
        self._asked_at_s, self._at_s = now_s, now_s + SYNC_EVERY_S
        return PARTNERS if is_stuck else 1, self._at_s


class AnswerBudget:
    """A bucket per neighbour: a question of four kilobytes may bring half a megabyte, so questions are counted."""

    def __init__(self, *, burst: float = ANSWERS_BURST) -> None:
        self._burst = burst
        self._left: dict[PeerId, tuple[float, float]] = {}  # by neighbour: answers left in its bucket, and when that was

    def take(self, sender: PeerId, now_s: float) -> bool:
        """Whether this question may be answered; it counts."""
        left, since_s = self._left.pop(sender, (self._burst, now_s))
        left = min(self._burst, left + ANSWERS_PER_S * max(0.0, now_s - since_s))
        self._left[sender] = (max(0.0, left - 1), now_s)
        if len(self._left) > NEIGHBOURS_MAX:
            del self._left[next(iter(self._left))]
        return left >= 1


def is_sensor_sync(content: bytes) -> bool:
    """Whether a direct message is about the sensors lane."""
    return content[1:2] == bytes((SENSORS_LANE,))


def decode_sync(content: bytes) -> SyncMessage | None:
    """Read a direct message; None if it is not one or passes a limit."""
    if len(content) > SYNC_BYTES_MAX:
        return None
    try:
        values = cbor.decode(content, items_max=SYNC_ITEMS_MAX)
    except ValueError:
        return None
    match values:
        case [1, have, bool() as answer, list() as want, list() as vertices]:
            pairs = _parse_have(have)
            if have is not None and pairs is None:
                return None
            if len(want) > SYNC_WANT_MAX or not all(map(is_cid, want)):
                return None
            if len(vertices) > SYNC_VERTICES_MAX or not all(isinstance(v, bytes) for v in vertices):
                return None
            return SyncMessage(have=pairs, answer=answer, want=tuple(want), vertices=tuple(vertices))
    return None


def _parse_have(have: object) -> dict[PeerId, int] | None:
    if type(have) is not bytes or len(have) % _PAIR_BYTES or len(have) > SYNC_HAVE_MAX * _PAIR_BYTES:
        return None
    pairs: dict[PeerId, int] = dict(_PAIR.iter_unpack(have))
    return pairs if len(pairs) * _PAIR_BYTES == len(have) and max(pairs.values(), default=0) <= COUNT_MAX else None
