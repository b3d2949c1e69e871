"""The vertices of one lane that a process knows: numbered in the order in which they came in, the newest ones in memory.

What a node rarely needs stays in its journal: of an old vertex only its number is kept here, eight bytes in the log of its issuer. The
journal is read through an `Archive`, which the store is given as it is given a codec; without one everything stays in memory.
Several graphs may share one store (the simulator's peers do): what each of them holds is its own (`tangle.dag`), the decoded
vertices are common. Numbers follow the order of entering, so a vertex has a higher one than all that it names.

Pure. Reads only what the core itself gave to the journal, so it is as deterministic as memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable
from typing import Any, Final, Protocol

from learnae.ids import CODEC_DAG_CBOR, Cid, PeerId, compute_cid
from learnae.tangle.vertex import Vertex, VertexCodec

RECENT_BYTES_MAX: Final = 256 * 1024  # Encoded; decoded about five times as much. Some seven hundred vertices: minutes of ten peers.


class Archive(Protocol):
    """The journal as the core reads it: the accepted vertices by number, from 0 in the order in which they were appended, and by CID."""

    @property
    def vertices_count(self) -> int: ...

    def read_vertex(self, number: int) -> bytes: ...

    def find_vertex(self, cid: Cid) -> tuple[int, bytes] | None: ...


class Entry:
    """A vertex that came in, its message, and where it stands; shared by all graphs of the process, never changed.

    `issuer` is the issuer's place in the store; `needs` is what must be known before it beside its issuer's previous vertex, as
    (issuer, sequence); `saved` is what a journal keeps of it.
    """

    __slots__ = ("issuer", "message", "needs", "number", "saved", "sequence", "time_ms", "vertex")

    def __init__(self, vertex: Vertex, message: Any, number: int, issuer: int, needs: tuple[tuple[int, int], ...] = ()) -> None:
        self.vertex = vertex
        self.message = message
        self.number = number
        self.issuer = issuer
        self.sequence = vertex.sequence
        self.time_ms = vertex.time_ms
        self.needs = needs
        self.saved = (vertex.cid, vertex.encoded)

    def hangs_on(self, places: Container[int]) -> bool:
        """Whether one of these issuers wrote it or what it needs."""
        return self.issuer in places or any(place in places for place, _ in self.needs)


class IssuerLog:
    """The vertices of one issuer in order, by number. Graphs that know the same ones share it, each up to its own length."""

    __slots__ = ("first_ms", "issuer", "numbers", "origin", "parted")

    def __init__(self, issuer: PeerId, first_ms: int, numbers: array[int], origin: IssuerLog | None = None) -> None:
        self.issuer = issuer
        self.first_ms = first_ms  # the time of its first vertex
        self.numbers = numbers
        self.origin = origin  # the log that it was one with for `parted` vertices, if its issuer forked
        self.parted = len(numbers) - 1


class VertexStore:
    """All vertices that came in, by number and by CID."""

    def __init__(self, codec: VertexCodec | None = None, *, archive: Archive | None = None) -> None:
        self.codec = codec or VertexCodec()
        self.issuers: dict[PeerId, int] = {}
        self.contested: set[int] = set()  # issuers that signed two vertices with one number, as far as any graph or proof tells
        self.count = 0
        self._archive = archive
        self._logs: list[list[IssuerLog]] = []  # by issuer: one, unless graphs follow different branches of a fork
        self._recent: dict[int, Entry] = {}
        self._number_of: dict[Cid, int] = {}  # of the recent ones
        self._recent_bytes = 0
        self._oldest = 0

    def find(self, cid: Cid) -> Entry | None:
        """A vertex by its name."""
        number = self._number_of.get(cid)
        if number is not None:
            return self._recent[number]
        if self._archive is None:
            return None
        found = self._archive.find_vertex(cid)
        return None if found is None else self._decode(*found)

    def at(self, number: int) -> Entry:
        """A vertex by its number."""
        known = self._recent.get(number)
        if known is not None:
            return known
        assert self._archive is not None, "without an archive everything stays in memory"
        return self._decode(number, self._archive.read_vertex(number))

    def cid_at(self, number: int) -> Cid:
        """A vertex's name by its number."""
        known = self._recent.get(number)
        if known is not None:
            return known.vertex.cid
        assert self._archive is not None, "without an archive everything stays in memory"
        return compute_cid(self._archive.read_vertex(number), CODEC_DAG_CBOR)

    def enter(self, vertex: Vertex, message: Any = None, also: Iterable[Cid] = ()) -> Entry:
        """Number a vertex; the same entry for every graph that it enters. Its parents, and what its body names (`also`), came before."""
        number = self._number_of.get(vertex.cid)
        if number is not None:
            return self._recent[number]
        needs = []
        for cid in (*vertex.parents[1:], *also):
            parent = self.find(cid)
            if parent is not None:  # The genesis stands nowhere.
                needs.append((parent.issuer, parent.sequence))
        entry = Entry(vertex, message, self.count, self.place(vertex.issuer), tuple(needs))
        self.count += 1
        self._recent[entry.number] = entry
        self._number_of[vertex.cid] = entry.number
        self._recent_bytes += len(vertex.encoded)
        self._forget_old()
        return entry

    def place(self, issuer: PeerId) -> int:
        """The issuer's place; a new one at the end if it has none yet."""
        place = self.issuers.get(issuer)
        if place is None:
            place = self.issuers[issuer] = len(self.issuers)
            self._logs.append([])
        return place

    def only_log(self, place: int) -> IssuerLog:
        """The log of an issuer that did not fork."""
        (log,) = self._logs[place]
        return log

    def extend(self, log: IssuerLog | None, length: int, entry: Entry) -> IssuerLog:
        """The log in which `entry` follows the first `length` vertices of `log`: this one, or another branch's."""
        if log is not None and len(log.numbers) == length:
            log.numbers.append(entry.number)
            return log
        for other in self._logs[entry.issuer]:
            if len(other.numbers) > length and other.numbers[length] == entry.number:
                return other
        prefix = array("Q") if log is None else log.numbers[:length]
        prefix.append(entry.number)
        first_ms = log.first_ms if log is not None and length else entry.vertex.time_ms
        branch = IssuerLog(entry.vertex.issuer, first_ms, prefix, log)
        if self._logs[entry.issuer]:
            self.contested.add(entry.issuer)
        self._logs[entry.issuer].append(branch)
        return branch

    def _decode(self, number: int, encoded: bytes) -> Entry:
        vertex = self.codec.decode_judged(encoded)
        return Entry(vertex, self.codec.parse(vertex), number, self.place(vertex.issuer))

    def _forget_old(self) -> None:
        """Leave what is on disk already to the archive, the oldest first."""
        if self._archive is None:
            return
        while self._recent_bytes > RECENT_BYTES_MAX and self._oldest < self._archive.vertices_count:
            entry = self._recent.pop(self._oldest)
            del self._number_of[entry.vertex.cid]
            self._recent_bytes -= len(entry.vertex.encoded)
            self._oldest += 1
