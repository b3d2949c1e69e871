"""A node's station with a real journal and a real line, over a memory network: what light publishers and viewers meet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_network import MemoryHub
from learnae.backends.sensor_folder import SensorFolder, format_admission
from learnae.backends.sensor_link import serve_link
from learnae.ids import Cid, Topic
from learnae.node.station import SensorParts, SensorStation, StationParts
from learnae.protocol import events as ev
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.judge import LaneRules
from learnae.sensors.link import Hello
from learnae.sensors.messages import compute_tag, create_admission
from tests.sensors.builders import MEMBER, NET

ROOT = Path(__file__).parents[2]
CODENAME = "garden"


@dataclass
class Bed:
    """One running station. `address` is its line; what it told and cut is kept."""

    station: SensorStation
    follower: SensorFollower
    blocks: MemoryBlocks
    address: str
    told: list[ev.Tell] = field(default_factory=list)
    slices: list[Cid] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)  # empty: training is over


def make_hello() -> Hello:
    starts_ms = (int(time.time()) - 3600) * 1000
    return Hello(net=NET, codename=CODENAME, starts_ms=starts_ms, slice_bytes=1024, members=(MEMBER.peer,))


@asynccontextmanager
async def open_bed(
    folder: Path, hello: Hello, *, settings: FollowSettings | None = None, port: int = 0, training: bool = True
) -> AsyncIterator[Bed]:
    """A station with its journal in `folder`; `port`: of its line, 0 for a free one; `training`: or the stage is over."""
    journal = SensorJournal(folder)
    rules = LaneRules(net=hello.net, tag=compute_tag(hello.codename), starts_ms=hello.starts_ms)
    follower = SensorFollower(
        rules=rules,
        me=MEMBER.peer,
        sign=MEMBER.sign,
        rng=Random(1),
        settings=settings or FollowSettings(slice_bytes=hello.slice_bytes),
        read=journal.read,
    )
    follower.lane.members = frozenset({MEMBER.peer})
    blocks = MemoryBlocks()
    addresses: list[str] = []
    ready = trio.Event()

    async def serve(station: SensorStation) -> None:
        async with trio.open_nursery() as nursery:
            addresses.append(await nursery.start(serve_link, station, "127.0.0.1", port))
            ready.set()

    hub = MemoryHub()
    network = hub.join(MEMBER.peer, blocks)
    told: list[ev.Tell] = []
    slices: list[Cid] = []
    broken: list[Exception] = []
    stage = ["training"] if training else []
    station = SensorStation(
        StationParts(
            sensors=SensorParts(follower=follower, journal=journal, hello=hello, serve=serve),
            network=network,
            blocks=blocks,
            topic=Topic("sensors"),
            now_s=time.time,
            on_tell=lambda tell, now_s: told.append(tell),
            on_slice=slices.append,
            takes_slices=lambda: bool(stage),
            on_broken=broken.append,
        )
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.run)
            with trio.fail_after(20):
                await ready.wait()
            yield Bed(station, follower, blocks, addresses[0], told, slices, broken, stage)
            nursery.cancel_scope.cancel()
    finally:
        journal.close()


def admit(folder: Path, hello: Hello, *, rate_per_s: int = 100, channels_max: int = 8) -> SensorFolder:
    """A publisher's folder that the member admitted."""
    made = SensorFolder(folder)
    admission = create_admission(
        net=hello.net,
        issuer=made.issuer.peer,
        member=MEMBER.peer,
        sign=MEMBER.sign,
        rate_per_s=rate_per_s,
        channels_max=channels_max,
        from_ms=hello.starts_ms,
    )
    made.write_admission(format_admission(admission, hello))
    return made


async def run_learnae(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """A `learnae` command in a process of its own, to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "learnae", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=120, check=False)

    return await trio.to_thread.run_sync(run)


def start_learnae(*arguments: str) -> subprocess.Popen[bytes]:
    """A `learnae` command in a process of its own, with pipes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "learnae", *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def read_json(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


async def wait_until(condition: Callable[[], bool], *, limit_s: float = 30.0) -> None:
    """Let other tasks and processes run until a condition holds."""
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await trio.sleep(0.02)
