"""Block exchange between learnae nodes, `/learnae/blocks/1`: ask for blocks by CID, get them in the order asked.

A request is a count (1 byte) and as many CIDs of 36 bytes; requests are pipelined. For each CID comes a length of 4 bytes
and the block, or the length 0xFFFFFFFF if the provider has none to give. This module serves; `libp2p_fetch` asks.

Why not Bitswap: the wanted list, the sizes and the order are checked here before a byte is kept, and a model arrives at the
speed of the line. Kubo and its kind speak Bitswap only: `libp2p_bitswap`.
"""

from __future__ import annotations

from typing import Final

import trio
from libp2p.abc import INetStream

from learnae.backends.libp2p_direct import ByteBudget, PeerBudgets, read_exactly
from learnae.backends.libp2p_host import Host
from learnae.backends.opened_files import OpenedFiles
from learnae.ids import CID_BYTES, Cid, PeerId, is_cid

PROTOCOL: Final = "/learnae/blocks/1"
ABSENT: Final = 0xFFFFFFFF
REQUEST_CIDS_MAX: Final = 64  # 16 MiB of leaves: enough to fill any line between two requests.
STREAMS_PER_PEER_MAX: Final = 4  # Files that one peer may fetch here at a time.
STREAMS_MAX: Final = 128  # In total, one for each connection; each holds one block in memory. Strangers give way to members.
WRITE_S: Final = 30.0  # A block that a peer does not take in this time frees its place.
ABSENT_COST_BYTES: Final = 131072  # A question for a block that is not here: 64 a second, from whoever asks.
STRANGERS_RATE_BYTES_S: Final = 8 << 20  # For all strangers together, also by Bitswap: 4 % of a core. Members get what the line carries.
STRANGERS_BURST_BYTES: Final = 1 << 30  # Newcomers of a session that starts, before the chain shows that they are members.
ABSENT_BURST_BYTES: Final = 64 << 20
IDLE_S: Final = 20.0  # A stream on which nothing is asked is closed; the asker opens another.


class BlockServer:
    """Gives the public blocks of a store, and what was opened to one peer, to whoever asks, a bounded number at a time."""

    def __init__(self, host: Host, files: OpenedFiles) -> None:
        self._files = files
        self._host = host
        self._streams: dict[PeerId, int] = {}
        self._scopes: dict[trio.CancelScope, PeerId] = {}  # of those streams, oldest first
        self.strangers = ByteBudget(STRANGERS_RATE_BYTES_S, STRANGERS_BURST_BYTES)
        self._absent = PeerBudgets(host, rate_bytes_s=8 << 20, burst_bytes=ABSENT_BURST_BYTES, stranger_bytes=ABSENT_BURST_BYTES / 16)
        host.handle_streams(PROTOCOL, self._serve)

    async def _serve(self, peer: PeerId, stream: INetStream) -> None:
        mine = self._streams.get(peer, 0)
        if mine >= STREAMS_PER_PEER_MAX or (len(self._scopes) >= STREAMS_MAX and not self._make_room(peer)):
            return
        self._streams[peer] = mine + 1
        idle = trio.move_on_after(IDLE_S)
        self._scopes[idle] = peer
        try:
            with idle:
                while True:
                    idle.deadline = trio.current_time() + IDLE_S
                    cids = await read_request(stream)
                    if cids is None:
                        return
                    for cid in cids:
                        idle.deadline = trio.current_time() + WRITE_S
                        block = self._files.read(cid, peer)
                        if block is None:
                            idle.deadline += IDLE_S
                            await self._absent.of(peer).spend(ABSENT_COST_BYTES)
                            await stream.write(ABSENT.to_bytes(4, "big"))
                        else:
                            if peer not in self._host.members:
                                idle.deadline += IDLE_S
                                await self.strangers.spend(len(block))
                            await stream.write(len(block).to_bytes(4, "big") + block)
        finally:
            self._scopes.pop(idle, None)
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    def _make_room(self, peer: PeerId) -> bool:
        """End the newest stream of a stranger for a member; whether there was one."""
        if peer in self._host.members:
            for scope, other in reversed(self._scopes.items()):
                if other not in self._host.members:
                    del self._scopes[scope]
                    scope.cancel()
                    return True
        return False


def encode_request(cids: list[Cid]) -> bytes:
    assert 0 < len(cids) <= REQUEST_CIDS_MAX
    return bytes((len(cids),)) + b"".join(cids)


async def read_request(stream: INetStream) -> list[Cid] | None:
    """None: what the peer asks is not a request."""
    count = (await read_exactly(stream, 1))[0]
    if not 0 < count <= REQUEST_CIDS_MAX:
        return None
    raw = await read_exactly(stream, count * CID_BYTES)
    cids = [raw[at : at + CID_BYTES] for at in range(0, len(raw), CID_BYTES)]
    return [Cid(cid) for cid in cids] if all(map(is_cid, cids)) else None
