"""Paper 4.2: what a sensor measures, in few bytes and in one way only."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.sensor_errors import ReadingError
from learnae.sensors.readings import READINGS_MAX, Batch, Reading, SensorField, decode_readings, encode_readings, parse_field
from tests.sensors.builders import FIELDS, STARTS_MS, FakeSensor

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**6), 10**6).map(lambda n: n / 100),
    st.integers(-(2**60), 2**60).map(float),
)
READINGS = st.builds(
    Reading, st.integers(0, 2**53), st.integers(0, 1), VALUES, st.one_of(st.none(), st.integers(-(2**31), 2**31))
)


@given(st.lists(READINGS, min_size=1, max_size=20), st.booleans())
def test_readings__survive_to_the_last_bit(readings: list[Reading], begins: bool) -> None:
    decoded = decode_readings(encode_readings(readings, FIELDS, begins=begins), FIELDS)

    assert decoded == Batch(tuple(readings), begins)


@given(st.binary(max_size=60))
def test_strangers_bytes__are_readings_in_one_encoding_or_none(body: bytes) -> None:
    for candidate in (body, b"\x01" + body, b"\x01\x01\x05" + body):
        batch = decode_readings(candidate, FIELDS)
        assert batch is None or encode_readings(batch.readings, FIELDS, begins=batch.begins) == candidate


def test_vector__is_written_as_the_page_says() -> None:
    """docs/sensor-format.md, Readings."""
    readings = [Reading(1_795_000_000_000, 0, 21.5, None), Reading(1_795_000_000_250, 1, -40.0, 3), Reading(1_795_000_000_250, 0, 0.001)]

    assert encode_readings(readings, FIELDS).hex() == (
        "0103" "80bcd9f29e34" "0001cc21" "f40307" "9f0606" "0000fca9f1d24d62503f"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (Reading(1, 2, 1.0), "field number 2, the sensor has 2"),
        (Reading(1, -1, 1.0), "field number -1"),
        (Reading(1, 0, math.nan), "value nan is not a finite number"),
        (Reading(1, 0, math.inf), "value inf is not a finite number"),
        (Reading(-1, 0, 1.0), "time -1 is not Unix milliseconds"),
        (Reading(1, 0, 1.0, 2**40), "label 1099511627776 is beyond"),
    ],
)
def test_reading__that_cannot_be_is_refused_in_words(reading: Reading, why: str) -> None:
    with pytest.raises(ReadingError, match=f"a reading cannot be sent: {why}"):
        encode_readings([reading], FIELDS)


@pytest.mark.parametrize("count", [0, READINGS_MAX + 1])
def test_message__holds_a_bounded_number(count: int) -> None:
    with pytest.raises(ReadingError, match=f"{count} readings in one message; expected 1 to {READINGS_MAX}"):
        encode_readings([Reading(1, 0, 1.0)] * count, FIELDS)


def test_second_encoding__is_refused() -> None:
    """A value that could be short must be: otherwise two followers could cut different bytes from equal readings."""
    short = encode_readings([Reading(5, 0, 1.5)], FIELDS)
    long = short[:3] + bytes((0, 0)) + struct.pack("<d", 1.5)

    assert decode_readings(short, FIELDS) == Batch((Reading(5, 0, 1.5),))
    assert decode_readings(long, FIELDS) is None
    assert decode_readings(short + b"\0", FIELDS) is None


def test_32_readings__take_at_most_25_bytes_each_with_everything_around_them() -> None:
    """Issue: at most 25 bytes a reading at 32 readings; 4 parents, the largest cover."""
    sensor, others = FakeSensor("a"), [FakeSensor(name) for name in "bcd"]
    sensor.begin()
    for other in others:
        sensor.lane.receive(other.begin(STARTS_MS + 1), now_ms=STARTS_MS + 10)
    vertex = sensor.measure(STARTS_MS + 1000, count=32).vertex

    assert len(vertex.parents) == 4
    assert len(vertex.encoded) <= 25 * 32


@pytest.mark.parametrize(
    "values", [["", "Cel", 2], ["t" * 65, "Cel", 2], ["t", "u" * 17, 2], ["t", "Cel", 10], ["t", "Cel", True], ["t\n", "", 0], ["t", "Cel"]]
)
def test_malformed_field__is_none(values: list[object]) -> None:
    assert parse_field(["t", "Cel", 2]) == SensorField("t", "Cel", 2)
    assert parse_field(values) is None
