"""Gossipsub 1.1 as a state machine: who gets which message, who is in the mesh, what is asked for again.

In goes what peers sent and the time; out goes, through `send`, what to tell whom, as encoded fields of a gossipsub RPC. The
caller owns streams and clocks (`libp2p_pubsub`). A message is delivered by judging it: ACCEPT forwards, IGNORE does not,
REJECT also costs the score of whoever brought it. Everything a peer can make us remember has a limit.

Differs from py-libp2p's router, which was tried first: scores are kept across reconnects, an ignored message costs nobody
anything, topics, backoffs and requests are bounded, messages are encoded once for all peers, and nothing adapts itself.
Messages are known by the hash of topic and content, whoever sent them. Their envelopes (`libp2p_envelope`) are for other libp2p
programs: they are told of and ask for messages by author and number. Left out: peer exchange, flood publishing, fanout that is
remembered.
Source: libp2p specs, pubsub/gossipsub v1.0 and v1.1.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from libp2p.pubsub.pb import rpc_pb2

from learnae.backends.libp2p_envelope import ID_BYTES, compute_standard_id, copy_to_forward
from learnae.backends.libp2p_scores import BROKEN_WEIGHT, GOSSIP_THRESHOLD, REJECTED_WEIGHT, Scores
from learnae.ids import PeerId, Topic
from learnae.tangle.verdict import Verdict

HEARTBEAT_S: Final = 1.0
DEGREE, DEGREE_LOW, DEGREE_HIGH = 8, 6, 12  # go-libp2p's are 6, 5, 12; sessions are small, and two more make them rounder.
STRANGERS_MAX: Final = 4  # In a mesh, beside the members: they may forward, but not take the place of those who must hear.
LAZY_DEGREE: Final = 6  # Peers outside the mesh that hear of new messages at a heartbeat.
MESSAGE_BYTES_MAX: Final = 65536 + 512  # A vertex of 64 KiB, and whatever frames it.
MESSAGES_PER_RPC_MAX: Final = 256
TOPICS_PER_PEER_MAX: Final = 32  # Two lanes a session; a peer of sixteen sessions is busy.
TOPIC_CHARS_MAX: Final = 256
SEEN_S: Final = 120.0
SEEN_MAX: Final = 131072  # Two ids of a message, 20 and 46 bytes: 20 MB with what surrounds them, at 500 messages/s for two minutes.
HISTORY_BEATS, HISTORY_GOSSIP = 5, 3
HISTORY_BYTES_MAX: Final = 16 << 20
BACKOFF_S: Final = 60.0
BACKOFFS_MAX: Final = 4096  # Remembered; identities cost nothing.
IHAVE_IDS_MAX: Final = 1024  # Told or asked for at a time.
IHAVES_PER_BEAT_MAX: Final = 10
REPEATS_MAX: Final = 3  # How often one peer may ask for one message.
_ID_BYTES = 20

Judge = Callable[[PeerId, bytes], Verdict]


Seal = Callable[[str, bytes], rpc_pb2.Message]
"""Makes the message to publish of a topic and a content."""


def compute_message_id(topic: str, content: bytes) -> bytes:
    return hashlib.sha256(topic.encode() + b"\0" + content).digest()[:_ID_BYTES]


def encode_subscription(topic: str, *, joined: bool = True) -> bytes:
    return bytes(rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=joined, topicid=topic)]).SerializeToString())


@dataclass(slots=True)
class _Peer:
    topics: set[str] = field(default_factory=set)
    ihaves: int = 0  # since the last heartbeat
    asked_ids: int = 0
    repeats: dict[bytes, int] = field(default_factory=dict)


class GossipRouter:
    """The router of one node. `is_member`: whether gossip is for a peer; all others are strangers, and give way in the mesh."""

    def __init__(
        self,
        send: Callable[[PeerId, bytes], None],
        seal: Seal,
        scores: Scores,
        rng: Random,
        is_member: Callable[[PeerId], bool] = lambda peer: True,
    ) -> None:
        self._send, self._seal, self._scores, self._rng, self._is_member = send, seal, scores, rng, is_member
        self._peers: dict[PeerId, _Peer] = {}
        self._judges: dict[str, Judge] = {}
        self._mesh: dict[str, set[PeerId]] = {}
        self._backoff: dict[tuple[str, PeerId], float] = {}  # until when
        self._seen: OrderedDict[bytes, float] = OrderedDict()  # when
        self._history: deque[list[tuple[str, bytes]]] = deque([[]], maxlen=HISTORY_BEATS)  # newest first: topic and id
        self._messages: dict[bytes, bytes] = {}  # encoded, of the history
        self._history_bytes = 0

    @property
    def topics(self) -> Iterable[str]:
        return self._judges.keys()

    def mesh(self, topic: Topic) -> frozenset[PeerId]:
        return frozenset(self._mesh.get(topic, ()))

    # --- what this node does ------------------------------------------------------------------------------------

    def subscribe(self, topic: Topic, judge: Judge, now_s: float) -> None:
        self._judges[topic] = judge
        if topic not in self._mesh:
            self._mesh[topic] = set()
            for peer in self._peers:
                self._send(peer, encode_subscription(topic))
            self._fill(topic, now_s)

    def publish(self, topic: Topic, content: bytes, now_s: float) -> None:
        message_id = compute_message_id(topic, content)
        if self._is_new(message_id, now_s):
            self._forward(self._seal(topic, content), message_id, None, now_s)

    # --- what peers do ------------------------------------------------------------------------------------------

    def add_peer(self, peer: PeerId) -> None:
        """A stream to `peer` is open: it hears what we are subscribed to."""
        self._peers.setdefault(peer, _Peer())
        for topic in self._judges:
            self._send(peer, encode_subscription(topic))

    def remove_peer(self, peer: PeerId, now_s: float) -> None:
        self._peers.pop(peer, None)
        for topic in self._mesh:
            self._leave(topic, peer, now_s)

    def handle_subscriptions(self, peer: PeerId, rpc: rpc_pb2.RPC, now_s: float) -> None:
        state = self._peers.setdefault(peer, _Peer())
        for option in rpc.subscriptions[: 2 * TOPICS_PER_PEER_MAX]:
            topic = option.topicid
            if not option.subscribe:
                state.topics.discard(topic)
                if topic in self._mesh:
                    self._leave(topic, peer, now_s)
            elif len(topic) <= TOPIC_CHARS_MAX and len(state.topics) < TOPICS_PER_PEER_MAX:
                state.topics.add(topic)
                self._welcome(peer, topic, now_s)

    def handle_message(self, peer: PeerId, message: rpc_pb2.Message, now_s: float) -> None:
        """Judge one message and forward it if it is accepted."""
        if len(message.topicIDs) != 1 or not 0 < len(message.data) <= MESSAGE_BYTES_MAX:
            self._scores.record_bad(peer, BROKEN_WEIGHT, now_s)
            return
        topic, content = message.topicIDs[0], bytes(message.data)
        judge = self._judges.get(topic)
        if judge is None:
            return
        message_id = compute_message_id(topic, content)
        if not self._is_new(message_id, now_s):
            return
        verdict = judge(peer, content)
        if verdict is Verdict.ACCEPT:
            self._scores.record_first(peer, now_s)
            self._forward(copy_to_forward(message), message_id, peer, now_s)
        elif verdict is Verdict.REJECT:
            self._scores.record_bad(peer, REJECTED_WEIGHT, now_s)

    def handle_control(self, peer: PeerId, rpc: rpc_pb2.RPC, now_s: float) -> None:
        control = rpc.control
        for graft in control.graft[:TOPICS_PER_PEER_MAX]:
            self._handle_graft(peer, graft.topicID, now_s)
        for prune in control.prune[:TOPICS_PER_PEER_MAX]:
            if prune.topicID in self._mesh:
                self._leave(prune.topicID, peer, now_s)
                self._rest(prune.topicID, peer, now_s + max(BACKOFF_S, min(prune.backoff, 3600)))
        state = self._peers.setdefault(peer, _Peer())
        if self._scores.compute(peer, now_s) < GOSSIP_THRESHOLD:
            return
        for have in control.ihave:
            self._handle_ihave(peer, state, have)
        for want in control.iwant:
            self._handle_iwant(peer, state, want, now_s)

    def heartbeat(self, now_s: float) -> None:
        for topic, mesh in self._mesh.items():
            for peer in [peer for peer in mesh if self._scores.compute(peer, now_s) < 0]:
                self._prune(topic, peer, now_s)
            strangers = [peer for peer in mesh if not self._is_member(peer)]
            for peer in strangers[STRANGERS_MAX:]:  # They came before the members were known.
                self._prune(topic, peer, now_s)
            if self._count_members(mesh) < DEGREE_LOW:
                self._fill(topic, now_s)
            elif len(mesh) > DEGREE_HIGH:
                rank = lambda peer: (self._is_member(peer), self._scores.compute(peer, now_s), self._rng.random())  # noqa: E731
                for peer in sorted(mesh, key=rank)[: len(mesh) - DEGREE]:
                    self._prune(topic, peer, now_s)
            self._gossip(topic, now_s)
        self._age(now_s)

    # --- inside -------------------------------------------------------------------------------------------------

    def _handle_graft(self, peer: PeerId, topic: str, now_s: float) -> None:
        mesh = self._mesh.get(topic)
        if mesh is None or peer in mesh:
            return
        if self._backoff.get((topic, peer), 0.0) > now_s:
            self._scores.record_bad(peer, BROKEN_WEIGHT, now_s)
            self._prune(topic, peer, now_s)
        elif not self._has_place(mesh, peer, DEGREE_HIGH) or self._scores.compute(peer, now_s) < 0:
            self._prune(topic, peer, now_s)
        else:
            mesh.add(peer)
            self._scores.record_mesh(peer, joined=True, now_s=now_s)

    def _has_place(self, mesh: set[PeerId], peer: PeerId, degree: int) -> bool:
        """Whether a mesh of that degree has a place for a peer: for a member beside all strangers, who go at the next heartbeat."""
        members = self._count_members(mesh)
        if self._is_member(peer):
            return members < degree
        return len(mesh) < degree and len(mesh) - members < STRANGERS_MAX

    def _count_members(self, mesh: Iterable[PeerId]) -> int:
        return sum(map(self._is_member, mesh))

    def _handle_ihave(self, peer: PeerId, state: _Peer, have: rpc_pb2.ControlIHave) -> None:
        state.ihaves += 1
        if have.topicID not in self._mesh or state.ihaves > IHAVES_PER_BEAT_MAX:
            return
        left = IHAVE_IDS_MAX - state.asked_ids
        wanted = [bytes(message_id) for message_id in have.messageIDs[: max(left, 0)]]
        wanted = [message_id for message_id in wanted if len(message_id) in (_ID_BYTES, ID_BYTES) and message_id not in self._seen]
        if wanted:
            state.asked_ids += len(wanted)
            self._send(peer, _encode_control(iwant=[rpc_pb2.ControlIWant(messageIDs=wanted)]))

    def _handle_iwant(self, peer: PeerId, state: _Peer, want: rpc_pb2.ControlIWant, now_s: float) -> None:
        for message_id in want.messageIDs[:IHAVE_IDS_MAX]:
            encoded = self._messages.get(bytes(message_id))
            if encoded is None:
                continue
            asked = state.repeats[bytes(message_id)] = state.repeats.get(bytes(message_id), 0) + 1
            if asked <= REPEATS_MAX:
                self._send(peer, encoded)
            else:
                self._scores.record_bad(peer, BROKEN_WEIGHT, now_s)

    def _is_new(self, message_id: bytes, now_s: float) -> bool:
        if message_id in self._seen:
            return False
        self._seen[message_id] = now_s
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return True

    def _forward(self, message: rpc_pb2.Message, content_id: bytes, sender: PeerId | None, now_s: float) -> None:
        """Send a message on; it is told of by author and number, or by its content if it has no envelope."""
        topic = message.topicIDs[0]
        message_id = compute_standard_id(message) or content_id
        if message_id != content_id and not self._is_new(message_id, now_s):
            message_id = content_id  # its author, or a liar, gave another message the same number
        encoded = bytes(rpc_pb2.RPC(publish=[message]).SerializeToString())
        self._messages[message_id] = encoded
        self._history[0].append((topic, message_id))
        self._history_bytes += len(encoded)
        while self._history_bytes > HISTORY_BYTES_MAX:
            self._forget_oldest()
        targets = set(self._mesh.get(topic, ()))
        members = self._count_members(targets)
        if members < DEGREE_LOW:
            targets.update(self._choose(topic, DEGREE - members, targets, now_s))
        for peer in targets:
            if peer != sender:
                self._send(peer, encoded)

    def _choose(self, topic: str, count: int, but: set[PeerId], now_s: float, *, score_min: float = 0.0) -> list[PeerId]:
        able = [
            peer
            for peer, state in self._peers.items()
            if topic in state.topics and peer not in but and self._scores.compute(peer, now_s) >= score_min
        ]
        if len(able) <= count:
            return able
        members = [peer for peer in able if self._is_member(peer)]
        others = [peer for peer in able if not self._is_member(peer)]
        return [*self._rng.sample(members, min(count, len(members))), *self._rng.sample(others, max(0, count - len(members)))]

    def _fill(self, topic: str, now_s: float) -> None:
        mesh = self._mesh[topic]
        resting = {peer for (name, peer), until_s in self._backoff.items() if name == topic and until_s > now_s}
        for peer in self._choose(topic, DEGREE - self._count_members(mesh), mesh | resting, now_s):
            self._graft(topic, peer, now_s)

    def _welcome(self, peer: PeerId, topic: str, now_s: float) -> None:
        """A peer subscribed: it is grafted if it may be and the mesh is thin."""
        mesh = self._mesh.get(topic)
        if mesh is None or peer in mesh or self._backoff.get((topic, peer), 0.0) > now_s or self._scores.compute(peer, now_s) < 0:
            return
        if self._count_members(mesh) < DEGREE_LOW:
            self._graft(topic, peer, now_s)

    def _graft(self, topic: str, peer: PeerId, now_s: float) -> None:
        mesh = self._mesh[topic]
        if self._has_place(mesh, peer, DEGREE):
            mesh.add(peer)
            self._scores.record_mesh(peer, joined=True, now_s=now_s)
            self._send(peer, _encode_control(graft=[rpc_pb2.ControlGraft(topicID=topic)]))

    def _rest(self, topic: str, peer: PeerId, until_s: float) -> None:
        """No graft between this peer and us until then."""
        self._backoff[topic, peer] = until_s
        if len(self._backoff) > BACKOFFS_MAX:
            del self._backoff[next(iter(self._backoff))]

    def _prune(self, topic: str, peer: PeerId, now_s: float) -> None:
        self._leave(topic, peer, now_s)
        self._rest(topic, peer, now_s + BACKOFF_S)
        self._send(peer, _encode_control(prune=[rpc_pb2.ControlPrune(topicID=topic, backoff=int(BACKOFF_S))]))

    def _leave(self, topic: str, peer: PeerId, now_s: float) -> None:
        if peer in self._mesh[topic]:
            self._mesh[topic].discard(peer)
            self._scores.record_mesh(peer, joined=False, now_s=now_s)

    def _gossip(self, topic: str, now_s: float) -> None:
        beats = list(self._history)[:HISTORY_GOSSIP]
        ids = [message_id for beat in beats for name, message_id in beat if name == topic and message_id in self._messages]
        if ids:
            told = rpc_pb2.ControlIHave(topicID=topic, messageIDs=ids[:IHAVE_IDS_MAX])
            for peer in self._choose(topic, LAZY_DEGREE, self._mesh[topic], now_s, score_min=GOSSIP_THRESHOLD):
                self._send(peer, _encode_control(ihave=[told]))

    def _age(self, now_s: float) -> None:
        if len(self._history) == HISTORY_BEATS:
            while self._history[-1]:
                self._forget_oldest()
            self._history.pop()
        self._history.appendleft([])
        while self._seen and next(iter(self._seen.values())) < now_s - SEEN_S:
            self._seen.popitem(last=False)
        for key in [key for key, until_s in self._backoff.items() if until_s <= now_s]:
            del self._backoff[key]
        for state in self._peers.values():
            state.ihaves = state.asked_ids = 0
            if state.repeats:
                state.repeats = {message_id: count for message_id, count in state.repeats.items() if message_id in self._messages}

    def _forget_oldest(self) -> None:
        for beat in reversed(self._history):
            if beat:
                _, message_id = beat.pop(0)
                self._history_bytes -= len(self._messages.pop(message_id, b""))
                return


def _encode_control(
    *,
    ihave: list[rpc_pb2.ControlIHave] | None = None,
    iwant: list[rpc_pb2.ControlIWant] | None = None,
    graft: list[rpc_pb2.ControlGraft] | None = None,
    prune: list[rpc_pb2.ControlPrune] | None = None,
) -> bytes:
    control = rpc_pb2.ControlMessage(ihave=ihave, iwant=iwant, graft=graft, prune=prune)
    return bytes(rpc_pb2.RPC(control=control).SerializeToString())
