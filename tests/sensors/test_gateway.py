"""Issue: a gateway on a real broker (Mosquitto): QoS 1, persistent session, acknowledged only after the disk, outages, floods."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from random import Random

import cbor2
import paho.mqtt.client as mqtt
import pytest
import trio
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from learnae.backends import mqtt as backend
from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.mqtt import MqttSource, open_mqtt, parse_broker
from learnae.backends.sensor_folder import SensorFolder
from learnae.cli import main
from learnae.cli.gateway_run import GatewayPlan, make_plans, run_gateway
from learnae.cli.sensor_run import open_publisher
from learnae.protocol import events as ev
from learnae.sensor_errors import BrokerError
from learnae.sensors.gateway import RECEIVE_MAX, RECORD_FLIGHT, BrokerMessage, Gateway
from learnae.sensors.judge import LaneRules
from learnae.sensors.lane import SensorLane
from learnae.sensors.mapping import parse_mapping
from learnae.sensors.messages import compute_tag
from learnae.sensors.publisher import SensorPublisher
from learnae.sensors.slices import RowType
from learnae.tangle.channel import ChannelMode
from learnae.tangle.verdict import ACCEPTED
from tests.processes import HANGS_S
from tests.sensors.builders import MEMBER
from tests.sensors.station_bed import Bed, admit, make_hello, open_bed, start_learnae, wait_until

MAPPING = """
[[map]]
topic = "lab/+/data"
sensor = "{1}"
label = "/label"
[map.fields]
temperature = { pointer = "/t", unit = "Cel" }
humidity = { pointer = "/h", unit = "%RH" }
"""


def find_mosquitto() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert found, "Mosquitto is missing: apt-get install mosquitto (`.ci/run` does it)"
    return found


@contextmanager
def run_broker(folder: Path, *, port: int = 0, password: bool = False) -> Iterator[int]:
    """A broker of one's own, with its sessions on disk; its port."""
    folder.mkdir(exist_ok=True)
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    lines = [f"listener {port} 127.0.0.1", "persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
    lines += ["max_queued_messages 0", f"log_dest file {folder}/log", f"user {_user()}"]
    lines += ["allow_anonymous false"] if password else ["allow_anonymous true"]
    (folder / "conf").write_text("\n".join(lines) + "\n")
    broker = subprocess.Popen([find_mosquitto(), "-c", str(folder / "conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, broker)
        yield port
    finally:
        broker.terminate()
        broker.wait()


def _user() -> str:
    return "root" if os.getuid() == 0 else "mosquitto"


def _wait_for_port(port: int, broker: subprocess.Popen[bytes]) -> None:
    async def wait() -> None:
        with trio.fail_after(HANGS_S):
            while broker.poll() is None:
                try:
                    async with await trio.open_tcp_stream("127.0.0.1", port):
                        return
                except OSError:
                    await trio.sleep(0.02)

    trio.run(wait)


class Device:
    """Something that publishes to a broker, as devices do."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)  # type: ignore[attr-defined]
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, topic: str, payload: object) -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, content, qos=1).wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def open_device(port: int) -> Iterator[Device]:
    device = Device(port)
    try:
        yield device
    finally:
        device.close()


@asynccontextmanager
async def open_gateway(folder: Path, bed: Bed, port: int) -> AsyncIterator[None]:
    plan = GatewayPlan(
        folder=folder, node=bed.address, broker=parse_broker(f"mqtt://127.0.0.1:{port}"), rules=parse_mapping(MAPPING), linger_s=0.01
    )
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(run_gateway, plan)
        yield
        nursery.cancel_scope.cancel()


def read_rows(bed: Bed, sensor: str) -> int:
    """How many rows of a sensor came, in dataslices and buffer."""
    return len(read_values(bed, sensor))


def read_values(bed: Bed, sensor: str) -> list[float]:
    """The first field of all rows of a sensor, from dataslices and buffer."""
    values: list[float] = []
    for tail in (tail for tail in bed.follower._tails.values() if tail.head.sensor == sensor):
        for (channel, *_), cid in bed.follower.slices.items():
            content = bed.blocks.get_file(cid, bytes_max=1 << 20) if channel == tail.head.channel else None
            if content is not None:
                size = int.from_bytes(content[:8], "little")
                start, end = json.loads(content[8 : 8 + size])["x"]["data_offsets"]
                values += struct.unpack(f"<{(end - start) // 4}f", content[8 + size + start : 8 + size + end])[::2]
        values += [struct.unpack("<2f", row)[0] for row in tail.buffer._rows]
    return values


def test_devices__are_read_from_a_real_broker_into_a_node(tmp_path: Path) -> None:
    async def run(port: int) -> None:
        hello = make_hello()
        admit(tmp_path / "gateway", hello)
        async with open_bed(tmp_path / "node", hello) as bed, open_gateway(tmp_path / "gateway", bed, port):
            with open_device(port) as device:
                await trio.to_thread.run_sync(device.say, "lab/a/data", {"t": 21.5, "h": 40, "label": 1})
                await wait_until(lambda: read_rows(bed, "a") == 1)
                for number in range(30):
                    await trio.to_thread.run_sync(device.say, f"lab/{'ab'[number % 2]}/data", {"t": number, "h": 40, "label": 0})
                await wait_until(lambda: (read_rows(bed, "a"), read_rows(bed, "b")) == (16, 15))
            issuers = {stream.issuer for stream in bed.follower.lane.streams.values()}
            assert len(issuers) == 1

    with run_broker(tmp_path / "broker") as port:
        trio.run(run, port)


def test_odd_messages__are_told_and_stop_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue: malformed payloads, clocks far off; each visible, none stops the gateway."""

    async def run(port: int) -> None:
        hello = make_hello()
        admit(tmp_path / "gateway", hello, channels_max=2)
        async with open_bed(tmp_path / "node", hello) as bed, open_gateway(tmp_path / "gateway", bed, port):
            with open_device(port) as device:
                odd: list[object] = [b"\xff\x00", b"[" * 4000, {"t": "hot", "h": 1, "label": 1}, {"t": 1, "label": 1}]
                for payload in (*odd, {"t": 1, "h": 1, "label": "x"}):
                    await trio.to_thread.run_sync(device.say, "lab/a/data", payload)
                for sensor in "abc":
                    await trio.to_thread.run_sync(device.say, f"lab/{sensor}/data", {"t": 1, "h": 2, "label": 1})
                await trio.to_thread.run_sync(device.say, "lab/a/data", {"t": 3, "h": 2, "label": 1})
                await wait_until(lambda: (read_rows(bed, "a"), read_rows(bed, "b")) == (2, 1))

    with run_broker(tmp_path / "broker") as port:
        trio.run(run, port)
    said = capsys.readouterr().err
    for expected in ("not JSON", "temperature at /t is not a number", "nothing at /h", "label 'x' is not a whole number"):
        assert expected in said
    assert "sensor 'c' is one more than the 2 that a member admitted here" in said


def test_broker__that_goes_away_is_dialled_again_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue: a broker that drops; the persistent session keeps what comes while nobody listens."""
    hello = make_hello()
    admit(tmp_path / "gateway", hello)

    async def hear(port: int, speak: Callable[[], None], rows: int) -> None:
        async with open_bed(tmp_path / "node", hello) as bed, open_gateway(tmp_path / "gateway", bed, port):
            await trio.to_thread.run_sync(speak)
            await wait_until(lambda: read_rows(bed, "a") == rows)
            troubles = [tell.text for tell in bed.told if tell.topic is ev.Topic.TROUBLE]
            assert [text for text in troubles if "says: the broker" not in text] == []

    def speak(port: int, count: int) -> None:
        with open_device(port) as device:
            for number in range(count):
                device.say("lab/a/data", {"t": number, "h": 2, "label": 1})

    with ExitStack() as stack:
        broker = stack.enter_context(ExitStack())
        port = broker.enter_context(run_broker(tmp_path / "broker"))
        trio.run(hear, port, partial(speak, port, 1), 1)
        speak(port, 5)  # The gateway is away; the broker keeps it for its session.
        trio.run(hear, port, partial(speak, port, 1), 7)

        def restart() -> None:
            broker.close()
            stack.enter_context(run_broker(tmp_path / "broker", port=port))
            speak(port, 2)

        trio.run(hear, port, restart, 9)
    assert f"the broker mqtt://127.0.0.1:{port} went away; dialling again" in capsys.readouterr().err


def test_rules_with_overlapping_topics__count_each_message_once(tmp_path: Path) -> None:
    """MQTT 5, 3.3.4: a broker may send a message once for each subscription that it meets. What a device says twice stays two."""

    async def run(port: int) -> None:
        topics = ["lab/#", "lab/+/data", "lab/a/#"]
        address = parse_broker(f"mqtt://127.0.0.1:{port}")
        async with open_mqtt(address, client_id="overlap", topics=topics, on_trouble=lambda text: None) as source:
            await source.connected.wait()
            with open_device(port) as device:
                for topic in ("lab/a/data", "lab/a/data", "lab/b/data", "lab/a/data", "end"):
                    await trio.to_thread.run_sync(device.say, f"lab/{topic}" if topic == "end" else topic, {"t": 1})
            said: list[str] = []
            with trio.fail_after(20):
                while "lab/end" not in said:
                    batch = await source.receive(linger_s=0)
                    said += [message.topic for message, _ in batch]
                    source.acknowledge([receipt for _, receipt in batch])
            assert said == ["lab/a/data", "lab/a/data", "lab/b/data", "lab/a/data", "lab/end"]

    with run_broker(tmp_path / "broker") as port:
        trio.run(run, port)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("A A B B", 2),  # A broker may send all that one subscription meets before what another one meets.
        ("A B A B", 2),
        ("A B B A", 2),
        ("A A A B B B A B", 4),
        ("A B C C B A", 2),
        ("AB AB", 2),
        ("AB C C AB", 2),
        ("A", 1),
    ],
)
def test_equal_payloads__count_as_often_as_they_were_said_in_whatever_order_copies_come(order: str, said: int) -> None:
    """MQTT 5, 3.3.4. `A`: a message that came by subscription A; `AB`: one for both."""
    source = MqttSource(parse_broker("mqtt://127.0.0.1"), "copies", ["a/#", "+/b", "a/b"], on_trouble=lambda text: None)
    for number, subscriptions in enumerate(order.split()):
        for payload in (b"21.5", b"22.5"):  # Another payload between them changes nothing.
            message = mqtt.MQTTMessage(mid=number, topic=b"a/b")
            message.payload = payload
            message.properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for subscription in subscriptions:
                message.properties.SubscriptionIdentifier = ord(subscription)
            source._client.on_message(source._client, None, message)  # type: ignore[misc]

    assert [message.payload for message in source._inbox].count(b"21.5") == len(source._inbox) / 2 == said


def test_broker__that_starts_after_the_gateway_is_found(tmp_path: Path) -> None:
    """What a gateway waits on from its start is set however many dials failed before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    troubles: list[str] = []

    async def run(stack: ExitStack) -> None:
        address = parse_broker(f"mqtt://127.0.0.1:{port}")
        async with open_mqtt(address, client_id="early", topics=["a"], on_trouble=troubles.append) as source:
            connected = source.connected
            await wait_until(lambda: bool(troubles))
            await trio.to_thread.run_sync(stack.enter_context, run_broker(tmp_path / "broker", port=port))
            with trio.fail_after(20):
                await connected.wait()

    with ExitStack() as stack:
        trio.run(run, stack)
    assert "does not answer" in troubles[0]


def has_rows(bed: Bed, count: int) -> bool:
    return read_rows(bed, "a") >= count


def test_killed_gateway__loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Issue: acknowledged only after the vertex is on disk; kill -9 in the middle loses and repeats nothing."""
    hello = make_hello()
    admit(tmp_path / "gateway", hello, rate_per_s=1000)
    (tmp_path / "map.toml").write_text(MAPPING)
    total = 1500

    async def run(port: int) -> None:
        async with open_bed(tmp_path / "node", hello) as bed:
            arguments = ["gateway", "--broker", f"mqtt://127.0.0.1:{port}", "--mapping", str(tmp_path / "map.toml"), "--linger", "0"]
            arguments += ["--folder", str(tmp_path / "gateway"), "--node", bed.address]
            gateway = start_learnae(*arguments)
            try:
                assert gateway.stdout is not None
                assert b"connected to mqtt" in await trio.to_thread.run_sync(gateway.stdout.readline)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, speak, port)
                    for rows in (total // 4, total // 2):
                        await wait_until(partial(has_rows, bed, rows), limit_s=60)
                        gateway.kill()
                        await trio.to_thread.run_sync(gateway.communicate)
                        gateway = start_learnae(*arguments)
                await wait_until(partial(has_rows, bed, total), limit_s=60)
            finally:
                gateway.kill()
                await trio.to_thread.run_sync(gateway.communicate)
            assert sorted(read_values(bed, "a")) == [float(number) for number in range(total)]

    def speak(port: int) -> None:
        with open_device(port) as device:
            for number in range(total):
                device._client.publish("lab/a/data", json.dumps({"t": number, "h": 0, "label": 1}), qos=1)
            device.say("lab/other", {})

    with run_broker(tmp_path / "broker") as port:
        trio.run(run, port)


def test_refusing_broker__ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admit(tmp_path / "gateway", make_hello())
    (tmp_path / "map.toml").write_text(MAPPING)
    with run_broker(tmp_path / "broker", password=True) as port:
        arguments = ["gateway", "--broker", f"mqtt://me@127.0.0.1:{port}", "--mapping", str(tmp_path / "map.toml")]
        assert main([*arguments, "--folder", str(tmp_path / "gateway"), "--node", "127.0.0.1:1"]) == 1
    assert f"the broker mqtt://127.0.0.1:{port}: it refused the connection" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://u:secret@x", "mqtt://x:port", "x"])
def test_broker_url__is_checked_and_passwords_are_not_in_it(url: str) -> None:
    with pytest.raises(BrokerError) as raised:
        parse_broker(url)
    assert "secret" not in str(raised.value)
    address = parse_broker("mqtts://me@[::1]", "pw")
    assert (address.host, address.port, address.user, address.tls) == ("::1", 8883, "me", True)
    assert "pw" not in repr(address)


# --- without a broker -------------------------------------------------------------------------------------------


def make_gateway(folder: Path) -> tuple[Gateway, SensorPublisher, SensorJournal]:
    hello = make_hello()
    made = admit(folder, hello)
    journal = SensorJournal(folder)
    publisher = open_publisher(made, journal)
    return Gateway(publisher, parse_mapping(MAPPING), make_plans(made, ChannelMode.PUBLIC)), publisher, journal


def test_message_sent_again__is_counted_once_also_after_a_restart(tmp_path: Path) -> None:
    """MQTT 5, 4.4: after a reconnection the broker sends again, under the same packet number, what it was not thanked for."""
    gateway, _, journal = make_gateway(tmp_path)
    message = BrokerMessage("lab/a/data", b'{"t": 1, "h": 2, "label": 0}', 7)
    commits, _ = gateway.take([message], now_ms=1_795_000_000_000)
    for commit in commits:
        journal.append(commit.vertices, commit.records)
    again = BrokerMessage(message.topic, message.payload, 7, again=True)
    assert not [v for c in gateway.take([again], now_ms=1_795_000_000_001)[0] for v in c.vertices]
    journal.close()

    gateway, _, journal = make_gateway(tmp_path)
    gateway.restore(journal.records(), now_ms=1_795_000_000_002)
    assert not [v for c in gateway.take([again], now_ms=1_795_000_000_003)[0] for v in c.vertices]
    other = BrokerMessage(message.topic, message.payload, 8, again=True)
    assert len([v for c in gateway.take([other], now_ms=1_795_000_000_004)[0] for v in c.vertices]) == 1
    assert RECORD_FLIGHT in journal.records()
    journal.close()


def test_marks__are_of_messages_that_the_broker_may_send_again(tmp_path: Path) -> None:
    """Messages of QoS 0 have no packet number and never come again: they push out no mark; nor does one that came twice grow old."""
    gateway, _, journal = make_gateway(tmp_path)
    payload = b'{"t": 1, "h": 2, "label": 0}'
    first = BrokerMessage("lab/a/data", payload, 7)
    again, now_ms = BrokerMessage("lab/a/data", payload, 7, again=True), 1_795_000_000_000
    gateway.take([first, *(BrokerMessage("other", b"%d" % n, 0) for n in range(4 * RECEIVE_MAX))], now_ms=now_ms)
    gateway.take([again], now_ms=now_ms)
    assert gateway.repeats == 1
    others = [BrokerMessage("other", b"", 8 + number) for number in range(3 * RECEIVE_MAX)]
    gateway.take([first, *others[:RECEIVE_MAX]], now_ms=now_ms)
    gateway.take([first, *others[RECEIVE_MAX : 3 * RECEIVE_MAX - 2]], now_ms=now_ms)
    gateway.take([again], now_ms=now_ms)
    assert gateway.repeats == 2
    journal.close()


def test_folder_whose_sensor_changed_its_key__is_gone_on_with(tmp_path: Path) -> None:
    """`learnae sensor publish --new-key` on a gateway's folder: the gateway speaks under the new key, with the sensor's rows."""
    gateway, publisher, journal = make_gateway(tmp_path)
    message = BrokerMessage("lab/a/data", b'{"t": 1, "h": 2, "label": 0}', 7)
    for commit in gateway.take([message], now_ms=1_795_000_000_000)[0]:
        journal.append(commit.vertices, commit.records)
    (stream,) = publisher.lane.streams.values()
    made = SensorFolder(tmp_path)
    plan = made.make_plan("a", stream.head.fields, mode=ChannelMode.PUBLIC, generation=1)
    commit = publisher.rotate(plan, now_ms=1_795_000_000_010)
    journal.append(commit.vertices, commit.records)
    other = made.make_plan("bytes", stream.head.fields, mode=ChannelMode.PUBLIC, row_type=RowType.U8)
    commit = publisher.open(other, now_ms=1_795_000_000_020)
    journal.append(commit.vertices, commit.records)
    journal.close()

    gateway, publisher, journal = make_gateway(tmp_path)
    gateway.restore(journal.records(), now_ms=1_795_000_000_030)
    gateway.take([BrokerMessage("lab/a/data", b'{"t": 2, "h": 3, "label": 0}', 8)], now_ms=1_795_000_000_040)
    places = [(stream.head.sensor, stream.last, stream.ended) for stream in publisher.lane.streams.values()]
    assert places == [("a", 1, True), ("a", 2, False), ("bytes", 0, False)]
    journal.close()


def test_wrong_clock_and_unknown_fields__are_told_once(tmp_path: Path) -> None:
    mapping = '[[map]]\ntopic = "z/+"\nsensor = "{1}"\npreset = "zigbee2mqtt"\n'
    gateway, _, journal = make_gateway(tmp_path)
    gateway._rules = parse_mapping(mapping)
    now_ms = 1_795_000_000_000

    def say(payload: object) -> list[str]:
        commits, troubles = gateway.take([BrokerMessage("z/a", json.dumps(payload).encode(), 1)], now_ms=now_ms)
        for commit in commits:
            journal.append(commit.vertices, commit.records)
        return troubles

    assert say({"temperature": 1}) == []
    assert say({"temperature": 2, "humidity": 3}) == ["sensor a: 'humidity' is no field of it; it began without"]
    assert say({"temperature": 2, "humidity": 3}) == []
    off = say({"temperature": 2, "last_seen": now_ms - 10 * 86_400_000})
    assert off == ["sensor a: its clock is off by more than a day; its readings get this gateway's time"]
    journal.close()


ODD_MAPPING = """
[[map]]
topic = "j/+"
sensor = "{1}"
time = "/ts"
[map.fields]
t = { pointer = "/t" }
[[map]]
topic = "s/+"
sensor = "{1}"
preset = "senml+json"
[[map]]
topic = "c/+"
sensor = "{1}"
preset = "senml+cbor"
[[map]]
topic = "z/+"
sensor = "{1}"
preset = "zigbee2mqtt"
"""
HUGE = b"1" * 400


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("j/x", b'{"ts": 1, "t": ' + HUGE + b"}", "t at /t is not a number"),
        ("j/x", b'{"t": 1, "ts": 1e306}', "time at /ts is no time"),
        ("s/x", b'[{"n": "a", "v": ' + HUGE + b"}]", "SenML v is a number beyond all bounds, expected a number"),
        ("s/x", b'[{"n": "\\ud800", "v": 1}]', "SenML n is"),
        ("s/x", b'[{"n": "a", "u": "\\udfff", "v": 1}]', "SenML u is"),
        ("c/x", cbor2.dumps([{0: "a", 2: 10**400}]), "SenML v is a number beyond all bounds"),
        ("c/x", cbor2.dumps([{0: "a", 2: 10**5000}]), "SenML v is a number beyond all bounds"),
        ("c/x", cbor2.dumps([{-1: 10**5000, 0: "a", 2: 1}]), "SenML version a number beyond all bounds"),
    ],
)
def test_message_beyond_what_numbers_and_text_can_be__is_told_and_the_next_one_read(
    tmp_path: Path, topic: str, payload: bytes, why: str
) -> None:
    gateway, _, journal = make_gateway(tmp_path)
    gateway._rules = parse_mapping(ODD_MAPPING)
    good = BrokerMessage("s/good", b'[{"n": "a", "v": 1}]', 2)
    commits, troubles = gateway.take([BrokerMessage(topic, payload, 1), good], now_ms=1_795_000_000_000)
    assert [why in trouble for trouble in troubles] == [True]
    assert (gateway.readings, sum(len(commit.vertices) for commit in commits)) == (1, 2)
    journal.close()


def say_many(count: int, chars: int) -> bytes:
    """A SenML pack of so many fields, whose names have so many letters of three bytes."""
    return json.dumps([{"n": f"{number:04}{'€' * chars}", "v": 1} for number in range(count)], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("s/", b'[{"n": "a", "v": 1}]', "expected 1 to 64 printable letters"),
        ("s/x\u200by", b'[{"n": "a", "v": 1}]', "expected 1 to 64 printable letters"),
        ("s/x", b'[{"v": 1}]', "different fields with printable names"),
        ("s/x", b'[{"n": "a\\nb", "v": 1}]', "different fields with printable names"),
        ("s/x", b'[{"n": "a", "u": "x\\ny", "v": 1}]', "different fields with printable names"),
        ("s/x", say_many(2000, 0), "or its 2000 fields cannot be told"),
        ("s/x", say_many(1000, 40), "bytes, at most 64512 fit"),
    ],
)
def test_sensor_that_others_could_not_read__is_told_and_the_log_goes_on(tmp_path: Path, topic: str, payload: bytes, why: str) -> None:
    """A vertex that its readers refuse would end the issuer's log for ever: it is never signed."""
    gateway, _, journal = make_gateway(tmp_path)
    gateway._rules = parse_mapping(ODD_MAPPING)
    now_ms = int(time.time() * 1000)
    good = BrokerMessage("s/good", b'[{"n": "a", "v": 1}]', 2)
    commits, troubles = gateway.take([BrokerMessage(topic, payload, 1), good], now_ms=now_ms)
    assert [why in trouble for trouble in troubles] == [True]
    hello = make_hello()
    rules = LaneRules(net=hello.net, tag=compute_tag(hello.codename), starts_ms=hello.starts_ms)
    node = SensorLane(rules=rules, me=MEMBER.peer, sign=MEMBER.sign, rng=Random(1))
    node.members = frozenset({MEMBER.peer})
    rulings = [node.receive(encoded, now_ms=now_ms).ruling for commit in commits for _, encoded in commit.vertices]
    assert rulings == [ACCEPTED, ACCEPTED]
    journal.close()


def test_quantity_beyond_a_double__is_no_reading_of_a_preset(tmp_path: Path) -> None:
    gateway, _, journal = make_gateway(tmp_path)
    gateway._rules = parse_mapping(ODD_MAPPING)
    gateway.take([BrokerMessage("z/x", b'{"temperature": ' + HUGE + b', "humidity": 4}', 1)], now_ms=1_795_000_000_000)
    assert gateway.readings == 1
    journal.close()


@pytest.mark.parametrize("error", [ValueError("odd"), OverflowError("odd")])
def test_mapping__that_stumbles_over_a_message_does_not_end_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def stumble(*arguments: object) -> None:
        raise error

    gateway, _, journal = make_gateway(tmp_path)
    monkeypatch.setattr(gateway, "_map", stumble)
    assert gateway.take([BrokerMessage("j/x", b"", 1)], now_ms=1_795_000_000_000)[1] == ["j/x: odd"]
    journal.close()


def test_node_that_is_away__lets_the_broker_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: back-pressure. With too much on its way the gateway takes no more; the broker keeps the rest, and all arrives later."""
    assert backend.INBOX_MAX >= RECEIVE_MAX >= backend.BATCH_MAX
    monkeypatch.setattr("learnae.backends.sensor_outbox.PENDING_MAX", 3)
    monkeypatch.setattr(backend, "BATCH_MAX", 1)
    hello = make_hello()
    admit(tmp_path / "gateway", hello)
    total = 40

    def speak(port: int) -> None:
        with open_device(port) as device:
            for number in range(total):
                device.say("lab/a/data", {"t": number, "h": 2, "label": 1})

    async def run(port: int) -> None:
        async with open_bed(tmp_path / "node", hello) as bed:
            address = bed.address
        plan = GatewayPlan(
            folder=tmp_path / "gateway",
            node=address,
            broker=parse_broker(f"mqtt://127.0.0.1:{port}"),
            rules=parse_mapping(MAPPING),
            linger_s=0,
        )
        taken: list[bytes] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(run_gateway, plan, on_batch=taken.extend))
            await trio.to_thread.run_sync(speak, port)
            await wait_until(lambda: len(taken) == 2)  # The head is one of the three that wait.
            async with open_bed(tmp_path / "node", hello, port=int(address.rpartition(":")[2])) as again:
                await wait_until(lambda: sorted(read_values(again, "a")) == [float(number) for number in range(total)])
            nursery.cancel_scope.cancel()
        assert len(taken) == total

    with run_broker(tmp_path / "broker") as port:
        trio.run(run, port)
