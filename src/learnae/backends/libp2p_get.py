"""One file from one IPFS node, by Bitswap, without a session: `learnae ipfs get CID --from MULTIADDR`.

The peer that asks has an identity of its own for this one time, listens nowhere and gives nothing.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from random import SystemRandom
from typing import Final

import trio

from learnae.backends.bitswap_messages import PROTOCOLS
from learnae.backends.libp2p_bitswap import Bitswap
from learnae.backends.libp2p_direct import ByteBudget
from learnae.backends.libp2p_host import STREAM_ERRORS, open_host
from learnae.backends.libp2p_lines import BitswapLine, T
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import NodeError
from learnae.backends.unixfs_read import WINDOW, FileReader
from learnae.errors import FetchError
from learnae.ids import Cid, cid_text

SILENT_S: Final = 30.0  # Without a byte: the other side is given up.


async def get_file(
    address: str, cid: Cid, write: Callable[[bytes], object], *, bytes_max: int, on_progress: Callable[[int, int], None]
) -> int:
    """Fetch a file from the node at a multiaddr and write it in order, each block verified; returns its size in bytes.

    Args:
        cid: of a file in any layout that `FileReader` reads.
        bytes_max: a larger file is refused when its root is here; nothing was written then.
        on_progress: told the bytes that were written, and those of the file, as they grow.
    Raises: BadAddressError, UnreachableError; FetchError: it is not there, is no file, is too large, or stopped coming.
    """

    async def wait(read: Callable[[], Awaitable[T]]) -> T:
        with trio.fail_after(SILENT_S):
            return await read()

    written_bytes = 0
    async with open_host(seed=os.urandom(32), listen=[], rng=SystemRandom()) as host:
        bitswap = Bitswap(host, MemoryBlocks(), lambda peer, why: None, ByteBudget())
        peer = await host.dial(address)
        try:
            reader = FileReader(cid, bytes_max=bytes_max)
            stream = await host.open_stream(peer, PROTOCOLS)
            with bitswap.open_answers(peer) as answers:
                line = BitswapLine(stream, answers)
                while True:
                    for part in reader.read():
                        write(part)
                        written_bytes += len(part)
                        on_progress(written_bytes, reader.file_bytes or 0)
                    if reader.is_done:
                        return written_bytes
                    if wanted := reader.take_wanted(WINDOW - line.pending):
                        await line.ask(wanted)
                    found, block = await line.receive(wait)
                    if block is None:
                        raise FetchError(cid_text(cid), f"{cid_text(found)} is not at {address}")
                    reader.handle_block(found, block)
        except NodeError as error:
            raise FetchError(cid_text(cid), str(error)) from error
        except trio.TooSlowError as error:
            raise FetchError(cid_text(cid), f"nothing came from {address} for {SILENT_S:.0f} s") from error
        except STREAM_ERRORS as error:
            reason = "the connection broke" if written_bytes else "it does not speak Bitswap, or the connection broke"
            raise FetchError(cid_text(cid), f"{address}: {reason}") from error
