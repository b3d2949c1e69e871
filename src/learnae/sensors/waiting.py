"""What waits in the sensors lane, and for how long: vertices for what they name, logs for their beginning, heads for their log (4.2).

A vertex needs only its issuer's previous one; other parents that do not come within `PATIENCE_MS` are let go. If the issuer's own
previous vertex does not come, it may have been forgotten by everybody: then a member's checkpoint says where the log begins. As long
as sync still brings something, nothing counts as missing: whoever was away for ten minutes needs more than a moment to catch up.
Every vertex is looked at a bounded number of times, however many wait.
Pure. Source: docs/sensors.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.sensors.judge import SensorEntry
from learnae.sensors.messages import SensorKind
from learnae.tangle.stream import StreamTangle
from learnae.tangle.vertex import SEQUENCE_MAX, Vertex

PATIENCE_MS: Final = 5_000  # Three rounds of asking for a parent that is not the issuer's own.
LOST_MS: Final = 30_000  # Ten rounds of asking for a beginning of which no checkpoint tells.
ORPHAN_AGE_MAX_MS: Final = 600_000  # A partition of ten minutes; what is older comes by sync, in order.
GAPS_MAX: Final = 4  # Of one issuer: among them where its kept log may begin.
EARLY_BYTES_MAX: Final = 1 << 20  # Heads of one issuer that wait for its log; the others come again.
EARLY_BYTES_IN_ALL_MAX: Final = 16 << 20
_SWEEP_AT: Final = 1024


@dataclass(slots=True)
class Gap:
    """A vertex that its issuer's next one names and that is not here."""

    sequence: int
    cid: Cid
    since_ms: int
    length: int  # of the issuer's log, when that was
    is_head: bool  # whether it is a head that names it: heads of a forgotten part stand alone, each after a gap
    told: int = -1  # how many checkpoints were searched for it


@dataclass(slots=True)
class _Early:
    entries: dict[Cid, SensorEntry] = field(default_factory=dict)
    size: int = 0


class Waiting:
    """The clocks beside the pool of orphans of one lane."""

    def __init__(self, tangle: StreamTangle) -> None:
        self._tangle = tangle
        self._since: dict[Cid, int] = {}  # orphans that are still patient, the oldest first
        self._overdue: dict[Cid, dict[Cid, None]] = {}  # own parent -> orphans that need nothing else any more
        self._overdue_since: dict[Cid, int] = {}
        self._gaps: dict[PeerId, dict[Cid, Gap]] = {}
        self._early: dict[PeerId, _Early] = {}
        self._early_bytes = 0
        self._brought_ms = 0  # when sync last brought a full page

    def note_orphan(self, vertex: Vertex, now_ms: int) -> None:
        """A vertex went into the pool."""
        self._since[vertex.cid] = now_ms

    def note_gap(self, vertex: Vertex, now_ms: int) -> None:
        """A vertex came whose own parent is neither here nor waiting."""
        gaps = self._gaps.setdefault(vertex.issuer, {})
        parent = vertex.parents[0]
        is_head = vertex.kind == SensorKind.SENSOR_HEAD
        gaps.setdefault(parent, Gap(vertex.sequence - 1, parent, now_ms, self._tangle.length(vertex.issuer), is_head))
        if len(gaps) > GAPS_MAX:
            del gaps[_choose_least(list(gaps.values()))]

    def note_page(self, now_ms: int) -> None:
        """Sync brought a full page, so more is on its way: whatever seems to be missing may come with it."""
        self._brought_ms = now_ms

    def keep_early(self, entry: SensorEntry) -> None:
        """Keep a head whose issuer's beginning is not here, as long as there is room for it."""
        early = self._early.setdefault(entry.vertex.issuer, _Early())
        size = len(entry.vertex.encoded)
        fits = early.size + size <= EARLY_BYTES_MAX and self._early_bytes + size <= EARLY_BYTES_IN_ALL_MAX
        if fits and entry.vertex.cid not in early.entries:
            early.entries[entry.vertex.cid] = entry
            early.size += size
            self._early_bytes += size

    def take_early(self, issuer: PeerId, *, last: int) -> list[SensorEntry]:
        """The issuer's heads up to a number that waited for its log, in the order in which it said them; they are kept no more."""
        early = self._early.get(issuer, _Early())
        taken = [entry for entry in early.entries.values() if entry.vertex.sequence <= last]
        for entry in taken:
            del early.entries[entry.vertex.cid]
            early.size -= len(entry.vertex.encoded)
            self._early_bytes -= len(entry.vertex.encoded)
        if not early.entries:
            self._early.pop(issuer, None)
        return sorted(taken, key=lambda entry: entry.vertex.sequence)

    def note_entered(self, cid: Cid) -> list[Vertex]:
        """A vertex entered; those that waited too long for everything but it. They leave the pool."""
        self._since.pop(cid, None)
        self._overdue_since.pop(cid, None)
        return self._take(self._overdue.pop(cid, {}))

    def find_due(self, now_ms: int) -> list[Vertex]:
        """Vertices that waited long enough and whose own parent is here: they leave the pool. What is too old goes."""
        orphans = self._tangle.orphans
        due: list[Vertex] = []
        while self._since:
            cid, since_ms = next(iter(self._since.items()))
            if now_ms - since_ms < PATIENCE_MS:
                break
            del self._since[cid]
            vertex = orphans.peek(cid)
            if vertex is None:
                continue
            if vertex.parents[0] == self._tangle.head(vertex.issuer):
                orphans.take(cid)
                due.append(vertex)
            else:
                self._overdue.setdefault(vertex.parents[0], {})[cid] = None
                self._overdue_since[cid] = since_ms
        while self._overdue_since and now_ms - next(iter(self._overdue_since.values())) >= ORPHAN_AGE_MAX_MS:
            orphans.take(next(iter(self._overdue_since)))
            del self._overdue_since[next(iter(self._overdue_since))]
        if len(self._overdue_since) > _SWEEP_AT + 2 * len(orphans) or len(self._overdue) > _SWEEP_AT + 2 * len(self._overdue_since):
            self._sweep()
        return due

    def find_gaps(self, now_ms: int) -> Iterator[tuple[PeerId, Gap, bool]]:
        """Gaps that nobody filled for a while, of one issuer the latest first; whether for so long that the beginning must be lost.

        A log may begin at what was yielded before the next is asked for: gaps that it leaves behind are none any more.
        """
        tangle = self._tangle
        for issuer, gaps in list(self._gaps.items()):
            for cid, gap in sorted(gaps.items(), key=lambda item: -item[1].sequence):
                length = tangle.length(issuer)
                if cid in tangle or cid in tangle.orphans or gap.sequence <= length or issuer in tangle.forks:
                    del gaps[cid]
                elif gap.length != length:
                    gap.since_ms, gap.length = now_ms, length
                else:
                    waited_ms = now_ms - max(gap.since_ms, self._brought_ms)
                    if waited_ms >= PATIENCE_MS:
                        yield issuer, gap, waited_ms >= LOST_MS
            if not gaps:
                self._gaps.pop(issuer, None)
        for issuer in [issuer for issuer in self._early if issuer not in self._gaps]:
            self.take_early(issuer, last=SEQUENCE_MAX)  # They came, or come, with their log.

    @property
    def gaps(self) -> Mapping[PeerId, Mapping[Cid, Gap]]:
        """Of each issuer whose log does not reach what came of it."""
        return self._gaps

    def _take(self, cids: dict[Cid, None]) -> list[Vertex]:
        orphans = self._tangle.orphans
        found = [vertex for vertex in map(orphans.peek, cids) if vertex is not None]
        for vertex in found:
            orphans.take(vertex.cid)
            self._overdue_since.pop(vertex.cid, None)
        return found

    def _sweep(self) -> None:
        """Forget what left the pool by itself: it is bounded, and the oldest go first."""
        orphans = self._tangle.orphans
        self._overdue_since = {cid: since_ms for cid, since_ms in self._overdue_since.items() if cid in orphans}
        self._overdue = {
            parent: kept for parent, cids in self._overdue.items() if (kept := {cid: None for cid in cids if cid in self._overdue_since})
        }


def _choose_least(gaps: list[Gap]) -> Cid:
    """The gap where an issuer's kept log begins least likely: that is before its first message here, or before the last head."""
    heads = sorted((gap for gap in gaps if gap.is_head), key=lambda gap: gap.sequence)
    messages = sorted((gap for gap in gaps if not gap.is_head), key=lambda gap: gap.sequence)
    return heads[0].cid if len(heads) > 1 or not messages[1:] else messages[-2].cid
