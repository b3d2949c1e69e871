"""A gateway: messages of a broker become readings of many sensors, attached by one issuer (4.2).

The gateway holds the channel keys of sensors that have no crypto of their own. A sensor's fields are those of its rule, or what its
first message holds; what comes later and is something else is told, once for each kind, and left out.
A message is acknowledged to the broker only when its readings are on disk. What the broker then sends again after a crash is known
by its packet number and content, which are on disk in the same transaction, and is not counted twice.
Pure. Source: paper 4.2; docs/sensors.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from learnae.sensor_errors import PayloadError, ReadingError
from learnae.sensors.mapping import Mapped, MapRule, apply_rule
from learnae.sensors.publisher import Commit, SensorPlan, SensorPublisher
from learnae.sensors.readings import Reading, SensorField, find_fault
from learnae.sensors.slices import RowType
from learnae.sensors.units import convert
from learnae.tangle import cbor

RECEIVE_MAX: Final = 1024  # Messages that the broker sends before it hears of the first: back-pressure, and what a crash sends again.
RECORD_FLIGHT: Final = "gateway flight"
CLOCK_OFF_MS: Final = 86_400_000  # A device whose clock is a day off is told; its readings are taken with the gateway's time.
ODD_MAX: Final = 4096
_DIGEST_BYTES: Final = 8

MakePlan = Callable[[str, tuple[SensorField, ...], int, RowType], SensorPlan]
"""Gives a sensor's channel: of a name, with these fields, after so many changes of its key, with rows of that type."""


@dataclass(frozen=True, slots=True)
class BrokerMessage:
    """One message as the broker sent it. `packet`: its MQTT packet number, 0 at QoS 0; `again`: the broker says that it sent it before."""

    topic: str
    payload: bytes
    packet: int
    again: bool = False

    def compute_mark(self) -> tuple[int, bytes]:
        digest = hashlib.sha256(self.topic.encode() + b"\0" + self.payload).digest()[:_DIGEST_BYTES]
        return self.packet, digest


@dataclass(slots=True)
class _Known:
    fields: tuple[SensorField, ...]
    numbers: dict[str, int] = field(default_factory=dict)


class Gateway:
    """Turns batches of broker messages into commits."""

    def __init__(self, publisher: SensorPublisher, rules: Sequence[MapRule], make_plan: MakePlan) -> None:
        self._publisher = publisher
        self._rules = rules
        self._make_plan = make_plan
        self._known: dict[str, _Known] = {}
        self._flight: dict[tuple[int, bytes], None] = {}
        self._odd: set[str] = set()
        self.messages = self.readings = self.repeats = 0

    def restore(self, records: Mapping[str, bytes], *, now_ms: int) -> None:
        """Go on with the sensors that the journal knows, and remember what the broker may send again."""
        content = records.get(RECORD_FLIGHT)
        if content is not None:
            self._flight = dict.fromkeys((int(packet), bytes(digest)) for packet, digest in cbor.decode(content))
        for stream in list(self._publisher.lane.streams.values()):
            if not stream.ended:
                commit = self._open(stream.head.sensor, stream.head.fields, now_ms, stream.head.row_type)
                assert not commit.vertices, "a known sensor goes on"

    def take(self, messages: Sequence[BrokerMessage], *, now_ms: int) -> tuple[list[Commit], list[str]]:
        """Readings of a batch, to be on disk before its messages are acknowledged; and what was odd, in sentences."""
        troubles: list[str] = []
        commits: list[Commit] = []
        readings: dict[str, list[Reading]] = {}
        for message in messages:
            self.messages += 1
            if self._is_repeat(message):
                continue
            try:
                for mapped in self._map(message, now_ms):
                    self._take_one(mapped, readings, commits, troubles, now_ms)
            except (PayloadError, ReadingError, ValueError, ArithmeticError) as error:  # No message of a device ends the gateway.
                self._tell(f"{message.topic}: {error}", troubles)
        while len(self._flight) > 2 * RECEIVE_MAX:
            del self._flight[next(iter(self._flight))]
        self.readings += sum(map(len, readings.values()))
        made = self._publisher.publish(list(readings.items()), now_ms=now_ms) if readings else Commit((), ())
        flight = cbor.encode([[packet, digest] for packet, digest in self._flight])
        commits.append(Commit(made.vertices, (*made.records, (RECORD_FLIGHT, flight))))
        return commits, troubles

    def _is_repeat(self, message: BrokerMessage) -> bool:
        """Whether these readings are on disk already; remembers the others. What has no packet number is never sent again."""
        if not message.packet:
            return False
        mark = message.compute_mark()
        is_repeat = message.again and mark in self._flight
        self.repeats += is_repeat
        self._flight.pop(mark, None)
        self._flight[mark] = None
        return is_repeat

    def _map(self, message: BrokerMessage, now_ms: int) -> list[Mapped]:
        for rule in self._rules:
            found = apply_rule(rule, message.topic, message.payload, now_ms)
            if found:
                return found
        return []

    def _take_one(
        self, mapped: Mapped, readings: dict[str, list[Reading]], commits: list[Commit], troubles: list[str], now_ms: int
    ) -> None:
        if not mapped.measurements:
            return
        known = self._known.get(mapped.sensor)
        if known is None:
            fields = mapped.fields or tuple(SensorField(m.name[:64], m.unit[:16]) for m in mapped.measurements)
            commits.append(self._open(mapped.sensor, tuple({f.name: f for f in fields}.values()), now_ms))
            known = self._known[mapped.sensor]
        taken = []
        for measurement in mapped.measurements:
            number = known.numbers.get(measurement.name[:64])
            if number is None:
                self._tell(f"sensor {mapped.sensor}: {measurement.name!r} is no field of it; it began without", troubles)
                continue
            value = convert(measurement.value, measurement.unit, known.fields[number].unit)
            if value is None:
                wanted = known.fields[number].unit
                raise PayloadError(f"sensor {mapped.sensor}: {measurement.name} comes in {measurement.unit!r}, expected {wanted!r}")
            time_ms = measurement.time_ms
            if abs(time_ms - now_ms) > CLOCK_OFF_MS:
                self._tell(f"sensor {mapped.sensor}: its clock is off by more than a day; its readings get this gateway's time", troubles)
                time_ms = now_ms
            reading = Reading(time_ms, number, value, mapped.label)
            if fault := find_fault(reading, len(known.fields)):
                raise PayloadError(f"sensor {mapped.sensor}: {fault}")
            taken.append(reading)
        if taken:
            readings.setdefault(mapped.sensor, []).extend(sorted(taken, key=lambda reading: reading.field))

    def _open(self, sensor: str, fields: tuple[SensorField, ...], now_ms: int, row_type: RowType = RowType.F32) -> Commit:
        if len(self._known) >= self._publisher.channels_max:
            raise PayloadError(f"sensor {sensor!r} is one more than the {self._publisher.channels_max} that a member admitted here")
        plan = self._make_plan(sensor, fields, self._publisher.count_old_keys(sensor), row_type)
        commit = self._publisher.open(plan, now_ms=now_ms)
        self._known[sensor] = _Known(fields, {f.name: number for number, f in enumerate(fields)})
        return commit

    def _tell(self, text: str, troubles: list[str]) -> None:
        """Once for each sentence: a broken device repeats itself."""
        if text not in self._odd and len(self._odd) < ODD_MAX:
            self._odd.add(text)
            troubles.append(text)
