"""How one provider is asked for blocks: by `/learnae/blocks/1`, or by Bitswap if it does not speak that.

A line knows the bytes of its protocol; whom to ask for what, how long to wait, and what to do with a block is for `libp2p_fetch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

import trio
from libp2p.abc import INetStream

from learnae.backends.bitswap_messages import encode_wants
from learnae.backends.libp2p_bitswap import Answers
from learnae.backends.libp2p_blocks import ABSENT, encode_request
from learnae.backends.libp2p_host import STREAM_ERRORS, muxed_stream_of
from learnae.backends.unixfs import BLOCK_BYTES_MAX, encode_varint
from learnae.ids import Cid

_CANCEL_S: Final = 0.2  # The connection takes a short message at once, or is stuck.
T = TypeVar("T")


class Lied(Exception):
    """A provider sent what was not asked for; the text says what."""


class Patient(Protocol):
    """Waits for the next sign of life that `read` gives, for as long as the provider deserves."""

    async def __call__(self, read: Callable[[], Awaitable[T]]) -> T: ...


class Line(Protocol):
    """A provider that is asked for blocks."""

    @property
    def pending(self) -> int:
        """Blocks that were asked for and not received."""

    async def ask(self, cids: list[Cid]) -> None: ...

    async def receive(self, wait: Patient) -> tuple[Cid, bytes | None]:
        """One block, not verified, or None if the provider has none to give. Raises: Lied; what `wait` raises."""


class OwnLine:
    """`/learnae/blocks/1`: blocks come in the order asked, each behind its length."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._owed: deque[Cid] = deque()

    @property
    def pending(self) -> int:
        return len(self._owed)

    async def ask(self, cids: list[Cid]) -> None:
        self._owed.extend(cids)
        await self._stream.write(encode_request(cids))

    async def receive(self, wait: Patient) -> tuple[Cid, bytes | None]:
        cid = self._owed[0]
        size_bytes = int.from_bytes(await self._read(4, wait), "big")
        block: bytes | None = None
        if size_bytes != ABSENT:
            if size_bytes > BLOCK_BYTES_MAX:  # of any block: one that is larger than its file says is the file's lie, not the sender's
                raise Lied(f"a block of {size_bytes} bytes, at most {BLOCK_BYTES_MAX} are allowed")
            block = await self._read(size_bytes, wait)
        self._owed.popleft()  # not before: a cancelled line with something owed is in the middle of a block
        return cid, block

    async def _read(self, size_bytes: int, wait: Patient) -> bytes:
        return await wait(partial(muxed_stream_of(self._stream).read_whole, size_bytes))


class BitswapLine:
    """Bitswap: blocks come in any order, on streams of the provider's; their size is known when they are here."""

    def __init__(self, stream: INetStream, answers: Answers) -> None:
        self._stream, self._answers = stream, answers

    @property
    def pending(self) -> int:
        return self._answers.pending

    async def ask(self, cids: list[Cid]) -> None:
        self._answers.expect(cids)
        await self._send(encode_wants(cids))

    async def receive(self, wait: Patient) -> tuple[Cid, bytes | None]:
        while (found := self._answers.take()) is None:
            await wait(self._answers.wait_for_more)
        return found

    async def cancel(self) -> None:
        """Take back what was asked for and no other fetch waits for, so that it is not sent."""
        if unwanted := self._answers.list_unshared():
            with trio.CancelScope(deadline=trio.current_time() + _CANCEL_S, shield=True), suppress(*STREAM_ERRORS):
                await self._send(encode_wants(unwanted, is_cancel=True))
                muxed_stream_of(self._stream).finish()

    async def _send(self, message: bytes) -> None:
        await self._stream.write(encode_varint(len(message)) + message)
