"""A vertex codec that does each piece of work once for all peers of one process.

Decoding and verifying are pure functions of the bytes, so sharing their results changes nothing but the time they take.
It remembers without bound, for one simulated run.
"""

from __future__ import annotations

from learnae.ids import Cid
from learnae.tangle.verdict import Ruling
from learnae.tangle.vertex import Vertex, VertexCodec


class SharedCodec:
    """Decodes each distinct vertex once; a decoded vertex is immutable and shared by all peers."""

    def __init__(self) -> None:
        self._codec = VertexCodec()
        self._decoded: dict[bytes, Vertex | Ruling] = {}
        self._verified: dict[Cid, bool] = {}

    def decode(self, encoded: bytes) -> Vertex | Ruling:
        known = self._decoded.get(encoded)
        if known is None:
            known = self._decoded[encoded] = self._codec.decode(encoded)
        return known

    def verify(self, vertex: Vertex) -> bool:
        known = self._verified.get(vertex.cid)
        if known is None:
            known = self._verified[vertex.cid] = self._codec.verify(vertex)
        return known
