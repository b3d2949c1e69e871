"""The sensors lane as one participant sees it: judges what arrives, issues what this one says, repairs what is missing (4.2).

Used by nodes, which follow sensors, and by publishers and gateways, which attach their messages. Gossip is a hint, sync the
promise, as on the control lane and with the same messages (`SyncMessage`). Unlike there, a vertex needs only its issuer's
previous one to enter; other parents that do not come within `PATIENCE_MS` are let go, so that nobody holds anybody up by naming
what does not exist or was forgotten.
Pure. Source: docs/sensors.md; tangle.md of the design.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.messages import ForkProved
from learnae.protocol.sync import SYNC_BYTES_MAX, SYNC_VERTICES_MAX, SYNC_WANT_MAX, SyncMessage
from learnae.sensors import judge
from learnae.sensors.judge import Heard, LaneRules, SensorCodec, SensorEntry, Stream
from learnae.sensors.messages import (
    SENSOR_KIND_OF,
    Admission,
    ChannelMessages,
    LaneCheckpoint,
    SensorHead,
    SensorMessage,
    create_checkpoint,
)
from learnae.tangle.dag import Fork
from learnae.tangle.stream import WINDOW, ReadVertex, StreamTangle
from learnae.tangle.verdict import ACCEPTED, Ruling, ignore, reject
from learnae.tangle.vertex import VERTEX_BYTES_MAX, Sign, Vertex, create_vertex

PATIENCE_MS: Final = 5_000  # Three rounds of asking for a parent that is not the issuer's own.
ORPHAN_AGE_MAX_MS: Final = 600_000  # A partition of ten minutes; what is older comes by sync, in order.
PAGE_BYTES_MAX: Final = SYNC_BYTES_MAX // 2  # Leaves room for the have-vector in the same message.
ANCESTRY_MAX: Final = 32  # Vertices before a wanted one.
ISSUERS_MAX: Final = 4096  # Admitted by members; more than a session of sensors has.
CHECKPOINTS_KEPT: Final = 32  # Of one member: where kept logs may begin.
GAPS_MAX: Final = 4  # Of one issuer; those that a page shows come in order.
NEEDED_MAX: Final = 65_536  # A sensor that never ends a dataslice does not keep its past alive for ever.
KEEP_MIN: Final = WINDOW  # Vertices of an issuer that are never forgotten: its budget is measured over them.

WAITS = ignore("waits for what it names")  # Not judged yet: whoever forwarded it would answer for it.


class SensorLane:
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
        self.rules = rules
        self._me = me
        self._sign = sign
        self._rng = rng
        self.codec = codec or SensorCodec()
        self.tangle = StreamTangle(rules.net, read=read)
        self.members: frozenset[PeerId] = frozenset()
        self.streams: dict[bytes, Stream] = {}
        self.checkpoints: dict[PeerId, deque[LaneCheckpoint]] = {}  # the newest of each member
        self._admissions: dict[PeerId, Admission] = {}
        self._channels: Counter[PeerId] = Counter()
        self._proved: dict[PeerId, int] = {}  # issuer -> number of its earliest fork of which a proof is in the lane
        self._heads: dict[bytes, bytes] = {}  # the vertex of each channel's head
        self._waits_since: dict[Cid, int] = {}  # when each orphan came
        self._gaps_since: dict[PeerId, dict[Cid, int]] = {}  # own parents of orphans that may have been forgotten everywhere
        self._early_heads: dict[PeerId, dict[Cid, SensorEntry]] = {}  # heads whose issuer's beginning is not here

    # --- what arrives ---------------------------------------------------------------------------------------

    def receive(self, encoded: bytes, *, now_ms: int) -> Heard:
        """Judge one vertex from outside and let it, and whatever waited for it, enter."""
        vertex = self.codec.decode(encoded)
        if not isinstance(vertex, Vertex):
            return Heard(vertex)
        if vertex.cid in self.tangle or vertex.cid in self.tangle.orphans:
            return Heard(ignore("known"))
        rules = self.rules
        message = judge.validate_alone(
            vertex, self.codec.parse(vertex), net=rules.net, tag=rules.tag, starts_ms=rules.starts_ms, now_ms=now_ms
        )
        if isinstance(message, Ruling):
            return Heard(message)
        ruling = self._judge_issuer(vertex, message)
        if ruling is not ACCEPTED:
            return Heard(ruling)
        if not self.codec.verify(vertex):
            return Heard(reject("wrong signature"))
        fork = self.tangle.find_fork(vertex)
        if fork is not None:
            return self._meet_fork(fork)
        if vertex.sequence <= self.tangle.base(vertex.issuer):
            ruling = self._learn_old_head(vertex, message)
            return Heard(ruling, (SensorEntry(vertex, message),) if ruling is ACCEPTED else ())
        missing = [cid for cid in vertex.parents if cid not in self.tangle and cid != self.tangle.head(vertex.issuer)]
        if missing:
            return self._let_wait(vertex, message, missing, now_ms)
        return self._enter(vertex, message)

    def _judge_issuer(self, vertex: Vertex, message: SensorMessage) -> Ruling:
        fork = self.tangle.forks.get(vertex.issuer)
        if fork is not None and vertex.sequence >= fork.sequence:
            return ignore("its issuer forked")
        admission = self._admissions.get(vertex.issuer)
        if admission is None and vertex.issuer not in self.members and not isinstance(message, SensorHead):
            return ignore("its issuer is not admitted, or its head has not come yet")
        if admission is None and len(self._admissions) >= ISSUERS_MAX:
            return ignore("this session has no room for more sensors")
        return judge.validate_issuer(vertex, message, members=self.members, admission=admission, net=self.rules.net)

    def _let_wait(self, vertex: Vertex, message: SensorMessage, missing: list[Cid], now_ms: int) -> Heard:
        kept = self.tangle.orphans.add(vertex, missing)
        if kept:
            self._waits_since[vertex.cid] = now_ms
        if vertex.parents[0] in missing and vertex.parents[0] not in self.tangle.orphans:
            gaps = self._gaps_since.setdefault(vertex.issuer, {})
            gaps.setdefault(vertex.parents[0], now_ms)
            if len(gaps) > GAPS_MAX:
                del gaps[next(iter(gaps))]
        if vertex.parents[0] in missing and isinstance(message, SensorHead):
            early = self._early_heads.setdefault(vertex.issuer, {})
            if len(early) < message.admission.channels_max:
                early[vertex.cid] = SensorEntry(vertex, message)
        return Heard(WAITS if kept else ignore("its issuer has too many vertices that wait for others"))

    def _enter(self, vertex: Vertex, message: SensorMessage) -> Heard:
        """Let a vertex enter, then all that waited for it, parents first. The ruling is that of the first."""
        first_ruling: Ruling | None = None
        entered: list[SensorEntry] = []
        forked: list[PeerId] = []
        ready = [(vertex, message)]
        while ready:
            vertex, message = ready.pop()
            ruling = self._insert(vertex, message, forked)
            first_ruling = first_ruling or ruling
            self._waits_since.pop(vertex.cid, None)
            if ruling is ACCEPTED:
                entered.append(SensorEntry(vertex, message))
                ready += [(freed, self._read(freed)) for freed in self.tangle.orphans.release(vertex.cid)]
        assert first_ruling is not None
        return Heard(first_ruling, tuple(entered), tuple(forked))

    def _insert(self, vertex: Vertex, message: SensorMessage, forked: list[PeerId]) -> Ruling:
        issuer = vertex.issuer
        ruling = self._judge_issuer(vertex, message)  # Again: it may have waited while its issuer forked.
        if ruling is ACCEPTED:
            ruling = judge.validate_place(
                vertex,
                head=(self.tangle.length(issuer), self.tangle.head(issuer)),
                previous_ms=self.tangle.time_ms(vertex.parents[0]),
                admission=self._find_admission(issuer, message),
                window_ms=self.tangle.window_ms(issuer),
            )
        if ruling is ACCEPTED:
            ruling = self._judge_body(issuer, message)
        if ruling is not ACCEPTED:
            return ruling
        self.tangle.insert(vertex)
        self._learn(vertex, message, forked)
        return ACCEPTED

    def _find_admission(self, issuer: PeerId, message: SensorMessage) -> Admission | None:
        return message.admission if isinstance(message, SensorHead) else self._admissions.get(issuer)

    def _judge_body(self, issuer: PeerId, message: SensorMessage) -> Ruling:
        match message:
            case SensorHead():
                return judge.validate_head(
                    message, issuer, net=self.rules.net, streams=self.streams, count=self._channels[issuer]
                )
            case ChannelMessages():
                return judge.validate_messages(message, issuer, self.streams.get(message.channel))
            case ForkProved():
                return judge.validate_fork(message, self.rules.net)
            case _:
                return ACCEPTED

    def _learn(self, vertex: Vertex, message: SensorMessage, forked: list[PeerId]) -> None:
        match message:
            case SensorHead():
                self._learn_head(vertex, message)
            case ChannelMessages():
                self.streams[message.channel] = judge.advance(self.streams[message.channel], message)
            case LaneCheckpoint():
                self.checkpoints.setdefault(vertex.issuer, deque(maxlen=CHECKPOINTS_KEPT)).append(message)
            case ForkProved():
                self._proved[message.issuer] = min(message.sequence, self._proved.get(message.issuer, message.sequence))
                if self.tangle.prove_fork(Fork(message.issuer, message.sequence, message.first, message.second)):
                    forked.append(message.issuer)

    def _learn_head(self, vertex: Vertex, head: SensorHead) -> None:
        self._admissions[vertex.issuer] = head.admission
        self._heads[head.channel] = vertex.encoded
        self._channels[vertex.issuer] += 1
        self.streams[head.channel] = Stream(head, vertex.issuer, vertex.cid, head.first - 1)
        if head.succession is not None:
            for channel, stream in self.streams.items():
                if stream.head.channel_key == head.succession.channel_key:
                    self.streams[channel] = replace(stream, ended=True)

    def _meet_fork(self, fork: Fork) -> Heard:
        if not self.tangle.prove_fork(fork):
            return Heard(ignore("its issuer forked"))
        return Heard(ignore("its issuer signed another vertex with this number"), (), (fork.issuer,))

    def find_unproved_fork(self) -> ForkProved | None:
        """A fork that this participant knows and that no vertex of the lane proves to the others yet."""
        for issuer, fork in self.tangle.forks.items():
            if self._proved.get(issuer, fork.sequence + 1) > fork.sequence:
                return ForkProved(issuer=issuer, sequence=fork.sequence, first=fork.first, second=fork.second)
        return None

    def _read(self, vertex: Vertex) -> SensorMessage:
        message = self.codec.parse(vertex)
        assert message is not None, "only parsed vertices wait or enter"
        return message

    def restore(self, vertices: Iterable[bytes]) -> list[SensorEntry]:
        """Take back what was kept on disk, in its order. These bytes were judged before they were written."""
        entries: list[SensorEntry] = []
        for encoded in vertices:
            vertex = self.codec.decode(encoded)
            assert isinstance(vertex, Vertex), "the journal holds only vertices"
            message = self._read(vertex)
            if vertex.sequence > self.tangle.length(vertex.issuer) + 1:
                self.tangle.adopt(vertex.issuer, vertex.sequence - 1, vertex.parents[0])
            if vertex.sequence == self.tangle.length(vertex.issuer) + 1:
                self.tangle.insert(vertex)
            if not isinstance(message, ChannelMessages) or message.channel in self.streams:
                self._learn(vertex, message, [])
                entries.append(SensorEntry(vertex, message))
        return entries

    # --- what this participant says -------------------------------------------------------------------------

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

    def compute_checkpoint(self) -> LaneCheckpoint:
        """What this participant has folded so far."""
        channels = [(channel, s.last, s.last_hash) for channel, s in self.streams.items() if s.last_hash]
        return create_checkpoint(self.tangle.heads(), channels)

    # --- sync -----------------------------------------------------------------------------------------------

    def ask(self, *, answer: bool = False) -> SyncMessage:
        """A message that tells what this participant has and asks for what orphans wait for."""
        want = self.tangle.orphans.missing(cids_max=SYNC_WANT_MAX)
        return SyncMessage(have=self.tangle.have_vector(), answer=answer, want=tuple(want))

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
            mine = self.tangle.have_vector()
            if any(sequence > mine.get(issuer, 0) for issuer, sequence in sync.have.items() if issuer not in self.tangle.forks):
                answers.append(self.ask(answer=True))
        return answers

    def find_old_heads(self, have: Mapping[PeerId, int]) -> list[bytes]:
        """Heads that one who lacks an issuer's forgotten beginning needs to understand the rest."""
        old = (channel for channel, s in self.streams.items() if have.get(s.issuer, 0) < self.tangle.base(s.issuer))
        return [self._heads[channel] for channel in islice(old, SYNC_VERTICES_MAX // 4)]

    # --- time passes ----------------------------------------------------------------------------------------

    def settle(self, *, now_ms: int) -> Heard:
        """Let go what waited too long: for a stranger's parent, it enters without; for its own, a checkpoint may begin its log."""
        entered: list[SensorEntry] = []
        forked: list[PeerId] = []
        orphans = self.tangle.orphans
        for cid, since_ms in list(self._waits_since.items()):
            if cid not in orphans or now_ms - since_ms >= ORPHAN_AGE_MAX_MS:
                self._waits_since.pop(cid, None)
                orphans.take(cid)
            elif now_ms - since_ms >= PATIENCE_MS:
                self._retry(cid, entered, forked)
        for checkpoint in [checkpoint for kept in self.checkpoints.values() for checkpoint in kept]:
            for issuer, sequence, cid in checkpoint.heads:
                since_ms = self._gaps_since.get(issuer, {}).get(cid, now_ms)
                if now_ms - since_ms >= PATIENCE_MS and self.tangle.length(issuer) < sequence and issuer not in self.tangle.forks:
                    self._begin_log(issuer, sequence, cid, entered, forked)
        return Heard(ACCEPTED, tuple(entered), tuple(forked))

    def _retry(self, cid: Cid, entered: list[SensorEntry], forked: list[PeerId]) -> None:
        """Let an orphan enter that has its own parent by now, whatever else it names."""
        vertex = self.tangle.orphans.peek(cid)
        if vertex is not None and vertex.parents[0] == self.tangle.head(vertex.issuer):
            self.tangle.orphans.take(cid)
            heard = self._enter(vertex, self._read(vertex))
            entered += heard.entered
            forked += heard.forked

    def _begin_log(self, issuer: PeerId, sequence: int, cid: Cid, entered: list[SensorEntry], forked: list[PeerId]) -> None:
        """Begin an issuer's log where a member's checkpoint says: nobody sent what is before it for a while."""
        del self._gaps_since[issuer]
        self.tangle.adopt(issuer, sequence, cid)
        for early in self._early_heads.pop(issuer, {}).values():
            if self._learn_old_head(early.vertex, early.message) is ACCEPTED:
                entered.append(early)
        for freed in self.tangle.orphans.release(cid):
            heard = self._enter(freed, self._read(freed))
            entered += heard.entered
            forked += heard.forked

    def _learn_old_head(self, vertex: Vertex, message: SensorMessage) -> Ruling:
        """Take in a head that stands before the part of its issuer's log that is kept."""
        if not isinstance(message, SensorHead) or message.channel in self.streams:
            return ignore("older than what is kept")
        ruling = self._judge_body(vertex.issuer, message)
        if ruling is ACCEPTED:
            self._learn_head(vertex, message)
        return ruling

    def prune(self, *, keep: int, needed: Mapping[PeerId, int] | None = None) -> list[Cid]:
        """Forget sensors' vertices before a member's checkpoint that leaves the newest `keep`; which ones may leave the disk.

        A log then begins where that checkpoint says, so a newcomer can tell. Heads stay, and so do members' own logs, and what
        somebody still needs: of each issuer the vertices from number `needed` on, `NEEDED_MAX` of them at most.
        """
        dropped: list[Cid] = []
        for kept in self.checkpoints.values():
            for issuer, sequence, _ in (head for checkpoint in kept for head in checkpoint.heads):
                length = self.tangle.length(issuer)
                floor = max((needed or {}).get(issuer, length), length - NEEDED_MAX)
                if issuer not in self.members and sequence < floor and sequence <= length - max(keep, KEEP_MIN):
                    dropped += self.tangle.prune(issuer, sequence)
        heads = {stream.vertex for stream in self.streams.values()}
        return [cid for cid in dropped if cid not in heads]


def _fill_page(vertices: Iterable[bytes]) -> tuple[bytes, ...]:
    """As many vertices, in order, as one message carries; the rest is asked for again."""
    page, size = [], 0
    for encoded in islice(vertices, SYNC_VERTICES_MAX):
        size += len(encoded)
        if size > PAGE_BYTES_MAX:
            break
        page.append(encoded)
    return tuple(page)
