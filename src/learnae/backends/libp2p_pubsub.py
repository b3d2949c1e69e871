"""Gossip over streams: one stream of RPCs in each direction per peer, within budgets, around the router of `libp2p_gossip`.

What is to be told to a peer waits in a bounded queue and leaves in batches; a peer that does not take it misses gossip, which
sync repairs. What a peer sends is read no faster than its budget allows.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.pubsub.pb import rpc_pb2

from learnae.backends.libp2p_direct import PeerBudgets, read_exactly, read_varint
from learnae.backends.libp2p_envelope import Author
from learnae.backends.libp2p_gossip import HEARTBEAT_S, MESSAGES_PER_RPC_MAX, GossipRouter, Judge
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream
from learnae.backends.libp2p_scores import BROKEN_WEIGHT, Scores
from learnae.backends.unixfs import encode_varint
from learnae.ids import PeerId, Topic

logger = logging.getLogger(__name__)

PROTOCOLS: Final = ("/meshsub/1.1.0", "/meshsub/1.0.0")
RPC_BYTES_MAX: Final = 1 << 20  # As in go-libp2p, whose nodes may be neighbours.
BATCH_BYTES: Final = 131072  # What leaves at once: a few vertices of 64 KiB, or hundreds of small ones.
QUEUE_BYTES_MAX: Final = 1 << 20  # Per peer; beyond it the newest gossip is not sent to this peer.
RATE_BYTES_S: Final = 1 << 20  # Per peer. A message counts MESSAGE_COST_BYTES more than its bytes, so 500 small ones a second.
BURST_BYTES: Final = 8 << 20
STRANGER_BURST_BYTES: Final = 65536  # Of who comes for the first time: forty small messages; identities cost nothing.
MESSAGE_COST_BYTES: Final = 1536  # Judging one costs about as long as decoding this much.
ITEM_COST_BYTES: Final = 384  # A subscription, or an entry of a control message.
GATHER_S: Final = 0.01  # After a batch left, what comes so soon leaves together: a busy peer sends a hundred batches a second at most.
REOPEN_S: Final = 5.0  # Before a gossip stream that a connected peer ended is opened again.
_INBOUND_MAX: Final = 2


@dataclass(slots=True)
class _Outgoing:
    parts: deque[bytes] = field(default_factory=deque)
    size_bytes: int = 0
    more: trio.Event = field(default_factory=trio.Event)


class PubSub:
    """Gossip with all connected peers; `run` keeps it going."""

    def __init__(self, host: Host, scores: Scores, rng: Random) -> None:
        self._host, self._scores = host, scores
        author = Author(host.peer_id, host.libp2p.get_private_key().sign)
        self.router = GossipRouter(self._queue, author.seal, scores, rng, self._is_member)
        self._outgoing: dict[PeerId, _Outgoing] = {}
        self._incoming: dict[PeerId, int] = {}
        self._budgets = PeerBudgets(host, rate_bytes_s=RATE_BYTES_S, burst_bytes=BURST_BYTES, stranger_bytes=STRANGER_BURST_BYTES)
        for protocol in PROTOCOLS:
            host.handle_streams(protocol, self._receive)

    def _is_member(self, peer: PeerId) -> bool:
        """Everybody, until the members are known."""
        return not self._host.members or peer in self._host.members

    def subscribe(self, topic: Topic, judge: Judge) -> None:
        self.router.subscribe(topic, judge, trio.current_time())

    def publish(self, topic: Topic, content: bytes) -> None:
        self.router.publish(topic, content, trio.current_time())

    async def run(self) -> None:
        """The heartbeat."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            self.router.heartbeat(trio.current_time())

    async def serve_peer(self, peer: PeerId, is_connected: Callable[[], bool]) -> None:
        """Keep a gossip stream to a connected peer; ends when the connection has."""
        while is_connected():
            outgoing = self._outgoing[peer] = _Outgoing()
            try:
                stream = await self._host.open_stream(peer, PROTOCOLS)
                try:
                    self.router.add_peer(peer)
                    await self._write_all(stream, outgoing)
                finally:
                    drop_stream(stream)
            except STREAM_ERRORS as error:
                logger.debug("gossip stream ended: %r", error)
            finally:
                if self._outgoing.get(peer) is outgoing:
                    del self._outgoing[peer]
                self.router.remove_peer(peer, trio.current_time())
            await trio.sleep(REOPEN_S)

    async def _write_all(self, stream: INetStream, outgoing: _Outgoing) -> None:
        left_s = -math.inf  # when the newest batch did
        while True:
            while not outgoing.parts:
                outgoing.more = trio.Event()
                await outgoing.more.wait()
            wait_s = left_s + GATHER_S - trio.current_time()
            if wait_s > 0:  # A timer for each batch would cost a fifth of what gossip costs.
                await trio.sleep(wait_s)
            batch = [outgoing.parts.popleft()]
            size_bytes = len(batch[0])
            while outgoing.parts and size_bytes + len(outgoing.parts[0]) <= BATCH_BYTES:
                batch.append(outgoing.parts.popleft())
                size_bytes += len(batch[-1])
            outgoing.size_bytes -= size_bytes
            # Encoded RPCs put one behind the other are one RPC with all their fields.
            await stream.write(encode_varint(size_bytes) + b"".join(batch))
            left_s = trio.current_time()

    def _queue(self, peer: PeerId, part: bytes) -> None:
        outgoing = self._outgoing.get(peer)
        if outgoing is not None and outgoing.size_bytes + len(part) <= QUEUE_BYTES_MAX:
            outgoing.parts.append(part)
            outgoing.size_bytes += len(part)
            outgoing.more.set()

    async def _receive(self, peer: PeerId, stream: INetStream) -> None:
        if self._incoming.get(peer, 0) >= _INBOUND_MAX:
            return
        self._incoming[peer] = self._incoming.get(peer, 0) + 1
        try:
            while not self._scores.is_graylisted(peer, trio.current_time()):
                rpc, size_bytes = await self._read_rpc(peer, stream)
                if rpc is None:
                    return
                cost_bytes = size_bytes + MESSAGE_COST_BYTES * (1 + len(rpc.publish)) + ITEM_COST_BYTES * _count_items(rpc)
                await self._budgets.spend(peer, cost_bytes)
                await self._handle(peer, rpc)
        finally:
            self._incoming[peer] -= 1
            if not self._incoming[peer]:
                del self._incoming[peer]

    async def _handle(self, peer: PeerId, rpc: rpc_pb2.RPC) -> None:
        now_s = trio.current_time()
        self.router.handle_subscriptions(peer, rpc, now_s)
        if len(rpc.publish) > MESSAGES_PER_RPC_MAX:
            self._scores.record_bad(peer, BROKEN_WEIGHT, now_s)
        for message in rpc.publish[:MESSAGES_PER_RPC_MAX]:
            self.router.handle_message(peer, message, trio.current_time())
            await trio.lowlevel.checkpoint()
        if rpc.HasField("control"):
            self.router.handle_control(peer, rpc, trio.current_time())

    async def _read_rpc(self, peer: PeerId, stream: INetStream) -> tuple[rpc_pb2.RPC | None, int]:
        size_bytes = await read_varint(stream)
        rpc: rpc_pb2.RPC | None = None
        if size_bytes <= RPC_BYTES_MAX:
            try:
                rpc = rpc_pb2.RPC.FromString(await read_exactly(stream, size_bytes))
            except DecodeError:
                rpc = None
        if rpc is None:
            self._scores.record_bad(peer, BROKEN_WEIGHT, trio.current_time())
        return rpc, size_bytes


def _count_items(rpc: rpc_pb2.RPC) -> int:
    control = rpc.control
    return len(rpc.subscriptions) + len(control.ihave) + len(control.iwant) + len(control.graft) + len(control.prune)
