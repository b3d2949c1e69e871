"""Paper 4.2, over real lines and disks: light publishers, a node that follows them, a viewer; kills and outages in between."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from learnae.backends import sensor_outbox
from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.sensor_link import keep_linked
from learnae.backends.sensor_outbox import SensorOutbox
from learnae.backends.sensor_sources import parse_fields
from learnae.cli import main
from learnae.cli.sensor_run import now_ms, open_publisher
from learnae.errors import DiskFullError
from learnae.ids import Cid
from learnae.learning.header import TensorSpec
from learnae.learning.slices import DataManifest, decode_slice
from learnae.node import station
from learnae.protocol import events as ev
from learnae.protocol.sync import SyncMessage
from learnae.sensors import waiting
from learnae.sensors.follower import FollowEffect, FollowSettings, StoreSlice, encode_lane_sync
from learnae.sensors.judge import SensorCodec
from learnae.sensors.link import ODD_EVERY_S, Attach, Odd, Watch, compute_odd
from learnae.sensors.messages import ChannelMessages
from learnae.sensors.readings import Reading, encode_readings
from learnae.sensors.view import SensorView
from learnae.tangle.channel import ChannelMode
from learnae.tangle.vertex import Vertex
from tests.sensors.builders import MEMBER, FakeSensor, Key
from tests.sensors.catch_up import write_pages
from tests.sensors.station_bed import ROOT, Bed, admit, make_hello, open_bed, read_json, run_learnae, start_learnae, wait_until

FIELDS = "temperature:Cel:2,humidity:%RH:1"


def publish_arguments(folder: Path, bed: Bed, *more: str) -> list[str]:
    return ["sensor", "publish", "--name", "s-01", "--folder", str(folder), "--node", bed.address, "--fields", FIELDS, *more]


def count_messages(bed: Bed) -> list[int]:
    """The channel's message numbers, in the order in which the node holds them."""
    numbers = []
    for encoded in bed.follower.lane.tangle.lacking({}, vertices_max=10**6):
        vertex = SensorCodec().decode(encoded)
        assert isinstance(vertex, Vertex)
        message = SensorCodec().parse(vertex)
        numbers += [part.sequence for part in message.messages] if isinstance(message, ChannelMessages) else []
    return numbers


def has_more(bed: Bed, count: int) -> bool:
    return len(count_messages(bed)) > count


def test_readings__go_from_standard_input_to_a_dataslice_and_to_a_viewer(tmp_path: Path) -> None:
    """Issue: `sensor publish` streams lines, a node turns them into dataslices, `sensor watch` shows them."""

    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        lines = "".join(f"{20 + n / 4}, {40 + n} {n % 3}\n" for n in range(80)) + "nonsense\n"
        async with open_bed(tmp_path / "node", hello) as bed:
            done = await run_learnae(*publish_arguments(tmp_path / "s", bed, "--batch", "4"), text=lines)
            assert done.returncode == 0, done.stderr
            assert "80 samples in 20 messages are on disk" in done.stdout
            assert "a line of 1 values, 'nonsense': expected 2, and perhaps a label" in done.stderr
            await wait_until(lambda: len(bed.slices) >= 1)

            content = bed.blocks.get_file(bed.slices[0], bytes_max=1024)
            assert content is not None
            x, y = decode_slice(content, DataManifest(TensorSpec("F32", (2,)), TensorSpec("I64", ()), classes=3), 1024)
            assert x[:3].tolist() == [[20, 40], [20.25, 41], [20.5, 42]]
            assert y[:4].tolist() == [0, 1, 2, 0]
            assert count_messages(bed) == list(range(1, 21))

            watched = await run_learnae("sensor", "watch", "garden", "--node", bed.address, "--json", "--count", "20")
            shown = read_json(watched.stdout)
            readings = [line for line in shown if line["kind"] == "reading"]
            assert len(readings) == 20 and watched.returncode == 0
            assert readings[0]["sensor"] == "s-01"
            first = readings[0]["readings"]
            assert isinstance(first, list) and first[0][:4] == ["temperature", 20.0, "Cel", 0]
            assert any(line["kind"] == "sensor" for line in shown) and any(line["kind"] == "slice" for line in shown)
            wrong = await run_learnae("sensor", "watch", "forest", "--node", bed.address)
            assert wrong.returncode == 2 and "follows sensors of 'garden', not of 'forest'" in wrong.stderr

    trio.run(run)


def test_csv_and_this_machine__are_published(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        admit(tmp_path / "self", hello)
        (tmp_path / "data.csv").write_text("time,humidity,temperature,kind\n" + "".join(f"x,{n},{n / 2},{n % 2}\n" for n in range(12)))
        async with open_bed(tmp_path / "node", hello) as bed:
            arguments = publish_arguments(tmp_path / "s", bed, "--from", str(tmp_path / "data.csv"), "--every", "0", "--label", "kind")
            done = await run_learnae(*arguments, "--batch", "5")
            assert (done.returncode, done.stderr) == (0, "")
            await wait_until(lambda: [stream["rows_waiting"] for stream in bed.follower.describe()] == [12])

            wrong = await run_learnae(*arguments, "--label", "absent")
            assert "has no column absent: it has time, humidity, temperature, kind" in wrong.stderr
            every = ["--every", "0.1", "--folder", str(tmp_path / "self"), "--node", bed.address]
            process = start_learnae("sensor", "publish", "--name", "me", "--from", "self", *every)
            try:
                await wait_until(lambda: any(s["sensor"] == "me" and int(str(s["messages"])) >= 3 for s in bed.follower.describe()))
                process.send_signal(signal.SIGINT)
                assert await trio.to_thread.run_sync(process.wait) == 130
            finally:
                process.kill()
                process.communicate()

    trio.run(run)


def test_kill__loses_nothing_that_was_on_disk_and_repeats_nothing(tmp_path: Path) -> None:
    """Issue: kill -9 in the middle loses and repeats nothing. Three kills, then a quiet end."""

    async def run() -> None:
        hello = make_hello()
        folder = tmp_path / "s"
        admit(folder, hello, rate_per_s=1000)
        async with open_bed(tmp_path / "node", hello) as bed:
            for _ in range(3):
                seen = len(count_messages(bed))
                process = start_learnae(*publish_arguments(folder, bed))
                assert process.stdin is not None
                process.stdin.write(b"".join(b"%d, %d, 1\n" % (n, n) for n in range(2000)))
                process.stdin.flush()
                await wait_until(partial(has_more, bed, seen + 5))
                process.kill()
                await trio.to_thread.run_sync(process.communicate)
            journal = SensorJournal(folder)
            on_disk = sum(1 for _ in journal.vertices())
            journal.close()
            done = await run_learnae(*publish_arguments(folder, bed), text="1, 2, 0\n")
            assert done.returncode == 0, done.stderr
            numbers = count_messages(bed)

        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == on_disk  # the head, and one message more than before
        assert [tell.text for tell in bed.told if tell.topic is ev.Topic.TROUBLE] == []

    trio.run(run)


def test_kill_of_a_node_that_catches_up__loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Issue: away for long, a kill -9 in the middle of catching up. Vertices and dataslices are those of a node that was never away."""
    sensor, starts_ms = FakeSensor("a", rate_per_s=1000), (int(time.time()) - 3600) * 1000
    said = [sensor.begin(starts_ms + 1)]
    for number in range(1, 2000):
        readings = [Reading(starts_ms + 10 * number, field, number + field / 2, number % 3) for field in range(2)]
        message = sensor.writer.create(encode_readings(readings, sensor.head.fields, begins=number % 40 == 1))
        attached = ChannelMessages(channel=sensor.head.channel, messages=(message,))
        said.append(sensor.lane.issue(attached, now_ms=starts_ms + 10 * number).vertex.encoded)
    write_pages(tmp_path / "pages", starts_ms, [said[start : start + 50] for start in range(0, len(said), 50)])

    def run(folder: Path, pages: int) -> None:
        command = [sys.executable, "-m", "tests.sensors.catch_up", str(folder), str(tmp_path / "pages")]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as process:
            assert process.stdout is not None
            for _ in range(pages):
                assert process.stdout.readline() == b"page\n"
            process.kill() if pages < len(said) // 50 else process.wait(60)

    for pages in (7, 23):
        run(tmp_path / "killed", pages)
    for name in ("killed", "whole"):
        run(tmp_path / name, len(said) // 50)
    kept = {}
    for name in ("killed", "whole"):
        journal = SensorJournal(tmp_path / name)
        kept[name] = list(journal.vertices())
        records = {name: content for name, content in journal.records().items() if name.startswith("slice ")}
        kept[name] = [v for v in kept[name] if v in set(said)], records
        journal.close()
    assert kept["killed"] == kept["whole"] and kept["killed"][0] == said and len(kept["killed"][1]) >= 49


def test_outage_of_the_node__is_waited_out(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            address = bed.address
            done = await run_learnae(*publish_arguments(tmp_path / "s", bed), text="1, 2, 0\n")
            assert done.returncode == 0
        port = int(address.rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            results: list[subprocess.CompletedProcess[str]] = []

            async def publish() -> None:
                results.append(await run_learnae(*publish_arguments(tmp_path / "s", bed), text="3, 4, 0\n5, 6, 0\n"))

            nursery.start_soon(publish)
            journal = tmp_path / "s" / "journal.sqlite"
            await wait_until(journal.exists)
            async with open_bed(tmp_path / "node", hello, port=port) as again:
                await wait_until(lambda: count_messages(again) == [1, 2, 3])
                await wait_until(lambda: bool(results))
        assert results[0].returncode == 0

    trio.run(run)


def test_node_that_lost_its_disk__is_told_of_and_goes_on_with_what_the_publisher_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only node of a session, and a publisher that forgot what that node had: neither waits for ever."""
    monkeypatch.setattr(waiting, "PATIENCE_MS", 200)
    monkeypatch.setattr(waiting, "LOST_MS", 600)
    monkeypatch.setattr(sensor_outbox, "KEEP_VERTICES", 5)
    monkeypatch.setattr(sensor_outbox, "REFUSED_PAUSE_S", 0.1)
    hello = make_hello()
    folder = admit(tmp_path / "s", hello)
    journal = SensorJournal(tmp_path / "s")
    told: list[str] = []

    async def say(bed: Bed, count: int) -> None:
        publisher = open_publisher(folder, journal)
        outbox = SensorOutbox(publisher, journal, me=folder.issuer.peer, on_trouble=told.append)
        plan = folder.make_plan("s-01", parse_fields(FIELDS), mode=ChannelMode.PUBLIC)
        outbox.commit(publisher.open(plan, now_ms=now_ms()))
        for _ in range(count):
            readings = [Reading(now_ms(), field, 1.0, 0) for field in range(2)]
            outbox.commit(publisher.publish([("s-01", readings)], now_ms=now_ms()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(keep_linked, bed.address, outbox.carry, on_trouble=told.append))
            await wait_until(lambda: not outbox.pending)
            nursery.cancel_scope.cancel()

    async def run() -> None:
        async with open_bed(tmp_path / "node", hello) as bed:
            await say(bed, 30)
            await say(bed, 1)
        assert told == []
        async with open_bed(tmp_path / "fresh disk", hello) as bed:
            await say(bed, 2)
            assert count_messages(bed)[-3:] == [31, 32, 33] and count_messages(bed)[0] > 1
            assert any("any more: its sensors begin after them" in tell.text for tell in bed.told)
        assert "the node lost what this sensor said before its vertex" in told[0]

    trio.run(run)
    journal.close()


def test_oddities_of_a_publisher__are_seen_in_the_log_and_by_viewers(tmp_path: Path) -> None:
    """Issue: malformed payloads, visible in `watch` and in the log. In its name speaks only who was admitted, and not too often."""

    async def run() -> None:
        hello = make_hello()
        folder = admit(tmp_path / "s", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            done = await run_learnae(*publish_arguments(tmp_path / "s", bed), text="1 2 0\nnonsense\n3 4 0\n")
            assert done.returncode == 0, done.stderr
            assert "a line of 1 values, 'nonsense'" in done.stderr
            await wait_until(lambda: any("says: a line of 1 values, 'nonsense'" in tell.text for tell in bed.told))
            watched = await run_learnae("sensor", "watch", "garden", "--node", bed.address, "--json", "--count", "2")
            odd = [line["text"] for line in read_json(watched.stdout) if line["kind"] == "odd"]
            assert len(odd) == 1 and "says: a line of 1 values, 'nonsense'" in str(odd[0])
            assert [line["kind"] for line in read_json(watched.stdout)].count("reading") == 2

            before, later_ms = len(bed.told), now_ms() + 10_000
            told = partial(compute_odd, hello.net, folder.issuer.peer, later_ms)
            signed = Odd(time_ms=later_ms, texts=("x",), signature=folder.issuer.sign(told(("x",))))
            thief = Key("thief")
            await trio.sleep(ODD_EVERY_S)
            for issuer, said in (
                (folder.issuer.peer, Odd(time_ms=later_ms, texts=("forged",), signature=signed.signature)),
                (thief.peer, replace(signed, signature=thief.sign(compute_odd(hello.net, thief.peer, later_ms, ("x",))))),
                (folder.issuer.peer, signed),
                (folder.issuer.peer, signed),
            ):
                bed.station.attach(Attach(issuer=issuer, odd=said))
            assert [tell.text.partition(" says: ")[2] for tell in bed.told[before:]] == ["x"]

    trio.run(run)


def test_old_copy_of_a_folder__does_not_make_a_second_history(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            await run_learnae(*publish_arguments(tmp_path / "s", bed), text="1, 2, 0\n")
            shutil.copytree(tmp_path / "s", tmp_path / "copy")
            await run_learnae(*publish_arguments(tmp_path / "s", bed), text="3, 4, 0\n5, 6, 0\n")
            process = start_learnae(*publish_arguments(tmp_path / "copy", bed))
            assert process.stderr is not None
            said = await trio.to_thread.run_sync(process.stderr.readline)
            process.kill()
            await trio.to_thread.run_sync(process.communicate)
            assert b"would make two histories of one sensor" in said
            assert not bed.follower.lane.tangle.forks

    trio.run(run)


def test_rotated_key__goes_on_under_the_same_name(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            for more in ([], ["--new-key"], []):
                done = await run_learnae(*publish_arguments(tmp_path / "s", bed, *more), text="1, 2, 0\n")
                assert done.returncode == 0, done.stderr
            assert count_messages(bed) == [1, 2, 3]
            heads = [stream.head for stream in bed.follower.lane.streams.values()]
            assert [head.succession is None for head in heads] == [True, False]
            assert heads[1].first == 2

    trio.run(run)


def test_folder_admitted_for_one_sensor__changes_its_key_and_mode_and_takes_no_second_one(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello, channels_max=1)
        async with open_bed(tmp_path / "node", hello) as bed:
            for more, why in (
                ((), ""),
                (("--new-key",), ""),
                (("--mode", "private"), "began in mode public, and now has private; go on in its mode, or change its key"),
                (("--mode", "private", "--new-key"), ""),
                (("--name", "s-02"), "sensor 's-02' is one more than the 1 that a member admitted here"),
            ):
                ran = await run_learnae(*publish_arguments(tmp_path / "s", bed, *more), text="1 2 3\n")
                assert (ran.returncode, "Traceback" in ran.stderr) == (1 if why else 0, False), ran.stderr
                assert why in ran.stderr
            assert [stream.head.mode.name for stream in bed.follower.lane.streams.values()] == ["PUBLIC", "PUBLIC", "PRIVATE"]

    trio.run(run)


def test_full_block_store__is_told_and_waited_out_and_the_node_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "STORE_AGAIN_S", 0.01)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.blocks._quota_bytes = 10
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 200))
            await wait_until(lambda: bool(bed.told) and "waits for room" in bed.told[-1].text)
            assert (bed.slices, bed.broken) == ([], [])
            bed.blocks._quota_bytes = 1 << 20
            await wait_until(lambda: len(bed.slices) >= 2)
            assert bed.broken == []

    trio.run(run)


def test_dataslices_that_wait_for_room__are_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk and sensors that go on: the oldest dataslices go, visibly, and a restart cuts them again from the journal."""
    monkeypatch.setattr(station, "STORE_AGAIN_S", 0.01)
    monkeypatch.setattr(station, "WAITING_BYTES_MAX", 3 * 1024)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.blocks._quota_bytes = 10
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 60, name="first", first=7.0))
            await wait_until(lambda: any("waits for room" in tell.text for tell in bed.told))
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 400))
            assert len(bed.station._unstored) <= 4 and len(bed.follower._stored) <= 4
            texts = [tell.text for tell in bed.told if "were let go, the oldest first" in tell.text]
            assert texts and "the block store has no room: 1 dataslices" in texts[0]
            assert any("were let go" in text for text in bed.station.page(Watch(have={})).texts)
            bed.blocks._quota_bytes = 1 << 20
            await wait_until(lambda: not bed.follower._stored)
            some = list(bed.slices)
        monkeypatch.setattr(station, "WAITING_BYTES_MAX", 1 << 20)
        async with open_bed(tmp_path / "node", hello) as bed:
            await wait_until(lambda: len(bed.slices) >= 7)
            assert set(some) < set(bed.slices) and len(set(bed.slices)) == len(bed.slices)

    trio.run(run)


def test_dataslices_that_come_faster_than_the_disk_takes_them__are_not_blamed_on_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station, "WAITING_BYTES_MAX", 3 * 1024)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 400))
            texts = [tell.text for tell in bed.told if tell.topic is ev.Topic.TROUBLE]
            assert texts and "the disk is slower than the sensors: 1 dataslices of streams were let go" in texts[0]

    trio.run(run)


def test_restart__stores_all_dataslices_that_a_kill_lost_if_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred, many times what may wait in memory: they are cut one at a time, and nobody speaks of a full disk."""
    monkeypatch.setattr(station, "WAITING_BYTES_MAX", 16 * 1024)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            for number in range(12):
                bed.station._save(feed_rows(bed, hello.starts_ms, 500, name=str(number), first=1000 * number))
            cut = len(bed.follower._stored)
        held: list[int] = []
        queue = station.SensorStation._queue

        def count(self: station.SensorStation, *arguments: Any, **more: Any) -> None:
            queue(self, *arguments, **more)
            held.append(len(self._unstored))

        monkeypatch.setattr(station.SensorStation, "_queue", count)
        async with open_bed(tmp_path / "node", hello) as bed:
            assert cut == len(bed.slices) == len(bed.follower.slices) == len(bed.station._pinned) >= 100
            assert not bed.follower._stored and bed.broken == [] and max(held) == 1
            assert [tell.text for tell in bed.told if tell.topic is ev.Topic.TROUBLE] == []
        async with open_bed(tmp_path / "node", hello) as bed:
            assert len(bed.slices) == cut and len(held) == cut

    trio.run(run)


def test_restart__on_a_full_disk_goes_on_and_stores_the_newest_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station, "STORE_AGAIN_S", 0.01)
    monkeypatch.setattr(station, "WAITING_BYTES_MAX", 3 * 1024)
    put_file = MemoryBlocks.put_file
    monkeypatch.setattr(MemoryBlocks, "put_file", refuse_files)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.station._save(feed_rows(bed, hello.starts_ms, 500))
        async with open_bed(tmp_path / "node", hello) as bed:
            assert any("the block store has no room: 1 dataslices" in tell.text for tell in bed.told)
            assert (bed.slices, bed.broken) == ([], []) and 1 <= len(bed.follower._stored) <= 4
            monkeypatch.setattr(MemoryBlocks, "put_file", put_file)
            await wait_until(lambda: not bed.follower._stored)
            assert 1 <= len(bed.slices) <= 4

    trio.run(run)


def refuse_files(blocks: MemoryBlocks, content: bytes, *, public: bool) -> Cid:
    raise DiskFullError("the block store", len(content), "a test filled it")


def test_neighbour__that_speaks_while_the_journal_is_taken_back_is_met_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what a station knew is no answer, and nothing may enter in the middle of it."""
    spoke: list[bool] = []

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.station._save(feed_rows(bed, hello.starts_ms, 200))
        offer = station.SensorStation._offer
        begin = FakeSensor("b").begin(hello.starts_ms + 1)

        async def speak(self: station.SensorStation, cut: StoreSlice) -> Cid:
            self.connect(MEMBER.peer)
            self.receive_sync(MEMBER.peer, encode_lane_sync(SyncMessage(have={}, vertices=(begin,))))
            spoke.append(not self._follower.connected and len(self._follower.lane.streams) == 1)
            return await offer(self, cut)

        monkeypatch.setattr(station.SensorStation, "_offer", speak)
        async with open_bed(tmp_path / "node", hello) as bed:
            assert spoke and all(spoke)
            bed.station.receive_sync(MEMBER.peer, encode_lane_sync(SyncMessage(vertices=(begin,))))
            assert len(bed.follower.lane.streams) == 2

    trio.run(run)


def test_training_that_is_over__takes_no_dataslices_any_more(tmp_path: Path) -> None:
    """Fig. 1: dataslices are for training. Afterwards readings are followed and shown; nothing is cut, also not by a restart."""

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 100))
            await wait_until(lambda: len(bed.slices) == 1)
            bed.stage.clear()
            await wait_until(lambda: not bed.follower.cuts)
            sensor = FakeSensor("b", rate_per_s=1000)
            readings = [Reading(hello.starts_ms + n // 2, n % 2, n / 4, 1) for n in range(800)]
            message = sensor.writer.create(encode_readings(readings, sensor.head.fields, begins=True))
            said = [sensor.begin(hello.starts_ms + 1)]
            attached = ChannelMessages(channel=sensor.head.channel, messages=(message,))
            said.append(sensor.lane.issue(attached, now_ms=hello.starts_ms + 2).vertex.encoded)
            bed.station.attach(Attach(issuer=sensor.issuer.peer, vertices=tuple(said)))
            assert [tail["messages"] for tail in bed.station.describe()] == [1, 1]
            assert not bed.follower._stored
        async with open_bed(tmp_path / "node", hello, training=False) as bed:
            assert [tail["messages"] for tail in bed.station.describe()] == [1, 1]
            assert not bed.follower._stored and len(bed.slices) == 1

    trio.run(run)


def test_streams__never_fill_the_block_store_with_what_they_said_long_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "PINNED_MAX", 2)

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            bed.station._do(lambda: feed_rows(bed, hello.starts_ms, 400))
            await wait_until(lambda: len(bed.slices) >= 4)
            assert len(bed.blocks._pins) == 2 and bed.blocks._pins < set(bed.slices)

    trio.run(run)


def feed_rows(bed: Bed, now_ms: int, count: int, *, name: str = "a", first: float = 0.0) -> list[FollowEffect]:
    """What a follower answers to a sensor that said so many labelled rows, from one value on."""
    sensor = FakeSensor(name, rate_per_s=1000)
    said = [sensor.begin(now_ms + 1)]
    readings = [Reading(now_ms + n // 2, n % 2, first + n / 4, 1) for n in range(2 * count)]
    message = sensor.writer.create(encode_readings(readings, sensor.head.fields, begins=True))
    said.append(sensor.lane.issue(ChannelMessages(channel=sensor.head.channel, messages=(message,)), now_ms=now_ms + 2).vertex.encoded)
    return [effect for encoded in said for effect in bed.follower.receive(MEMBER.peer, encoded, time.time())]


def test_viewer__of_a_node_that_forgot_the_beginning_reads_what_is_kept(tmp_path: Path) -> None:
    """A page brings the heads that stand in the forgotten part; without them nothing after could be read."""

    async def run() -> None:
        hello = make_hello()
        async with open_bed(tmp_path / "node", hello) as bed:
            now_ms = hello.starts_ms + 1000
            sensor, lane = FakeSensor("a", rate_per_s=1000), bed.follower.lane
            said = [sensor.begin(now_ms), *(sensor.measure(now_ms + 10 * n).vertex.encoded for n in range(1, 200))]
            bed.station.attach(Attach(issuer=sensor.issuer.peer, vertices=tuple(said)))
            checkpoint = lane.issue(lane.compute_checkpoint(), now_ms=now_ms + 5000).vertex
            bed.station._parts.sensors.journal.append([(checkpoint.cid, checkpoint.encoded)])
            said = [sensor.measure(now_ms + 6000 + 10 * n).vertex.encoded for n in range(110)]
            bed.station.attach(Attach(issuer=sensor.issuer.peer, vertices=tuple(said)))
            lane.prune(keep=100)
            assert lane.take_forgotten()
            view = SensorView(hello.rules, frozenset({MEMBER.peer}), FollowSettings(slice_bytes=1024))
            lines = []
            for wait_s in range(0, 12, 3):
                for encoded in bed.station.page(Watch(have=view.have)).vertices:
                    lines += view.receive(encoded, time.time() + wait_s)
                lines += view.settle(time.time() + wait_s)
            assert [line["kind"] for line in lines].count("reading") == 110
            assert view.have[sensor.issuer.peer] == 310

    trio.run(run)


def test_private_sensor__prints_the_opening_that_a_viewer_needs(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "s", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            key = "ab" * 32
            done = await run_learnae(
                *publish_arguments(tmp_path / "s", bed, "--mode", "restricted", "--side-key", key), text="21.5, 40, 1\n"
            )
            opening = done.stdout.split("needs this opening: ")[1].split()[0]
            watch = ("sensor", "watch", "garden", "--node", bed.address, "--json", "--count", "1", "--opening", f"s-01={opening}")
            shown = read_json((await run_learnae(*watch, "--side-key", key)).stdout)
            assert [line["readings"][0][1] for line in shown if line["kind"] == "reading"] == [21.5]  # type: ignore[index]

    trio.run(run)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--fields", FIELDS], "there is none in .* yet; this sensor's id is 12D3Koo.*learnae sensor admit FOLDER ID"),
        ([], "--fields is missing; name what each line holds"),
        (["--fields", "a:b:x"], "'a:b:x' is not a field"),
        (["--fields", "a,a"], "2 fields, or one twice"),
        (["--fields", FIELDS, "--mode", "restricted"], "--side-key belongs to --mode restricted, and it needs one"),
        (["--fields", FIELDS, "--side-key", "00"], "a side key is 64 hex digits"),
        (["--fields", FIELDS, "--batch", "0"], "--batch is 1 to 4096"),
        (["--fields", FIELDS, "--admission", "admission1abc"], "this admission cannot be used: it was cut off or mistyped"),
        (["--fields", FIELDS, "--admission", "hello"], "this admission cannot be used: it does not read admission1"),
    ],
)
def test_publish__says_what_is_missing(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sensor", "publish", "--name", "s", "--folder", str(tmp_path / "s"), *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert re.search(why, error) and error.count("\n") == 1


def test_admission__for_another_sensor_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admit(tmp_path / "one", make_hello())
    text = (tmp_path / "one" / "admission.txt").read_text()
    arguments = ["sensor", "publish", "--name", "s", "--folder", str(tmp_path / "two"), "--fields", "a", "--admission", text]

    assert main(arguments) == 1
    assert "it is for another sensor's id" in capsys.readouterr().err


def test_watch__says_when_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensor", "watch", "garden", "--node", "nowhere"]) == 1
    assert "no node for sensors at nowhere: expected HOST:PORT" in capsys.readouterr().err
