"""A running node: one `Peer`, its backends, and the loops between them.

The order that everything else relies on: what the peer wants remembered is on disk before any other effect of the same event is
carried out. So a number is never used twice, and a kill at any point loses only what was not yet acknowledged.
Source: ARCHITECTURE.md; paper Fig. 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from learnae.errors import ChainAnswerError
from learnae.ids import Address, PeerId
from learnae.node import work
from learnae.node.progress import ProgressLog, write_status
from learnae.node.status import describe_node
from learnae.node.steady import make_steady_clock
from learnae.node.writes import collect_writes
from learnae.ports import BlockStore, Chain, Connected, DirectMessage, Disconnected, Journal, Learner, Network, NetworkEvent
from learnae.protocol import events as ev
from learnae.protocol.measures import TaskFacts
from learnae.protocol.peer import Peer
from learnae.protocol.rules import ADDRESSES_MAX
from learnae.protocol.sync import is_sensor_sync
from learnae.protocol.validation import compute_model_bytes_max
from learnae.tangle.verdict import Verdict

if TYPE_CHECKING:
    from learnae.node.station import SensorParts, SensorStation

STATUS_EVERY_S: Final = 2.0
PUBLISH_QUEUE_MAX: Final = 1024  # Own vertices that wait for the network; a peer may issue five a second.
SYNCS_PER_PEER_MAX: Final = 4  # Direct messages under way to one peer; more are dropped, the next sync repairs.
FAREWELL_S: Final = 0.5  # For the last vertices to leave after the peer was asked to stop.
ADDRESSES_S: Final = 60.0  # Between two words about where this node is: routers and relays may change often.
LONELY_S: Final = 10.0  # Without any connection for so long, the user is told; it takes that long to dial a peer that is not there.
RECORD_TRANSACTION: Final = "signed transaction"
"""Name of the journal's record of a transaction that was signed and may be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """What a node is made of; the caller opens and closes the backends."""

    peer: Peer
    network: Network
    blocks: BlockStore
    journal: Journal
    chain: Chain
    learner: Learner | None  # None: this member only votes
    session: Address
    folder: Path
    addresses: tuple[str, ...]  # multiaddrs that others are told
    bootstrap: tuple[str, ...] = ()  # multiaddrs of the ticket, which the network dials; named when nobody answers
    poll_s: float = 1.0  # between looks at the chain
    sensors: SensorParts | None = None  # None: this node follows no sensors
    only_streams: bool = False  # own data only validate; training takes dataslices that sensors filled
    now_s: Callable[[], float] = field(default_factory=make_steady_clock)  # Unix seconds, for the core
    wall_s: Callable[[], float] | None = None  # Unix seconds as people and sensors have them; None: those of `now_s`


class Node:
    """Runs one peer until its session is over or its user stops it."""

    def __init__(self, parts: NodeParts, *, on_tell: Callable[[ev.Tell], None] = lambda tell: None) -> None:
        self._parts = parts
        self._peer = parts.peer
        self._on_tell = on_tell
        self._wall_s = parts.wall_s or parts.now_s
        rules = parts.peer.rules
        self._tools = work.Tools(
            network=parts.network,
            blocks=parts.blocks,
            chain=parts.chain,
            learner=parts.learner,
            session=parts.session,
            model_bytes_max=compute_model_bytes_max(rules),
            slice_bytes=rules.slice_bytes,
            initial_model=None if rules.model_codec == "raw" else rules.initial_model,
            on_trouble=self._tell_trouble,
        )
        self._log = ProgressLog(parts.folder)
        self._deadlines: dict[ev.Timer, float] = {}
        self._confirmed = 0  # own transactions, since the start
        self._wake = trio.Event()
        self._publish_send, self._publish_receive = trio.open_memory_channel[bytes](PUBLISH_QUEUE_MAX)
        self._syncs: Counter[PeerId] = Counter()
        self._facts: TaskFacts | None = None
        self._finished: ev.Finish | None = None
        self._over = trio.Event()
        self._knows_members = trio.Event()  # The chain was read.
        self._nursery: trio.Nursery | None = None
        self._started = False
        self._broken: Exception | None = None  # why this node cannot go on; nothing is done after it
        self._station = None if parts.sensors is None else self._make_station(parts.sensors)

    async def run(self) -> str:
        """Run until the session is over or `stop` was called; what went wrong, in a sentence, or an empty string.

        Raises: LearnaeError leaves that no retry helps: the user's task or data, a full disk. They may come in a group.
        """
        parts = self._parts
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if parts.learner is not None:
                    self._facts = await parts.learner.open()
                    if parts.only_streams:
                        self._facts = replace(self._facts, private_slices=0)
                self._started = True
                nursery.start_soon(self._read_chain)
                self._feed(
                    ev.Started(
                        facts=self._facts,
                        addresses=parts.addresses,
                        vertices=parts.journal.vertices(),
                        records=parts.journal.records(),
                    )
                )
                nursery.start_soon(self._take_part, nursery)
                nursery.start_soon(self._keep_status)
                await self._over.wait()
                if self._broken is None:
                    await trio.sleep(FAREWELL_S)
                nursery.cancel_scope.cancel()
        finally:
            self._write_status("stopped")
            self._log.close()
        if self._broken is not None:
            raise self._broken
        return self._finished.fault if self._finished else ""

    def stop(self, reason: str) -> None:
        """Say goodbye and end `run` within a second. Everything needed to come back is on disk already."""
        if self._started:
            self._feed(ev.StopAsked(reason))
            return
        self._over.set()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()  # It is still opening the task; nothing was said yet.

    def _make_station(self, sensors: SensorParts) -> SensorStation:
        from learnae.node.station import SensorStation, StationParts  # Most nodes follow no sensors.

        parts = self._parts
        return SensorStation(
            StationParts(
                sensors=sensors,
                network=parts.network,
                blocks=parts.blocks,
                topic=self._peer.rules.compute_topic("sensors"),
                now_s=self._wall_s,
                on_tell=self._tell,
                on_slice=lambda dataslice: self._feed(ev.StreamSliceStored(dataslice)),
                takes_slices=lambda: self._peer.dao.takes_data(parts.now_s()),
                on_broken=self._break,
            )
        )

    # --- events in ------------------------------------------------------------------------------------------

    def _feed(self, event: ev.Event) -> list[ev.Effect]:
        """Give the peer one event and carry out what it answers: first to disk, then everything else, in order.

        What goes wrong here ends the node: the peer is then ahead of its journal, so nothing of it may get out. `run` raises it,
        because the caller may be a task of the network that outlives any fault. After the goodbye nothing is said any more.
        """
        if self._over.is_set():
            return []
        try:
            return self._handle(event)
        except Exception as error:  # noqa: BLE001 - raised by `run`
            self._break(error)
            return []

    def _break(self, error: Exception) -> None:
        self._broken = self._broken or error
        self._over.set()

    def _handle(self, event: ev.Event) -> list[ev.Effect]:
        now_s = self._parts.now_s()
        self._confirmed += isinstance(event, ev.TransactionConfirmed)
        effects = self._peer.handle(event, now_s)
        vertices, records = collect_writes(effects)
        if vertices or records:
            self._parts.journal.append(vertices, records)
        for effect in effects:
            self._carry_out(effect, now_s)
        return effects

    def _judge(self, sender: PeerId, content: bytes) -> Verdict:
        """Gossip asks before it forwards; accepting is delivering."""
        for effect in self._feed(ev.VertexReceived(sender, content)):
            if isinstance(effect, ev.PassVerdict):
                return effect.ruling.verdict
        return Verdict.IGNORE  # The node is about to end.

    async def _answer(self, answer: Awaitable[ev.Event]) -> None:
        self._feed(await answer)

    # --- effects out ----------------------------------------------------------------------------------------

    def _carry_out(self, effect: ev.Effect, now_s: float) -> None:
        parts, tools = self._parts, self._tools
        match effect:
            case ev.PublishVertex(encoded=encoded):
                with suppress(trio.WouldBlock):  # It is on disk; should the queue be full, the next sync brings it to the others.
                    self._publish_send.send_nowait(encoded)
            case ev.SendSync(peer=peer, content=content):
                self._send_sync(peer, content)
            case ev.LearnAddresses(peer=peer, addresses=addresses):
                parts.network.learn_addresses(peer, addresses)
            case ev.FetchFile():
                self._start(work.fetch(tools, effect))
            case ev.PinFile(cid=cid):
                parts.blocks.pin(cid)
            case ev.UnpinFile(cid=cid):
                parts.blocks.unpin(cid)
            case ev.ShareSlices():
                assert self._facts is not None
                self._start(work.share(tools, effect, self._facts.shared_slices))
            case ev.ReadHashlist():
                self._start(work.read_hashlist(tools, effect))
            case ev.StoreValidation():
                self._start(work.store_validation(tools, effect))
            case ev.OpenFile(cid=cid, peers=peers):
                parts.network.open_file(cid, peers)
            case ev.TrainModel() | ev.AverageModels() | ev.EvaluateModel() | ev.RecountReceipt():
                self._start(work.learn(tools, effect))
            case ev.SignCall():
                self._start(work.sign(tools, effect))
            case ev.SubmitTransaction():
                self._start(work.submit(tools, effect))
            case ev.SetTimer(timer=timer, at_s=at_s):
                self._deadlines[timer] = at_s
                self._wake.set()
            case ev.Tell():
                self._tell(effect, self._wall_s())
            case ev.Finish():
                self._finished = self._finished or effect
                self._over.set()
            case ev.SaveVertices() | ev.SaveRecord() | ev.PassVerdict():
                pass  # Written before, or answered by `_judge`.

    def _tell(self, tell: ev.Tell, now_s: float) -> None:
        if self._log.write(tell, now_s):
            self._on_tell(tell)

    def _start(self, answer: Awaitable[ev.Event]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._answer, answer)

    def _send_sync(self, peer: PeerId, content: bytes) -> None:
        if self._syncs[peer] < SYNCS_PER_PEER_MAX:
            assert self._nursery is not None
            self._syncs[peer] += 1
            self._nursery.start_soon(self._sync, peer, content)

    async def _sync(self, peer: PeerId, content: bytes) -> None:
        try:
            await self._parts.network.send(peer, content)
        finally:
            self._syncs[peer] -= 1
            if not self._syncs[peer]:
                del self._syncs[peer]

    # --- loops ----------------------------------------------------------------------------------------------

    async def _take_part(self, nursery: trio.Nursery) -> None:
        """Begin to hear, to speak and to work once the members are known: what is heard earlier would be refused, and a turn wasted."""
        await self._knows_members.wait()
        await self._parts.network.subscribe(self._peer.rules.compute_topic("control"), self._judge)
        with suppress(trio.WouldBlock, trio.EndOfChannel):  # First who is connected, then what to do.
            while True:
                self._hear(self._parts.network.events.receive_nowait())
        if self._station is not None:
            nursery.start_soon(self._station.run)
        nursery.start_soon(self._publish_all)
        nursery.start_soon(self._read_network)
        nursery.start_soon(self._keep_time)

    async def _publish_all(self) -> None:
        topic = self._peer.rules.compute_topic("control")
        async for encoded in self._publish_receive:
            await self._parts.network.publish(topic, encoded)

    async def _read_network(self) -> None:
        async for event in self._parts.network.events:
            self._hear(event)

    def _hear(self, event: NetworkEvent) -> None:
        match event:
            case Connected(peer=peer):
                self._feed(ev.PeerConnected(peer))
                if self._station is not None:
                    self._station.connect(peer)
            case Disconnected(peer=peer):
                self._feed(ev.PeerDisconnected(peer))
                if self._station is not None:
                    self._station.disconnect(peer)
            case DirectMessage(sender=sender, content=content) if is_sensor_sync(content):
                if self._station is not None:
                    self._station.receive_sync(sender, content)
            case DirectMessage(sender=sender, content=content):
                for effect in self._feed(ev.SyncReceived(sender, content)):
                    if isinstance(effect, ev.PassVerdict) and effect.ruling.verdict is Verdict.REJECT:
                        self._parts.network.blame(sender, effect.ruling.why)

    async def _read_chain(self) -> None:
        while True:
            confirmed = self._confirmed
            try:
                view = await self._parts.chain.read(self._parts.session)
            except ChainAnswerError as error:
                self._tell_trouble(f"{error}; reading the session again")
                await trio.sleep(max(work.CHAIN_RETRY_S, self._parts.poll_s))
                continue
            if self._confirmed != confirmed:
                continue  # Read while an own transaction came into its block: the same would be sent again.
            self._feed(ev.ChainRead(view))
            self._knows_members.set()
            self._parts.network.keep_places(self._peer.lane.members)
            if self._station is not None:
                self._station.set_members(self._peer.lane.members)
            await trio.sleep(self._parts.poll_s)

    async def _keep_time(self) -> None:
        while True:
            self._wake = trio.Event()
            now_s = self._parts.now_s()
            due = [timer for timer, at_s in self._deadlines.items() if at_s <= now_s]
            for timer in due:
                del self._deadlines[timer]
                self._feed(ev.TimerFired(timer))
            if not due:
                pause_s = min(self._deadlines.values(), default=now_s + 3600.0) - now_s
                with trio.move_on_after(max(0.0, pause_s)):
                    await self._wake.wait()
            await trio.lowlevel.checkpoint()

    async def _keep_status(self) -> None:
        alone_since_s, told, told_s = trio.current_time(), self._parts.addresses, -ADDRESSES_S
        while True:
            self._write_status("running")
            reached = (*self._parts.network.extra_addresses, *self._parts.addresses)[:ADDRESSES_MAX]
            if reached != told and trio.current_time() - told_s >= ADDRESSES_S:
                told, told_s = reached, trio.current_time()
                self._feed(ev.AddressesChanged(told))
            if self._peer.connected:
                alone_since_s = trio.current_time()
            elif trio.current_time() - alone_since_s >= LONELY_S:
                self._tell_lonely()
            await trio.sleep(STATUS_EVERY_S)

    def _tell_lonely(self) -> None:
        if self._parts.bootstrap or self._peer.dao.membership.peers - {self._peer.me}:
            tried = f" at {', '.join(self._parts.bootstrap)}" if self._parts.bootstrap else ""
            self._tell_trouble(f"no peer answers{tried}; trying on (is another node up, and can this machine reach it?)")

    def _tell_trouble(self, sentence: str) -> None:
        self._tell(ev.Tell(ev.Topic.TROUBLE, sentence), self._wall_s())

    def _write_status(self, state: str) -> None:
        write_status(self._parts.folder, describe_node(self._parts, state, self._station))
