"""A station that catches up from pages in a file, in a process that a test kills: `python -m tests.sensors.catch_up FOLDER FILE`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio
import trio.lowlevel

from learnae.protocol.sync import SyncMessage
from learnae.sensors.follower import encode_lane_sync
from learnae.sensors.link import Hello
from learnae.tangle import cbor
from tests.sensors.builders import MEMBER, NET
from tests.sensors.station_bed import CODENAME, open_bed


def write_pages(file: Path, starts_ms: int, pages: list[list[bytes]]) -> None:
    file.write_bytes(cbor.encode([starts_ms, pages]))


async def catch_up(folder: Path, content: bytes) -> None:
    """Take in what is not here yet, page after page; tell each."""
    starts_ms, pages = cbor.decode(content)
    hello = Hello(net=NET, codename=CODENAME, starts_ms=starts_ms, slice_bytes=1024, members=(MEMBER.peer,))
    async with open_bed(folder, hello) as bed:
        for page in pages:
            bed.station.receive_sync(MEMBER.peer, encode_lane_sync(SyncMessage(vertices=tuple(page))))
            print("page", flush=True)
            await trio.lowlevel.checkpoint()
        until_s = time.monotonic() + 30
        while bed.follower._stored and time.monotonic() < until_s:  # noqa: ASYNC110 - a thread stores them
            await trio.sleep(0.01)
        assert not bed.broken, bed.broken


if __name__ == "__main__":
    trio.run(catch_up, Path(sys.argv[1]), Path(sys.argv[2]).read_bytes())
