"""What a finished session leaves for its report: plain values, measured by the caller, nothing computed from the network here.

Accuracies are shares of the held-out test set, 0 to 1. Times are seconds since the session began. Money is in wei, help in credits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

Role = Literal["honest", "silent", "restarted"]
Curve = tuple[tuple[float, float], ...]
"""(seconds, accuracy) in the order of time."""


class Adoption(NamedTuple):
    """`adopter` became better by averaging with a model of `helper`; the gain is in percentage points."""

    at_s: float
    helper: str
    adopter: str
    gain_points: float


class StageMark(NamedTuple):
    """A stage of the session and when it began."""

    name: str
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReport:
    """One peer: what it reached alone and in the swarm, what it gave and took, what it paid in and got out."""

    name: str
    peer_id: str  # libp2p text, 12D3Koo...
    role: Role  # silent never reports the help it got; restarted was killed on the way and came back
    accuracy_alone: float
    accuracy: float
    curve: Curve
    alone_curve: Curve
    help_given: int  # credits that all ledgers agree others owe to it
    help_received: int  # credits it owes by its own row; 0 for a silent peer, whatever it took
    deposit_wei: int
    payout_wei: int
    tips_balance_wei: int  # what its deposit would have become under direct tips (Eq. 1)
    transactions: int = 0  # that it sent itself, by its wallet's count on the chain
    fees_wei: int = 0  # what it paid for gas
    adoptions: int = 0
    restarted_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """One session. `ledger[i][j]` are the credits that peer i owes to peer j, in the order of `peers`."""

    session: str
    seconds: float
    seed: int
    accuracy_pooled: float
    pooled_curve: Curve
    fund_wei: int
    paid_wei: int
    ledgers_equal: bool
    peers: tuple[PeerReport, ...]
    adoptions: tuple[Adoption, ...] = ()
    ledger: tuple[tuple[int, ...], ...] = ()
    stages: tuple[StageMark, ...] = ()
    ticket_digest: str = ""
    version: str = ""
    machine: str = ""

    def __post_init__(self) -> None:
        assert self.peers, "a report needs a peer"
        names = {peer.name for peer in self.peers}
        assert len(names) == len(self.peers), "names are unique"
        size = len(self.peers)
        assert not self.ledger or (len(self.ledger) == size and all(len(row) == size for row in self.ledger)), "the ledger is square"
        assert all({adoption.helper, adoption.adopter} <= names for adoption in self.adoptions), "adoptions name peers"

    @property
    def median_accuracy(self) -> float:
        """Median over the peers that report honestly; a restarted peer is one of them."""
        return median(peer.accuracy for peer in self._judged())

    @property
    def median_accuracy_alone(self) -> float:
        return median(peer.accuracy_alone for peer in self._judged())

    def _judged(self) -> Sequence[PeerReport]:
        return [peer for peer in self.peers if peer.role != "silent"] or self.peers
