"""A vertex codec that does each piece of work once for all peers of one process.

Decoding and verifying are pure functions of the bytes, so sharing their results changes nothing but the time they take.
It remembers without bound, for one simulated run.
"""

from __future__ import annotations

from learnae.ids import Cid
from learnae.protocol.messages import Message
from learnae.protocol.validation import ControlCodec
from learnae.tangle.verdict import Ruling
from learnae.tangle.vertex import Vertex


class SharedCodec(ControlCodec):
    """Decodes each distinct vertex once; a decoded vertex is immutable and shared by all peers."""

    def __init__(self) -> None:
        super().__init__()
        self._decoded: dict[bytes, Vertex | Ruling] = {}
        self._verified: dict[Cid, bool] = {}
        self._parsed: dict[Cid, Message | None] = {}

    def decode(self, encoded: bytes) -> Vertex | Ruling:
        known = self._decoded.get(encoded)
        if known is None:
            known = self._decoded[encoded] = super().decode(encoded)
        return known

    def decode_judged(self, encoded: bytes) -> Vertex:
        vertex = self.decode(encoded)
        assert isinstance(vertex, Vertex), "only vertices were kept"
        return vertex

    def verify(self, vertex: Vertex) -> bool:
        known = self._verified.get(vertex.cid)
        if known is None:
            known = self._verified[vertex.cid] = super().verify(vertex)
        return known

    def parse(self, vertex: Vertex) -> Message | None:
        if vertex.cid not in self._parsed:
            self._parsed[vertex.cid] = super().parse(vertex)
        return self._parsed[vertex.cid]
