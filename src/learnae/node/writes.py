"""What a handled event asks to be on disk before anything else is done about it."""

from __future__ import annotations

from collections.abc import Iterable

from learnae.ids import Cid
from learnae.protocol import events as ev

Vertices = list[tuple[Cid, bytes]]
Records = list[tuple[str, bytes | None]]


def collect_writes(effects: Iterable[object]) -> tuple[Vertices, Records]:
    """Vertices and records of these effects for the journal, in their order; other effects write nothing."""
    vertices: Vertices = []
    records: Records = []
    for effect in effects:
        match effect:
            case ev.PublishVertex(cid=cid, encoded=encoded):
                vertices.append((cid, encoded))
            case ev.SaveVertices(vertices=more):
                vertices.extend(more)
            case ev.SaveRecord(name=name, content=content):
                records.append((name, content))
    return vertices, records
