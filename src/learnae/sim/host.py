"""One simulated machine: a peer, its journal, its files, its learner. A crash loses all but the journal and the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.events import Timer
from learnae.protocol.peer import Peer
from learnae.sim.learner import SimulatedLearner

UNPINNED_FILES_MAX: Final = 64  # The block store's quota, in files: what is not pinned goes, the oldest first.


@dataclass(slots=True)
class Host:
    """A machine. `incarnation` counts its starts: answers to an earlier one are lost with it."""

    index: int
    name: PeerId
    learner: SimulatedLearner
    make_peer: Callable[[Random], Peer]
    neighbours: list[int] = field(default_factory=list)
    peer: Peer | None = None
    incarnation: int = 0
    vertices: list[tuple[Cid, bytes]] = field(default_factory=list)  # its journal, in order
    records: dict[str, bytes] = field(default_factory=dict)
    files: dict[Cid, bytes] = field(default_factory=dict)
    pins: set[Cid] = field(default_factory=set)
    opened: dict[Cid, set[PeerId]] = field(default_factory=dict)  # files that are not public, and who may have them
    timers: dict[Timer, float] = field(default_factory=dict)
    finished: bool = False
    fault: str = ""

    def store(self, cid: Cid, content: bytes) -> None:
        """Keep a file; the oldest unpinned ones give way."""
        self.files[cid] = content
        self._make_room(cid)

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer than there is room."""
        self.pins.discard(cid)
        self._make_room(None)

    def _make_room(self, newest: Cid | None) -> None:
        while len(self.files) > len(self.pins) + UNPINNED_FILES_MAX:
            oldest = next((known for known in self.files if known not in self.pins and known != newest), None)
            if oldest is None:
                return
            del self.files[oldest]

    def gives(self, cid: Cid, peer: PeerId) -> bool:
        """Whether this machine has a file and gives it to that peer."""
        return cid in self.files and (cid not in self.opened or peer in self.opened[cid])

    def crash(self) -> None:
        """Stop at once: memory, timers and answers under way are gone."""
        self.peer = None
        self.timers = {}
        self.incarnation += 1
