"""What arrives in the sensors lane: judged, let in or let wait, and what it changes (4.2).

Unlike on the control lane, a vertex needs only its issuer's previous one to enter; other parents are let go after a while
(`sensors.waiting`), so that nobody holds anybody up by naming what does not exist or was forgotten. Of a log whose beginning was
forgotten the heads still count; where its channels stood then says the member's checkpoint with which it begins.
Pure. Source: docs/sensors.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol.messages import ForkProved
from learnae.sensors import judge
from learnae.sensors.issuers import Issuers
from learnae.sensors.judge import Heard, LaneRules, SensorCodec, SensorEntry, Source, Stream
from learnae.sensors.messages import Admission, ChannelMessages, LaneCheckpoint, SensorHead, SensorMessage
from learnae.sensors.waiting import Waiting
from learnae.tangle.dag import Fork
from learnae.tangle.stream import ReadVertex, StreamTangle
from learnae.tangle.verdict import ACCEPTED, Ruling, ignore, reject
from learnae.tangle.vertex import Vertex

CHECKPOINTS_RECENT: Final = 8  # Of one member, kept all; of older ones every second, fourth, ...: a slow sensor's log begins at one too.
CHECKPOINTS_LEVELS: Final = 12

WAITS = ignore("waits for what it names")  # Not judged yet: whoever forwarded it would answer for it.
HEADLESS = ignore("its channel's head stands in the forgotten part of the log, and has not come yet")


class LaneIntake:
    """The vertices and streams of one lane, as they came."""

    def __init__(self, *, rules: LaneRules, read: ReadVertex | None, codec: SensorCodec | None) -> None:
        self.rules = rules
        self.codec = codec or SensorCodec()
        self.tangle = StreamTangle(rules.net, read=read)
        self.members: frozenset[PeerId] = frozenset()
        self.streams: dict[bytes, Stream] = {}
        self.checkpoints: dict[PeerId, dict[int, LaneCheckpoint]] = {}  # of each member, by number: where logs may begin
        self.waiting = Waiting(self.tangle)
        self.issuers = Issuers()
        self._admissions: Mapping[PeerId, Admission] = self.issuers.admissions
        self._channels: Counter[PeerId] = Counter()
        self._proved: dict[PeerId, int] = {}  # issuer -> number of its earliest fork of which a proof is in the lane
        self._heads: dict[bytes, bytes] = {}  # the vertex of each channel's head
        self._began_by: dict[PeerId, LaneCheckpoint] = {}  # where the log of an issuer whose past is not here begins
        self._headless: dict[PeerId, None] = {}  # issuers of whose channels a head is lacking
        self._told = 0  # checkpoints that came
        self._forgotten: list[Cid] = []

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

    def admits(self, issuer: PeerId) -> bool:
        """Whether a member admitted this issuer, as far as its heads are here."""
        return issuer in self._admissions

    def _judge_issuer(self, vertex: Vertex, message: SensorMessage) -> Ruling:
        fork = self.tangle.forks.get(vertex.issuer)
        if fork is not None and vertex.sequence >= fork.sequence:
            return ignore("its issuer forked")
        admission = self._admissions.get(vertex.issuer)
        if admission is None and vertex.issuer not in self.members and not isinstance(message, SensorHead):
            return ignore("its issuer is not admitted, or its head has not come yet")
        return judge.validate_issuer(vertex, message, members=self.members, admission=admission, net=self.rules.net)

    def _judge_room(self, issuer: PeerId, message: SensorMessage) -> Ruling:
        """Whether the member that admits an issuer has a place for it. Asked before each step that takes one."""
        if not isinstance(message, SensorHead) or self.issuers.has_room(issuer, message.admission.member):
            return ACCEPTED
        self.issuers.refuse(issuer)
        return ignore("this session has no room for more sensors, or not for more of the member that admits them")

    def _let_wait(self, vertex: Vertex, message: SensorMessage, missing: list[Cid], now_ms: int) -> Heard:
        if vertex.parents[0] in missing and isinstance(message, SensorHead):
            ruling = self._judge_room(vertex.issuer, message)
            if ruling is not ACCEPTED:
                return Heard(ruling)
            self.issuers.wait(vertex.issuer, message.admission.member)
        kept = self.tangle.orphans.add(vertex, missing)
        if kept:
            self.waiting.note_orphan(vertex, now_ms)
        if vertex.parents[0] in missing and vertex.parents[0] not in self.tangle.orphans:
            self.waiting.note_gap(vertex, now_ms)
        if vertex.parents[0] in missing and isinstance(message, SensorHead):
            self.waiting.keep_early(SensorEntry(vertex, message))
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
            if ruling is ACCEPTED:
                entered.append(SensorEntry(vertex, message))
                ready += [(freed, self._read(freed)) for freed in self._release(vertex.cid)]
        assert first_ruling is not None
        return Heard(first_ruling, tuple(entered), tuple(forked))

    def _release(self, cid: Cid) -> list[Vertex]:
        """What waited for a vertex, or had waited too long for anything else."""
        return [*self.waiting.note_entered(cid), *self.tangle.orphans.release(cid)]

    def _insert(self, vertex: Vertex, message: SensorMessage, forked: list[PeerId]) -> Ruling:
        issuer = vertex.issuer
        ruling = self._judge_issuer(vertex, message)  # Again: it may have waited while its issuer forked.
        if ruling is ACCEPTED:
            ruling = self._judge_room(issuer, message)
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
            case ChannelMessages() if message.channel not in self.streams and self.tangle.base(issuer):
                self._headless[issuer] = None
                return HEADLESS
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
                self._told += 1
                kept = self.checkpoints.setdefault(vertex.issuer, {})
                kept[max(kept, default=-1) + 1] = message
                for number in [number for number in kept if not _is_kept(number, max(kept))]:
                    del kept[number]
            case ForkProved():
                self._proved[message.issuer] = min(message.sequence, self._proved.get(message.issuer, message.sequence))
                if self.tangle.prove_fork(Fork(message.issuer, message.sequence, message.first, message.second)):
                    forked.append(message.issuer)

    def _learn_head(self, vertex: Vertex, head: SensorHead) -> None:
        self.issuers.admit(vertex.issuer, head.admission)
        self._heads[head.channel] = vertex.encoded
        self._channels[vertex.issuer] += 1
        self.streams[head.channel] = Stream(head, vertex.issuer, vertex.cid, head.first - 1)
        if head.succession is not None:
            for channel, stream in self.streams.items():
                if stream.head.channel_key == head.succession.channel_key:
                    self.streams[channel] = replace(stream, ended=True, last=head.succession.last)

    def _meet_fork(self, fork: Fork) -> Heard:
        if not self.tangle.prove_fork(fork):
            return Heard(ignore("its issuer forked"))
        return Heard(ignore("its issuer signed another vertex with this number"), (), (fork.issuer,))

    def _read(self, vertex: Vertex) -> SensorMessage:
        message = self.codec.parse(vertex)
        assert message is not None, "only parsed vertices wait or enter"
        return message

    def _learn_old_head(self, vertex: Vertex, message: SensorMessage) -> Ruling:
        """Take in a head that stands before the part of its issuer's log that is kept. Of the past not all is known: no blame."""
        if not isinstance(message, SensorHead) or message.channel in self.streams:
            return ignore("older than what is kept")
        for ruling in (self._judge_room(vertex.issuer, message), self._judge_body(vertex.issuer, message)):
            if ruling is not ACCEPTED:
                return ignore(ruling.why)
        self._learn_head(vertex, message)
        self._place(message.channel)
        self._headless.pop(vertex.issuer, None)
        return ACCEPTED

    def _place(self, channel: bytes) -> None:
        """Let a channel stand where the checkpoint says with which its issuer's log begins here; messages after it come with the log."""
        stream = self.streams[channel]
        checkpoint = self._began_by.get(stream.issuer)
        told = None if checkpoint is None else checkpoint.find_channel(channel)
        if told is None:
            self.streams[channel] = replace(stream, source=Source.UNKNOWN)
        elif told[0] > stream.last:
            self.streams[channel] = replace(stream, last=told[0], last_hash=told[1], source=Source.TOLD)

    def _forget(self, dropped: Iterable[Cid]) -> None:
        """These vertices may leave the disk, but heads."""
        heads = {stream.vertex for stream in self.streams.values()}
        self._forgotten += [cid for cid in dropped if cid not in heads]


def _is_kept(number: int, newest: int) -> bool:
    """Whether a member's checkpoint stays, when it has said so many: all recent ones, of older ones fewer and fewer."""
    return any(number % (1 << level) == 0 and newest - number < CHECKPOINTS_RECENT << level for level in range(CHECKPOINTS_LEVELS))
