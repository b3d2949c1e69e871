"""What tests of nodes share: nodes over backends in memory or on disk, and reading back what they left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from learnae.backends.disk_journal import DiskJournal
from learnae.ids import Credits, PeerId
from learnae.ports import Journal
from learnae.protocol.lane import ControlLane
from learnae.protocol.rules import SessionRules
from learnae.protocol.validation import ControlCodec
from learnae.tangle.vertex import Vertex


def restore_lane(vertices: Iterable[bytes], rules: SessionRules) -> ControlLane:
    """The control lane that a journal's vertices give."""
    lane = ControlLane(rules=rules, me=PeerId(bytes(32)), sign=lambda message: b"", rng=Random(0), codec=ControlCodec())
    lane.restore(vertices)
    return lane


def fold(journal: Journal, rules: SessionRules) -> Mapping[PeerId, Mapping[PeerId, Credits]]:
    """The ledger of a journal, folded anew: whom each peer owes how much."""
    return {issuer: row for issuer, row in restore_lane(journal.vertices(), rules).ledger.rows().items() if row}


def fold_ledger(folder: Path, rules: SessionRules) -> Mapping[PeerId, Mapping[PeerId, Credits]]:
    journal = DiskJournal(folder)
    try:
        return fold(journal, rules)
    finally:
        journal.close()


def select_vertices(encoded: Iterable[bytes], *, issuer: PeerId) -> list[Vertex]:
    """The vertices of one issuer, in the order of the journal."""
    codec = ControlCodec()
    found = [codec.decode(content) for content in encoded]
    return [vertex for vertex in found if isinstance(vertex, Vertex) and vertex.issuer == issuer]


def read_vertices(folder: Path, *, issuer: PeerId) -> list[Vertex]:
    journal = DiskJournal(folder)
    try:
        return select_vertices(journal.vertices(), issuer=issuer)
    finally:
        journal.close()
