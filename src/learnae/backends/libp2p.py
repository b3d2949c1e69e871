"""The `Network` of a node, over py-libp2p: connections, gossip, direct messages and block exchange under one identity.

`open_libp2p_network` puts the parts together: `libp2p_host` (TCP, Noise, yamux, dialling), `libp2p_pubsub` (gossipsub 1.1),
`libp2p_direct` (`/learnae/sync/1`), `libp2p_blocks` and `libp2p_fetch` (`/learnae/blocks/1`), `libp2p_bitswap` (other IPFS programs),
`libp2p_dialback`, `libp2p_relay`, `libp2p_circuit` and `libp2p_punch` (who can be dialled, and how the others are reached).
Needs the extra `net`. Source: protocol.md.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random, SystemRandom

import trio

from learnae.backends.lan import find_lan_peers
from learnae.backends.libp2p_address import read_target
from learnae.backends.libp2p_bitswap import Bitswap
from learnae.backends.libp2p_blocks import BlockServer
from learnae.backends.libp2p_circuit import Circuits
from learnae.backends.libp2p_dht import DhtServer
from learnae.backends.libp2p_dht_records import RecordStore
from learnae.backends.libp2p_dialback import Reachability
from learnae.backends.libp2p_direct import DirectMessages
from learnae.backends.libp2p_fetch import Fetcher
from learnae.backends.libp2p_gossip import Judge
from learnae.backends.libp2p_host import Host, open_host
from learnae.backends.libp2p_pubsub import PubSub
from learnae.backends.libp2p_punch import Puncher
from learnae.backends.libp2p_relay import Relay
from learnae.backends.libp2p_scores import BLAMED_WEIGHT, Scores
from learnae.backends.libp2p_wide import WideArea, WideFinder
from learnae.backends.libp2p_yamux import Way
from learnae.backends.opened_files import OpenedFiles
from learnae.ids import Cid, PeerId, Topic, short_name
from learnae.ports import BlockStore, Connected, DirectMessage, Disconnected, NetworkEvent, Ways

logger = logging.getLogger(__name__)

EVENTS_MAX = 64  # Direct messages that wait for the node: at most 64 MiB of the largest; then their senders wait.
BLAMES_TOLD_S = 10.0  # Between sentences in the log: strangers must not fill a disk with it.
SCORES_S = 1.0  # Between looks at the scores of connected peers; a connection that comes or goes is looked at at once.


class Libp2pNetwork:
    """`Network` over libp2p; made by `open_libp2p_network`."""

    def __init__(self, host: Host, blocks: BlockStore, rng: Random) -> None:
        self._host = host
        self.scores = Scores()
        self._events_send, self._events = trio.open_memory_channel[NetworkEvent](EVENTS_MAX)
        self._blamed_s = -math.inf
        self._told: set[PeerId] = set()
        self._told_more = trio.lowlevel.ParkingLot()
        self._direct = DirectMessages(host, self._deliver, self.blame)
        self._pubsub = PubSub(host, self.scores, rng)
        self._files = OpenedFiles(blocks)
        self._server = BlockServer(host, self._files)
        host.blame = self.blame
        self._fetcher = Fetcher(host, blocks, self.blame, Bitswap(host, blocks, self.blame, self._server.strangers))
        self.wide: WideFinder | None = None
        self.records = RecordStore()
        self._dht = DhtServer(host, self.records)
        self.reach = Reachability(host, rng)
        self.relay = Relay(host, offers=lambda: bool(host.addresses) and self.reach.is_reachable is not False)
        self.circuits = Circuits(host, rng, needs_relays=lambda: not host.addresses or self.reach.needs_relays)
        self.puncher = Puncher(host, rng, is_settling=self.circuits.is_settling)

    @property
    def peer_id(self) -> PeerId:
        return self._host.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._host.addresses

    @property
    def extra_addresses(self) -> tuple[str, ...]:
        return self.circuits.addresses if self.wide is None else self.wide.extra_addresses

    @property
    def is_reachable(self) -> bool | None:
        return self.reach.is_reachable

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        return self._events

    def connected(self) -> frozenset[PeerId]:
        return self._host.connected()

    def count_ways(self) -> Ways:
        found = Counter(min(conn.way for conn in conns) for peer in self.connected() if (conns := self._host.connections(peer)))
        return Ways(found[Way.DIRECT], found[Way.PUNCHED], found[Way.RELAYED], self.puncher.keeps_port)

    def mesh(self, topic: Topic) -> frozenset[PeerId]:
        """The peers to which gossip of `topic` is forwarded at once; for status and tests."""
        return self._pubsub.router.mesh(topic)

    def learn_addresses(self, peer: PeerId, addresses: Iterable[str]) -> None:
        self._host.learn_addresses(peer, addresses, keep=True)

    def keep_places(self, members: frozenset[PeerId]) -> None:
        self._host.keep_places(members)

    async def connect(self, address: str) -> PeerId:
        return await self._host.connect(address)

    async def subscribe(self, topic: Topic, judge: Judge) -> None:
        await trio.lowlevel.checkpoint()
        self._pubsub.subscribe(topic, judge)

    async def publish(self, topic: Topic, content: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._pubsub.publish(topic, content)

    async def send(self, peer: PeerId, content: bytes) -> bool:
        return await self._direct.send(peer, content)

    async def fetch_file(self, cid: Cid, *, providers: Sequence[PeerId], bytes_max: int, public: bool = True) -> None:
        await self._fetcher.fetch_file(cid, providers=providers, bytes_max=bytes_max, public=public)

    def open_file(self, cid: Cid, peers: Iterable[PeerId]) -> None:
        self._files.open(cid, peers)

    # --- inside -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Heartbeat, events and the gossip streams to connected peers, until cancelled; then the events end."""
        with self._events_send:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pubsub.run)
                nursery.start_soon(self.reach.run)
                nursery.start_soon(self.circuits.run)
                nursery.start_soon(self.puncher.run)
                await self._follow_connections(nursery)

    async def _follow_connections(self, nursery: trio.Nursery) -> None:
        streams: dict[PeerId, trio.CancelScope] = {}
        while True:
            found = self.connected()
            unwanted = {peer for peer in found if self.scores.is_graylisted(peer, trio.current_time())}
            for peer in unwanted:
                self._host.disconnect(peer)
            connected = found - unwanted
            for peer in connected - streams.keys():
                streams[peer] = trio.CancelScope()
                nursery.start_soon(self._serve_gossip, peer, streams[peer])
            for peer in streams.keys() - connected:
                streams.pop(peer).cancel()
                self._direct.forget(peer)
            await self._tell(connected)
            if found == self.connected():
                with trio.move_on_after(SCORES_S):
                    await self._host.wait_for_change()

    async def _serve_gossip(self, peer: PeerId, scope: trio.CancelScope) -> None:
        with scope:
            await self._pubsub.serve_peer(peer, lambda: peer in self.connected())

    async def _tell(self, connected: frozenset[PeerId]) -> None:
        for peer in self._told - connected:
            await self._events_send.send(Disconnected(peer))
            self._told.discard(peer)
        for peer in connected - self._told:
            await self._events_send.send(Connected(peer))
            self._told.add(peer)
        self._told_more.unpark_all()

    async def _deliver(self, peer: PeerId, content: bytes) -> None:
        while peer not in self._told:  # nobody speaks before being announced
            if peer not in self.connected():
                return
            await self._told_more.park()
        await self._events_send.send(DirectMessage(peer, content))

    def blame(self, peer: PeerId, why: str) -> None:
        now_s = trio.current_time()
        is_told = now_s - self._blamed_s >= BLAMES_TOLD_S
        self._blamed_s = now_s if is_told else self._blamed_s
        logger.log(logging.WARNING if is_told else logging.DEBUG, "peer %s lost score: %s", short_name(peer), why)
        self.scores.record_bad(peer, BLAMED_WEIGHT, now_s)


@asynccontextmanager
async def open_libp2p_network(
    *,
    seed: bytes,
    listen: Sequence[str],
    blocks: BlockStore,
    bootstrap: Sequence[str] = (),
    lan_digest: bytes | None = None,
    wide: WideArea | None = None,
    rng: Random | None = None,
) -> AsyncIterator[Libp2pNetwork]:
    """A network that is up while the block runs.

    Args:
        seed: 32 bytes, the Ed25519 seed of this peer's identity.
        listen: multiaddrs such as `/ip4/0.0.0.0/tcp/0`; may be empty for a peer that only dials.
        bootstrap: addresses with `/p2p/...` (from a ticket); dialled, and dialled again, in the background.
        lan_digest: hash of the session's rules, to find its other peers in the local network (mDNS); None: do not.
        wide: what to do beyond the local network: the DHT, a router's port; None: nothing.
        rng: for choices among peers; the system's by default.
    Raises: BadAddressError, ListenError.
    """
    rng = SystemRandom() if rng is None else rng
    entries = [(read_target(address), address) for address in bootstrap]
    async with open_host(seed=seed, listen=listen, rng=rng) as host:
        network = Libp2pNetwork(host, blocks, rng)
        host.nursery.start_soon(network.run)
        for peer, address in entries:
            host.learn_addresses(peer, [address], keep=True)
        if lan_digest is not None:
            host.nursery.start_soon(find_lan_peers, network, lan_digest)
        if wide is not None:
            network.wide = WideFinder(host, wide, seed, records=network.records, reach=network.reach, circuits=network.circuits)
            host.nursery.start_soon(network.wide.run)
        yield network
