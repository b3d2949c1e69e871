"""SenML, Sensor Measurement Lists (RFC 8428), in JSON and CBOR: packs of records become plain measurements.

Base values are resolved (section 4.6): names, times, units, values. Relative times count from now. Text, boolean and data values
are no readings and are left out; records that must be understood and are not refuse the pack, as the RFC asks.
Pure. Source: RFC 8428 sections 4, 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.sensor_errors import PayloadError
from learnae.sensors.readings import to_finite

RECORDS_MAX: Final = 4096
VERSION_MAX: Final = 10  # The version of the RFC; a higher one must not be guessed at.
RELATIVE_MAX: Final = 2**28  # Times below it are seconds relative to now (section 4.5.3).
_LABELS: Final[Mapping[int, str]] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_NAMES: Final = frozenset(_LABELS.values())


@dataclass(frozen=True, slots=True)
class Measurement:
    """One resolved record with a number in it."""

    name: str
    unit: str
    value: float
    time_ms: int


def parse_senml_json(payload: bytes, now_ms: int) -> list[Measurement]:
    """A pack as JSON. Raises: PayloadError."""
    try:
        pack = parse_json(payload)
    except ValueError as error:
        raise PayloadError(f"not JSON: {str(error)[:80]}") from error
    return resolve(pack, now_ms)


def parse_senml_cbor(payload: bytes, now_ms: int) -> list[Measurement]:
    """A pack as CBOR, whose labels are small numbers. Raises: PayloadError."""
    import cbor2

    try:
        pack = cbor2.loads(payload, max_depth=4, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise PayloadError(f"not CBOR: {str(error)[:80]}") from error
    if isinstance(pack, list):
        pack = [{_LABELS.get(k, k): v for k, v in record.items()} if isinstance(record, dict) else record for record in pack]
    return resolve(pack, now_ms)


def resolve(pack: Any, now_ms: int) -> list[Measurement]:
    """Resolve the records of a pack. Raises: PayloadError: it is no pack, or must be understood and is not."""
    if not isinstance(pack, list) or not 1 <= len(pack) <= RECORDS_MAX:
        raise PayloadError(f"a SenML pack is a list of 1 to {RECORDS_MAX} records")
    base: dict[str, Any] = {"bn": "", "bt": 0.0, "bu": "", "bv": 0.0}
    measurements = []
    for record in pack:
        if not isinstance(record, dict) or not all(isinstance(name, str) for name in record):
            raise PayloadError("a SenML record is a map with names")
        unknown = next((name for name in record if name not in _NAMES and name.endswith("_")), None)
        if unknown is not None:
            raise PayloadError(f"a SenML record with {unknown!r}, which must be understood and is not")
        version = record.get("bver", VERSION_MAX)
        if not isinstance(version, int) or version > VERSION_MAX:
            raise PayloadError(f"SenML version {_cut(version)}, expected at most {VERSION_MAX}")
        for name in base:
            if name in record:
                base[name] = _read(record, name, text=name in ("bn", "bu"))
        if "v" in record:
            measurements.append(_resolve_one(record, base, now_ms))
    return measurements


def _resolve_one(record: Mapping[str, Any], base: Mapping[str, Any], now_ms: int) -> Measurement:
    seconds = base["bt"] + (_read(record, "t") if "t" in record else 0.0)
    if abs(seconds) < RELATIVE_MAX:
        seconds += now_ms / 1000
    if not 0 <= seconds < 2**43:
        raise PayloadError(f"SenML time {seconds:g} is no time")
    return Measurement(
        name=base["bn"] + (_read(record, "n", text=True) if "n" in record else ""),
        unit=_read(record, "u", text=True) if "u" in record else base["bu"],
        value=base["bv"] + _read(record, "v"),
        time_ms=round(seconds * 1000),
    )


def _read(record: Mapping[str, Any], name: str, *, text: bool = False) -> Any:
    value = record[name]
    if text:
        if not isinstance(value, str) or len(value) > 256 or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise PayloadError(f"SenML {name} is {_cut(value)}, expected text")
        return value
    number = to_finite(value)
    if number is None:
        raise PayloadError(f"SenML {name} is {_cut(value)}, expected a number")
    return number


def _cut(value: object) -> str:
    """The beginning of what a stranger sent; Python writes no integers of thousands of digits."""
    return "a number beyond all bounds" if isinstance(value, int) and value.bit_length() > 64 else repr(str(value)[:40])
