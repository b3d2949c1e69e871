"""Hostile gossip on real sockets: rejected messages, nonsense, floods of subscriptions."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.pubsub.pb import rpc_pb2

from learnae.backends import libp2p_pubsub, unixfs
from learnae.backends.libp2p_direct import read_exactly, read_varint
from learnae.backends.libp2p_gossip import TOPICS_PER_PEER_MAX, encode_subscription
from learnae.backends.libp2p_host import STREAM_ERRORS
from learnae.backends.libp2p_scores import GRAYLIST_THRESHOLD
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, Topic
from learnae.tangle.verdict import Verdict
from tests.backends.hostile import open_attacker, open_victim, until

TOPIC = Topic("/learnae/test/control")


def frame(rpc: bytes) -> bytes:
    return unixfs.encode_varint(len(rpc)) + rpc


def message(content: bytes, topic: str = TOPIC) -> bytes:
    return bytes(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=content, topicIDs=[topic])]).SerializeToString())


def test_gossip__rejected_messages_lead_to_disconnection_that_outlives_reconnecting() -> None:
    """protocol.md: REJECT costs the sender's score; scores are kept across reconnects."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim:
            judged = 0

            def judge(sender: PeerId, content: bytes) -> Verdict:
                nonlocal judged
                judged += 1
                return Verdict.REJECT

            await victim.subscribe(TOPIC, judge)
            async with open_attacker(victim) as attacker:
                stream = await attacker.open_stream(victim.peer_id, libp2p_pubsub.PROTOCOLS)
                with suppress(*STREAM_ERRORS):
                    for number in range(1000):
                        await stream.write(frame(message(b"%d" % number)))
                await until(lambda: attacker.peer_id not in victim.connected())
                assert judged < 20, "below the graylist nothing is judged any more"
                assert victim.scores.compute(attacker.peer_id, trio.current_time()) < GRAYLIST_THRESHOLD
                before = judged
                await attacker.connect(victim.addresses[0])
                await until(lambda: not attacker.connected())
                assert judged == before

    trio.run(run)


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xff\xff\xff\x0f", frame(b"\xff" * 100), b"\x05ab", frame(message(b"")), frame(message(bytes(70_000)))],
    ids=["too large", "no protobuf", "cut short", "empty message", "message too large"],
)
def test_gossip__nonsense_reaches_nobody(nonsense: bytes) -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim:
            heard: list[bytes] = []

            def judge(sender: PeerId, content: bytes) -> Verdict:
                heard.append(content)
                return Verdict.ACCEPT

            await victim.subscribe(TOPIC, judge)
            async with open_attacker(victim) as attacker:
                stream = await attacker.open_stream(victim.peer_id, libp2p_pubsub.PROTOCOLS)
                await stream.write(nonsense)
                second = await attacker.open_stream(victim.peer_id, libp2p_pubsub.PROTOCOLS)
                await second.write(frame(message(b"a sound message")))
                await until(lambda: bool(heard))
            assert heard == [b"a sound message"]

    trio.run(run)


def test_gossip__a_flood_of_subscriptions_is_forgotten() -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim:
            await victim.subscribe(TOPIC, lambda sender, content: Verdict.ACCEPT)
            async with open_attacker(victim) as attacker:
                stream = await attacker.open_stream(victim.peer_id, libp2p_pubsub.PROTOCOLS)
                for number in range(50):
                    await stream.write(frame(b"".join(encode_subscription(f"topic {number} {i}") for i in range(100))))
                await stream.write(frame(encode_subscription("x" * 100_000)))
                router = victim._pubsub.router
                await until(lambda: attacker.peer_id in router._peers and bool(router._peers[attacker.peer_id].topics))
                assert len(router._peers[attacker.peer_id].topics) <= TOPICS_PER_PEER_MAX
                assert all(len(topic) < 300 for topic in router._peers[attacker.peer_id].topics)

    trio.run(run)


def test_gossip__what_comes_soon_after_a_batch_leaves_together() -> None:
    """Issue, CPU of gossip: an encrypted message costs the same with one vertex in it or with forty. The first one never waits."""

    async def run() -> None:
        frames: list[int] = []
        async with open_victim(MemoryBlocks()) as victim:
            await victim.subscribe(TOPIC, lambda sender, content: Verdict.ACCEPT)
            async with open_attacker(victim) as neighbour:

                async def count(peer: PeerId, stream: INetStream) -> None:
                    while True:
                        rpc = rpc_pb2.RPC.FromString(await read_exactly(stream, await read_varint(stream)))
                        frames.append(len(rpc.publish))

                for protocol in libp2p_pubsub.PROTOCOLS:
                    neighbour.handle_streams(protocol, count)
                stream = await neighbour.open_stream(victim.peer_id, libp2p_pubsub.PROTOCOLS)
                await stream.write(frame(encode_subscription(TOPIC)))
                await until(lambda: neighbour.peer_id in victim.mesh(TOPIC))
                for number in range(100):
                    await victim.publish(TOPIC, b"%d" % number)
                    await trio.testing.wait_all_tasks_blocked(0.0001)
                await until(lambda: sum(frames) == 100)
        assert len([size for size in frames if size]) < 70
        assert max(frames) > 1

    trio.run(run)
