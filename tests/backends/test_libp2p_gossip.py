"""The gossip router, event by event, and its talk with py-libp2p's own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container
from random import Random

import pytest
import trio
import trio.testing
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from nacl.signing import SigningKey

from learnae.backends import libp2p_gossip as gossip
from learnae.backends import libp2p_pubsub
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_envelope import ID_BYTES, Author
from learnae.backends.libp2p_gossip import DEGREE, DEGREE_HIGH, DEGREE_LOW, GossipRouter, compute_message_id
from learnae.backends.libp2p_host import open_host
from learnae.backends.libp2p_scores import BLAMED_WEIGHT, FIRST_MAX, GRAYLIST_THRESHOLD, REJECTED_WEIGHT, SCORES_MAX, Scores
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, Topic
from learnae.tangle.verdict import Verdict
from tests.processes import HANGS_S

TOPIC = Topic("/learnae/test/control")
KEY = SigningKey(bytes([9]) * 32)


class Bench:
    """A router, what it sent, and what it judged."""

    def __init__(self, peers: int, verdict: Verdict = Verdict.ACCEPT, *, members: Container[PeerId] = ()) -> None:
        self.sent: list[tuple[PeerId, rpc_pb2.RPC]] = []
        self.judged: list[tuple[PeerId, bytes]] = []
        self.scores = Scores()
        author = Author(PeerId(bytes(KEY.verify_key)), lambda content: KEY.sign(content).signature)
        send = lambda peer, part: self.sent.append((peer, rpc_pb2.RPC.FromString(part)))  # noqa: E731
        self.router = GossipRouter(send, author.seal, self.scores, Random(1), lambda peer: not members or peer in members)
        self.peers = [PeerId(number.to_bytes(32, "big")) for number in range(1, peers + 1)]

        def judge(sender: PeerId, content: bytes) -> Verdict:
            self.judged.append((sender, content))
            return verdict

        self.router.subscribe(TOPIC, judge, 0.0)
        for peer in self.peers:
            self.router.add_peer(peer)
            self.router.handle_subscriptions(peer, rpc_pb2.RPC.FromString(gossip.encode_subscription(TOPIC)), 0.0)
        self.sent.clear()

    def hear(self, peer: PeerId, content: bytes, now_s: float = 0.0, topic: str = TOPIC) -> None:
        self.router.handle_message(peer, rpc_pb2.Message(data=content, topicIDs=[topic]), now_s)

    def control(self, peer: PeerId, now_s: float, **fields: object) -> None:
        self.router.handle_control(peer, rpc_pb2.RPC(control=rpc_pb2.ControlMessage(**fields)), now_s)  # type: ignore[arg-type]

    def carried(self, content: bytes) -> set[PeerId]:
        return {peer for peer, rpc in self.sent for message in rpc.publish if message.data == content}


def test_router__forwards_an_accepted_message_once_to_the_mesh_but_its_sender() -> None:
    bench = Bench(4)
    sender, *others = bench.peers
    bench.hear(sender, b"news")
    bench.hear(others[0], b"news")
    assert bench.judged == [(sender, b"news")]
    assert bench.carried(b"news") == set(others)
    (message,) = (rpc.publish[0] for peer, rpc in bench.sent if peer == others[0])
    assert message.SerializeToString() == rpc_pb2.Message(data=b"news", topicIDs=[TOPIC]).SerializeToString(), "it had no envelope"


def test_router__publishes_with_an_envelope_that_others_verify_and_numbers_that_rise() -> None:
    """Kubo's StrictSign: author, number and signature over all but itself; a lower number than before is ignored there."""
    bench = Bench(1)
    for content in (b"one", b"two"):
        bench.router.publish(TOPIC, content, 0.0)
    one, two = (message for _, rpc in bench.sent for message in rpc.publish)
    assert one.from_id == bytes.fromhex("002408011220") + bytes(KEY.verify_key) and time.time_ns() - int.from_bytes(one.seqno, "big") < 60e9
    assert one.seqno < two.seqno
    signature = two.signature
    two.ClearField("signature")
    KEY.verify_key.verify(b"libp2p-pubsub:" + two.SerializeToString(), signature)


def test_router__forwards_an_envelope_as_it_came_and_nothing_that_is_none() -> None:
    """Who verifies must find what the author signed; what is no envelope of an Ed25519 peer, and unknown fields, go no further."""
    bench = Bench(2)
    sender, other = bench.peers
    sealed = Author(sender, lambda content: bytes(64)).seal(TOPIC, b"sealed")
    bench.router.handle_message(sender, rpc_pb2.Message.FromString(sealed.SerializeToString() + b"\x7a\x03abc"), 0.0)
    broken = rpc_pb2.Message(data=b"broken", topicIDs=[TOPIC], from_id=bytes(500), seqno=bytes(100), signature=bytes(64), key=bytes(400))
    bench.router.handle_message(sender, broken, 0.0)
    forwarded = [message for peer, rpc in bench.sent if peer == other for message in rpc.publish]
    assert forwarded == [sealed, rpc_pb2.Message(data=b"broken", topicIDs=[TOPIC])]


def test_router__a_number_that_is_used_twice_stops_no_message() -> None:
    """Nobody verifies envelopes here, so a liar can put an honest author's name on other content: both are judged and forwarded."""
    bench = Bench(2)
    sender, other = bench.peers
    sealed = Author(sender, lambda content: bytes(64)).seal(TOPIC, b"honest")
    false = rpc_pb2.Message.FromString(sealed.SerializeToString())
    false.data = b"false"
    for message in (false, sealed):
        bench.router.handle_message(sender, message, 0.0)
    assert [content for _, content in bench.judged] == [b"false", b"honest"]
    assert bench.carried(b"honest") == {other}


@pytest.mark.parametrize(("verdict", "score"), [(Verdict.IGNORE, 0.0), (Verdict.REJECT, REJECTED_WEIGHT), (Verdict.ACCEPT, 0.5)])
def test_router__verdicts_decide_forwarding_and_score(verdict: Verdict, score: float) -> None:
    """protocol.md: ACCEPT forwards and delivers, IGNORE neither, REJECT also costs the sender's score."""
    bench = Bench(3, verdict)
    before = bench.scores.compute(bench.peers[0], 0.0)
    bench.hear(bench.peers[0], b"news")
    assert bool(bench.carried(b"news")) == (verdict is Verdict.ACCEPT)
    assert bench.scores.compute(bench.peers[0], 0.0) - before == pytest.approx(score)


def test_router__own_messages_are_not_judged_when_they_come_back() -> None:
    bench = Bench(2)
    bench.router.publish(TOPIC, b"mine", 0.0)
    assert bench.carried(b"mine") == set(bench.peers)
    bench.hear(bench.peers[0], b"mine")
    assert bench.judged == []


def test_router__messages_of_foreign_topics_and_of_wrong_size_are_not_judged() -> None:
    bench = Bench(2)
    bench.hear(bench.peers[0], b"news", topic="/another")
    bench.hear(bench.peers[0], b"")
    bench.hear(bench.peers[0], bytes(gossip.MESSAGE_BYTES_MAX + 1))
    bench.router.handle_message(bench.peers[0], rpc_pb2.Message(data=b"two topics", topicIDs=[TOPIC, TOPIC]), 0.0)
    assert bench.judged == []
    bench.hear(bench.peers[0], bytes(gossip.MESSAGE_BYTES_MAX))
    assert len(bench.judged) == 1


def test_router__mesh_stays_between_its_bounds() -> None:
    bench = Bench(30)
    assert DEGREE_LOW <= len(bench.router.mesh(TOPIC)) <= DEGREE_HIGH
    for peer in bench.peers:
        bench.control(peer, 1.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
    assert len(bench.router.mesh(TOPIC)) == DEGREE_HIGH, "grafts beyond it are refused with a prune"
    for peer in list(bench.router.mesh(TOPIC))[:8]:
        bench.router.remove_peer(peer, 2.0)
    bench.router.heartbeat(70.0)
    assert DEGREE_LOW <= len(bench.router.mesh(TOPIC)) <= DEGREE


def test_router__strangers_never_stand_between_members() -> None:
    """Attacks, many strangers: they come first and take all places of a mesh, and what this node says still goes to the members."""
    everybody = [PeerId(number.to_bytes(32, "big")) for number in range(1, 41)]
    strangers, members = everybody[:32], everybody[32:]
    known: set[PeerId] = set()
    bench = Bench(0, members=known)
    for peers in (strangers, members):
        for peer in peers:
            bench.router.add_peer(peer)
            bench.router.handle_subscriptions(peer, rpc_pb2.RPC.FromString(gossip.encode_subscription(TOPIC)), 0.0)
            bench.control(peer, 0.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
        known.update(members)  # Before that everybody counts as one, and the strangers fill the mesh.
    assert bench.router.mesh(TOPIC) >= set(members), "a member's graft is taken whoever is there"

    bench.router.heartbeat(1.0)
    assert len(bench.router.mesh(TOPIC) - set(members)) <= gossip.STRANGERS_MAX
    for peer in strangers:
        bench.control(peer, 100.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
    assert bench.router.mesh(TOPIC) >= set(members) and len(bench.router.mesh(TOPIC)) == len(members) + gossip.STRANGERS_MAX

    for peer in members:  # A small session, or one whose members come later: those outside the mesh are told of messages first.
        bench.control(peer, 100.0, prune=[rpc_pb2.ControlPrune(topicID=TOPIC)])
    bench.sent.clear()
    bench.router.publish(TOPIC, b"news", 101.0)
    assert bench.carried(b"news") >= set(members)


def test_router__remembers_a_bounded_number_of_grafts_that_must_wait() -> None:
    bench = Bench(0)
    for number in range(gossip.BACKOFFS_MAX + 10):
        bench.control(PeerId(number.to_bytes(32, "big")), 0.0, prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=3600)])
    assert len(bench.router._backoff) == gossip.BACKOFFS_MAX


def test_router__a_peer_of_bad_score_leaves_the_mesh_and_is_not_grafted() -> None:
    bench = Bench(3)
    bad = bench.peers[0]
    assert bad in bench.router.mesh(TOPIC)
    bench.scores.record_bad(bad, BLAMED_WEIGHT, 0.0)
    bench.router.heartbeat(1.0)
    assert bad not in bench.router.mesh(TOPIC)
    assert any(peer == bad and rpc.control.prune for peer, rpc in bench.sent)
    bench.control(bad, 100.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
    assert bad not in bench.router.mesh(TOPIC)


def test_router__a_graft_before_its_time_costs_score() -> None:
    bench = Bench(3)
    hasty = bench.peers[0]
    bench.control(hasty, 1.0, prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=10**9)])
    assert hasty not in bench.router.mesh(TOPIC)
    before = bench.scores.compute(hasty, 2.0)
    bench.control(hasty, 2.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
    assert bench.scores.compute(hasty, 2.0) < before
    assert hasty not in bench.router.mesh(TOPIC)
    bench.router.heartbeat(4000.0)
    bench.control(hasty, 4000.0, graft=[rpc_pb2.ControlGraft(topicID=TOPIC)])
    assert hasty in bench.router.mesh(TOPIC), "a backoff is an hour at most, whatever was asked"


def test_router__repairs_by_ihave_and_iwant() -> None:
    """What the mesh lost is told at the heartbeat and asked for."""
    bench = Bench(20)
    bench.router.publish(TOPIC, b"news", 0.0)
    bench.sent.clear()
    bench.router.heartbeat(1.0)
    told = {peer for peer, rpc in bench.sent if rpc.control.ihave}
    assert told
    assert told.isdisjoint(bench.router.mesh(TOPIC))
    asker = told.pop()
    (wanted,) = {bytes(name) for _, rpc in bench.sent for have in rpc.control.ihave for name in have.messageIDs}
    assert len(wanted) == ID_BYTES and wanted.startswith(bytes.fromhex("002408011220") + bytes(KEY.verify_key)), "as Kubo names it"
    bench.sent.clear()
    bench.control(asker, 1.0, iwant=[rpc_pb2.ControlIWant(messageIDs=[wanted])])
    assert bench.carried(b"news") == {asker}
    bench.sent.clear()
    unknown = [compute_message_id(TOPIC, b"not heard yet"), bytes(ID_BYTES)]
    known = [wanted, compute_message_id(TOPIC, b"news")]
    bench.control(asker, 1.0, ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[*known, *unknown, b"short"])])
    assert [list(rpc.control.iwant[0].messageIDs) for _, rpc in bench.sent] == [unknown]


def test_router__what_a_peer_can_make_it_do_or_keep_is_bounded() -> None:
    bench = Bench(20)
    greedy = bench.peers[0]
    bench.router.publish(TOPIC, b"news", 0.0)
    (wanted,) = bench.router._messages
    bench.sent.clear()
    for _ in range(50):
        bench.control(greedy, 0.5, iwant=[rpc_pb2.ControlIWant(messageIDs=[wanted])])
    assert len(bench.sent) <= gossip.REPEATS_MAX
    bench = Bench(2)
    asked: Counter[PeerId] = Counter()
    for number in range(1000):
        ids = [compute_message_id(TOPIC, b"%d %d" % (number, i)) for i in range(200)]
        bench.control(bench.peers[0], 0.5, ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=ids)])
    for peer, rpc in bench.sent:
        asked[peer] += sum(len(want.messageIDs) for want in rpc.control.iwant)
    assert asked[bench.peers[0]] <= gossip.IHAVE_IDS_MAX
    for number in range(5000):
        bench.router.handle_control(
            bench.peers[0], rpc_pb2.RPC(control=rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID=f"topic {number}")])), 0.5
        )
    assert len(bench.router._backoff) <= 2


def test_router__forgets_old_messages_and_ids() -> None:
    bench = Bench(2)
    for number in range(400):
        bench.router.publish(TOPIC, bytes(60_000) + b"%d" % number, 0.0)
    assert bench.router._history_bytes <= gossip.HISTORY_BYTES_MAX
    for beat in range(gossip.HISTORY_BEATS + 1):
        bench.router.heartbeat(float(beat))
    assert not bench.router._messages
    assert bench.router._history_bytes == 0
    bench.router.heartbeat(gossip.SEEN_S + 10)
    assert not bench.router._seen


# --- scores -----------------------------------------------------------------------------------------------------


def test_scores__fade_and_good_deeds_cannot_be_saved_up() -> None:
    scores, peer = Scores(), PeerId(bytes(32))
    for _ in range(1000):
        scores.record_first(peer, 0.0)
    scores.record_mesh(peer, joined=True, now_s=0.0)
    assert scores.compute(peer, 10_000.0) <= 0.5 * FIRST_MAX + 10
    for _ in range(4):
        scores.record_bad(peer, BLAMED_WEIGHT, 10_000.0)
    assert scores.compute(peer, 10_000.0) < GRAYLIST_THRESHOLD
    assert not scores.is_graylisted(peer, 11_000.0), "forgiven after a while"
    assert scores.compute(peer, 20_000.0) > -1


def test_scores__remember_a_bounded_number_of_peers() -> None:
    scores = Scores()
    for number in range(SCORES_MAX + 10):
        scores.record_bad(PeerId(number.to_bytes(32, "big")), -1.0, 0.0)
    assert len(scores._scores) == SCORES_MAX
    assert scores.compute(PeerId(bytes(32)), 0.0) == 0.0


# --- with another implementation --------------------------------------------------------------------------------


def test_gossip__interoperates_with_py_libp2ps_router_both_ways() -> None:
    """protocol.md: gossipsub 1.1 as others speak it, each message signed by its author."""

    async def run() -> None:
        heard: list[bytes] = []
        arrived = trio.lowlevel.ParkingLot()

        def judge(sender: PeerId, content: bytes) -> Verdict:
            heard.append(content)
            arrived.unpark_all()
            return Verdict.ACCEPT

        listen = ["/ip4/127.0.0.1/tcp/0"]
        async with (
            open_libp2p_network(seed=bytes([1]) * 32, listen=listen, blocks=MemoryBlocks()) as ours,
            open_host(seed=bytes([2]) * 32, listen=listen, rng=Random(1)) as theirs,
        ):
            await ours.subscribe(TOPIC, judge)
            router = GossipSub([TProtocol("/meshsub/1.1.0")], 6, 5, 12, heartbeat_interval=1)
            pubsub = Pubsub(theirs.libp2p, router, strict_signing=True, msg_id_constructor=lambda message: bytes(message.data))
            async with background_trio_service(pubsub), background_trio_service(router):
                await pubsub.wait_until_ready()
                subscription = await pubsub.subscribe(TOPIC)
                await theirs.connect(ours.addresses[0])
                with trio.fail_after(HANGS_S):
                    await pubsub.wait_for_subscription(ID(bytes.fromhex("002408011220") + ours.peer_id), TOPIC)
                    number = 0
                    while not heard:
                        await pubsub.publish(TOPIC, b"from theirs %d" % number)
                        number += 1
                        with trio.move_on_after(0.05):
                            await arrived.park()
                    await ours.publish(TOPIC, b"from ours")
                    while (await subscription.get()).data != b"from ours":
                        pass
        assert heard[0].startswith(b"from theirs")

    trio.run(run)


class Line:
    """Takes what a peer is told, and notes when."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, bytes]] = []

    async def write(self, content: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.batches.append((trio.current_time(), content[1:]))


def test_batches__leave_at_once_and_gather_only_what_comes_soon_after() -> None:
    """A message waits for nothing on a quiet line; a busy one gets a hundred batches a second, whatever arrives."""

    async def main() -> None:
        line, outgoing = Line(), libp2p_pubsub._Outgoing()

        async def put(part: bytes, *, after_s: float) -> None:
            await trio.sleep(after_s)
            outgoing.parts.append(part)
            outgoing.size_bytes += len(part)
            outgoing.more.set()

        async with open_host(seed=bytes(32), listen=[], rng=Random(1)) as host, trio.open_nursery() as nursery:
            pubsub = libp2p_pubsub.PubSub(host, Scores(), Random(1))
            since_s = trio.current_time()
            nursery.start_soon(pubsub._write_all, line, outgoing)
            for part, after_s in ((b"one", 0.0), (b"two", 0.004), (b"three", 0.004), (b"four", 1.0)):
                await put(part, after_s=after_s)
            await trio.sleep(1.0)
            nursery.cancel_scope.cancel()
        came = [(pytest.approx(at_s - since_s, abs=1e-6), content) for at_s, content in line.batches]
        assert came == [(0.0, b"one"), (libp2p_pubsub.GATHER_S, b"twothree"), (1.008, b"four")]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
