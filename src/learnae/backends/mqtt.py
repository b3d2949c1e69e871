"""An MQTT 5 broker as a source of messages, by paho-mqtt, driven by trio in one task and no thread.

QoS 1 with a persistent session: the broker keeps what comes while we are away, and sends again what was not acknowledged.
Acknowledging is the caller's business, after its disk. A broker that goes away is dialled again with a growing pause. Back-pressure:
the broker sends at most `RECEIVE_MAX` messages that were not acknowledged, and is not read while the inbox is full. A broker may send
a message once for each subscription that it meets (MQTT 5, 3.3.4): subscriptions are numbered, so that copies are told from repeats.
"""

from __future__ import annotations

import hashlib
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import trio
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from learnae.sensor_errors import BrokerError
from learnae.sensors.gateway import RECEIVE_MAX, BrokerMessage

SESSION_EXPIRY_S: Final = 7 * 86_400  # What the broker keeps for us: a week of being away.
KEEPALIVE_S: Final = 30
INBOX_MAX: Final = 4 * RECEIVE_MAX  # Messages of QoS 0 have no other bound.
BATCH_MAX: Final = 512
CONNECT_S_MAX: Final = 20.0
PAUSE_S_MIN: Final = 0.5
PAUSE_S_MAX: Final = 30.0
COPIES_MAX: Final = 4096  # Messages remembered until their copies came: more than are under way.
_READS_AT_ONCE: Final = 256
_REFUSED_FOR_GOOD: Final = frozenset({134, 135, 138, 140})  # Bad user or password, not authorised, banned, bad method.


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where a broker is, and who we are there."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def parse_broker(url: str, password: str = "") -> BrokerAddress:
    """`mqtt://[USER@]HOST[:PORT]`, or mqtts. Passwords are never in a URL. Raises: BrokerError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BrokerError(url[:80], f"not a URL ({error}); write for example mqtt://192.0.2.1:1883") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.password is not None:
        why = "expected mqtt://[USER@]HOST[:PORT] or mqtts://, the password in --broker-password-file"
        raise BrokerError(url[:80].rpartition("@")[2], why)
    tls = parts.scheme == "mqtts"
    return BrokerAddress(host=parts.hostname, port=port or (8883 if tls else 1883), user=parts.username or "", password=password, tls=tls)


class MqttSource:
    """Messages of the topics that were subscribed to."""

    def __init__(self, address: BrokerAddress, client_id: str, topics: Sequence[str], on_trouble: Callable[[str], None]) -> None:
        self._address = address
        self._topics = topics
        self._on_trouble = on_trouble
        self._inbox: deque[mqtt.MQTTMessage] = deque()
        self._arrived = trio.Event()
        self._taken = trio.Event()
        self._copies: dict[tuple[str, bytes], Counter[int]] = {}  # topic and payload -> by which subscription it came how often
        self._unanswered = 0  # subscriptions
        self._session = 0  # counts connections: a packet number means something in its own only
        self.connected = trio.Event()
        self._refused: BrokerError | None = None
        client = self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,  # type: ignore[attr-defined]
            client_id=client_id,
            protocol=mqtt.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if address.user:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            client.tls_set(cert_reqs=ssl.CERT_REQUIRED)

    # --- for the gateway ------------------------------------------------------------------------------------

    async def receive(self, *, linger_s: float) -> list[tuple[BrokerMessage, tuple[int, int]]]:
        """The next messages, at least one, with what `acknowledge` wants; waits `linger_s` for more to come along."""
        while not self._inbox:
            self._arrived = trio.Event()
            await self._arrived.wait()
        if len(self._inbox) < BATCH_MAX:
            await trio.sleep(linger_s)
        batch = [self._inbox.popleft() for _ in range(min(BATCH_MAX, len(self._inbox)))]
        self._taken.set()
        return [(BrokerMessage(m.topic, m.payload, m.mid, bool(m.dup)), (self._session if m.qos else -1, m.mid)) for m in batch]

    def acknowledge(self, receipts: Sequence[tuple[int, int]]) -> None:
        """Tell the broker that it may forget these: their readings are on disk. A lost connection's are sent again anyway."""
        for session, packet in receipts:
            if session == self._session and self._client.socket() is not None:
                self._client.ack(packet, 1)

    # --- the connection -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until cancelled. Raises: BrokerError: the broker does not want us."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                await self._connect()
                await self._serve()
                self._on_trouble(f"the broker {self._address} went away; dialling again")
                pause_s = PAUSE_S_MIN if self.connected.is_set() else pause_s
            except (OSError, trio.TooSlowError) as error:
                self._on_trouble(f"the broker {self._address} does not answer ({str(error) or 'too slow'}); again in {pause_s:g} s")
            if self.connected.is_set():  # Somebody may wait for the one that was never set.
                self.connected = trio.Event()
            if self._refused is not None:
                raise self._refused
            await trio.sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, 2 * pause_s)

    async def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAX
        self._session += 1
        self._inbox.clear()  # Not acknowledged, so the broker sends them again.

        def connect() -> None:
            self._client.connect(
                self._address.host, self._address.port, keepalive=KEEPALIVE_S, clean_start=False, properties=properties
            )

        with trio.fail_after(CONNECT_S_MAX):
            await trio.to_thread.run_sync(connect)

    async def _serve(self) -> None:
        """Read and write until the connection ends."""
        client = self._client
        try:
            while (socket := client.socket()) is not None and self._refused is None:
                if len(self._inbox) >= INBOX_MAX:
                    self._taken = trio.Event()
                    with trio.move_on_after(1.0):
                        await self._taken.wait()
                else:
                    with trio.move_on_after(1.0):
                        await trio.lowlevel.wait_readable(socket.fileno())
                    self._drain()
                if client.socket() is not None and client.want_write():
                    with trio.move_on_after(1.0):
                        await trio.lowlevel.wait_writable(socket.fileno())
                    client.loop_write()
                client.loop_misc()
        finally:
            client.disconnect()

    def _drain(self) -> None:
        """Read what is there; paho reads one packet at a time."""
        for _ in range(_READS_AT_ONCE):
            before = len(self._inbox)
            if self._client.socket() is None or self._client.loop_read() != mqtt.MQTT_ERR_SUCCESS or len(self._inbox) == before:
                return

    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if reason.value in _REFUSED_FOR_GOOD:
                self._refused = BrokerError(str(self._address), f"it refused the connection: {reason}")
            return
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        self._unanswered = len(self._topics)
        for topic in self._topics:
            numbered = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
            numbered.SubscriptionIdentifier = _number(topic)
            client.subscribe([(topic, options)], properties=numbered)

    def _on_subscribe(self, client: mqtt.Client, userdata: Any, packet: int, reasons: Any, properties: Any) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self.connected.set()

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.retain and not message.topic.endswith("/unit_of_measurement"):
            if message.qos:
                client.ack(message.mid, message.qos)
            return  # What was said before we came is no reading of now.
        if self._is_copy(message):
            if message.qos:
                client.ack(message.mid, message.qos)
            return
        self._inbox.append(message)
        self._arrived.set()

    def _is_copy(self, message: mqtt.MQTTMessage) -> bool:
        """Whether this came already, by another subscription: it was said as often as it came by the one by which it came most."""
        numbers = set(getattr(message.properties, "SubscriptionIdentifier", ()))
        if len(self._topics) < 2 or not numbers:
            return False
        content = message.topic, hashlib.sha256(message.payload).digest()
        seen = self._copies.pop(content, Counter())
        said = max(seen.values(), default=0)
        seen.update(numbers)
        self._copies[content] = seen
        if len(self._copies) > COPIES_MAX:
            del self._copies[next(iter(self._copies))]
        return max(seen.values()) == said


def _number(topic: str) -> int:
    """The number of a subscription, the same whatever else is subscribed to: queued messages carry it for days."""
    return int.from_bytes(hashlib.sha256(topic.encode()).digest()[:3], "big") + 1


@asynccontextmanager
async def open_mqtt(
    address: BrokerAddress, *, client_id: str, topics: Sequence[str], on_trouble: Callable[[str], None]
) -> AsyncIterator[MqttSource]:
    """A source that stays connected while the context is open. Raises: BrokerError: the broker does not want us."""
    source = MqttSource(address, client_id, topics, on_trouble)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        yield source
        nursery.cancel_scope.cancel()
