"""A reading, and the few bytes that it takes in a channel message (4.2).

A sensor's head names its fields once (name, unit, decimals); a reading then is a time, a field's number, a value and perhaps a
label. Body of a message, all numbers as variable-length integers of 7 bits a byte, the least first; signed ones zigzag:

    1, or 2 if a dataslice begins here; count, time of the first reading in Unix milliseconds, then for each reading
    milliseconds since the reading before (signed; 0 for the first) | field * 4 + labelled * 2 + exact
    | the value times 10^decimals as a signed integer, if that is exact, else 8 bytes of IEEE 754, little-endian
    | the label, signed, if labelled

There is one encoding of each list of readings: a reader refuses numbers and values that could have been written shorter.
Pure. docs/sensor-format.md has vectors.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from learnae.sensor_errors import ReadingError

BODY_READINGS: Final = 1
BODY_SLICE_BEGINS: Final = 2
BODIES_OTHER: Final = frozenset((3, 4))  # Bodies that are no readings: the old formats (`sensors.iri`).
FIELDS_MAX: Final = 1024  # A small picture as one field a pixel.
FIELD_CHARS_MAX: Final = 64
UNIT_CHARS_MAX: Final = 16
DECIMALS_MAX: Final = 9
READINGS_MAX: Final = 4096  # In one message; about 32 KiB.
LABEL_MAX: Final = 2**31
MANTISSA_MAX: Final = 2**53  # Beyond, a double does not hold every whole number.
TIME_MS_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class SensorField:
    """One quantity that a sensor measures; values with up to `decimals` places travel short."""

    name: str
    unit: str
    decimals: int = 2

    def to_body(self) -> list[object]:
        return [self.name, self.unit, self.decimals]

    @property
    def shown_unit(self) -> str:
        """The unit as people read it: a bare count (`1` in SenML's registry, `/` for ratios) has none."""
        return "" if self.unit in ("1", "/") else self.unit


@dataclass(frozen=True, slots=True)
class Reading:
    """One datum: `field` is its number in the sensor's head, whose unit it has; `label` is a class to learn, if there is one."""

    time_ms: int
    field: int
    value: float
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The readings of one message. `begins`: its sensor says that a dataslice begins here, so that all who follow cut alike."""

    readings: tuple[Reading, ...]
    begins: bool = False


def to_finite(value: object) -> float | None:
    """A number from outside as a finite double; None if it is none, or too large to be one (JSON and CBOR bound no integer)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def parse_field(values: Any) -> SensorField | None:
    """Read one field of a head; None if it is not acceptable."""
    match values:
        case [str() as name, str() as unit, decimals] if type(decimals) is int and 0 <= decimals <= DECIMALS_MAX:
            if 1 <= len(name) <= FIELD_CHARS_MAX and len(unit) <= UNIT_CHARS_MAX and (name + unit).isprintable():
                return SensorField(name, unit, decimals)
    return None


def encode_readings(readings: Sequence[Reading], fields: Sequence[SensorField], *, begins: bool = False) -> bytes:
    """The body of one channel message. Raises: ReadingError: a reading does not fit the fields, or there are too many."""
    if not 1 <= len(readings) <= READINGS_MAX:
        raise ReadingError(f"{len(readings)} readings in one message", f"expected 1 to {READINGS_MAX}")
    fault = next(filter(None, (find_fault(reading, len(fields)) for reading in readings)), "")
    if fault:
        raise ReadingError(fault, "check the sensor's fields and its values")
    out = bytearray((BODY_SLICE_BEGINS if begins else BODY_READINGS,))
    _put(out, len(readings))
    before_ms = readings[0].time_ms
    _put(out, before_ms)
    for reading in readings:
        mantissa = _find_mantissa(reading.value, fields[reading.field].decimals)
        _put_signed(out, reading.time_ms - before_ms)
        _put(out, reading.field << 2 | (reading.label is not None) << 1 | (mantissa is not None))
        if mantissa is not None:
            _put_signed(out, mantissa)
        else:
            out += struct.pack("<d", reading.value)
        if reading.label is not None:
            _put_signed(out, reading.label)
        before_ms = reading.time_ms
    return bytes(out)


def decode_readings(body: bytes, fields: Sequence[SensorField]) -> Batch | None:
    """The readings of a body; None if they are not exactly what `encode_readings` writes for these fields."""
    try:
        return Batch(_decode(body, fields), body[0] == BODY_SLICE_BEGINS)
    except (IndexError, ValueError):
        return None


def find_fault(reading: Reading, fields: int) -> str:
    """What keeps a reading from being sent, or an empty string."""
    if not 0 <= reading.field < fields:
        return f"field number {reading.field}, the sensor has {fields}"
    if not math.isfinite(reading.value):
        return f"value {reading.value} is not a finite number"
    if not 0 <= reading.time_ms <= TIME_MS_MAX:
        return f"time {reading.time_ms} is not Unix milliseconds"
    if reading.label is not None and not -LABEL_MAX <= reading.label <= LABEL_MAX:
        return f"label {reading.label} is beyond {LABEL_MAX}"
    return ""


def _decode(body: bytes, fields: Sequence[SensorField]) -> tuple[Reading, ...]:
    """Raises: ValueError, IndexError: it is not what `encode_readings` writes."""
    if body[0] not in (BODY_READINGS, BODY_SLICE_BEGINS):
        raise ValueError("another kind of body")
    count, place = _take(body, 1)
    time_ms, place = _take(body, place)
    if not 1 <= count <= min(READINGS_MAX, len(body)):
        raise ValueError("a count that cannot be")
    readings = []
    for number in range(count):
        later_ms, place = _take_signed(body, place)
        time_ms += later_ms
        head, place = _take(body, place)
        if (number == 0 and later_ms) or not 0 <= time_ms <= TIME_MS_MAX:
            raise ValueError("a time that cannot be")
        field = fields[head >> 2]
        mantissa: int | None = None
        if head & 1:
            mantissa, place = _take_signed(body, place)
            value = mantissa / 10**field.decimals
        else:
            (value,) = struct.unpack("<d", body[place : place + 8].ljust(8, b"\xff"))
            place += 8
        if not math.isfinite(value) or _find_mantissa(value, field.decimals) != mantissa:
            raise ValueError("a value that is none, or could be written shorter")
        label = None
        if head & 2:
            label, place = _take_signed(body, place)
            if not -LABEL_MAX <= label <= LABEL_MAX:
                raise ValueError("a label that cannot be")
        readings.append(Reading(time_ms, head >> 2, value, label))
    if place != len(body):
        raise ValueError("bytes left over")
    return tuple(readings)


def _find_mantissa(value: float, decimals: int) -> int | None:
    """The whole number that stands for a value exactly, if there is one."""
    scaled = value * 10**decimals
    if abs(scaled) >= MANTISSA_MAX:
        return None
    mantissa = round(scaled)
    return mantissa if mantissa / 10**decimals == value else None


def _put(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _put_signed(out: bytearray, number: int) -> None:
    _put(out, number << 1 if number >= 0 else (-number << 1) - 1)


def _take(body: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = body[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise ValueError("a number that could be shorter")
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")


def _take_signed(body: bytes, place: int) -> tuple[int, int]:
    number, place = _take(body, place)
    return (number >> 1 if not number & 1 else -(number + 1 >> 1)), place
