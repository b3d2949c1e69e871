"""By how many issuers a vertex was witnessed, and between which times: what the Tangle says about a reading besides the reading.

Who names a vertex as a parent, directly or through others, had it. So the set of issuers behind a vertex grows with time, and the
earliest of their vertices says by when it was there. No weights and no walks: they would protect a token that is not here.
Pure. Source: paper 2.2 (a new transaction confirms earlier ones); docs/sensors.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.tangle.vertex import Vertex

WINDOW_MAX: Final = 8192  # Newest vertices that are counted; older ones have their witnesses.
WALK_MAX: Final = 2048  # Vertices newly witnessed by one vertex: an issuer that was away for long.


@dataclass(slots=True)
class Witnessed:
    """Who had a vertex: its other issuers, and the times of the first and the newest of their vertices."""

    issuer: PeerId
    time_ms: int
    parents: tuple[Cid, ...]
    by: dict[PeerId, int] = field(default_factory=dict)  # issuer -> time of its first vertex behind this one

    @property
    def count(self) -> int:
        return len(self.by)

    @property
    def since_ms(self) -> int | None:
        """By when at least one other issuer had it."""
        return min(self.by.values(), default=None)


class WitnessCounter:
    """Counts witnesses over the newest vertices of a lane."""

    def __init__(self, *, window_max: int = WINDOW_MAX) -> None:
        self._window_max = window_max
        self._vertices: dict[Cid, Witnessed] = {}

    @property
    def vertices(self) -> Mapping[Cid, Witnessed]:
        return self._vertices

    def add(self, vertex: Vertex) -> None:
        """Take in a vertex that entered the lane: its issuer witnesses all that is behind it."""
        self._vertices[vertex.cid] = Witnessed(vertex.issuer, vertex.time_ms, vertex.parents)
        if len(self._vertices) > self._window_max:
            del self._vertices[next(iter(self._vertices))]
        behind = list(vertex.parents)
        for _ in range(WALK_MAX):
            if not behind:
                return
            found = self._vertices.get(behind.pop())
            if found is None or vertex.issuer in found.by:
                continue
            if found.issuer != vertex.issuer:
                found.by[vertex.issuer] = vertex.time_ms
                behind += found.parents
