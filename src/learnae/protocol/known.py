"""What of the ledger a claim must hold: what every member that follows the session knew when claims were due.

Voters keep it from then on, also over a restart: what came later makes no honest claim wrong.
Pure. Source: paper 6; docs/protocol.md; deviation D10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from learnae.ids import PeerId
from learnae.tangle import cbor


@dataclass(frozen=True, slots=True)
class Known:
    """What of the ledger was known at some time: up to which number every row counted, who had forked, who had accused."""

    counted: Mapping[PeerId, int] = field(default_factory=dict)
    forked: frozenset[PeerId] = frozenset()
    accused: Mapping[PeerId, int] = field(default_factory=dict)  # auditor -> number of its newest accusation

    def encode(self) -> bytes:
        """At most three entries a member: half a megabyte for the largest session."""
        counted, accused = ([[peer, number] for peer, number in sorted(one.items())] for one in (self.counted, self.accused))
        return cbor.encode([counted, sorted(self.forked), accused])

    @classmethod
    def decode(cls, record: bytes) -> Known:
        """Read back what this node saved."""
        counted, forked, accused = cbor.decode(record)
        return cls(_read_numbers(counted), frozenset(map(PeerId, forked)), _read_numbers(accused))


def _read_numbers(pairs: list[tuple[bytes, int]]) -> dict[PeerId, int]:
    return {PeerId(peer): number for peer, number in pairs}
