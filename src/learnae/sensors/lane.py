"""The sensors lane as one participant sees it: judges what arrives, issues what this one says, repairs what is missing (4.2).

Used by nodes, which follow sensors, and by publishers and gateways, which attach their messages. Gossip is a hint, sync the
promise, as on the control lane and with the same messages (`SyncMessage`). Unlike there, a vertex needs only its issuer's
previous one to enter; other parents are let go after a while (`sensors.waiting`), so that nobody holds anybody up by naming what
does not exist or was forgotten.
Pure. Source: docs/sensors.md; tangle.md of the design.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.messages import ForkProved
from learnae.protocol.sync import SYNC_BYTES_MAX, SYNC_CLOSED, SYNC_HAVE_MAX, SYNC_VERTICES_MAX, SYNC_WANT_MAX, SyncMessage
from learnae.sensors import judge
from learnae.sensors.intake import LaneIntake
from learnae.sensors.judge import Heard, LaneRules, SensorCodec, SensorEntry
from learnae.sensors.messages import (
    HEADS_MAX,
    SENSOR_KIND_OF,
    ChannelMessages,
    LaneCheckpoint,
    SensorHead,
    SensorMessage,
    create_checkpoint,
)
from learnae.sensors.waiting import Gap
from learnae.tangle.stream import WINDOW, ReadVertex
from learnae.tangle.verdict import ACCEPTED
from learnae.tangle.vertex import VERTEX_BYTES_MAX, Sign, Vertex, create_vertex

PAGE_BYTES_MAX: Final = SYNC_BYTES_MAX // 2  # Leaves room for the have-vector in the same message.
ANCESTRY_MAX: Final = 32  # Vertices before a wanted one.
HEADS_PAGE_BYTES: Final = PAGE_BYTES_MAX // 4  # Heads from forgotten parts of logs in one page, before the vertices.
NEEDED_MAX: Final = 65_536  # A sensor that never ends a dataslice does not keep its past alive for ever.
KEEP_IN_ALL: Final = 131_072  # Vertices of all sensors, beside what lies between two checkpoints: about 50 MB of memory, 60 MB of disk.
KEEP_MIN: Final = WINDOW  # Vertices of an issuer that are never forgotten: its budget is measured over them.


class SensorLane(LaneIntake):
    """What this participant knows of the sensors lane, and its own log in it."""

    def __init__(
        self,
        *,
        rules: LaneRules,
        me: PeerId,
        sign: Sign,
        rng: Random,
        read: ReadVertex | None = None,
        codec: SensorCodec | None = None,
    ) -> None:
        super().__init__(rules=rules, read=read, codec=codec)
        self._me = me
        self._sign = sign
        self._rng = rng
        self._heads_from = 0  # which old heads come next
        self._have_from = 0  # with which issuer a have-vector begins that does not hold all

    def restore(self, vertices: Iterable[bytes]) -> list[SensorEntry]:
        """Take back what was kept on disk, in its order. These bytes were judged before they were written."""
        entries: list[SensorEntry] = []
        for encoded in vertices:
            vertex = self.codec.decode_judged(encoded)
            message = self._read(vertex)
            if vertex.sequence > self.tangle.length(vertex.issuer) + 1:
                self._forget(self.tangle.adopt(vertex.issuer, vertex.sequence - 1, vertex.parents[0]))
            if vertex.sequence == self.tangle.length(vertex.issuer) + 1:
                self.tangle.insert(vertex)
            if not isinstance(message, ChannelMessages) or message.channel in self.streams:
                self._learn(vertex, message, [])
                entries.append(SensorEntry(vertex, message))
        self._recall_beginnings()
        return entries

    def _recall_beginnings(self) -> None:
        """After a restart: a channel that said nothing in what is kept stands where a member's checkpoint says."""
        silent = {channel: s for channel, s in self.streams.items() if not (s.last_hash or s.ended) and self.tangle.base(s.issuer)}
        for issuer in {stream.issuer for stream in silent.values()}:
            for checkpoint in self._list_checkpoints():
                head = checkpoint.find_head(issuer)
                if head is not None and self.tangle.reaches(issuer, *head):
                    self._began_by[issuer] = checkpoint
        for channel in silent:
            self._place(channel)

    # --- what this participant says -------------------------------------------------------------------------

    def find_unproved_fork(self) -> ForkProved | None:
        """A fork that this participant knows and that no vertex of the lane proves to the others yet."""
        for issuer, fork in self.tangle.forks.items():
            if self._proved.get(issuer, fork.sequence + 1) > fork.sequence:
                return ForkProved(issuer=issuer, sequence=fork.sequence, first=fork.first, second=fork.second)
        return None

    def compute_wait_ms(self, *, now_ms: int) -> int:
        """How long the own budget asks to wait before the next vertex; 0 if it may be issued now."""
        allowed_ms = judge.compute_allowed_ms(self._admissions.get(self._me), self.tangle.window_ms(self._me))
        return max(0, allowed_ms - now_ms)

    def issue(self, message: SensorMessage, *, now_ms: int) -> SensorEntry:
        """Sign the next vertex of the own log and let it enter. It must be on disk before it is published."""
        parents = self.tangle.choose_parents(self._me, now_ms=now_ms, rng=self._rng)
        admission = self._find_admission(self._me, message)
        times = [time + 1 for time in map(self.tangle.time_ms, parents) if time is not None]
        allowed_ms = judge.compute_allowed_ms(admission, self.tangle.window_ms(self._me))
        vertex = create_vertex(
            net=self.rules.net,
            parents=parents,
            issuer=self._me,
            sequence=self.tangle.length(self._me) + 1,
            time_ms=max([now_ms, self.rules.starts_ms, allowed_ms, admission.from_ms if admission else 0, *times]),
            kind=int(SENSOR_KIND_OF[type(message)]),
            body=message.to_body(),
            sign=self._sign,
            tag=self.rules.tag if isinstance(message, SensorHead) else b"",
        )
        fits = self.codec.parse(vertex) == message and len(vertex.encoded) <= VERTEX_BYTES_MAX
        assert fits, "issued a vertex that others cannot read: its issuer's log would end there"
        heard = self._enter(vertex, message)
        assert heard.ruling is ACCEPTED, f"issued a vertex that its own rules refuse: {heard.ruling.why}"
        return SensorEntry(vertex, message)

    def compute_checkpoint(self, begun: Iterable[tuple[PeerId, int, Cid]] = ()) -> LaneCheckpoint:
        """What this participant has folded so far; of the issuers of `begun` only where their logs begin here."""
        begins = {issuer: (issuer, sequence, cid) for issuer, sequence, cid in begun}
        heads = {**begins, **{head[0]: head for head in self.tangle.heads() if head[0] not in begins}}
        channels = [(c, s.last, s.last_hash) for c, s in self.streams.items() if s.last_hash and s.issuer not in begins]
        return create_checkpoint(islice(heads.values(), HEADS_MAX) if begins else heads.values(), channels)

    # --- sync -----------------------------------------------------------------------------------------------

    def ask(self, *, answer: bool = False) -> SyncMessage:
        """A message that tells what this participant has and asks for what orphans wait for."""
        want = self.tangle.orphans.missing(cids_max=SYNC_WANT_MAX)
        have = self.compute_have()
        for issuer in self._headless:  # Who has more than nothing gets no heads from a forgotten part any more.
            have.pop(issuer, None)
        return SyncMessage(have=have, answer=answer, want=tuple(want))

    def compute_have(self) -> dict[PeerId, int]:
        """What is here of each issuer, as much as one message holds; of more the next ones each time, so that all have their turn.

        Of issuers that find no place here nothing is wanted: else their vertices would come with every sync, in place of others'.
        """
        have = self.tangle.have_vector()
        if len(have) > SYNC_HAVE_MAX:
            issuers = list(have)
            start = self._have_from % len(issuers)
            self._have_from = start + SYNC_HAVE_MAX
            return {issuer: have[issuer] for issuer in (issuers[start:] + issuers[:start])[:SYNC_HAVE_MAX]}
        refused = self.issuers.refused
        return have | dict.fromkeys(refused[max(0, len(refused) - SYNC_HAVE_MAX + len(have)) :], SYNC_CLOSED)

    def answer(self, sync: SyncMessage) -> list[SyncMessage]:
        """What to send back to one that told what it has: a page of what it lacks, and our own asking if it has more."""
        page: dict[bytes, None] = {}
        for cid in sync.want:
            if len(page) < SYNC_VERTICES_MAX // 2:
                page |= dict.fromkeys(self.tangle.ancestry(cid, vertices_max=ANCESTRY_MAX if len(page) == 0 else 1))
        answers = []
        if sync.have is not None:
            page |= dict.fromkeys(self.find_old_heads(sync.have))
            page |= dict.fromkeys(self.tangle.lacking(sync.have, vertices_max=SYNC_VERTICES_MAX))
        if page:
            answers.append(SyncMessage(vertices=_fill_page(page)))
        if sync.have is not None and not sync.answer:
            mine, unwanted = self.tangle.have_vector(), {*self.issuers.refused, *self.tangle.forks}
            news = (issuer for issuer, number in sync.have.items() if mine.get(issuer, 0) < number < SYNC_CLOSED)
            if any(issuer not in unwanted for issuer in news):
                answers.append(self.ask(answer=True))
        return answers

    def find_old_heads(self, have: Mapping[PeerId, int]) -> list[bytes]:
        """Heads that one who lacks an issuer's forgotten beginning needs to understand the rest; others the next time."""
        old = [channel for channel, s in self.streams.items() if have.get(s.issuer, 0) < self.tangle.base(s.issuer)]
        start = self._heads_from % max(1, len(old))
        heads = (self._heads[channel] for channel in (old[start:] + old[:start])[: SYNC_VERTICES_MAX // 2])
        page = _fill_page(heads, bytes_max=HEADS_PAGE_BYTES)
        self._heads_from = start + len(page)
        return list(page)

    # --- time passes ----------------------------------------------------------------------------------------

    def settle(self, *, now_ms: int) -> Heard:
        """Let go what waited too long: for a stranger's parent, it enters without; for its own, a checkpoint may begin its log."""
        entered: list[SensorEntry] = []
        forked: list[PeerId] = []
        for vertex in self.waiting.find_due(now_ms):
            self._enter_too(vertex, entered, forked)
        for issuer, gap, _ in self.waiting.find_gaps(now_ms):
            checkpoint = self._find_beginning(issuer, gap)
            if checkpoint is not None:
                self._begin_log(issuer, gap, checkpoint, entered, forked)
        self.issuers.turn(self.waiting.gaps, now_ms)
        return Heard(ACCEPTED, tuple(entered), tuple(forked))

    def begin_lost(self, *, now_ms: int) -> tuple[Heard, tuple[tuple[PeerId, int, Cid], ...]]:
        """Begin logs whose past nobody brought for long, though no checkpoint tells of them: which, and after which vertex.

        Only of issuers of whose measurements nothing is here. A member has to say a checkpoint of it at once: never more than it holds.
        """
        entered: list[SensorEntry] = []
        forked: list[PeerId] = []
        lost: list[tuple[PeerId, int, Cid]] = []
        read: set[PeerId] | None = None
        for issuer, gap, is_lost in self.waiting.find_gaps(now_ms):
            if read is None:
                read = {stream.issuer for stream in self.streams.values() if stream.last_hash}
            if is_lost and issuer not in read and len(lost) < HEADS_MAX and self._begin_log(issuer, gap, None, entered, forked):
                lost.append((issuer, gap.sequence, gap.cid))
        return Heard(ACCEPTED, tuple(entered), tuple(forked)), tuple(lost)

    def _list_checkpoints(self) -> Iterator[LaneCheckpoint]:
        return chain.from_iterable(kept.values() for kept in self.checkpoints.values())

    def _find_beginning(self, issuer: PeerId, gap: Gap) -> LaneCheckpoint | None:
        """A member's checkpoint after which an issuer's log may begin; searched again only when another one came."""
        if gap.told == self._told:
            return None
        gap.told = self._told
        return next((c for c in self._list_checkpoints() if c.find_head(issuer) == (gap.sequence, gap.cid)), None)

    def _enter_too(self, vertex: Vertex, entered: list[SensorEntry], forked: list[PeerId]) -> None:
        heard = self._enter(vertex, self._read(vertex))
        entered += heard.entered
        forked += heard.forked

    def _begin_log(
        self, issuer: PeerId, gap: Gap, checkpoint: LaneCheckpoint | None, entered: list[SensorEntry], forked: list[PeerId]
    ) -> bool:
        """Begin an issuer's log after a vertex that nobody sent for a while, where a member's checkpoint says.

        Not of one that has no place, and only if a head is here by then: a log of nobody would be told of in every sync.
        """
        if not self.issuers.has_place(issuer) and issuer not in self.members:
            return False
        self._forget(self.tangle.adopt(issuer, gap.sequence, gap.cid))
        if checkpoint is not None:
            self._began_by[issuer] = checkpoint
        for channel in [channel for channel, stream in self.streams.items() if stream.issuer == issuer and not stream.ended]:
            self._place(channel)
        for early in self.waiting.take_early(issuer, last=gap.sequence):
            if self._learn_old_head(early.vertex, early.message) is ACCEPTED:
                entered.append(early)
        for freed in self._release(gap.cid):
            if freed.parents[0] == self.tangle.head(freed.issuer):
                self._enter_too(freed, entered, forked)
            else:  # Another issuer named the same vertex as its own previous one: its log does not begin by this.
                self.tangle.orphans.add(freed, freed.parents[:1])
        if issuer not in self._admissions and issuer not in self.members:
            self.tangle.abandon(issuer)
            self._began_by.pop(issuer, None)
            return False
        return True

    def take_forgotten(self) -> list[Cid]:
        """Vertices that may leave the disk."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def prune(self, *, keep: int, needed: Mapping[PeerId, int] | None = None) -> None:
        """Forget sensors' vertices before a member's checkpoint that leaves the newest `keep`, fewer if there are many sensors.

        A log then begins where that checkpoint says, so a newcomer can tell. Heads stay, and so do members' own logs, and what
        somebody still needs: of each issuer the vertices from number `needed` on, `NEEDED_MAX` of them at most.
        """
        kept = max(KEEP_MIN, min(keep, KEEP_IN_ALL // max(1, len(self._admissions))))
        for checkpoint in self._list_checkpoints():
            for issuer, sequence, _ in checkpoint.heads:
                length = self.tangle.length(issuer)
                floor = max((needed or {}).get(issuer, length), length - NEEDED_MAX)
                if issuer not in self.members and sequence < floor and sequence <= length - kept:
                    self._forget(self.tangle.prune(issuer, sequence))


def _fill_page(vertices: Iterable[bytes], *, bytes_max: int = PAGE_BYTES_MAX) -> tuple[bytes, ...]:
    """As many vertices, in order, as one message carries; the rest is asked for again."""
    page, size = [], 0
    for encoded in islice(vertices, SYNC_VERTICES_MAX):
        size += len(encoded)
        if size > bytes_max:
            break
        page.append(encoded)
    return tuple(page)
