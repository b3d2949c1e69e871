"""The bad line that other tests put between nodes does what its page says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from tests.lossy_link import Line, LossyLink, open_lossy_link

FAST = 20.0  # Times real time; on loopback the machine's own delays count this much more.
BUSY = 10.0  # The line is never quicker than it says; a busy machine may make it this much slower.


async def _send(stream: trio.SocketStream) -> None:
    """Answers a count of bytes with as many."""
    size = int.from_bytes(await stream.receive_some(4), "big")
    await stream.send_all(Random(size).randbytes(size))


async def _fetch(port: int, size: int) -> tuple[bytes, float]:
    began_s = trio.current_time()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(size.to_bytes(4, "big"))
        content = b"".join([piece async for piece in stream])
    return content, trio.current_time() - began_s


@asynccontextmanager
async def _open(line: Line) -> AsyncIterator[LossyLink]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _send, 0)
        async with open_lossy_link(listeners[0].socket.getsockname()[1], line) as link:
            yield link
        nursery.cancel_scope.cancel()


def _measure(line: Line, size: int) -> float:
    """Seconds for an answer of `size` bytes, which arrives whole."""

    async def run() -> float:
        async with _open(line) as link:
            content, took_s = await _fetch(link.port, size)
            assert content == Random(size).randbytes(size)
            assert link.answered_bytes == size
            return took_s

    return trio.run(run, clock=trio.testing.MockClock(rate=FAST))


def test_line__delays_each_way() -> None:
    assert 1.0 <= _measure(Line(delay_s=0.5), 100) < 1.0 * BUSY
    assert _measure(Line(delay_s=0.5, jitter_s=1.0), 100) >= 1.0


def test_line__window_grows_from_ten_segments() -> None:
    """10, 20, 40 and 80 segments in four round trips, after the one of the request."""
    assert 4.0 <= _measure(Line(delay_s=0.5), 150 * 1448) < 4.0 * BUSY


def test_line__bandwidth_is_not_passed() -> None:
    assert 9.0 <= _measure(Line(bandwidth_bytes_s=100_000), 1_000_000) < 9.0 * BUSY


def test_line__loss_makes_tcp_slow() -> None:
    """At 1 % and 100 ms TCP reaches 1.2 segments / (0.1 s * sqrt(0.01)) = 170 kB/s (Mathis et al. 1997); at 30 % a few a second."""
    some = 2_000_000 / _measure(Line(delay_s=0.05, loss=0.01), 2_000_000)
    assert 80_000 / BUSY < some < 700_000
    many = 40_000 / _measure(Line(delay_s=0.1, loss=0.3), 40_000)
    assert 500 / BUSY < many < 15_000


def test_line__frozen_says_nothing_and_goes_on_later() -> None:
    async def run() -> None:
        async with _open(Line()) as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            link.freeze()
            await stream.send_all((5).to_bytes(4, "big"))
            with trio.move_on_after(0.05) as waiting:
                await stream.receive_some(1)
            assert waiting.cancelled_caught
            link.thaw()
            assert await stream.receive_some(10) == Random(5).randbytes(5)

    trio.run(run)


def test_line__cut_tells_both_ends() -> None:
    async def run() -> None:
        async with _open(Line()) as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            await stream.send_all((5).to_bytes(4, "big"))
            assert len(await stream.receive_some(10)) == 5
            link.cut()
            with pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some(1):
                    pass

    trio.run(run)


def test_line__one_bit_flips() -> None:
    async def run() -> None:
        async with _open(Line()) as link:
            link.flip_bit()
            content, _ = await _fetch(link.port, 1000)
            right = int.from_bytes(Random(1000).randbytes(1000), "big")
            assert (int.from_bytes(content, "big") ^ right).bit_count() == 1
            assert (await _fetch(link.port, 1000))[0] == Random(1000).randbytes(1000)

    trio.run(run)
