"""The Tangle of one lane: which vertices are known, in what order, what is missing, who forked.

Grows only: honest peers that know the same vertices hold the same DAG whatever the order of arrival. A vertex enters
when all that it depends on is here; before that it waits in a bounded pool of orphans. Two vertices of one issuer with
one number are a fork: the issuer is frozen at the common prefix.

Pure. Signatures and bodies have been judged before `insert` (`protocol.admission`). Source: docs/protocol.md; paper 2.2.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.tangle.store import Entry, IssuerLog, VertexStore
from learnae.tangle.vertex import PARENTS_MAX, Statement, Vertex, compute_genesis

ORPHAN_BYTES_MAX: Final = 64 * 1024 * 1024  # In total; a partition of ten minutes at full rate fits.
ORPHAN_BYTES_PER_ISSUER_MAX: Final = 1024 * 1024  # One issuer cannot push out the others.
TIPS_AGE_MAX_MS: Final = 60_000  # Older tips need no approval to be found: sync knows every issuer's head.
TIPS_CHOSEN: Final = 3  # With the own previous vertex four parents: tips stay bounded with half of the issuers lazy.
BRANCH_VERTICES_MAX: Final = 4096  # Kept of a forked issuer's other branches; what it can say in a partition of ten minutes fits.


@dataclass(frozen=True, slots=True)
class Fork:
    """An issuer signed two different vertices with one number."""

    issuer: PeerId
    sequence: int
    first: Statement
    second: Statement


@dataclass(frozen=True, slots=True)
class Inserted:
    """What an insertion changed: the entry, if it is now in the DAG and was not before, and a new fork if one came to light."""

    entry: Entry | None = None
    fork: Fork | None = None


class TangleDag:
    """All known vertices of one lane. What they say is in the store, which graphs may share; which ones are known is here."""

    def __init__(self, net: bytes, store: VertexStore | None = None) -> None:
        self.net = net
        self.genesis = compute_genesis(net)
        self.store = store or VertexStore()
        self.logs: list[IssuerLog | None] = []  # by the issuer's place in the store
        self.lengths: list[int] = []  # how much of that log is known here
        self._branches: dict[int, set[int]] = {}  # by place: numbers of vertices beside the log of an issuer that forked
        self._tips: dict[Cid, Vertex] = {}
        self._forks: dict[PeerId, Fork] = {}
        self.proofs = 0  # how often a fork, or an earlier one, came to light
        self.count = 0  # of the vertices here
        self._orphans = OrphanPool()

    # --- reading --------------------------------------------------------------------------------------------

    def __contains__(self, cid: Cid) -> bool:
        return self.find(cid) is not None

    def __len__(self) -> int:
        return self.count

    def find(self, cid: Cid) -> Entry | None:
        """A known vertex with its message and number."""
        entry = self.store.find(cid)
        return entry if entry is not None and self._holds(entry) else None

    def get(self, cid: Cid) -> Vertex | None:
        entry = self.find(cid)
        return None if entry is None else entry.vertex

    def knows(self, vertex: Vertex) -> bool:
        """Whether this vertex is here. Cheaper than by its CID: what is beyond the end of its issuer's log is not."""
        place = self.store.issuers.get(vertex.issuer)
        if place is None or (vertex.sequence > self.length_at(place) and place not in self._branches):
            return False
        return vertex.cid in self

    def length(self, issuer: PeerId) -> int:
        """The issuer's highest sequence without a gap."""
        place = self.store.issuers.get(issuer)
        return 0 if place is None else self.length_at(place)

    def length_at(self, place: int) -> int:
        return self.lengths[place] if place < len(self.lengths) else 0

    def counted_length(self, issuer: PeerId) -> int:
        """How much of the issuer's log counts: what is before its fork, if it forked."""
        length, fork = self.length(issuer), self._forks.get(issuer)
        return length if fork is None else min(length, fork.sequence - 1)

    def log(self, issuer: PeerId) -> IssuerLog | None:
        """The issuer's log; only its first `length` vertices are known here."""
        place = self.store.issuers.get(issuer)
        return None if place is None or place >= len(self.logs) else self.logs[place]

    def number_at(self, issuer: PeerId, sequence: int) -> int | None:
        """The number of one vertex of the issuer's log."""
        log = self.log(issuer)
        return log.numbers[sequence - 1] if log is not None and 1 <= sequence <= self.length(issuer) else None

    def head(self, issuer: PeerId) -> Vertex | None:
        """The issuer's newest vertex without a gap before it."""
        return self._at(issuer, self.length(issuer))

    def first_ms(self, issuer: PeerId) -> int | None:
        """The time of the issuer's first vertex, unless it forked with it."""
        log, fork = self.log(issuer), self._forks.get(issuer)
        return None if log is None or not self.length(issuer) or (fork is not None and fork.sequence == 1) else log.first_ms

    def cid_at(self, issuer: PeerId, sequence: int) -> Cid | None:
        """The name of one vertex of the issuer's log."""
        number = self.number_at(issuer, sequence)
        return None if number is None else self.store.cid_at(number)

    def chain(self, issuer: PeerId) -> Iterator[Vertex]:
        """The issuer's vertices in order, cut at the common prefix if it forked."""
        log = self.log(issuer)
        numbers = log.numbers[: self.counted_length(issuer)] if log is not None else ()
        return (self.store.at(number).vertex for number in numbers)

    def fork(self, issuer: PeerId) -> Fork | None:
        return self._forks.get(issuer)

    @property
    def forks(self) -> Mapping[PeerId, Fork]:
        return self._forks

    @property
    def tips(self) -> dict[Cid, Vertex]:
        """Vertices that no other names as a parent yet; those that are too old to be chosen may be gone."""
        return self._tips

    @property
    def orphans(self) -> OrphanPool:
        return self._orphans

    def have_vector(self) -> dict[PeerId, int]:
        """Issuer -> highest sequence without a gap."""
        return {issuer: length for issuer, length in zip(self.store.issuers, self.lengths, strict=False) if length}

    def missing_of(self, vertex: Vertex, also: Iterable[Cid] = ()) -> list[Cid]:
        """What a vertex depends on that is not here: its parents and what its body names (`also`)."""
        return [cid for cid in (*vertex.parents, *also) if cid != self.genesis and cid not in self]

    def lacking(self, have: Mapping[PeerId, int], *, vertices_max: int) -> list[Vertex]:
        """What a peer with that have-vector lacks, parents first, the oldest `vertices_max` of it.

        Of an issuer that forked only the common prefix: who knows the fork ignores the rest, and it would fill every page.
        """
        runs: list[array[int]] = []
        forks = self._forks
        for issuer, log, length in zip(self.store.issuers, self.logs, self.lengths, strict=False):
            known = have.get(issuer, 0)
            if known < length and log is not None:
                end = length if issuer not in forks else self.counted_length(issuer)
                runs.append(log.numbers[known : min(end, known + vertices_max)])
        if sum(map(len, runs)) <= vertices_max:
            numbers: Iterable[int] = sorted(chain.from_iterable(runs))
        else:
            numbers = islice(heapq.merge(*runs), vertices_max)
        return [self.store.at(number).vertex for number in numbers]

    def lacks(self, have: Mapping[PeerId, int], members: Container[PeerId]) -> bool:
        """Whether a peer with that have-vector has more of some member's log."""
        places, lengths = self.store.issuers, self.lengths
        known = {issuer: lengths[place] for issuer, place in places.items() if place < len(lengths)}
        return any(issuer in members and sequence > known.get(issuer, 0) for issuer, sequence in have.items() - known.items())

    def ancestry(self, cid: Cid, *, vertices_max: int) -> Iterator[Entry]:
        """A vertex and those of its issuer before it, newest first: what a peer that asks for one of a branch lacks."""
        for _ in range(vertices_max):
            entry = self.find(cid)
            if entry is None:
                return
            yield entry
            cid = entry.vertex.parents[0]

    def is_branch(self, vertex: Vertex) -> bool:
        """Whether a vertex stands at or after the fork of its issuer: its log no longer counts there."""
        fork = self._forks.get(vertex.issuer)
        return fork is not None and vertex.sequence >= fork.sequence

    def choose_parents(self, issuer: PeerId, *, now_ms: int, rng: Random) -> tuple[Cid, ...]:
        """Own previous vertex (or the genesis), then up to three random recent tips of issuers that did not fork.

        None from the future: a vertex is later than its parents, so a stranger's fast clock would become ours.
        """
        head = self.head(issuer)
        old = [cid for cid, tip in self._tips.items() if now_ms - tip.time_ms > TIPS_AGE_MAX_MS]
        for cid in old:
            del self._tips[cid]
        recent = [
            cid for cid, tip in self._tips.items() if tip.time_ms <= now_ms and tip.issuer != issuer and tip.issuer not in self._forks
        ]
        chosen = recent if len(recent) <= TIPS_CHOSEN else rng.sample(recent, TIPS_CHOSEN)
        assert len(chosen) < PARENTS_MAX
        return (head.cid if head else self.genesis, *chosen)

    def _at(self, issuer: PeerId, sequence: int) -> Vertex | None:
        number = self.number_at(issuer, sequence)
        if number is None:
            return None
        vertex = self.store.at(number).vertex
        assert (vertex.issuer, vertex.sequence) == (issuer, sequence), "the archive holds the vertices in the order of their numbers"
        return vertex

    def _holds(self, entry: Entry) -> bool:
        """Whether an entry of the store is known here."""
        if entry.sequence <= self.length_at(entry.issuer):
            log = self.logs[entry.issuer]
            if log is not None and log.numbers[entry.sequence - 1] == entry.number:
                return True
        return entry.number in self._branches.get(entry.issuer, ())

    # --- growing --------------------------------------------------------------------------------------------

    def insert(self, vertex: Vertex, message: object = None, also: Iterable[Cid] = ()) -> Inserted:
        """Add a vertex all of whose dependencies are here, those that its body names (`also`) too. Idempotent."""
        if self.knows(vertex):
            return Inserted()
        length = self.length(vertex.issuer)
        if vertex.sequence <= length:
            return self._insert_branch(vertex, message, self._at(vertex.issuer, vertex.sequence))
        if vertex.issuer in self._forks:
            head = self._at(vertex.issuer, length)
            if vertex.parents[0] != (head.cid if head else self.genesis):
                return self._insert_branch(vertex, message, None)
        assert vertex.sequence == length + 1, "a vertex enters only after its predecessor"
        entry = self.store.enter(vertex, message, also)
        self.make_places()
        self.append(entry)
        return Inserted(entry)

    def append(self, entry: Entry) -> None:
        """Add an entry of the store that continues its issuer's log."""
        place, vertex = entry.issuer, entry.vertex
        log, length = self.logs[place], self.lengths[place]
        if log is None or len(log.numbers) == length or log.numbers[length] != entry.number:
            self.logs[place] = self.store.extend(log, length, entry)
        self.lengths[place] = length + 1
        self.count += 1
        tips = self._tips
        for parent in vertex.parents:
            if parent in tips:
                del tips[parent]
        tips[vertex.cid] = vertex

    def make_places(self) -> None:
        """A place here for every issuer of the store."""
        more = len(self.store.issuers) - len(self.lengths)
        self.lengths += [0] * more
        self.logs += [None] * more

    def prove_fork(self, fork: Fork) -> bool:
        """Record a fork whose statements were verified; False if one as early is known of this issuer."""
        known = self._forks.get(fork.issuer)
        if known is not None and known.sequence <= fork.sequence:
            return False
        self._forks[fork.issuer] = fork
        self.proofs += 1
        self.store.contested.add(self.store.place(fork.issuer))
        return True

    def _insert_branch(self, vertex: Vertex, message: object, rival: Vertex | None) -> Inserted:
        """Keep a vertex beside the issuer's log, up to a bound, and the proof of the earliest fork."""
        fork = None
        if rival is not None:
            fork = Fork(vertex.issuer, vertex.sequence, rival.compute_statement(), vertex.compute_statement())
            fork = fork if self.prove_fork(fork) else None
        branches = self._branches.setdefault(self.store.place(vertex.issuer), set())
        if len(branches) >= BRANCH_VERTICES_MAX:
            return Inserted(None, fork)
        entry = self.store.enter(vertex, message)
        branches.add(entry.number)
        self.count += 1
        return Inserted(entry, fork)


class OrphanPool:
    """Vertices that wait for others, bounded in total and per issuer; the oldest go first."""

    def __init__(self, *, bytes_max: int = ORPHAN_BYTES_MAX, bytes_per_issuer_max: int = ORPHAN_BYTES_PER_ISSUER_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes_per_issuer_max = bytes_per_issuer_max
        self._waiting: dict[Cid, tuple[Vertex, dict[Cid, None]]] = {}
        self._needed_by: dict[Cid, dict[Cid, None]] = {}
        self._issuer_bytes: dict[PeerId, int] = {}
        self.used_bytes = 0

    def __contains__(self, cid: Cid) -> bool:
        return cid in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def missing(self, *, cids_max: int) -> list[Cid]:
        """What the orphans wait for and is not itself waiting, oldest first, each issuer's orphans an equal share.

        Without shares one issuer that names parents which do not exist would fill every question.
        """
        asked: list[Cid] = []
        share = -(-cids_max // max(1, len(self._issuer_bytes)))
        left = dict.fromkeys(self._issuer_bytes, share)
        for cid, waiting in self._needed_by.items():
            issuer = self._waiting[next(iter(waiting))][0].issuer
            if left[issuer] and cid not in self._waiting:
                left[issuer] -= 1
                asked.append(cid)
        return asked[:cids_max]

    @property
    def oldest(self) -> Cid | None:
        """The one that waits longest."""
        return next(iter(self._waiting), None)

    @property
    def needed(self) -> Container[Cid]:
        """All that some vertex waits for."""
        return self._needed_by

    def is_needed(self, cid: Cid) -> bool:
        """Whether a waiting vertex depends on this one."""
        return cid in self._needed_by

    def add(self, vertex: Vertex, missing: Iterable[Cid]) -> bool:
        """Let a vertex wait; False if its issuer already fills its share of the pool."""
        size = len(vertex.encoded)
        if self._issuer_bytes.get(vertex.issuer, 0) + size > self._bytes_per_issuer_max:
            return False
        while self.used_bytes + size > self._bytes_max:
            self._drop(next(iter(self._waiting)))
        missing = dict.fromkeys(missing)  # Keeps the order: a set would make it depend on the hash seed.
        self._waiting[vertex.cid] = (vertex, missing)
        for cid in missing:
            self._needed_by.setdefault(cid, {})[vertex.cid] = None
        self._issuer_bytes[vertex.issuer] = self._issuer_bytes.get(vertex.issuer, 0) + size
        self.used_bytes += size
        return True

    def release(self, cid: Cid) -> list[Vertex]:
        """The vertices that waited only for `cid` any more; they leave the pool."""
        freed = []
        for waiting in list(self._needed_by.pop(cid, ())):
            vertex, missing = self._waiting[waiting]
            missing.pop(cid, None)
            if not missing:
                self._drop(waiting)
                freed.append(vertex)
        return freed

    def peek(self, cid: Cid) -> Vertex | None:
        """A waiting vertex."""
        entry = self._waiting.get(cid)
        return None if entry is None else entry[0]

    def take(self, cid: Cid) -> None:
        """Let a waiting vertex go, whatever it still waits for."""
        if cid in self._waiting:
            self._drop(cid)

    def expire(self, *, before_ms: int) -> int:
        """Drop orphans whose own time is before `before_ms`; how many went."""
        old = [cid for cid, (vertex, _) in self._waiting.items() if vertex.time_ms < before_ms]
        for cid in old:
            self._drop(cid)
        return len(old)

    def _drop(self, cid: Cid) -> None:
        vertex, missing = self._waiting.pop(cid)
        for needed in missing:
            needers = self._needed_by.get(needed)
            if needers is not None:
                needers.pop(cid, None)
                if not needers:
                    del self._needed_by[needed]
        size = len(vertex.encoded)
        self.used_bytes -= size
        left = self._issuer_bytes[vertex.issuer] - size
        if left:
            self._issuer_bytes[vertex.issuer] = left
        else:
            del self._issuer_bytes[vertex.issuer]
