"""The muxer: its limits against a peer that sends frames by hand, and its talk with py-libp2p's own."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import cast

import pytest
import trio
import trio.testing
from libp2p.abc import ISecureConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux as LibraryYamux

from learnae.backends.libp2p_patience import BURST, BURST_FIRST, FRAME_COST, RATE_S, STREAM_COST, Patience
from learnae.backends.libp2p_yamux import STREAMS_MAX, Yamux
from learnae.backends.libp2p_yamux_stream import ACK, DATA, GO_AWAY, PING, RST, SYN, WINDOW, WINDOW_BYTES, WINDOW_BYTES_MAX, YamuxStream
from tests.processes import HANGS_S

PEER = ID(b"peer")


class Pipe:
    """One end of a pair of pipes in memory, with the methods of a secured connection that a muxer uses."""

    def __init__(self, stream: trio.abc.Stream, is_initiator: bool) -> None:
        self.stream, self.is_initiator = stream, is_initiator
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self, n: int | None = None) -> bytes:
        while len(self._buffer) < (n or 1):
            more = await self.stream.receive_some(65536)
            if not more:
                raise trio.BrokenResourceError("closed")
            self._buffer += more
        content = bytes(self._buffer[:n])
        del self._buffer[:n]
        return content

    async def close(self) -> None:
        await self.stream.aclose()

    def get_remote_address(self) -> None:
        return None


def make_pipes() -> tuple[ISecureConn, ISecureConn]:
    left, right = trio.testing.memory_stream_pair()
    return cast(ISecureConn, Pipe(left, True)), cast(ISecureConn, Pipe(right, False))


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", *, version: int = 0) -> bytes:
    return struct.pack("!BBHII", version, kind, flags, stream_id, length) + body


@asynccontextmanager
async def two_muxers(left: Callable[..., object] = Yamux) -> AsyncIterator[tuple[Yamux, Yamux]]:
    one, two = make_pipes()
    muxers = left(one, PEER), Yamux(two, PEER)
    async with trio.open_nursery() as nursery:
        for muxer in muxers:
            nursery.start_soon(muxer.start)  # type: ignore[attr-defined]
            await muxer.event_started.wait()  # type: ignore[attr-defined]
        yield cast(tuple[Yamux, Yamux], muxers)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def against_hand() -> AsyncIterator[tuple[Yamux, ISecureConn]]:
    """Our muxer, and the bare end of its connection."""
    one, two = make_pipes()
    muxer = Yamux(two, PEER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        yield muxer, one
        nursery.cancel_scope.cancel()


async def read_all(stream: YamuxStream, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += await stream.read(size - len(content))
    return content


@pytest.mark.parametrize("left", [Yamux, LibraryYamux])
def test_yamux__carries_streams_both_ways_also_with_the_librarys(left: Callable[..., object]) -> None:
    content = Random(1).randbytes(3 * WINDOW_BYTES)

    async def run() -> None:
        async with two_muxers(left) as (one, two), trio.open_nursery() as nursery:
            for opener, accepter in ((one, two), (two, one)):
                mine = await opener.open_stream()
                theirs = await accepter.accept_stream()

                async def send(stream: YamuxStream = mine) -> None:
                    await stream.write(content)
                    await stream.close()

                nursery.start_soon(send)
                assert await read_all(theirs, len(content)) == content
                with pytest.raises(MuxedStreamEOF):
                    await theirs.read(1)
                await theirs.write(b"answer")
                assert await read_all(mine, 6) == b"answer"
                await theirs.close()
                with pytest.raises(MuxedStreamEOF):
                    await mine.read(1)

    trio.run(run)


def test_yamux__a_cancelled_write_leaves_the_connection_whole() -> None:
    """A fetch that is cancelled must not cost the other streams of the connection."""

    async def run() -> None:
        async with two_muxers() as (one, two):
            first = await one.open_stream()
            await two.accept_stream()
            with trio.move_on_after(0.05):
                await first.write(bytes(4 * WINDOW_BYTES))  # nobody reads: it stops in the middle
            first.reset_now()
            second = await one.open_stream()
            theirs = await two.accept_stream()
            await second.write(b"still there")
            assert await read_all(theirs, 11) == b"still there"

    trio.run(run)


def test_yamux__a_slow_reader_holds_back_only_its_own_stream() -> None:
    async def run() -> None:
        async with two_muxers() as (one, two), trio.open_nursery() as nursery:
            stuck, free = await one.open_stream(), await one.open_stream()
            await two.accept_stream()
            theirs = await two.accept_stream()
            nursery.start_soon(stuck.write, bytes(2 * WINDOW_BYTES))
            await free.write(b"on time")
            assert await read_all(theirs, 7) == b"on time"
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_yamux__reset_and_end_of_connection_wake_readers_and_writers() -> None:
    async def run() -> None:
        async with two_muxers() as (one, two), trio.open_nursery() as nursery:
            mine = await one.open_stream()
            theirs = await two.accept_stream()

            async def expect_reset() -> None:
                with pytest.raises(MuxedStreamReset):
                    await mine.read()
                with pytest.raises(MuxedStreamReset):
                    await mine.write(b"x")

            nursery.start_soon(expect_reset)
            await trio.testing.wait_all_tasks_blocked()
            await theirs.reset()
            second = await one.open_stream()
            await second.close()
            with pytest.raises(MuxedStreamError):
                await second.write(b"x")
            two.abort()
            with pytest.raises(MuxedConnUnavailable):
                while True:
                    await one.accept_stream()
            with pytest.raises(MuxedConnUnavailable):
                await one.open_stream()

    trio.run(run)


@pytest.mark.parametrize(
    "attack",
    [
        frame(DATA, SYN, 1, WINDOW_BYTES) + bytes(WINDOW_BYTES) + frame(DATA, 0, 1, 1, b"x"),
        frame(WINDOW, SYN, 1, 0) + frame(DATA, 0, 1, WINDOW_BYTES_MAX + 1),
        frame(WINDOW, SYN, 1, 0) + frame(WINDOW, SYN, 1, 0),
        frame(WINDOW, SYN, 2, 0),
        frame(WINDOW, SYN, 0, 0),
        frame(DATA, 0, 1, 0, version=1),
        frame(7, 0, 1, 0),
        frame(GO_AWAY, 0, 0, 0),
    ],
    ids=["window overrun", "huge frame", "stream twice", "our number", "number zero", "version", "type", "go away"],
)
def test_yamux__a_peer_that_breaks_the_rules_is_cut_off(attack: bytes) -> None:
    async def run() -> None:
        async with against_hand() as (muxer, hand):
            with trio.fail_after(HANGS_S):
                await hand.write(attack)
                await muxer.event_closed.wait()

    trio.run(run)


def test_yamux__streams_beyond_the_limit_are_refused() -> None:
    async def run() -> None:
        async with against_hand() as (muxer, hand):
            for number in range(STREAMS_MAX + 5):
                await hand.write(frame(WINDOW, SYN, 2 * number + 1, 0))
            answers = [struct.unpack("!BBHII", await hand.read(12)) for _ in range(STREAMS_MAX + 5)]
            assert [flags for _, _, flags, _, _ in answers] == [ACK] * STREAMS_MAX + [RST] * 5
            assert len(muxer._streams) == STREAMS_MAX

    trio.run(run)


def test_patience__is_less_with_a_new_connection_than_with_one_that_lasts() -> None:
    """Whoever was cut off comes back under another name, and costs its burst each time."""

    def spend(patience: Patience, now_s: float) -> int:
        messages = 0
        while not patience.compute_wait_s(now_s):
            patience.note_message(100, 0)
            messages += 1
        return messages

    patience = Patience(0.0)
    assert spend(patience, 0.0) == BURST_FIRST + 1 < BURST
    assert abs(spend(patience, 1000.0) - BURST) < 10  # bytes that move earn a little


def test_yamux__a_peer_that_opens_streams_too_fast_is_read_more_slowly() -> None:
    """threats.md, one hostile peer: a stream costs time to negotiate, so they are counted; nothing is lost."""
    fast = int(BURST_FIRST / STREAM_COST) // 2

    async def run() -> None:
        async with against_hand() as (muxer, hand), trio.open_nursery() as nursery:

            async def accept_all() -> None:
                while True:
                    await muxer.accept_stream()

            nursery.start_soon(accept_all)
            numbers = count(1, 2)

            async def open_and_reset() -> int:
                number = next(numbers)
                await hand.write(frame(WINDOW, SYN, number, 0) + frame(WINDOW, RST, number, 0))
                return int(struct.unpack("!BBHII", await hand.read(12))[2])

            began_s = trio.current_time()
            assert [await open_and_reset() for _ in range(fast)] == [ACK] * fast
            assert trio.current_time() == began_s
            assert [await open_and_reset() for _ in range(9 * fast)] == [ACK] * 9 * fast
            least_s = (10 * fast * STREAM_COST - BURST_FIRST) / RATE_S
            assert least_s * 0.9 < trio.current_time() - began_s < least_s * 1.3
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("kind", [PING, WINDOW])
def test_yamux__a_flood_of_tiny_frames_is_read_slowly_and_large_ones_are_not(kind: int) -> None:
    async def run() -> None:
        async with against_hand() as (_, hand):
            began_s = trio.current_time()
            for _ in range(20):
                await hand.write(frame(kind, 0, 99, 0) * 5000)
            await hand.write(frame(PING, SYN, 0, 7))
            assert await hand.read(12) == frame(PING, ACK, 0, 7)
            slow_s = trio.current_time() - began_s
            assert slow_s > (18 * 5000 * FRAME_COST - BURST_FIRST) / RATE_S
        async with against_hand() as (_, hand):
            began_s = trio.current_time()
            for _ in range(100):
                await hand.write(frame(DATA, 0, 99, 65536) + bytes(65536))  # of a stream that is gone: skipped
            await hand.write(frame(PING, SYN, 0, 7))
            assert await hand.read(12) == frame(PING, ACK, 0, 7)
            assert trio.current_time() == began_s

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_yamux__a_peer_that_asks_and_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ping wants an answer: those that wait for a peer that does not read are bounded."""
    monkeypatch.setattr("learnae.backends.libp2p_patience.BURST_FIRST", BURST)  # read more slowly it would be a dead line before

    async def run() -> None:
        left, right = trio.testing.lockstep_stream_pair()  # a line that holds nothing: what is not read is not sent
        muxer = Yamux(cast(ISecureConn, Pipe(right, False)), PEER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer.start)
            await trio.testing.wait_all_tasks_blocked()  # Its first look is over: a line that rests from look to look is dead.
            with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
                while True:
                    await left.send_all(frame(PING, SYN, 0, 7) * 1000)
            await muxer.event_closed.wait()
            assert muxer.broken_rule == "the peer asks for answers and does not read them"

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("is_stuck", [False, True], ids=["silent", "stuck"])
def test_yamux__a_dead_line_is_noticed_and_nobody_is_blamed(is_stuck: bool) -> None:
    """A half-open connection: no byte, no answer to a ping; or nothing leaves any more."""

    async def run() -> None:
        left, right = trio.testing.lockstep_stream_pair() if is_stuck else trio.testing.memory_stream_pair()
        muxer = Yamux(cast(ISecureConn, Pipe(right, False)), PEER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
            muxer.ping()
            began_s = trio.current_time()
            await muxer.event_closed.wait()
            assert (trio.current_time() - began_s < 40) == is_stuck
            assert trio.current_time() - began_s < 120
            assert not muxer.broken_rule
            await left.aclose()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_yamux__finished_streams_are_forgotten() -> None:
    async def run() -> None:
        async with two_muxers() as (one, two):
            for _ in range(3 * STREAMS_MAX):
                mine = await one.open_stream()
                theirs = await two.accept_stream()
                await mine.write(b"question")
                assert await read_all(theirs, 8) == b"question"
                await mine.close()
                theirs.finish()
                with pytest.raises(MuxedStreamEOF):
                    await mine.read()
            await trio.testing.wait_all_tasks_blocked()
            assert not one._streams
            assert not two._streams

    trio.run(run)


def test_yamux__read_whole_waits_for_all_and_loses_nothing_when_it_is_cancelled() -> None:
    async def run() -> None:
        async with two_muxers() as (one, two):
            mine = await one.open_stream()
            theirs = await two.accept_stream()
            await mine.write(b"abc")
            with trio.move_on_after(0.05) as waiting:
                await theirs.read_whole(5)
            assert waiting.cancelled_caught
            await mine.write(b"defg")
            assert await theirs.read_whole(5) == b"abcde"
            assert await theirs.read(9) == b"fg"
            await mine.write(b"x")
            await mine.close()
            with pytest.raises(MuxedStreamEOF):
                await theirs.read_whole(2)

    trio.run(run)


def test_yamux__a_few_bytes_do_not_keep_the_message_that_brought_them() -> None:
    """threats.md, never over 4 times the input in memory: a window full of single bytes of large messages would be gigabytes."""

    async def run() -> None:
        async with against_hand() as (muxer, hand):
            await hand.write(frame(DATA, SYN, 1, 1, b"x") + frame(DATA, 0, 99, 60_000, bytes(60_000)))
            stream = await muxer.accept_stream()
            while not stream.arrived_bytes:
                await trio.testing.wait_all_tasks_blocked()
            (piece,) = stream._inbox
            assert len(piece.obj) == 1
            assert await stream.read_whole(1) == b"x"

    trio.run(run)
