"""The Tangle of a lane that forgets: sensor data without end, of which a node keeps the newest part (2.2, 4.2).

Like `tangle.dag` it holds signed vertices in logs, one of each issuer, without gaps and in order. Unlike there, nothing that
pays depends on it, so old vertices may be dropped below a checkpoint (`prune`), and a newcomer may begin a log where a
checkpoint says that it begins (`adopt`). Of an issuer that forks only what is before the fork counts; no branches are kept.
In memory is a name and a time of each vertex; its bytes come from the archive.

Pure. Signatures and bodies have been judged before `insert` (`sensors.lane`). Source: docs/sensors.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.tangle.dag import TIPS_AGE_MAX_MS, TIPS_CHOSEN, Fork, OrphanPool
from learnae.tangle.vertex import Vertex, VertexCodec, compute_genesis

WINDOW: Final = 64  # Vertices over which an issuer's rate is measured: what it may say at once after being silent.
TIPS_MAX: Final = 8192  # More issuers than a session's lane has; bounds what a crowd of them can make us keep.

ReadVertex = Callable[[Cid], bytes | None]
"""Gives the bytes of a vertex that was inserted; None if the archive dropped it."""


@dataclass(slots=True)
class _Log:
    """One issuer's vertices after its base. `cids[i]` has number `base + 1 + i`; the lists run in parallel."""

    base: int
    base_cid: Cid
    cids: list[Cid] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # in which order they came, over all issuers
    times: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.base + len(self.cids)

    @property
    def head(self) -> Cid:
        return self.cids[-1] if self.cids else self.base_cid


class StreamTangle:
    """All known vertices of one lane, the newest of each issuer."""

    def __init__(self, net: bytes, *, read: ReadVertex | None = None) -> None:
        self.net = net
        self.genesis = compute_genesis(net)
        self.orphans = OrphanPool()
        self._encoded: dict[Cid, bytes] = {}  # only without an archive
        self._read: ReadVertex = self._encoded.get if read is None else read
        self._archived = read is not None
        self._known: dict[Cid, tuple[PeerId, int]] = {}  # issuer and number
        self._logs: dict[PeerId, _Log] = {}
        self._tips: dict[Cid, tuple[int, PeerId]] = {}
        self._forks: dict[PeerId, Fork] = {}
        self._inserted = 0

    def __contains__(self, cid: Cid) -> bool:
        return cid in self._known

    def __len__(self) -> int:
        return len(self._known)

    # --- reading --------------------------------------------------------------------------------------------

    def read(self, cid: Cid) -> bytes | None:
        """The bytes of a known vertex."""
        return self._read(cid)

    def length(self, issuer: PeerId) -> int:
        """The issuer's highest number without a gap."""
        log = self._logs.get(issuer)
        return log.length if log else 0

    def base(self, issuer: PeerId) -> int:
        """The number before the oldest vertex of the issuer that is kept."""
        log = self._logs.get(issuer)
        return log.base if log else 0

    def head(self, issuer: PeerId) -> Cid:
        """The issuer's newest vertex, or what its first one names."""
        log = self._logs.get(issuer)
        return log.head if log else self.genesis

    def reaches(self, issuer: PeerId, sequence: int, cid: Cid) -> bool:
        """Whether this vertex is in the kept part of the issuer's log, or the last one before it."""
        log = self._logs.get(issuer)
        if log is None or not log.base <= sequence <= log.length:
            return False
        return cid == (log.base_cid if sequence == log.base else log.cids[sequence - log.base - 1])

    def time_ms(self, cid: Cid) -> int | None:
        """The time of a known vertex."""
        found = self._known.get(cid)
        if found is None:
            return None
        log = self._logs[found[0]]
        return log.times[found[1] - log.base - 1]

    def window_ms(self, issuer: PeerId) -> int | None:
        """The time of the vertex that stands `WINDOW` before the issuer's next one, if it is known."""
        log = self._logs.get(issuer)
        return log.times[-WINDOW] if log and len(log.times) >= WINDOW else None

    @property
    def forks(self) -> Mapping[PeerId, Fork]:
        return self._forks

    @property
    def tips(self) -> Mapping[Cid, tuple[int, PeerId]]:
        """Vertices that no other names as a parent yet: (time, issuer)."""
        return self._tips

    def have_vector(self) -> dict[PeerId, int]:
        """Issuer -> highest number without a gap."""
        return {issuer: log.length for issuer, log in self._logs.items()}

    def heads(self) -> list[tuple[PeerId, int, Cid]]:
        """The newest vertex of each issuer as it counts: of one that forked, of none."""
        return [(issuer, log.length, log.head) for issuer, log in self._logs.items() if log.length and issuer not in self._forks]

    def lacking(self, have: Mapping[PeerId, int], *, vertices_max: int) -> list[bytes]:
        """What a peer with that have-vector lacks, in the order in which it came here; of a forked issuer what is before the fork."""
        runs = []
        for issuer, log in self._logs.items():
            start = max(have.get(issuer, 0), log.base) - log.base
            fork = self._forks.get(issuer)
            end = len(log.cids) if fork is None else min(len(log.cids), fork.sequence - 1 - log.base)
            end = min(end, start + vertices_max)
            if start < end:
                runs.append(zip(log.positions[start:end], log.cids[start:end], strict=True))
        chosen = islice(heapq.merge(*runs), vertices_max)
        return [encoded for encoded in (self._read(cid) for _, cid in chosen) if encoded is not None]

    def ancestry(self, cid: Cid, *, vertices_max: int) -> Iterator[bytes]:
        """A vertex and those of its issuer before it, newest first: what a peer that asks for one lacks."""
        issuer, sequence = self._known.get(cid, (PeerId(b""), 0))
        log = self._logs.get(issuer)
        if log is not None:
            end = sequence - log.base
            found = (self._read(earlier) for earlier in reversed(log.cids[max(0, end - vertices_max) : end]))
            yield from (encoded for encoded in found if encoded is not None)

    def choose_parents(self, issuer: PeerId, *, now_ms: int, rng: Random) -> tuple[Cid, ...]:
        """Own previous vertex (or the genesis), then up to three random recent tips of others; none from the future."""
        recent = [
            cid
            for cid, (time_ms, author) in self._tips.items()
            if 0 <= now_ms - time_ms <= TIPS_AGE_MAX_MS and author != issuer and author not in self._forks
        ]
        return (self.head(issuer), *(recent if len(recent) <= TIPS_CHOSEN else rng.sample(recent, TIPS_CHOSEN)))

    def note_tips(self, tips: Mapping[Cid, tuple[int, PeerId]]) -> None:
        """Tips that somebody else knows, as (time, issuer): to be named as parents by one who keeps only its own log."""
        own = {cid: tip for cid, tip in self._tips.items() if cid in self._known}
        self._tips = {**dict(islice(tips.items(), TIPS_MAX)), **own}

    # --- growing --------------------------------------------------------------------------------------------

    def insert(self, vertex: Vertex) -> None:
        """Append a vertex to its issuer's log. Its first parent is the head of that log."""
        log = self._logs.get(vertex.issuer)
        if log is None:
            log = self._logs[vertex.issuer] = _Log(0, self.genesis)
        assert (vertex.sequence, vertex.parents[0]) == (log.length + 1, log.head), "a vertex enters only after its predecessor"
        log.cids.append(vertex.cid)
        log.positions.append(self._inserted)
        log.times.append(vertex.time_ms)
        self._inserted += 1
        self._known[vertex.cid] = (vertex.issuer, vertex.sequence)
        if not self._archived:
            self._encoded[vertex.cid] = vertex.encoded
        for parent in vertex.parents:
            self._tips.pop(parent, None)
        self._tips[vertex.cid] = (vertex.time_ms, vertex.issuer)
        if len(self._tips) > TIPS_MAX:
            del self._tips[next(iter(self._tips))]

    def find_fork(self, vertex: Vertex) -> Fork | None:
        """Whether a vertex that is not known has the number of one that is: then its issuer signed both."""
        log = self._logs.get(vertex.issuer)
        if log is None or not log.base < vertex.sequence <= log.length:
            return None
        rival = self._read(log.cids[vertex.sequence - log.base - 1])
        decoded = None if rival is None else VertexCodec().decode(rival)
        if not isinstance(decoded, Vertex):
            return None
        return Fork(vertex.issuer, vertex.sequence, decoded.compute_statement(), vertex.compute_statement())

    def prove_fork(self, fork: Fork) -> bool:
        """Record a fork whose statements were verified; False if one as early is known of this issuer."""
        known = self._forks.get(fork.issuer)
        if known is not None and known.sequence <= fork.sequence:
            return False
        self._forks[fork.issuer] = fork
        return True

    # --- forgetting -----------------------------------------------------------------------------------------

    def prune(self, issuer: PeerId, sequence: int) -> list[Cid]:
        """Drop the issuer's vertices up to a number; which ones. Their bytes may leave the archive."""
        log = self._logs.get(issuer)
        count = 0 if log is None else min(sequence, log.length) - log.base
        if log is None or count <= 0:
            return []
        dropped = log.cids[:count]
        self._logs[issuer] = _Log(log.base + count, dropped[-1], log.cids[count:], log.positions[count:], log.times[count:])
        self._forget(dropped)
        return dropped

    def adopt(self, issuer: PeerId, sequence: int, cid: Cid) -> list[Cid]:
        """Begin the issuer's log anew after a vertex that a checkpoint names; what was known before it is dropped."""
        log = self._logs.get(issuer)
        assert log is None or log.length < sequence
        dropped = [] if log is None else log.cids
        self._forget(dropped)
        self._logs[issuer] = _Log(sequence, cid)
        return dropped

    def abandon(self, issuer: PeerId) -> None:
        """Take `adopt` back, if nothing entered after it."""
        log = self._logs.get(issuer)
        if log is not None and not log.cids:
            del self._logs[issuer]

    def _forget(self, cids: Iterable[Cid]) -> None:
        for cid in cids:
            self._known.pop(cid, None)
            self._encoded.pop(cid, None)
            self._tips.pop(cid, None)
