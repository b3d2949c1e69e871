"""The network of a test: several nodes in one process, joined by a hub, with loss and cuts if wanted.

Keeps the promises of the `Network` port and nothing more: gossip floods among connected subscribers, direct messages arrive
in order, fetches follow the same plan as over libp2p. No time passes on the way; the simulator models delays (`learnae.sim`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

import trio

from learnae.backends.fetch_plan import FetchPlan
from learnae.backends.opened_files import OpenedFiles
from learnae.errors import BadAddressError, FetchError, UnreachableError
from learnae.ids import Cid, PeerId, Topic, cid_text, compute_cid, parse_peer, peer_text, short_name
from learnae.ports import DIRECT_BYTES_MAX, BlockStore, Connected, DirectMessage, Disconnected, NetworkEvent, Ways
from learnae.tangle.verdict import Verdict

EVENTS_MAX = 64
SEEN_MAX = 65536
_PREFIX = "/memory/0/p2p/"


class MemoryHub:
    """All nodes of one test. `loss` is the share of gossip and direct messages that vanish, chosen by `rng`."""

    def __init__(self, *, rng: Random | None = None, loss: float = 0.0) -> None:
        assert loss == 0.0 or rng is not None, "loss needs a seeded rng"
        self._rng, self._loss = rng, loss
        self.nodes: dict[PeerId, MemoryNetwork] = {}

    def join(self, peer_id: PeerId, blocks: BlockStore) -> MemoryNetwork:
        """A node that is up until it leaves."""
        network = self.nodes[peer_id] = MemoryNetwork(self, peer_id, blocks)
        return network

    async def leave(self, peer_id: PeerId) -> None:
        """The node is gone; the others are told."""
        network = self.nodes.pop(peer_id)
        for peer in list(network.links):
            await self.cut(peer_id, peer, gone=network)

    async def cut(self, one: PeerId, other: PeerId, *, gone: MemoryNetwork | None = None) -> None:
        """End the connection between two nodes."""
        for node, peer in ((gone or self.nodes[one], other), (self.nodes[other], one)):
            if peer in node.links:
                node.links.discard(peer)
                if node is not gone:
                    await node.tell(Disconnected(peer))

    def loses(self) -> bool:
        return self._rng is not None and self._rng.random() < self._loss


class MemoryNetwork:
    """`Network` of one node on a hub."""

    def __init__(self, hub: MemoryHub, peer_id: PeerId, blocks: BlockStore) -> None:
        self._hub, self._peer_id, self._blocks = hub, peer_id, blocks
        self._events_send, self._events = trio.open_memory_channel[NetworkEvent](EVENTS_MAX)
        self._files = OpenedFiles(blocks)
        self._known: set[PeerId] = set()
        self._judges: dict[Topic, Callable[[PeerId, bytes], Verdict]] = {}
        self._seen: dict[tuple[Topic, bytes], None] = {}
        self.links: set[PeerId] = set()
        self.blamed: list[tuple[PeerId, str]] = []  # for tests to look at

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return (_PREFIX + peer_text(self._peer_id),)

    @property
    def extra_addresses(self) -> tuple[str, ...]:
        return ()

    @property
    def is_reachable(self) -> bool | None:
        return None

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        return self._events

    def connected(self) -> frozenset[PeerId]:
        return frozenset(self.links)

    def count_ways(self) -> Ways:
        return Ways(direct=len(self.links))

    def blame(self, peer: PeerId, why: str) -> None:
        self.blamed.append((peer, why))

    def keep_places(self, members: frozenset[PeerId]) -> None:
        """There is a place for everybody here."""

    def learn_addresses(self, peer: PeerId, addresses: Iterable[str]) -> None:
        if _PREFIX + peer_text(peer) in addresses:
            self._known.add(peer)

    async def connect(self, address: str) -> PeerId:
        try:
            if not address.startswith(_PREFIX):
                raise ValueError(address)
            peer = parse_peer(address.removeprefix(_PREFIX))
        except ValueError as error:
            raise BadAddressError(address, f"an address such as {_PREFIX}12D3Koo...") from error
        self._known.add(peer)
        if not await self._reach(peer):
            raise UnreachableError(address, "no such node")
        return peer

    async def subscribe(self, topic: Topic, judge: Callable[[PeerId, bytes], Verdict]) -> None:
        await trio.lowlevel.checkpoint()
        self._judges[topic] = judge

    async def publish(self, topic: Topic, content: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self._is_new(topic, content):
            return
        carriers: deque[MemoryNetwork] = deque([self])
        while carriers:
            sender = carriers.popleft()
            for peer in sorted(sender.links):
                node = self._hub.nodes.get(peer)
                if node is not None and not self._hub.loses() and node.take_gossip(sender.peer_id, topic, content):
                    carriers.append(node)

    async def send(self, peer: PeerId, content: bytes) -> bool:
        assert len(content) <= DIRECT_BYTES_MAX, "the core splits pages"
        if not await self._reach(peer):
            return False
        if not self._hub.loses():
            await self._hub.nodes[peer].tell(DirectMessage(self._peer_id, content))
        return True

    async def fetch_file(self, cid: Cid, *, providers: Sequence[PeerId], bytes_max: int, public: bool = True) -> None:
        reasons: list[str] = []
        with self._blocks.hold() as keep:
            plan = FetchPlan(cid, bytes_max, keep, self._blocks.get_block)
            for peer in providers:
                if not plan.is_done:
                    reasons.append(f"{short_name(peer)}: {await self._fetch_from(peer, plan, public)}")
        if plan.fault or not plan.is_done:
            raise FetchError(cid_text(cid), plan.fault or "; ".join(reasons) or "no provider was named")

    def open_file(self, cid: Cid, peers: Iterable[PeerId]) -> None:
        self._files.open(cid, peers)

    async def _fetch_from(self, peer: PeerId, plan: FetchPlan, public: bool) -> str:
        if not await self._reach(peer):
            return "it could not be reached"
        files = self._hub.nodes[peer]._files
        while cids := plan.take(peer, 16, trio.current_time()):
            await trio.lowlevel.checkpoint()
            for cid in cids:
                block = files.read(cid, self._peer_id)
                if block is None:
                    plan.handle_absent(peer, cid)
                elif compute_cid(block, cid[1]) != cid:
                    plan.handle_lost(peer)
                    return "it sent bytes that are not the block asked for"
                elif plan.handle_block(cid, block):
                    self._blocks.put_blocks([(cid, block)], public=public)
        return "it does not have all blocks"

    # --- for the hub --------------------------------------------------------------------------------------------

    async def tell(self, event: NetworkEvent) -> None:
        await self._events_send.send(event)

    def take_gossip(self, sender: PeerId, topic: Topic, content: bytes) -> bool:
        """Whether a new message was accepted and is to be forwarded."""
        judge = self._judges.get(topic)
        return judge is not None and self._is_new(topic, content) and judge(sender, content) is Verdict.ACCEPT

    def _is_new(self, topic: Topic, content: bytes) -> bool:
        key = (topic, bytes(content))
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return True

    async def _reach(self, peer: PeerId) -> bool:
        await trio.lowlevel.checkpoint()
        if peer in self.links:
            return True
        node = self._hub.nodes.get(peer)
        if node is None or peer == self._peer_id or peer not in self._known:
            return False
        self.links.add(peer)
        node.links.add(self._peer_id)
        node._known.add(self._peer_id)
        await self.tell(Connected(peer))
        await node.tell(Connected(self._peer_id))
        return True
