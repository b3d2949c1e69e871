"""What we think of a peer's behaviour on the network: one number, kept while the peer is away, fading with time.

Good: being the first to bring a message, staying in the mesh. Bad: messages that were rejected, rules that were broken, wrong
blocks. Good deeds weigh at most as much as three bad ones, so that nobody saves up for an attack. Below `GRAYLIST` nothing of
a peer is read and its connection is closed until its score has faded. Own measurement only: nobody can report another.

Pure: the clock is passed in. Source: gossipsub v1.1, peer scoring (P1, P2, P4, P5, P7); left out are P3, which punishes the
slow, and P6, which punishes peers behind one address, as all are in a laboratory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from learnae.ids import PeerId

SCORES_MAX: Final = 4096  # Peers remembered, most recently judged last: four times the largest session's strangers.
GOSSIP_THRESHOLD: Final = -10.0  # Below: no IHAVE to or from this peer.
GRAYLIST_THRESHOLD: Final = -100.0
FIRST_WEIGHT: Final = 0.5
FIRST_MAX: Final = 40.0
MESH_WEIGHT: Final = 0.01  # per second
MESH_MAX_S: Final = 1000.0
REJECTED_WEIGHT: Final = -10.0
BROKEN_WEIGHT: Final = -5.0  # a rule of the protocol: grafts too early, asks too often, frames too large
BLAMED_WEIGHT: Final = -40.0  # wrong or unwanted blocks: three are enough
_FADE_S: Final = 300.0  # A bad deed counts a third after five minutes; an hour later it is forgiven.
_FORGIVEN: Final = -0.5  # So that a trace of a bad deed does not keep a peer out of the mesh for good.
_FIRST_FADE_S: Final = 60.0


@dataclass(slots=True)
class _Score:
    first: float = 0.0
    bad: float = 0.0
    mesh_since_s: float | None = None
    at_s: float = 0.0


class Scores:
    """Scores by peer."""

    def __init__(self) -> None:
        self._scores: OrderedDict[PeerId, _Score] = OrderedDict()

    def compute(self, peer: PeerId, now_s: float) -> float:
        score = self._scores.get(peer)
        if score is None:
            return 0.0
        self._fade(score, now_s)
        mesh_s = 0.0 if score.mesh_since_s is None else min(now_s - score.mesh_since_s, MESH_MAX_S)
        return FIRST_WEIGHT * min(score.first, FIRST_MAX) + MESH_WEIGHT * mesh_s + score.bad

    def is_graylisted(self, peer: PeerId, now_s: float) -> bool:
        return self.compute(peer, now_s) < GRAYLIST_THRESHOLD

    def record_first(self, peer: PeerId, now_s: float) -> None:
        score = self._open(peer, now_s)
        score.first = min(score.first + 1.0, FIRST_MAX)

    def record_mesh(self, peer: PeerId, *, joined: bool, now_s: float) -> None:
        score = self._open(peer, now_s)
        if not joined:
            score.mesh_since_s = None
        elif score.mesh_since_s is None:
            score.mesh_since_s = now_s

    def record_bad(self, peer: PeerId, weight: float, now_s: float) -> None:
        """`weight` is one of the negative weights above."""
        self._open(peer, now_s).bad += weight

    def _open(self, peer: PeerId, now_s: float) -> _Score:
        score = self._scores.setdefault(peer, _Score(at_s=now_s))
        self._scores.move_to_end(peer)
        self._fade(score, now_s)
        while len(self._scores) > SCORES_MAX:
            self._scores.popitem(last=False)
        return score

    def _fade(self, score: _Score, now_s: float) -> None:
        passed_s = max(now_s - score.at_s, 0.0)
        score.first *= 0.37 ** (passed_s / _FIRST_FADE_S)
        score.bad *= 0.37 ** (passed_s / _FADE_S)
        if score.bad > _FORGIVEN:
            score.bad = 0.0
        score.at_s = now_s
