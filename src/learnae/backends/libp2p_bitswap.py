"""Bitswap with other IPFS programs: gives the public blocks of a store to whoever asks, and takes blocks that were asked for.

A message may come on any stream and is answered on a stream of our own, as Bitswap has it. Between learnae nodes blocks go by
`/learnae/blocks/1`, which is faster and checks each size before the bytes; Bitswap is for Kubo and its kind (`libp2p_fetch` asks a
provider by what it speaks). Of a peer nothing is kept but its wanted list, for as long as it is answered: a block that comes in here later
is given when the peer asks again, as IPFS programs do. A block that nobody here asked for is dropped, and counts against the sender's
budget. What is opened to one peer only (`opened_files`) does not go by Bitswap.
Source: IPFS specs, Bitswap 1.2.0.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio
from libp2p.abc import INetStream

from learnae.backends.bitswap_messages import PROTOCOLS, WANTS_MAX, Message, MessageError, Want, encode_answer, parse_message, read_name
from learnae.backends.libp2p_direct import ByteBudget, PeerBudgets, read_exactly, read_varint
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of
from learnae.backends.unixfs import encode_varint
from learnae.ids import Cid, PeerId
from learnae.ports import BlockStore

logger = logging.getLogger(__name__)

MESSAGE_BYTES_MAX: Final = 4 << 20  # As in Kubo: two of the largest blocks.
QUIET_BYTES_MAX: Final = 256 << 10  # From a peer that was asked for nothing: thousands of wants.
LARGE_BYTES: Final = 64 << 10  # Larger messages are read a few at a time.
LARGE_AT_ONCE: Final = 4  # Per peer: 16 MiB of memory; eight providers are asked at a time.
STREAMS_PER_PEER_MAX: Final = 24  # Kubo opens one for every message, and sends eight messages at a time; a connection has 32 streams.
PEERS_MAX: Final = 64  # Answered at the same time, the others wait; each holds one message in memory.
READERS_MAX: Final = 2  # Threads that read blocks for answers.
ANSWER_BYTES: Final = 1 << 20  # Blocks in one message of ours.
MESSAGE_S: Final = 60.0  # For a message to arrive, or for one of ours to be taken.
IDLE_S: Final = 5.0  # A stream of answers stays open this long for more.
RATE_BYTES_S: Final = 256 << 10  # Per peer, of what was not asked for: wanted lists, mostly.
BURST_BYTES: Final = 4 << 20
STRANGER_BURST_BYTES: Final = BURST_BYTES // 16  # Eight hundred wants: a file of 200 MB. A new identity brings no more.
ENTRY_COST_BYTES: Final = 256  # A want, block or presence counts this much more than its bytes: it takes longer than reading it.


class Answers:
    """What one fetch asked of one peer, and what came; made by `Bitswap.open_answers`."""

    def __init__(self, siblings: Sequence[Answers]) -> None:
        self._siblings = siblings  # all of that peer, this one among them
        self.owed: dict[bytes, Cid] = {}  # by the digest
        self.pending = 0  # asked for, and not taken yet
        self._found: deque[tuple[Cid, bytes | None]] = deque()
        self._more = trio.lowlevel.ParkingLot()

    def expect(self, cids: list[Cid]) -> None:
        self.owed |= {cid[4:]: cid for cid in cids}
        self.pending += len(cids)

    def deliver(self, digest: bytes, block: bytes | None) -> bool:
        """Whether it was asked for."""
        cid = self.owed.pop(digest, None)
        if cid is not None:
            self._found.append((cid, block))
            self.tell_more()
        return cid is not None

    def take(self) -> tuple[Cid, bytes | None] | None:
        """What came first of what is here: a block, its hash verified, or a CID that the peer lacks. None: nothing yet."""
        if not self._found:
            return None
        self.pending -= 1
        return self._found.popleft()

    async def wait_for_more(self) -> None:
        """Until something has come, if only a part of a block."""
        await self._more.park()

    def list_unshared(self) -> list[Cid]:
        """What is owed here and to no other fetch."""
        return [cid for digest, cid in self.owed.items() if sum(digest in answers.owed for answers in self._siblings) == 1]

    def tell_more(self) -> None:
        self._more.unpark_all()


@dataclass(slots=True)
class _Neighbour:
    budget: ByteBudget
    streams: int = 0
    large: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(LARGE_AT_ONCE))
    wants: OrderedDict[bytes, Want] = field(default_factory=OrderedDict)
    wants_more: trio.Event = field(default_factory=trio.Event)
    is_answered: bool = False  # or waits for its turn
    answers: list[Answers] = field(default_factory=list)


class Bitswap:
    """Bitswap with all peers of a host. `strangers`: what all who are no members are given together."""

    def __init__(self, host: Host, blocks: BlockStore, blame: Callable[[PeerId, str], None], strangers: ByteBudget) -> None:
        self._host, self._blocks, self._blame, self._strangers = host, blocks, blame, strangers
        self._places, self._readers = trio.CapacityLimiter(PEERS_MAX), trio.CapacityLimiter(READERS_MAX)
        self._budgets = PeerBudgets(host, rate_bytes_s=RATE_BYTES_S, burst_bytes=BURST_BYTES, stranger_bytes=STRANGER_BURST_BYTES)
        self._neighbours: dict[PeerId, _Neighbour] = {}
        for version in PROTOCOLS:
            host.handle_streams(version, self._receive)

    @contextmanager
    def open_answers(self, peer: PeerId) -> Iterator[Answers]:
        """What `peer` sends is taken while the block runs, if it was asked for through the answers."""
        neighbour = self._meet(peer)
        answers = Answers(neighbour.answers)
        neighbour.answers.append(answers)
        try:
            yield answers
        finally:
            neighbour.answers.remove(answers)
            self._leave(peer)

    # --- what peers send ----------------------------------------------------------------------------------------

    async def _receive(self, peer: PeerId, stream: INetStream) -> None:
        neighbour = self._meet(peer)
        if neighbour.streams >= STREAMS_PER_PEER_MAX:
            return
        neighbour.streams += 1
        try:
            async with trio.open_nursery() as nursery:
                try:
                    while (raw := await self._read_message(neighbour, stream)) is not None:
                        message, is_asked = await self._take_message(neighbour, raw)
                        if is_asked:
                            muxed_stream_of(stream).muxed_conn.grant_opening()
                        self._take_wants(neighbour, message)
                        if neighbour.wants and not neighbour.is_answered:
                            neighbour.is_answered = True
                            nursery.start_soon(self._answer, peer, neighbour)
                except MessageError as error:
                    self._blame(peer, f"on a Bitswap stream: {error}")
                except STREAM_ERRORS as error:
                    logger.debug("a Bitswap stream ended: %r", error)
        finally:
            neighbour.streams -= 1
            self._leave(peer)

    async def _read_message(self, neighbour: _Neighbour, stream: INetStream) -> bytes | None:
        """The bytes of the next message. None: it is larger than a message of this peer may be, or too slow."""
        size_bytes = await read_varint(stream)
        if size_bytes > (MESSAGE_BYTES_MAX if neighbour.answers else QUIET_BYTES_MAX):
            return None
        raw: bytes | None = None
        with trio.move_on_after(MESSAGE_S):
            if size_bytes <= LARGE_BYTES:
                raw = await read_exactly(stream, size_bytes)
            else:
                async with neighbour.large:
                    raw = await self._read_large(neighbour, stream, size_bytes)
        return raw

    async def _read_large(self, neighbour: _Neighbour, stream: INetStream, size_bytes: int) -> bytes:
        parts: list[bytes] = []
        left = size_bytes
        while left:
            parts.append(await stream.read(left))
            left -= len(parts[-1])
            for answers in neighbour.answers:
                answers.tell_more()
        return b"".join(parts)

    async def _take_message(self, neighbour: _Neighbour, raw: bytes) -> tuple[Message, bool]:
        """Read a message and hand its blocks to who asked for them; whether it brought any such. Raises: MessageError."""
        message = parse_message(raw)
        cost_bytes, asked = len(raw), 0
        for block in message.blocks if neighbour.answers else ():
            digest = hashlib.sha256(block).digest()
            if sum(answers.deliver(digest, block) for answers in neighbour.answers):
                asked += 1
                cost_bytes -= len(block)
        for name in message.lacking:
            asked += bool(sum(answers.deliver(name[-32:], None) for answers in neighbour.answers))
        await neighbour.budget.spend(cost_bytes + ENTRY_COST_BYTES * (message.entries - asked))
        return message, asked > 0

    def _take_wants(self, neighbour: _Neighbour, message: Message) -> None:
        if message.is_full:
            neighbour.wants.clear()
        for want in message.wants:
            if want.is_cancel:
                neighbour.wants.pop(want.name, None)
            elif len(neighbour.wants) < WANTS_MAX:
                neighbour.wants[want.name] = want
        if neighbour.wants:
            neighbour.wants_more.set()

    # --- what peers are given -----------------------------------------------------------------------------------

    async def _answer(self, peer: PeerId, neighbour: _Neighbour) -> None:
        try:
            async with self._places:
                stream = await self._host.open_stream(peer, PROTOCOLS)
                try:
                    await self._write_answers(peer, neighbour, stream)
                    muxed_stream_of(stream).finish()
                finally:
                    drop_stream(stream)
        except STREAM_ERRORS as error:
            logger.debug("Bitswap answers ended: %r", error)
        finally:
            neighbour.is_answered = False
            neighbour.wants.clear()

    async def _write_answers(self, peer: PeerId, neighbour: _Neighbour, stream: INetStream) -> None:
        version = str(stream.get_protocol())
        while True:
            with trio.move_on_after(IDLE_S):
                await neighbour.wants_more.wait()
            if not neighbour.wants:
                return
            wants = list(neighbour.wants.values())
            message, answered = await trio.to_thread.run_sync(self._read_answer, wants, version, limiter=self._readers)
            for want in wants[:answered]:
                if neighbour.wants.get(want.name) is want:  # not taken back or asked anew meanwhile
                    del neighbour.wants[want.name]
            if not neighbour.wants:
                neighbour.wants_more = trio.Event()
            if message:
                if peer not in self._host.members:
                    await self._strangers.spend(len(message))
                with trio.move_on_after(MESSAGE_S) as writing:
                    await stream.write(encode_varint(len(message)) + message)
                if writing.cancelled_caught:
                    return

    def _read_answer(self, wants: list[Want], version: str) -> tuple[bytes, int]:
        """The next message for a peer, empty if there is nothing to say about what it asked, and how many wants it answers."""
        blocks: list[tuple[bytes, bytes]] = []
        has: list[bytes] = []
        lacking: list[bytes] = []
        size_bytes = answered = 0
        for want in wants:
            if size_bytes >= ANSWER_BYTES:
                break
            answered += 1
            name = want.name
            cid = read_name(name)
            if cid is None or not self._blocks.has_public_block(cid):
                lacking += [name] if want.wants_no else []
            elif want.only_presence:
                has.append(name)
            elif (block := self._blocks.get_public_block(cid)) is not None:
                blocks.append((name, block))
                size_bytes += len(block)
            else:
                lacking += [name] if want.wants_no else []
        message = encode_answer(blocks, has=has, lacking=lacking, version=version) if blocks or has or lacking else b""
        return message, answered

    # --- inside -------------------------------------------------------------------------------------------------

    def _meet(self, peer: PeerId) -> _Neighbour:
        if peer not in self._neighbours:
            self._neighbours[peer] = _Neighbour(self._budgets.of(peer))
        return self._neighbours[peer]

    def _leave(self, peer: PeerId) -> None:
        neighbour = self._neighbours[peer]
        if not neighbour.streams and not neighbour.answers:
            del self._neighbours[peer]
