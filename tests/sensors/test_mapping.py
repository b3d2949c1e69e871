"""Issue: a mapping file, presets for Zigbee2MQTT, Tasmota, Home Assistant statestream, and SenML in JSON and CBOR."""

from __future__ import annotations

import json

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.sensor_errors import MappingError, PayloadError
from learnae.sensors.mapping import Mapped, apply_rule, match_topic, parse_mapping, resolve_pointer
from learnae.sensors.presets import PRESETS
from learnae.sensors.readings import SensorField
from learnae.sensors.senml import Measurement, parse_senml_cbor, parse_senml_json
from learnae.sensors.units import convert

NOW_MS = 1_795_000_000_000

MAPPING = """
[[map]]
topic = "greenhouse/+/climate"
sensor = "climate {1}"
time = "/ts"
label = "/state"
labels = { healthy = 0, dry = 1 }
[map.fields]
temperature = { pointer = "/values/0", unit = "Cel", from = "°F", decimals = 3 }
humidity = { pointer = "/h~1rel", unit = "%RH", decimals = 1 }

[[map]]
topic = "zigbee2mqtt/+"
sensor = "{1}"
preset = "zigbee2mqtt"

[[map]]
topic = "senml/#"
sensor = "{1}"
preset = "senml+json"
[map.fields]
"urn:dev:1:temperature" = { unit = "Cel" }
"""
RULES = parse_mapping(MAPPING)


def climate(**changes: object) -> bytes:
    return json.dumps({"ts": 1_795_000_000, "state": "dry", "values": [70.7, 1], "h/rel": "40.5", **changes}).encode()


def test_mapped_payload__becomes_readings_with_units_time_and_label() -> None:
    (mapped,) = apply_rule(RULES[0], "greenhouse/7/climate", climate(), NOW_MS)

    assert mapped == Mapped(
        "climate 7",
        (Measurement("temperature", "Cel", 21.5, 1_795_000_000_000), Measurement("humidity", "%RH", 40.5, 1_795_000_000_000)),
        1,
        (SensorField("temperature", "Cel", 3), SensorField("humidity", "%RH", 1)),
    )
    assert apply_rule(RULES[0], "greenhouse/7", climate(), NOW_MS) == []


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (climate(values=[]), "nothing at /values/0"),
        (climate(values=["warm"]), "temperature at /values/0 is not a number"),
        (climate(values=[True]), "temperature at /values/0 is not a number"),
        (climate(state="wilted"), "label 'wilted', expected one of healthy, dry"),
        (climate(ts="noon"), "time at /ts is not a number"),
        (b"x" * 300_000, "300000 bytes, at most"),
    ],
)
def test_malformed_payload__is_refused_in_words(payload: bytes, why: str) -> None:
    """Issue: malformed payloads."""
    with pytest.raises(PayloadError, match=why):
        apply_rule(RULES[0], "greenhouse/7/climate", payload, NOW_MS)


@pytest.mark.parametrize(
    ("pattern", "topic", "met"),
    [
        ("a/+/c", "a/b/c", ("b",)),
        ("a/+/c", "a/b/d", None),
        ("a/+", "a", None),
        ("a/+", "a/", ("",)),
        ("a/#", "a/b/c", ("b/c",)),
        ("a/#", "a", ("",)),
        ("#", "a/b", ("a/b",)),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("$SYS/#", "$SYS/x", ("x",)),
        ("+/+", "a/b", ("a", "b")),
        ("a/b", "a/b/c", None),
    ],
)
def test_filter__meets_topics_as_mqtt_says(pattern: str, topic: str, met: tuple[str, ...] | None) -> None:
    """MQTT 5, section 4.7."""
    assert match_topic(pattern, topic) == met


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("map = 3", r"the file: expected 1 to 256 tables \[\[map\]\]"),
        ("[[map]", "the file: not TOML"),
        ('[[map]]\ntopic = "a/#/b"\nsensor = "s"\npreset = "tasmota"', "map 1: topic 'a/#/b' is not an MQTT filter"),
        ('[[map]]\ntopic = "a"\nsensor = "s"', "map 1: neither a preset nor fields"),
        ('[[map]]\ntopic = "a"\npreset = "tasmota"', "map 1: sensor ''; expected a name"),
        ('[[map]]\ntopic = "a"\nsensor = "s"\npreset = "shelly"', "map 1: preset 'shelly'; known are zigbee2mqtt"),
        ('[[map]]\ntopic = "a"\nsensor = "s"\ncolour = 1', "map 1: unknown colour"),
        ('[[map]]\ntopic = "a"\nsensor = "s"\ntime = "ts"\n[map.fields]\nt = {}', "'ts' is not a JSON pointer"),
        ('[[map]]\ntopic = "a"\nsensor = "s"\n[map.fields]\nt = { decimals = 12 }', "map 1, field t: name, unit or decimals"),
        ('[[map]]\ntopic = "a"\nsensor = "s"\n[map.fields]\nt = { unit = "Cel", from = "lx" }', "no way from unit 'lx' to 'Cel'"),
    ],
)
def test_mapping__says_where_it_is_wrong(text: str, why: str) -> None:
    with pytest.raises(MappingError, match=why):
        parse_mapping(text)


def test_pointer__is_rfc_6901() -> None:
    """RFC 6901, section 5."""
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8}
    (rule,) = parse_mapping('[[map]]\ntopic = "a"\nsensor = "s"\n[map.fields]\nx = { pointer = "/m~0n" }')
    assert resolve_pointer(document, rule.fields[0].pointer) == 8
    assert resolve_pointer(document, ("foo", "1")) == "baz"
    assert resolve_pointer(document, ("",)) == 0
    assert resolve_pointer(document, ()) == document


# --- presets ----------------------------------------------------------------------------------------------------


def test_zigbee2mqtt__gives_its_known_quantities() -> None:
    payload = {"temperature": 21.5, "humidity": 40, "battery": 97, "linkquality": 120, "state": "ON", "occupancy": True, "voltage": 2985}
    found = PRESETS["zigbee2mqtt"]("zigbee2mqtt/kitchen", json.dumps(payload).encode(), NOW_MS, {})

    assert {(m.name, m.unit, m.value) for m in found} == {
        ("temperature", "Cel", 21.5), ("humidity", "%RH", 40.0), ("battery", "%EL", 97.0), ("voltage", "mV", 2985.0)
    }  # fmt: skip


def test_tasmota__gives_groups_with_the_units_beside_them() -> None:
    payload = {
        "Time": "2026-11-22T12:00:00",
        "BME280": {"Temperature": 70.7, "Humidity": 40.1, "Pressure": 1013.2, "Id": "x"},
        "ENERGY": {"Power": 12},
        "TempUnit": "F",
        "PressureUnit": "hPa",
    }
    rule = parse_mapping('[[map]]\ntopic = "tele/+/SENSOR"\nsensor = "{1}"\npreset = "tasmota"')[0]
    (mapped,) = apply_rule(rule, "tele/shed/SENSOR", json.dumps(payload).encode(), NOW_MS)

    assert mapped.sensor == "shed"
    assert {(m.name, m.unit, m.value) for m in mapped.measurements} == {
        ("BME280 Temperature", "[degF]", 70.7), ("BME280 Humidity", "%RH", 40.1),
        ("BME280 Pressure", "hPa", 1013.2), ("ENERGY Power", "W", 12.0),
    }  # fmt: skip


def test_homeassistant__joins_states_and_units_of_their_topics() -> None:
    (rule,) = parse_mapping('[[map]]\ntopic = "ha/sensor/+/+"\nsensor = "{1}"\npreset = "homeassistant"')
    assert apply_rule(rule, "ha/sensor/attic/unit_of_measurement", b'"\xc2\xb0C"', NOW_MS) == []
    (mapped,) = apply_rule(rule, "ha/sensor/attic/state", b"21.5", NOW_MS)

    assert mapped == Mapped("attic", (Measurement("state", "Cel", 21.5, NOW_MS),))
    assert apply_rule(rule, "ha/sensor/attic/state", b"unavailable", NOW_MS) == []
    assert apply_rule(rule, "ha/sensor/attic/friendly_name", b'"Attic"', NOW_MS) == []
    with pytest.raises(PayloadError, match="state 'open' is not a number"):
        apply_rule(rule, "ha/sensor/attic/state", b"open", NOW_MS)


def test_preset__with_fields_takes_only_those_and_refuses_wrong_units() -> None:
    """Issue: wrong units."""
    pack = [{"bn": "urn:dev:1:", "n": "temperature", "u": "Cel", "v": 21.5}, {"n": "secret", "v": 1}]
    (mapped,) = apply_rule(RULES[2], "senml/x", json.dumps(pack).encode(), NOW_MS)
    assert [m.name for m in mapped.measurements] == ["urn:dev:1:temperature"]

    pack[0]["u"] = "lx"
    with pytest.raises(PayloadError, match="comes in 'lx', expected 'Cel'"):
        apply_rule(RULES[2], "senml/x", json.dumps(pack).encode(), NOW_MS)


@pytest.mark.parametrize("preset", list(PRESETS))
@given(payload=st.one_of(st.binary(max_size=80), st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6).map(lambda v: json.dumps(v).encode())))  # fmt: skip  # noqa: E501
def test_preset__answers_any_payload_with_numbers_or_a_sentence(preset: str, payload: bytes) -> None:
    try:
        found = PRESETS[preset]("a/b/state", payload, NOW_MS, {})
    except PayloadError as error:
        assert str(error)
    else:
        assert all(abs(m.value) < float("inf") for m in found)


# --- SenML ------------------------------------------------------------------------------------------------------

RFC_PACK = [  # RFC 8428, section 5.1.3
    {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
    {"n": "current", "t": -5, "v": 1.2},
    {"n": "current", "t": -4, "v": 1.3},
    {"n": "current", "v": 1.7},
]


def test_senml__resolves_the_examples_of_the_rfc() -> None:
    found = parse_senml_json(json.dumps(RFC_PACK).encode(), NOW_MS)

    assert found[0] == Measurement("urn:dev:ow:10e2073a0108006:voltage", "V", 120.1, 1_276_020_076_001)
    assert [m.time_ms for m in found] == [1_276_020_076_001, 1_276_020_071_001, 1_276_020_072_001, 1_276_020_076_001]
    assert {m.unit for m in found[1:]} == {"A"}


def test_senml_cbor__is_the_same_pack_with_small_numbers() -> None:
    """RFC 8428, section 6."""
    labels = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2, "t": 6}
    packed = cbor2.dumps([{labels[name]: value for name, value in record.items()} for record in RFC_PACK])

    assert parse_senml_cbor(packed, NOW_MS) == parse_senml_json(json.dumps(RFC_PACK).encode(), NOW_MS)


def test_senml__times_near_zero_are_relative_to_now() -> None:
    (now, before) = parse_senml_json(b'[{"n":"a","v":1},{"n":"b","v":2,"t":-10}]', NOW_MS)
    assert (now.time_ms, before.time_ms) == (NOW_MS, NOW_MS - 10_000)


@pytest.mark.parametrize(
    ("pack", "why"),
    [
        ({}, "a SenML pack is a list"),
        ([], "a SenML pack is a list"),
        ([1], "a SenML record is a map"),
        ([{"bver": 11, "n": "a", "v": 1}], "SenML version '11', expected at most 10"),
        ([{"n": "a", "v": 1, "future_": 1}], "'future_', which must be understood"),
        ([{"n": 3, "v": 1}], "SenML n is '3', expected text"),
        ([{"n": "a", "v": "1"}], "SenML v is '1', expected a number"),
        ([{"n": "a", "v": True}], "SenML v is 'True', expected a number"),
        ([{"n": "a", "v": 1, "t": 1e30}], "is no time"),
    ],
)
def test_senml__that_breaks_the_rfc_is_refused(pack: object, why: str) -> None:
    for parse, content in ((parse_senml_json, json.dumps(pack).encode()), (parse_senml_cbor, cbor2.dumps(pack))):
        with pytest.raises(PayloadError, match=why):
            parse(content, NOW_MS)


def test_senml_cbor__that_is_nested_or_cut_off_is_refused() -> None:
    for content in (b"\x81" * 1000, b"\x9f" * 1000, b"\x9a\xff\xff\xff\xff", b""):
        with pytest.raises(PayloadError, match=r"not CBOR|a SenML"):
            parse_senml_cbor(content, NOW_MS)


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [(21.5, "°C", "Cel", 21.5), (70.7, "F", "Cel", 21.5), (101325, "Pa", "hPa", 1013.25), (5, "", "Cel", 5), (5, "lx", "Cel", None)],
)
def test_units__are_converted_or_refused(value: float, unit: str, wanted: str, expected: float | None) -> None:
    assert convert(value, unit, wanted) == expected
