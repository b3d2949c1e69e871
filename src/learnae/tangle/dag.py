"""The Tangle of one lane: which vertices are known, in what order, what is missing, who forked.

Grows only: honest peers that know the same vertices hold the same DAG whatever the order of arrival. A vertex enters
when all that it depends on is here; before that it waits in a bounded pool of orphans. Two vertices of one issuer with
one number are a fork: the issuer is frozen at the common prefix.

Pure. Signatures and bodies have been judged before `insert` (`protocol.admission`). Source: docs/protocol.md; paper 2.2.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
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
    """What an insertion changed: the vertex, if it is now in the DAG and was not before, and a new fork if one came to light."""

    vertex: Vertex | None = None
    fork: Fork | None = None


class TangleDag:
    """All known vertices of one lane."""

    def __init__(self, net: bytes) -> None:
        self.net = net
        self.genesis = compute_genesis(net)
        self._known: dict[Cid, Vertex] = {}
        self._position: dict[Cid, int] = {}
        self._chains: dict[PeerId, list[Vertex]] = {}
        self._tips: dict[Cid, Vertex] = {}
        self._forks: dict[PeerId, Fork] = {}
        self._branch_count: dict[PeerId, int] = {}
        self._have: dict[PeerId, int] = {}
        self._orphans = OrphanPool()

    # --- reading --------------------------------------------------------------------------------------------

    def __contains__(self, cid: Cid) -> bool:
        return cid in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, cid: Cid) -> Vertex | None:
        return self._known.get(cid)

    def head(self, issuer: PeerId) -> Vertex | None:
        """The issuer's newest vertex without a gap before it."""
        chain = self._chains.get(issuer)
        return chain[-1] if chain else None

    def first(self, issuer: PeerId) -> Vertex | None:
        """The issuer's first vertex, unless it forked with it."""
        chain = self._chains.get(issuer)
        fork = self._forks.get(issuer)
        return None if not chain or (fork is not None and fork.sequence == 1) else chain[0]

    def counted_head(self, issuer: PeerId) -> Vertex | None:
        """The newest vertex of the issuer's log as it counts: before its fork, if it forked."""
        chain, fork = self._chains.get(issuer, []), self._forks.get(issuer)
        end = len(chain) if fork is None else min(len(chain), fork.sequence - 1)
        return chain[end - 1] if end else None

    def chain(self, issuer: PeerId) -> Iterator[Vertex]:
        """The issuer's vertices in order, cut at the common prefix if it forked."""
        fork = self._forks.get(issuer)
        end = fork.sequence - 1 if fork else None
        return iter(self._chains.get(issuer, [])[:end])

    def fork(self, issuer: PeerId) -> Fork | None:
        return self._forks.get(issuer)

    @property
    def forks(self) -> Mapping[PeerId, Fork]:
        return self._forks

    @property
    def tips(self) -> Mapping[Cid, Vertex]:
        """Vertices that no other names as a parent yet."""
        return self._tips

    @property
    def orphans(self) -> OrphanPool:
        return self._orphans

    def have_vector(self) -> Mapping[PeerId, int]:
        """Issuer -> highest sequence without a gap. Live: do not modify."""
        return self._have

    def missing_of(self, vertex: Vertex, also: Iterable[Cid] = ()) -> list[Cid]:
        """What a vertex depends on that is not here: its parents and what its body names (`also`)."""
        known, genesis = self._known, self.genesis
        return [cid for cid in (*vertex.parents, *also) if cid not in known and cid != genesis]

    def lacking(self, have: Mapping[PeerId, int], *, vertices_max: int) -> list[Vertex]:
        """What a peer with that have-vector lacks, parents first, the oldest `vertices_max` of it.

        Of an issuer that forked only the common prefix: who knows the fork ignores the rest, and it would fill every page.
        """
        runs = []
        for issuer, length in self._have.items():
            known = have.get(issuer, 0)
            if known < length:
                fork = self._forks.get(issuer)
                end = length if fork is None else min(length, fork.sequence - 1)
                runs.append(self._walk(self._chains[issuer], known, end))
        merged = heapq.merge(*runs) if len(runs) != 1 else runs[0]
        return [self._chains[issuer][index] for _, issuer, index in islice(merged, vertices_max)]

    def _walk(self, chain: list[Vertex], start: int, end: int) -> Iterator[tuple[int, PeerId, int]]:
        """(when it came, issuer, index) of some vertices of a chain."""
        return ((self._position[chain[index].cid], chain[index].issuer, index) for index in range(start, end))

    def ancestry(self, cid: Cid, *, vertices_max: int) -> Iterator[Vertex]:
        """A vertex and those of its issuer before it, newest first: what a peer that asks for one of a branch lacks."""
        for _ in range(vertices_max):
            vertex = self._known.get(cid)
            if vertex is None:
                return
            yield vertex
            cid = vertex.parents[0]

    def is_branch(self, vertex: Vertex) -> bool:
        """Whether a vertex stands at or after the fork of its issuer: its log no longer counts there."""
        fork = self._forks.get(vertex.issuer)
        return fork is not None and vertex.sequence >= fork.sequence

    def choose_parents(self, issuer: PeerId, *, now_ms: int, rng: Random) -> tuple[Cid, ...]:
        """Own previous vertex (or the genesis), then up to three random recent tips of issuers that did not fork.

        None from the future: a vertex is later than its parents, so a stranger's fast clock would become ours.
        """
        head = self.head(issuer)
        recent = [
            cid
            for cid, tip in self._tips.items()
            if 0 <= now_ms - tip.time_ms <= TIPS_AGE_MAX_MS and tip.issuer != issuer and tip.issuer not in self._forks
        ]
        chosen = recent if len(recent) <= TIPS_CHOSEN else rng.sample(recent, TIPS_CHOSEN)
        assert len(chosen) < PARENTS_MAX
        return (head.cid if head else self.genesis, *chosen)

    # --- growing --------------------------------------------------------------------------------------------

    def insert(self, vertex: Vertex) -> Inserted:
        """Add a vertex all of whose dependencies are here. Idempotent."""
        if vertex.cid in self._known:
            return Inserted()
        chain = self._chains.get(vertex.issuer)
        if chain is None:
            chain = self._chains[vertex.issuer] = []
        if vertex.sequence <= len(chain):
            return self._insert_branch(vertex, chain[vertex.sequence - 1])
        if vertex.issuer in self._forks and vertex.parents[0] != (chain[-1].cid if chain else self.genesis):
            return self._insert_branch(vertex, None)
        assert vertex.sequence == len(chain) + 1, "a vertex enters only after its predecessor"
        chain.append(vertex)
        self._remember(vertex)
        for parent in vertex.parents:
            self._tips.pop(parent, None)
        self._tips[vertex.cid] = vertex
        self._have[vertex.issuer] = len(chain)
        return Inserted(vertex)

    def prove_fork(self, fork: Fork) -> bool:
        """Record a fork whose statements were verified; False if one as early is known of this issuer."""
        known = self._forks.get(fork.issuer)
        if known is not None and known.sequence <= fork.sequence:
            return False
        self._forks[fork.issuer] = fork
        return True

    def _insert_branch(self, vertex: Vertex, rival: Vertex | None) -> Inserted:
        """Keep a vertex beside the issuer's chain, up to a bound, and the proof of the earliest fork."""
        fork = None
        if rival is not None:
            fork = Fork(vertex.issuer, vertex.sequence, rival.compute_statement(), vertex.compute_statement())
            fork = fork if self.prove_fork(fork) else None
        count = self._branch_count.get(vertex.issuer, 0)
        if count >= BRANCH_VERTICES_MAX:
            return Inserted(None, fork)
        self._branch_count[vertex.issuer] = count + 1
        self._remember(vertex)
        return Inserted(vertex, fork)

    def _remember(self, vertex: Vertex) -> None:
        self._position[vertex.cid] = len(self._position)
        self._known[vertex.cid] = vertex


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
