"""The sensors of a node: runs a `SensorFollower` beside the peer, on the sensors lane, its journal and its line for light publishers.

The same order as in the node: what is to be remembered is on disk before any other effect of the same event is carried out. For what
others said, on disk means that a kill of this process loses nothing; what this node says itself survives a power cut too.
Source: ARCHITECTURE.md; paper 4.2, Fig. 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

import trio
import trio.lowlevel

from learnae.errors import DiskFullError
from learnae.ids import Cid, PeerId, Topic, short_name
from learnae.node.writes import collect_writes
from learnae.ports import BlockStore, Network, SensorStore
from learnae.protocol import events as ev
from learnae.sensors.follower import DropVertices, FollowEffect, SensorFollower, SliceReady, StoreSlice
from learnae.sensors.link import FRAME_BYTES_MAX, ODD_EVERY_S, TEXTS_MAX, VERTICES_MAX, Attach, Attached, Hello, Odd, Page, Watch
from learnae.tangle.verdict import Verdict

PUBLISH_QUEUE_MAX: Final = 4096  # Vertices that wait for the network; what does not fit comes to the others by sync.
SYNCS_MAX: Final = 64  # Direct messages under way; more are dropped, the next sync repairs.
PINNED_MAX: Final = 4096  # Dataslices of streams that are never thrown away: hours of a session's sensors, at 64 KiB 256 MiB.
WAITING_BYTES_MAX: Final = 16 << 20  # Dataslices that wait for the block store; a restart cuts lost ones again from the journal.
STORE_AGAIN_S: Final = 5.0
TICK_S: Final = 0.5
TIPS_AGE_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorParts:
    """What a node needs to follow sensors. `serve`: the listener for light publishers, if the user opened one."""

    follower: SensorFollower
    journal: SensorStore
    hello: Hello
    serve: Callable[[SensorStation], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StationParts:
    """What a station is made of: the user's parts, and what its node gives."""

    sensors: SensorParts
    network: Network
    blocks: BlockStore
    topic: Topic
    now_s: Callable[[], float]
    on_tell: Callable[[ev.Tell, float], None]
    on_slice: Callable[[Cid], object]
    takes_slices: Callable[[], bool]  # whether a dataslice that comes now can still be trained on
    on_broken: Callable[[Exception], None]


class SensorStation:
    """Feeds the follower events and carries out what it answers."""

    def __init__(self, parts: StationParts) -> None:
        self._parts = parts
        self._follower = parts.sensors.follower
        self._send, self._receive = trio.open_memory_channel[bytes](PUBLISH_QUEUE_MAX)
        self._nursery: trio.Nursery | None = None
        self._odd: deque[str] = deque(maxlen=TEXTS_MAX)  # what viewers are shown beside the vertices
        self._odd_count = 0
        self._odd_heard: dict[PeerId, tuple[int, float]] = {}  # of admitted publishers: its time, and when it came
        self._syncs = 0
        self._is_broken = False
        self._pinned: dict[Cid, None] = {}  # dataslices of streams, the oldest first
        self._unstored: deque[StoreSlice] = deque()  # the oldest first
        self._unstored_bytes = 0
        self._let_go = 0
        self._is_full = False  # the block store had no room for the newest dataslice that was offered
        self._is_restored = False  # until then the follower knows half of what it knew; nobody may add to that, or ask it
        self._has_unstored = trio.Event()

    async def run(self) -> None:
        """Until cancelled. Takes back what the journal kept, joins the topic, then works."""
        parts = self._parts
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._follower.cuts = parts.takes_slices()
            await self._restore()
            await parts.network.subscribe(parts.topic, self.judge)
            nursery.start_soon(self._publish)
            nursery.start_soon(self._store_all)
            nursery.start_soon(self._keep_time)
            if parts.sensors.serve is not None:
                nursery.start_soon(parts.sensors.serve, self)
            for peer in parts.network.connected():
                self.connect(peer)

    async def _restore(self) -> None:
        """Take back what the journal kept. Dataslices that a kill lost are cut again and stored, one at a time."""
        journal = self._parts.sensors.journal
        steps = self._follower.restore(journal.vertices(), journal.records())
        stored: list[tuple[int, Cid]] = []
        while effects := self._do(lambda: list(islice(steps, 1))):
            if isinstance(effects[0], SliceReady):
                self._pinned[effects[0].dataslice] = None
            while self._unstored and not self._is_full:
                cut = self._take_unstored()
                try:
                    stored.append((cut.number, await self._offer(cut)))
                except DiskFullError:
                    self._queue(cut, oldest=True)  # It waits with those behind it.
        self._unpin_oldest(len(self._pinned) - PINNED_MAX)
        self._is_restored = True
        for number, dataslice in stored:
            self._do(partial(self._follower.slice_stored, number, dataslice, self._parts.now_s()))
            await trio.lowlevel.checkpoint()

    # --- events in ------------------------------------------------------------------------------------------

    def set_members(self, members: frozenset[PeerId]) -> None:
        self._follower.lane.members = members

    def judge(self, sender: PeerId, content: bytes) -> Verdict:
        """Gossip asks before it forwards; accepting is delivering."""
        effects = self._do(lambda: self._follower.receive(sender, content, self._parts.now_s()))
        return next((effect.ruling.verdict for effect in effects if isinstance(effect, ev.PassVerdict)), Verdict.IGNORE)

    def connect(self, peer: PeerId) -> None:
        """A neighbour is there. All that are there when the journal was taken back are met then."""
        if self._is_restored:
            self._do(lambda: self._follower.connect(peer))

    def disconnect(self, peer: PeerId) -> None:
        self._follower.disconnect(peer)

    def receive_sync(self, sender: PeerId, content: bytes) -> None:
        if not self._is_restored:
            return  # They ask, and are asked, again.
        effects = self._do(lambda: self._follower.receive_sync(sender, content, self._parts.now_s()))
        for effect in effects:
            if isinstance(effect, ev.PassVerdict) and effect.ruling.verdict is Verdict.REJECT:
                self._parts.network.blame(sender, effect.ruling.why)

    # --- the line for light publishers and viewers (`LinkServer`) -------------------------------------------

    def hello(self) -> Hello:
        return replace(self._parts.sensors.hello, members=tuple(sorted(self._follower.lane.members)))

    def attach(self, question: Attach) -> Attached:
        """Judge what a light publisher brings, as if gossip had, and gossip it. It forgets what it hears to be here: synced before."""
        why = ""
        for encoded in question.vertices:
            effects = self._do(partial(self._follower.receive, self._parts.network.peer_id, encoded, self._parts.now_s()))
            ruling = next((effect.ruling for effect in effects if isinstance(effect, ev.PassVerdict)), None)
            if ruling is not None and ruling.verdict is Verdict.ACCEPT:
                self._gossip(encoded)
            elif ruling is not None and ruling.why != "known":
                why = why or ruling.why
        if question.vertices:
            self._do(self._sync_journal)
        if question.odd is not None:
            self._hear_odd(question.issuer, question.odd)
        tangle, now_ms = self._follower.lane.tangle, int(self._parts.now_s() * 1000)
        tips = reversed(list(tangle.tips.items()))
        recent = {cid: tip for cid, tip in tips if 0 <= now_ms - tip[0] <= TIPS_AGE_MS and tip[1] != question.issuer}
        return Attached(have=tangle.length(question.issuer), why=why, tips=recent)

    def _hear_odd(self, issuer: PeerId, odd: Odd) -> None:
        """Show what an admitted publisher found odd, such as payloads that it could not read. It gets one turn a second."""
        lane, now_s = self._follower.lane, self._parts.now_s()
        last_ms, last_s = self._odd_heard.get(issuer, (0, float("-inf")))
        if odd.time_ms <= last_ms or 0 <= now_s - last_s < ODD_EVERY_S or not lane.admits(issuer):
            return
        if not odd.is_signed(lane.rules.net, issuer):
            return
        self._odd_heard[issuer] = odd.time_ms, now_s
        for text in odd.texts:
            self._tell(ev.Tell(ev.Topic.TROUBLE, f"{short_name(issuer)} says: {text}", {"event": "odd", "issuer": short_name(issuer)}))

    def _sync_journal(self) -> list[FollowEffect]:
        self._parts.sensors.journal.sync()
        return []

    def page(self, question: Watch) -> Page:
        lane = self._follower.lane
        vertices = lane.find_old_heads(question.have) + lane.tangle.lacking(question.have, vertices_max=VERTICES_MAX)
        size = 0
        for count, encoded in enumerate(vertices):
            size += len(encoded)
            if size > FRAME_BYTES_MAX // 2:
                return Page(vertices=tuple(vertices[:count]), done=False, odd=question.odd)
        new = min(len(self._odd), max(0, self._odd_count - question.odd))
        texts = tuple(self._odd)[len(self._odd) - new :]
        return Page(vertices=tuple(vertices), done=len(vertices) < VERTICES_MAX, odd=self._odd_count, texts=texts)

    def _tell(self, tell: ev.Tell) -> None:
        """Tell the node's user, and viewers if it is odd; the same sentence is not repeated to them at once."""
        self._parts.on_tell(tell, self._parts.now_s())
        if tell.topic is ev.Topic.TROUBLE and tell.text not in self._odd:
            self._odd.append(tell.text)
            self._odd_count += 1

    def describe(self) -> list[dict[str, object]]:
        """The streams in plain values, for the status file."""
        return self._follower.describe()

    # --- effects out ----------------------------------------------------------------------------------------

    def _do(self, handle: Callable[[], list[FollowEffect]]) -> list[FollowEffect]:
        """Carry out what the follower answers. What goes wrong here ends the node: its memory is then ahead of its disk."""
        if self._is_broken:
            return []
        try:
            effects = handle()
            self._save(effects)
            for effect in effects:
                self._carry_out(effect)
        except Exception as error:  # noqa: BLE001 - raised by the node
            self._is_broken = True
            self._parts.on_broken(error)
            return []
        return effects

    def _save(self, effects: list[FollowEffect]) -> None:
        vertices, records = collect_writes(effects)
        if records or any(isinstance(effect, ev.PublishVertex) for effect in effects):
            self._parts.sensors.journal.append(vertices, records)
        elif vertices:
            self._parts.sensors.journal.append_heard(vertices)

    def _carry_out(self, effect: FollowEffect) -> None:
        match effect:
            case ev.PublishVertex(encoded=encoded):
                self._gossip(encoded)
            case ev.SendSync(peer=peer, content=content):
                self._start(self._sync, peer, content)
            case ev.Tell():
                self._tell(effect)
            case StoreSlice():
                self._queue(effect)
            case SliceReady(dataslice=dataslice):
                self._parts.on_slice(dataslice)
            case DropVertices(cids=cids):
                self._parts.sensors.journal.drop(cids)
            case _:
                pass  # Written before, or answered by `judge`.

    def _gossip(self, encoded: bytes) -> None:
        with suppress(trio.WouldBlock):
            self._send.send_nowait(encoded)

    def _start(self, work: Callable[[PeerId, bytes], Awaitable[None]], peer: PeerId, content: bytes) -> None:
        if self._syncs < SYNCS_MAX:
            assert self._nursery is not None
            self._syncs += 1
            self._nursery.start_soon(work, peer, content)

    async def _sync(self, peer: PeerId, content: bytes) -> None:
        try:
            await self._parts.network.send(peer, content)
        finally:
            self._syncs -= 1

    def _queue(self, cut: StoreSlice, *, oldest: bool = False) -> None:
        """Let a dataslice wait for the block store; while that is full, or too slow, the oldest go, because memory is bounded."""
        if oldest:
            self._unstored.appendleft(cut)
        else:
            self._unstored.append(cut)
        self._unstored_bytes += len(cut.content)
        self._has_unstored.set()
        while self._unstored_bytes > WAITING_BYTES_MAX and len(self._unstored) > 1:
            gone = self._take_unstored()
            self._follower.slice_dropped(gone.number)
            self._let_go += 1
            if self._let_go & (self._let_go - 1) == 0:  # The first, the second, the fourth, ...
                why = "the block store has no room" if self._is_full else "the disk is slower than the sensors"
                help_ = "make some" if self._is_full else "they are cut again at the next start"
                text = f"{why}: {self._let_go} dataslices of streams were let go, the oldest first; {help_}"
                self._tell(ev.Tell(ev.Topic.TROUBLE, text, {"event": "full", "dataslices": self._let_go}))

    def _take_unstored(self) -> StoreSlice:
        cut = self._unstored.popleft()
        self._unstored_bytes -= len(cut.content)
        return cut

    async def _store_all(self) -> None:
        while True:
            while self._unstored:
                await self._store(self._take_unstored())
            self._has_unstored = trio.Event()
            await self._has_unstored.wait()

    async def _store(self, cut: StoreSlice) -> None:
        """Keep a dataslice: others may be told of it. A full disk is waited out."""
        is_told = False
        while True:
            try:
                dataslice = await self._offer(cut)
                break
            except DiskFullError as error:
                if not is_told:
                    text = f"a stream's dataslice waits for room: {error}"
                    self._tell(ev.Tell(ev.Topic.TROUBLE, text, {"event": "full"}))
                is_told = True
                self._unpin_oldest(len(self._pinned) // 2)
                await trio.sleep(STORE_AGAIN_S)
        self._do(lambda: self._follower.slice_stored(cut.number, dataslice, self._parts.now_s()))

    async def _offer(self, cut: StoreSlice) -> Cid:
        """Store a dataslice, pinned. Only this node's own training reads it. Raises: DiskFullError."""
        blocks = self._parts.blocks
        try:
            dataslice = await trio.to_thread.run_sync(lambda: blocks.put_file(cut.content, public=False))
        except DiskFullError:
            self._is_full = True
            raise
        self._is_full = False
        self._pin(dataslice)
        return dataslice

    def _pin(self, dataslice: Cid) -> None:
        self._parts.blocks.pin(dataslice)
        self._pinned.pop(dataslice, None)
        self._pinned[dataslice] = None
        self._unpin_oldest(len(self._pinned) - PINNED_MAX)

    def _unpin_oldest(self, count: int) -> None:
        """Let the oldest dataslices of streams go when the block store needs room; their rows were learnt from longest."""
        for dataslice in list(self._pinned)[: max(0, count)]:
            del self._pinned[dataslice]
            self._parts.blocks.unpin(dataslice)

    async def _publish(self) -> None:
        async for encoded in self._receive:
            await self._parts.network.publish(self._parts.topic, encoded)

    async def _keep_time(self) -> None:
        while True:
            self._follower.cuts = self._parts.takes_slices()
            self._do(lambda: self._follower.tick(self._parts.now_s()))
            await trio.sleep(TICK_S)
