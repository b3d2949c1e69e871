"""What common gateways and firmwares say over MQTT, turned into measurements: Zigbee2MQTT, Tasmota, Home Assistant, SenML.

A preset takes a topic's payload and gives plain measurements (name, unit, value, time). It keeps nothing but, for Home Assistant,
the units that come on topics of their own.
Pure. Sources: zigbee2mqtt.io (MQTT topics and messages), tasmota.github.io (MQTT), home-assistant.io (MQTT Statestream), RFC 8428.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.sensor_errors import PayloadError
from learnae.sensors.readings import to_finite
from learnae.sensors.senml import Measurement, parse_senml_cbor, parse_senml_json

ENTITIES_MAX: Final = 4096  # Home Assistant entities whose unit is remembered.

# What Zigbee2MQTT's exposes call a quantity, and the unit that it has there unless a device says otherwise.
ZIGBEE_UNITS: Final[Mapping[str, str]] = {
    "temperature": "Cel", "device_temperature": "Cel", "local_temperature": "Cel", "humidity": "%RH", "soil_moisture": "%",
    "pressure": "hPa", "illuminance": "lx", "illuminance_lux": "lx", "battery": "%EL", "voltage": "mV", "current": "A",
    "power": "W", "energy": "kWh", "co2": "ppm", "voc": "ppb", "pm25": "ug/m3", "formaldehyd": "mg/m3", "noise": "dB",
}  # fmt: skip
_SILENT: Final = frozenset({"unavailable", "unknown", "none", "None", ""})

Preset = Callable[[str, bytes, int, MutableMapping[str, str]], list[Measurement]]
"""(topic, payload, now in ms, memory of the preset) -> measurements. Raises: PayloadError."""


def read_zigbee2mqtt(topic: str, payload: bytes, now_ms: int, memory: MutableMapping[str, str]) -> list[Measurement]:
    """`zigbee2mqtt/FRIENDLY_NAME`: one JSON object of a device's state; only known quantities are readings."""
    state = _read_object(payload)
    seen = state.get("last_seen")
    time_ms = int(seen) if isinstance(seen, int) and seen > 10**12 else now_ms
    return [Measurement(name, unit, float(state[name]), time_ms) for name, unit in ZIGBEE_UNITS.items() if _is_number(state.get(name))]


def read_tasmota(topic: str, payload: bytes, now_ms: int, memory: MutableMapping[str, str]) -> list[Measurement]:
    """`tele/DEVICE/SENSOR`: groups of values, and the units of all temperatures and pressures beside them. Its clock has no zone."""
    message = _read_object(payload)
    degrees = message.get("TempUnit", "C")
    units = {"Temperature": degrees, "DewPoint": degrees, "Pressure": message.get("PressureUnit", "hPa")}
    units |= {"Humidity": "%RH", "Illuminance": "lx", "CarbonDioxide": "ppm", "Voltage": "V", "Current": "A", "Power": "W", "Total": "kWh"}
    found = []
    for group, values in message.items():
        if isinstance(values, dict):
            for name, value in values.items():
                if _is_number(value):
                    found.append(Measurement(f"{group} {name}", str(units.get(name, "")), float(value), now_ms))
    return found


def read_homeassistant(topic: str, payload: bytes, now_ms: int, memory: MutableMapping[str, str]) -> list[Measurement]:
    """MQTT Statestream, `BASE/DOMAIN/ENTITY/state` and `.../unit_of_measurement`: bare values, a topic for each."""
    entity, _, attribute = topic.rpartition("/")
    text = payload.decode("utf-8", "replace").strip()
    if attribute == "unit_of_measurement":
        if len(memory) < ENTITIES_MAX or entity in memory:
            memory[entity] = text.strip('"')[:16]
        return []
    if attribute != "state" or text.strip('"') in _SILENT:
        return []
    try:
        value = float(text.strip('"'))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PayloadError(f"state {text[:40]!r} is not a number")
    return [Measurement("state", memory.get(entity, ""), value, now_ms)]


def read_senml_json(topic: str, payload: bytes, now_ms: int, memory: MutableMapping[str, str]) -> list[Measurement]:
    return parse_senml_json(payload, now_ms)


def read_senml_cbor(topic: str, payload: bytes, now_ms: int, memory: MutableMapping[str, str]) -> list[Measurement]:
    return parse_senml_cbor(payload, now_ms)


PRESETS: Final[Mapping[str, Preset]] = {
    "zigbee2mqtt": read_zigbee2mqtt,
    "tasmota": read_tasmota,
    "homeassistant": read_homeassistant,
    "senml+json": read_senml_json,
    "senml+cbor": read_senml_cbor,
}


def _read_object(payload: bytes) -> dict[str, Any]:
    try:
        value = parse_json(payload)
    except (ValueError, json.JSONDecodeError) as error:
        raise PayloadError(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(value, dict):
        raise PayloadError("not a JSON object")
    return value


def _is_number(value: object) -> bool:
    return to_finite(value) is not None
