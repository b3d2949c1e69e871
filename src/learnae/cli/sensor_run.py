"""`learnae sensor publish` and `learnae sensor watch` while they run: source, outbox and line; view and line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import trio

from learnae.backends import sensor_sources as sources
from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.sensor_folder import SensorFolder
from learnae.backends.sensor_link import SensorLink, keep_linked, open_link
from learnae.backends.sensor_outbox import SensorOutbox
from learnae.backends.sensor_settings import format_opening
from learnae.errors import UsageError
from learnae.ids import peer_text
from learnae.sensor_errors import AdmissionError
from learnae.sensors.follower import FollowSettings
from learnae.sensors.link import Watch
from learnae.sensors.publisher import SensorPublisher
from learnae.sensors.readings import Reading, SensorField
from learnae.sensors.slices import RowType
from learnae.sensors.view import SensorView
from learnae.tangle.channel import KEY_BYTES, ChannelMode

TELL_EVERY_S: Final = 10.0
NOTHING_NEW_S: Final = 0.5  # A page that brought nothing new waits for what lets it begin; it need not come at once again.
ODD_WAIT_S: Final = 5.0  # For the node to hear what was odd in the last lines.
SAMPLES_AHEAD: Final = 1024  # Read from a fast source before the outbox takes them.


@dataclass(frozen=True, kw_only=True)
class PublishPlan:
    """What `learnae sensor publish` was asked for."""

    folder: Path
    sensor: str
    node: str
    source: str  # "-" standard input, "self", a .csv file, or a device or file of lines
    fields: tuple[SensorField, ...]
    label: str = ""
    mode: ChannelMode = ChannelMode.PUBLIC
    side_key: bytes = b""
    every_s: float = 1.0
    batch: int = 1
    linger_s: float = 1.0
    baud: int = 9600
    new_key: bool = False
    row_type: RowType = RowType.F32


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def tell_trouble(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  trouble   {text}", file=sys.stderr, flush=True)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def open_publisher(folder: SensorFolder, journal: SensorJournal) -> SensorPublisher:
    """The publisher of a folder, as its journal left it. Raises: AdmissionError: no member admitted it yet."""
    admitted = folder.read_admission()
    issuer = folder.issuer
    if admitted is None:
        raise AdmissionError(f"there is none in {folder.path} yet; this sensor's id is {peer_text(issuer.peer)}")
    admission, hello = admitted
    publisher = SensorPublisher(
        rules=hello.rules,
        me=issuer.peer,
        sign=issuer.sign,
        rng=SystemRandom(),
        admission=admission,
        slice_bytes=hello.slice_bytes,
        read=journal.read,
    )
    publisher.restore(journal.vertices(), journal.records())
    return publisher


async def publish(plan: PublishPlan) -> None:
    """Publish until the source ends and the node has all. Raises: LearnaeError leaves."""
    folder = SensorFolder(plan.folder)
    journal = SensorJournal(plan.folder)
    try:
        publisher = open_publisher(folder, journal)
        outbox = SensorOutbox(publisher, journal, me=folder.issuer.peer, on_trouble=tell_trouble)
        _open_channel(plan, folder, publisher, outbox)
        if plan.mode is not ChannelMode.PUBLIC:
            tell(f"who may read from here on needs this opening: {format_opening(publisher.compute_opening(plan.sensor))}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(keep_linked, plan.node, outbox.carry, on_trouble=tell_trouble))
            await _Pump(plan, publisher, outbox).run()
            await _wait_until_carried(outbox)
            nursery.cancel_scope.cancel()
    finally:
        journal.close()


def _open_channel(plan: PublishPlan, folder: SensorFolder, publisher: SensorPublisher, outbox: SensorOutbox) -> None:
    ended = publisher.count_old_keys(plan.sensor)
    make = partial(folder.make_plan, plan.sensor, plan.fields, mode=plan.mode, side_key=plan.side_key, row_type=plan.row_type)
    old = next((s.head.mode for s in publisher.lane.streams.values() if s.head.sensor == plan.sensor and not s.ended), None)
    if plan.new_key and old not in (None, plan.mode):  # Nothing is said in the old mode any more, so any side key will do.
        side_key = bytes(KEY_BYTES) if old is ChannelMode.RESTRICTED else b""
        outbox.commit(publisher.open(make(generation=ended, mode=old, side_key=side_key), now_ms=now_ms()))
    else:
        outbox.commit(publisher.open(make(generation=ended), now_ms=now_ms()))
    if plan.new_key:
        outbox.commit(publisher.rotate(make(generation=ended + 1), now_ms=now_ms()))


async def _wait_until_carried(outbox: SensorOutbox) -> None:
    told_s = trio.current_time()
    while outbox.pending:
        await trio.sleep(0.05)
        if trio.current_time() - told_s >= TELL_EVERY_S:
            told_s = trio.current_time()
            tell(f"the source ended; {outbox.pending} messages still wait for the node (Ctrl+C: they are sent the next time)")
    with trio.move_on_after(ODD_WAIT_S):
        while outbox.untold:  # noqa: ASYNC110 - the line takes them
            await trio.sleep(0.05)


class _Pump:
    """Takes samples from a source, in batches, to the outbox."""

    def __init__(self, plan: PublishPlan, publisher: SensorPublisher, outbox: SensorOutbox) -> None:
        self._plan, self._publisher, self._outbox = plan, publisher, outbox
        self._samples = self._messages = 0
        self._told_s = trio.current_time()

    async def run(self) -> None:
        send, receive = trio.open_memory_channel[sources.Sample](SAMPLES_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, send)
            batch: list[sources.Sample] = []
            async with receive:
                while True:
                    with trio.move_on_after(self._plan.linger_s if batch else float("inf")) as waited:
                        try:
                            batch.append(await receive.receive())
                        except trio.EndOfChannel:
                            break
                    if batch and (waited.cancelled_caught or len(batch) >= self._plan.batch):
                        await self._publish(batch)
                        batch = []
            if batch:
                await self._publish(batch)
        tell(f"{self._samples} samples in {self._messages} messages are on disk")

    async def _read(self, send: trio.MemorySendChannel[sources.Sample]) -> None:
        async with send, aclosing(self._open()) as samples:
            async for sample in samples:
                await send.send(sample)

    def _open(self) -> AsyncGenerator[sources.Sample, None]:
        plan = self._plan
        lines = partial(sources.read_lines, fields=plan.fields, on_trouble=self._outbox.tell, now_ms=now_ms)
        if plan.source == "-":
            return lines(sys.stdin.buffer)
        if plan.source == "self":
            return sources.read_self(every_s=plan.every_s, on_trouble=self._outbox.tell)
        path = Path(plan.source)
        if path.suffix == ".csv":
            rows = sources.read_csv(path, plan.fields, label=plan.label, on_trouble=self._outbox.tell, now_ms=now_ms)
            return _paced(rows, plan.every_s)
        return lines(sources.open_serial(path, plan.baud))

    async def _publish(self, batch: list[sources.Sample]) -> None:
        await self._outbox.wait_for_room()
        if wait_ms := self._publisher.compute_wait_ms(now_ms=now_ms()):
            await trio.sleep(wait_ms / 1000)
        readings = [
            Reading(sample.time_ms, number, value, sample.label) for sample in batch for number, value in enumerate(sample.values)
        ]
        self._outbox.commit(self._publisher.publish([(self._plan.sensor, readings)], now_ms=now_ms()))
        self._samples += len(batch)
        self._messages += 1
        if trio.current_time() - self._told_s >= TELL_EVERY_S:
            self._told_s = trio.current_time()
            tell(f"{self._samples} samples in {self._messages} messages, {self._outbox.pending} wait for the node")
        await trio.lowlevel.checkpoint()


async def _paced(rows: AsyncGenerator[sources.Sample, None], every_s: float) -> AsyncGenerator[sources.Sample, None]:
    async with aclosing(rows):
        async for row in rows:
            yield row
            await trio.sleep(every_s)


# --- watching ---------------------------------------------------------------------------------------------------


async def watch(codename: str, node: str, settings: FollowSettings, *, as_json: bool, count: int) -> None:
    """Show what sensors say until `count` readings were shown (0: for ever). Raises: LinkError, UsageError."""
    async with open_link(node) as link:
        hello = await link.hello()
    if codename and codename != hello.codename:
        raise UsageError(f"the node at {node} follows sensors of {hello.codename!r}, not of {codename!r}; give that, or another --node")
    view = SensorView(hello.rules, frozenset(hello.members), settings)
    show = _show_json if as_json else _show_text
    shown = odd = 0

    async def follow(link: SensorLink) -> None:
        nonlocal shown, odd
        told_s = trio.current_time()
        while not count or shown < count:
            before = view.have
            page = await link.page(Watch(have=before, odd=odd))
            odd = page.odd
            lines = [line for encoded in page.vertices for line in view.receive(encoded, time.time())]
            lines += [*view.settle(time.time()), *view.hear(page.texts)]
            if page.vertices and view.have == before:
                await trio.sleep(NOTHING_NEW_S)
            for line in lines:
                is_reading = line["kind"] == "reading"
                if not (count and is_reading and shown >= count):
                    show(line)
                    shown += is_reading
            if not as_json and trio.current_time() - told_s >= TELL_EVERY_S:
                told_s = trio.current_time()
                for text in view.summarise():
                    tell(f"--  {text}")
        finished.cancel()

    with trio.CancelScope() as finished:
        await keep_linked(node, follow, on_trouble=tell_trouble)
    if not as_json:
        for text in view.summarise():
            tell(f"--  {text}")


def _show_text(line: dict[str, Any]) -> None:
    tell(f"{line['kind']:<8}  {line['text']}")


def _show_json(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
