"""MQTT to a vertex on disk: messages a second through a real Mosquitto, and how long each takes. Needs `mosquitto` on the machine.

A device publishes with QoS 1 as fast as the broker takes it (rate), then 500 messages a second, each with the time at which it was
said (delay); a message counts when the gateway's journal has it on disk and the broker was thanked. The reference is paho-mqtt
alone, which thanks for every message and keeps none.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import trio

from benchmarks import Result
from learnae.backends.mqtt import open_mqtt, parse_broker
from learnae.backends.sensor_folder import SensorFolder, format_admission
from learnae.cli.gateway_run import GatewayPlan, run_gateway
from learnae.sensors.link import Hello
from learnae.sensors.mapping import parse_mapping
from learnae.sensors.messages import create_admission
from learnae.sim.sensors import SimKey

COUNT = 20_000
DELAYED = 5_000
DELAYED_PER_S = 500
SENSORS = 4
START_S = 4.0  # For the device's process to load and connect.
MAPPING = '[[map]]\ntopic = "lab/+"\nsensor = "{1}"\nlabel = "/label"\n[map.fields]\nt = { unit = "Cel" }\nsaid = {}\n'


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with run_broker(folder) as port:
            reference = trio.run(_measure_reference, port)
        with run_broker(folder) as port:
            took_s, _ = trio.run(_measure, folder / "rate", port, COUNT, 0.0)
        with run_broker(folder) as port:
            _, delays = trio.run(_measure, folder / "delay", port, DELAYED, 1 / DELAYED_PER_S)
    delays.sort()
    return [
        Result(
            case="MQTT to durable vertex",
            value=COUNT / took_s,
            unit="messages/s",
            reference="paho-mqtt alone",
            reference_value=reference,
        ),
        Result(case="median delay at 500 messages/s", value=1000 * statistics.median(delays), unit="ms"),
        Result(
            case="p99 delay at 500 messages/s",
            value=1000 * delays[len(delays) * 99 // 100],
            unit="ms",
            reference="most allowed",
            reference_value=250,
        ),
    ]


@contextmanager
def run_broker(folder: Path) -> Iterator[int]:
    """A broker on a free port."""
    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise SystemExit("this benchmark needs Mosquitto: apt-get install mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_dest none\n")
    broker = subprocess.Popen([found, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        broker.terminate()
        broker.wait()


def start_device(port: int, count: int, interval_s: float) -> subprocess.Popen[bytes]:
    """A process that publishes, beginning `START_S` from now, so that its own start is not measured."""
    at_s = time.monotonic() + START_S
    program = f"from benchmarks.gateway import publish; publish({port}, {count}, {interval_s}, {at_s})"
    return subprocess.Popen([sys.executable, "-c", program])


def publish(port: int, count: int, interval_s: float, at_s: float) -> None:
    """What devices say; each message carries the time, in ms of the monotonic clock, which all processes share."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)  # type: ignore[attr-defined]
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    time.sleep(max(0.0, at_s - time.monotonic()))
    began_s = time.monotonic()
    for number in range(count):
        if interval_s:
            time.sleep(max(0.0, began_s + number * interval_s - time.monotonic()))
        payload = json.dumps({"t": number % 400 / 10, "said": round(time.monotonic() * 1000), "label": number % 3})
        last = client.publish(f"lab/{number % SENSORS}", payload, qos=1)
    last.wait_for_publish(120)
    client.disconnect()
    client.loop_stop()


async def _measure(folder: Path, port: int, count: int, interval_s: float) -> tuple[float, list[float]]:
    """Seconds from the first message to the last that is on disk, and the delay of each, in seconds."""
    _admit(folder)
    plan = GatewayPlan(
        folder=folder, node="127.0.0.1:9", broker=parse_broker(f"mqtt://127.0.0.1:{port}"), rules=parse_mapping(MAPPING), linger_s=0.005
    )
    delays: list[float] = []
    finished = trio.Event()

    def on_batch(said_ms: list[float]) -> None:
        now_ms = time.monotonic() * 1000
        delays.extend((now_ms - said) / 1000 for said in said_ms)
        if len(delays) >= count:
            finished.set()

    def on_messages(payloads: list[bytes]) -> None:
        on_batch([float(json.loads(payload)["said"]) for payload in payloads])

    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: run_gateway(plan, on_batch=on_messages, task_status=task_status))
        began_s = time.monotonic()
        device = start_device(port, count, interval_s)
        await finished.wait()
        took_s = time.monotonic() - began_s
        await trio.to_thread.run_sync(device.wait)
        nursery.cancel_scope.cancel()
    return took_s - START_S, delays


async def _measure_reference(port: int) -> float:
    """Messages a second that are received and thanked for, and not kept."""
    address = parse_broker(f"mqtt://127.0.0.1:{port}")
    ignore: Callable[[str], None] = lambda text: None  # noqa: E731
    async with open_mqtt(address, client_id="reference", topics=["lab/+"], on_trouble=ignore) as source:
        await source.connected.wait()
        began_s = time.monotonic()
        device = start_device(port, COUNT, 0.0)
        seen = 0
        while seen < COUNT:
            batch = await source.receive(linger_s=0)
            source.acknowledge([receipt for _, receipt in batch])
            seen += len(batch)
        took_s = time.monotonic() - began_s
        await trio.to_thread.run_sync(device.wait)
        return COUNT / (took_s - START_S)


def _admit(folder: Path) -> None:
    member = SimKey.make("member")
    starts_ms = (int(time.time()) - 3600) * 1000
    made = SensorFolder(folder)
    net = b"benchmrk"
    admission = create_admission(
        net=net, issuer=made.issuer.peer, member=member.peer, sign=member.sign, rate_per_s=1000, channels_max=8, from_ms=starts_ms
    )
    hello = Hello(net=net, codename="benchmark", starts_ms=starts_ms, slice_bytes=65536, members=(member.peer,))
    made.write_admission(format_admission(admission, hello))
