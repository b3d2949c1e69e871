"""What a hostile peer does in the `hostile` benchmark: one endless coroutine for each attack, over a real connection."""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.pubsub.pb import rpc_pb2

from learnae.backends.bitswap_messages import PROTOCOLS as BITSWAP
from learnae.backends.bitswap_messages import encode_answer, encode_wants
from learnae.backends.libp2p_address import parse_address
from learnae.backends.libp2p_bitswap import QUIET_BYTES_MAX
from learnae.backends.libp2p_blocks import PROTOCOL as BLOCKS
from learnae.backends.libp2p_blocks import encode_request
from learnae.backends.libp2p_direct import PROTOCOL as SYNC
from learnae.backends.libp2p_direct import read_exactly
from learnae.backends.libp2p_gossip import encode_subscription
from learnae.backends.libp2p_host import Host
from learnae.backends.libp2p_pubsub import PROTOCOLS as GOSSIP
from learnae.backends.libp2p_yamux import Yamux
from learnae.backends.libp2p_yamux_stream import PING, SYN, WINDOW
from learnae.backends.unixfs import encode_varint
from learnae.ids import CODEC_RAW, PeerId, compute_cid
from learnae.ports import DIRECT_BYTES_MAX
from learnae.tangle import cbor

TOPIC: Final = "/learnae/benchmark"
Attack = Callable[[Host, str], Awaitable[None]]


async def send_nothing(host: Host, victim: str) -> None:
    """The reference: a peer that is connected and says nothing."""
    await trio.sleep_forever()


async def gossip_garbage(host: Host, victim: str) -> None:
    """Messages that are no vertices, as fast as they are taken."""
    await _gossip(host, victim, lambda: _message(os.urandom(200), TOPIC))


async def gossip_elsewhere(host: Host, victim: str) -> None:
    """Small messages of a topic that nobody asked for: nothing is rejected, so no score is lost."""
    await _gossip(host, victim, lambda: _message(os.urandom(16), "/elsewhere") * 100)


async def gossip_repeated(host: Host, victim: str) -> None:
    """One and the same message for ever."""
    same = _message(bytes(16), TOPIC) * 100
    await _gossip(host, victim, lambda: same)


async def subscribe_endlessly(host: Host, victim: str) -> None:
    """New topics without end."""
    numbers = count()
    await _gossip(host, victim, lambda: b"".join(encode_subscription(f"topic {next(numbers)}") for _ in range(100)))


async def want_endlessly(host: Host, victim: str) -> None:
    """IWANT and IHAVE with a thousand ids each."""

    def make() -> bytes:
        ids = [os.urandom(20) for _ in range(1000)]
        control = rpc_pb2.ControlMessage(
            ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=ids)], iwant=[rpc_pb2.ControlIWant(messageIDs=ids)]
        )
        return bytes(rpc_pb2.RPC(control=control).SerializeToString())

    await _gossip(host, victim, make)


async def direct_small(host: Host, victim: str) -> None:
    """Direct messages of a few bytes that are well formed and say nothing."""
    await _direct(host, victim, cbor.encode([1, None, False, [], []]))


async def direct_bombs(host: Host, victim: str) -> None:
    """Direct messages of a megabyte of tiny items."""
    head = b"\x85\x01\xf6\xf4\x80"
    await _direct(host, victim, head + cbor.encode_head(4, DIRECT_BYTES_MAX - 16) + b"\x80" * (DIRECT_BYTES_MAX - 16))


async def direct_oversized(host: Host, victim: str) -> None:
    """Frames that say that they are larger than allowed."""
    stream = await host.open_stream(_peer(victim), [SYNC])
    while True:
        await stream.write((DIRECT_BYTES_MAX + 1).to_bytes(4, "big") + bytes(65536))


async def direct_dripping(host: Host, victim: str) -> None:
    """A byte at a time, of two messages at once."""
    streams = [await host.open_stream(_peer(victim), [SYNC]) for _ in range(2)]
    for stream in streams:
        await stream.write((1000).to_bytes(4, "big"))
    while True:
        for stream in streams:
            await stream.write(b"x")
        await trio.sleep(0.01)


async def open_streams(host: Host, victim: str) -> None:
    """New streams without end, each negotiated and dropped."""
    while True:
        stream = await host.open_stream(_peer(victim), [BLOCKS])
        await stream.reset()


async def ask_for_blocks(host: Host, victim: str) -> None:
    """Blocks that the victim does not have, asked for without end."""
    stream = await host.open_stream(_peer(victim), [BLOCKS])
    request = encode_request([compute_cid(os.urandom(8), CODEC_RAW) for _ in range(64)])
    while True:
        await stream.write(request)
        await read_exactly(stream, 4 * 64)


async def send_unwanted_blocks(host: Host, victim: str) -> None:
    """Blocks that nobody asked for, on the stream for asking."""
    stream = await host.open_stream(_peer(victim), [BLOCKS])
    while True:
        await stream.write((65536).to_bytes(4, "big") + os.urandom(65536))


async def bitswap_wants(host: Host, victim: str) -> None:
    """Wanted lists of a thousand blocks that the victim does not have, each to be answered; the answers are taken."""

    async def take(peer: PeerId, stream: INetStream) -> None:
        while True:
            await stream.read(65536)

    for version in BITSWAP:
        host.handle_streams(version, take)
    await _bitswap(host, victim, lambda: encode_wants([compute_cid(os.urandom(8), CODEC_RAW) for _ in range(1000)]))


async def bitswap_blocks(host: Host, victim: str) -> None:
    """Blocks that nobody asked for, as large as one message may be from a peer that was asked for nothing."""
    await _bitswap(host, victim, lambda: encode_answer([(compute_cid(b""), os.urandom(QUIET_BYTES_MAX - 64))], version=BITSWAP[0]))


async def bitswap_empty(host: Host, victim: str) -> None:
    """Messages of as many empty blocks as fit."""
    message = b"\x12\x00" * (QUIET_BYTES_MAX // 2)
    await _bitswap(host, victim, lambda: message)


async def ping_endlessly(host: Host, victim: str) -> None:
    """Pings of the muxer, and windows of streams that do not exist."""
    muxer = _muxer(host)
    while True:
        for number in range(200):
            muxer.queue(PING, SYN, 0, number)
            muxer.queue(WINDOW, 0, 99, 1)
        await muxer.wait_for_room()


async def break_muxer(host: Host, victim: str) -> None:
    """Rules of the muxer broken at once, then again by somebody new."""
    muxer = _muxer(host)
    muxer._outbox.append(struct.pack("!BBHII", 9, 9, 0, 0, 0))
    muxer._outbox_bytes += 12
    muxer.queue(PING, SYN, 0, 0)
    await muxer.event_closed.wait()


async def hang_up(host: Host, victim: str) -> None:
    """A handshake, and nothing more: then again by somebody new."""
    await trio.lowlevel.checkpoint()


async def serve_wrong_bytes(peer: PeerId, stream: INetStream) -> None:
    """Answers every question for a block with bytes that are not it."""
    while True:
        asked = (await read_exactly(stream, 1))[0]
        await read_exactly(stream, 36 * asked)
        for _ in range(asked):
            await stream.write((65536).to_bytes(4, "big") + bytes(65536))


ATTACKS: Final[dict[str, Attack]] = {
    "nothing": send_nothing,
    "gossip: garbage": gossip_garbage,
    "gossip: foreign topic": gossip_elsewhere,
    "gossip: one message for ever": gossip_repeated,
    "gossip: subscriptions": subscribe_endlessly,
    "gossip: IHAVE and IWANT": want_endlessly,
    "direct: small messages": direct_small,
    "direct: bombs of a megabyte": direct_bombs,
    "direct: oversized frames": direct_oversized,
    "direct: slow drip": direct_dripping,
    "blocks: asked for without end": ask_for_blocks,
    "blocks: unwanted": send_unwanted_blocks,
    "blocks: wrong bytes": send_nothing,
    "bitswap: wants": bitswap_wants,
    "bitswap: unwanted blocks": bitswap_blocks,
    "bitswap: empty blocks": bitswap_empty,
    "muxer: streams": open_streams,
    "muxer: pings": ping_endlessly,
    "muxer: broken rules": break_muxer,
    "handshakes": hang_up,
}


async def _gossip(host: Host, victim: str, make: Callable[[], bytes]) -> None:
    stream = await host.open_stream(_peer(victim), GOSSIP)
    while True:
        rpc = make()
        await stream.write(encode_varint(len(rpc)) + rpc)


async def _bitswap(host: Host, victim: str, make: Callable[[], bytes]) -> None:
    stream = await host.open_stream(_peer(victim), BITSWAP)
    while True:
        message = make()
        await stream.write(encode_varint(len(message)) + message)


async def _direct(host: Host, victim: str, content: bytes) -> None:
    stream = await host.open_stream(_peer(victim), [SYNC])
    while True:
        await stream.write(len(content).to_bytes(4, "big") + content)


def _message(content: bytes, topic: str) -> bytes:
    return bytes(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=content, topicIDs=[topic])]).SerializeToString())


def _peer(address: str) -> PeerId:
    return parse_address(address)[1]


def _muxer(host: Host) -> Yamux:
    (conn,) = host.swarm.get_connections()
    muxer = conn.muxed_conn
    assert isinstance(muxer, Yamux)
    return muxer
