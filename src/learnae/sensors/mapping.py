"""The mapping file of a gateway: which MQTT topics are which sensors, and what in a payload is a reading.

    [[map]]
    topic = "greenhouse/+/climate"        # MQTT filter; {1}, {2}, ... below are what its wildcards met
    sensor = "climate {1}"
    time = "/ts"                          # JSON pointer; left out: when it arrived
    time_unit = "s"                       # s (default) or ms
    label = "/state"                      # JSON pointer to the class to learn
    labels = { healthy = 0, dry = 1 }     # left out: whole numbers
    [map.fields]
    temperature = { pointer = "/t", unit = "Cel", decimals = 2 }
    humidity = { pointer = "/h", unit = "%RH", from = "%" }

    [[map]]
    topic = "zigbee2mqtt/+"
    sensor = "{1}"
    preset = "zigbee2mqtt"                # or tasmota, homeassistant, senml+json, senml+cbor

Pure: text in, readings out. Pointers are RFC 6901. docs/sensors.md explains it to users.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.sensor_errors import MappingError, PayloadError
from learnae.sensors.presets import PRESETS
from learnae.sensors.readings import SensorField, parse_field, to_finite
from learnae.sensors.senml import Measurement
from learnae.sensors.units import convert, normalise_unit

RULES_MAX: Final = 256
PAYLOAD_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One field of a mapped payload: where its value is, and in which unit it comes."""

    field: SensorField
    pointer: tuple[str, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRule:
    """One `[[map]]` of the file."""

    topic: str
    sensor: str
    preset: str = ""
    fields: tuple[FieldRule, ...] = ()
    time: tuple[str, ...] | None = None
    time_factor: float = 1000.0
    label: tuple[str, ...] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one payload says of one sensor at one time. `fields` are the sensor's, if the rule names them."""

    sensor: str
    measurements: tuple[Measurement, ...]
    label: int | None = None
    fields: tuple[SensorField, ...] = ()


def parse_mapping(text: str) -> tuple[MapRule, ...]:
    """Read a mapping file. Raises: MappingError with the place and what was expected."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MappingError("the file", f"not TOML: {error}") from error
    rules = values.get("map")
    if set(values) - {"map"} or not isinstance(rules, list) or not 1 <= len(rules) <= RULES_MAX:
        raise MappingError("the file", f"expected 1 to {RULES_MAX} tables [[map]] and nothing else")
    return tuple(_parse_rule(rule, f"map {number}") for number, rule in enumerate(rules, 1))


def match_topic(pattern: str, topic: str) -> tuple[str, ...] | None:
    """What the wildcards of an MQTT filter meet in a topic; None if it does not match (MQTT 5, section 4.7)."""
    met: list[str] = []
    levels, names = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return None
    for place, level in enumerate(levels):
        if level == "#":
            return (*met, "/".join(names[place:]))
        if place >= len(names) or (level != "+" and level != names[place]):
            return None
        if level == "+":
            met.append(names[place])
    return tuple(met) if len(levels) == len(names) else None


def apply_rule(rule: MapRule, topic: str, payload: bytes, now_ms: int) -> list[Mapped]:
    """What a payload says by this rule; empty if the topic is another one's or nothing is a reading.

    Raises: PayloadError: it cannot be understood; a unit is another one; the label is none of the known ones.
    """
    met = match_topic(rule.topic, topic)
    if met is None:
        return []
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PayloadError(f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are read")
    sensor = rule.sensor
    for number, text in enumerate(met, 1):
        sensor = sensor.replace(f"{{{number}}}", text)
    if rule.preset:
        return _apply_preset(rule, sensor[:64], topic, payload, now_ms)
    try:
        message = parse_json(payload)
    except ValueError as error:
        raise PayloadError(f"not JSON: {str(error)[:80]}") from error
    time_ms = now_ms
    if rule.time is not None:
        told_ms = _read_number(message, rule.time, "time") * rule.time_factor
        if not math.isfinite(told_ms):
            raise PayloadError(f"time at /{'/'.join(rule.time)} is no time")
        time_ms = round(told_ms)
    measurements = []
    for wanted in rule.fields:
        value = convert(_read_number(message, wanted.pointer, wanted.field.name), wanted.unit, wanted.field.unit)
        assert value is not None, "units were compared when the file was read"
        measurements.append(Measurement(wanted.field.name, wanted.field.unit, value, time_ms))
    label = None if rule.label is None else _read_label(message, rule)
    return [Mapped(sensor[:64], tuple(measurements), label, tuple(wanted.field for wanted in rule.fields))]


def _apply_preset(rule: MapRule, sensor: str, topic: str, payload: bytes, now_ms: int) -> list[Mapped]:
    found = PRESETS[rule.preset](topic, payload, now_ms, rule.memory)
    wanted = {w.field.name: w.field for w in rule.fields}
    by_time: dict[int, list[Measurement]] = {}
    for measurement in found:
        chosen = wanted.get(measurement.name) if wanted else SensorField(measurement.name, normalise_unit(measurement.unit))
        if chosen is None:
            continue
        value = convert(measurement.value, measurement.unit, chosen.unit)
        if value is None:
            raise PayloadError(f"{measurement.name} comes in {measurement.unit!r}, expected {chosen.unit!r}")
        by_time.setdefault(measurement.time_ms, []).append(Measurement(chosen.name, chosen.unit, value, measurement.time_ms))
    fields = tuple(wanted.values())
    return [Mapped(sensor, tuple(together), None, fields) for together in by_time.values()]


def resolve_pointer(document: Any, pointer: Sequence[str]) -> Any:
    """What a JSON pointer points to (RFC 6901). Raises: PayloadError: it is not there."""
    found = document
    for part in pointer:
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise PayloadError(f"nothing at /{'/'.join(pointer)}")
    return found


def _read_number(message: Any, pointer: Sequence[str], name: str) -> float:
    value = resolve_pointer(message, pointer)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    number = to_finite(value)
    if number is None:
        raise PayloadError(f"{name} at /{'/'.join(pointer)} is not a number")
    return number


def _read_label(message: Any, rule: MapRule) -> int:
    assert rule.label is not None
    value = resolve_pointer(message, rule.label)
    if rule.labels:
        found = rule.labels.get(str(value))
        if found is None:
            raise PayloadError(f"label {str(value)[:40]!r}, expected one of {', '.join(rule.labels)}")
        return found
    if isinstance(value, bool) or not isinstance(value, int):
        raise PayloadError(f"label {str(value)[:40]!r} is not a whole number")
    return value


# --- reading the file -------------------------------------------------------------------------------------------


def _parse_rule(values: Any, where: str) -> MapRule:
    known = {"topic", "sensor", "preset", "fields", "time", "time_unit", "label", "labels"}
    if not isinstance(values, dict) or set(values) - known:
        unknown = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else ""
        raise MappingError(where, f"unknown {unknown or 'content'}; known are {', '.join(sorted(known))}")
    topic, sensor, preset = (values.get(name, "") for name in ("topic", "sensor", "preset"))
    if not isinstance(topic, str) or not topic or ("#" in topic and not (topic == "#" or topic.endswith("/#"))):
        raise MappingError(where, f"topic {topic!r} is not an MQTT filter")
    if not isinstance(sensor, str) or not sensor.isprintable() or not sensor:
        raise MappingError(where, f"sensor {sensor!r}; expected a name, in which {{1}} stands for the first wildcard")
    if preset and preset not in PRESETS:
        raise MappingError(where, f"preset {preset!r}; known are {', '.join(PRESETS)}")
    fields = tuple(_parse_field(name, entry, where, bool(preset)) for name, entry in dict(values.get("fields", {})).items())
    if not preset and not fields:
        raise MappingError(where, "neither a preset nor fields; say what in the payload is a reading")
    factors = {"s": 1000.0, "ms": 1.0}
    unit = values.get("time_unit", "s")
    labels = values.get("labels", {})
    if unit not in factors or not isinstance(labels, dict) or not all(type(number) is int for number in labels.values()):
        raise MappingError(where, "time_unit is s or ms, labels a table of names and whole numbers")
    return MapRule(
        topic=topic,
        sensor=sensor,
        preset=preset,
        fields=fields,
        time=_parse_pointer(values["time"], where) if "time" in values else None,
        time_factor=factors[unit],
        label=_parse_pointer(values["label"], where) if "label" in values else None,
        labels=labels,
    )


def _parse_field(name: str, values: Any, where: str, preset: bool) -> FieldRule:
    if not isinstance(values, dict) or set(values) - {"pointer", "unit", "decimals", "from"} or (preset and "pointer" in values):
        raise MappingError(f"{where}, field {name}", "expected pointer (not with a preset), unit, decimals, from")
    unit = normalise_unit(str(values.get("unit", "")))
    made = parse_field([name, unit, values.get("decimals", 2)])
    if made is None:
        raise MappingError(f"{where}, field {name}", "name, unit or decimals (0 to 9) are not acceptable")
    came = str(values.get("from", unit))
    if convert(1.0, came, unit) is None:
        raise MappingError(f"{where}, field {name}", f"there is no way from unit {came!r} to {unit!r}")
    pointer = () if preset else _parse_pointer(values.get("pointer", "/" + name), f"{where}, field {name}")
    return FieldRule(made, pointer, came)


def _parse_pointer(text: Any, where: str) -> tuple[str, ...]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise MappingError(where, f"{text!r} is not a JSON pointer; write for example /values/0/temperature")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])
