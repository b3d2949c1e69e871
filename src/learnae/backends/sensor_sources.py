"""Where a publisher's readings come from: lines of text, a CSV file, a serial device, or this machine itself.

Each source gives `Sample`s: a time, the values of all fields, perhaps a label. A line that cannot be used is told, and skipped.
"""

from __future__ import annotations

import csv
import io
import os
import termios
import time
import tty
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import trio

from learnae.bounded_json import parse_json
from learnae.sensor_errors import SourceError
from learnae.sensors.readings import DECIMALS_MAX, FIELDS_MAX, LABEL_MAX, TIME_MS_MAX, SensorField, parse_field, to_finite

LINE_BYTES_MAX: Final = 64 * 1024
BAUDS: Final[Mapping[int, int]] = {
    rate: getattr(termios, f"B{rate}") for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400)
}
_THERMAL: Final = Path("/sys/class/thermal")

OnTrouble = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What all fields of a sensor were at one time."""

    time_ms: int
    values: tuple[float, ...]
    label: int | None = None


def parse_fields(text: str) -> tuple[SensorField, ...]:
    """Fields as a user writes them: `temperature:Cel:2,humidity:%RH`; unit and decimals may be left out. Raises: SourceError."""
    fields = []
    for part in text.split(","):
        name, _, rest = part.strip().partition(":")
        unit, _, decimals = rest.partition(":")
        field = parse_field([name, unit, int(decimals) if decimals.isdigit() else 2]) if decimals.isdigit() or not decimals else None
        if field is None:
            raise SourceError(f"{part.strip()[:60]!r} is not a field", f"write NAME:UNIT:DECIMALS, decimals up to {DECIMALS_MAX}")
        fields.append(field)
    if len(fields) > FIELDS_MAX or len({field.name for field in fields}) < len(fields):
        raise SourceError(f"{len(fields)} fields, or one twice", f"name up to {FIELDS_MAX} different ones")
    return tuple(fields)


def parse_line(line: str, fields: Sequence[SensorField], now_ms: int) -> Sample:
    """A line as a sample: numbers in the order of the fields, or a JSON object with their names, `label` and `time` (ms).

    Raises: SourceError: something is missing, too much or no number.
    """
    text = line.strip()
    if text.startswith("{"):
        return _parse_object(text, fields, now_ms)
    parts = text.replace(";", ",").replace(",", " ").split()
    if len(parts) not in (len(fields), len(fields) + 1):
        raise SourceError(f"a line of {len(parts)} values, {text[:60]!r}", f"expected {len(fields)}, and perhaps a label")
    values = tuple(_parse_number(part) for part in parts[: len(fields)])
    return Sample(now_ms, values, _parse_label(parts[-1]) if len(parts) > len(fields) else None)


def _parse_object(text: str, fields: Sequence[SensorField], now_ms: int) -> Sample:
    try:
        found = parse_json(text.encode())
    except ValueError as error:
        raise SourceError(f"a line that is not JSON, {text[:60]!r}", str(error)[:100]) from error
    missing = [field.name for field in fields if field.name not in found]
    if missing:
        raise SourceError(f"a line without {', '.join(missing[:4])}", f"expected all of {', '.join(f.name for f in fields[:8])}")
    time_ms = found.get("time", now_ms)
    if type(time_ms) is not int or not 0 <= time_ms <= TIME_MS_MAX:
        raise SourceError(f"time {str(time_ms)[:40]}", "expected Unix milliseconds")
    label = found.get("label")
    values = tuple(_parse_number(found[field.name]) for field in fields)
    return Sample(time_ms, values, None if label is None else _parse_label(label))


def _parse_number(value: Any) -> float:
    try:
        number = to_finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        number = None
    if number is None:
        raise SourceError(f"{str(value)[:40]!r} is not a number", "check what the sensor sends")
    return number


def _parse_label(value: Any) -> int:
    number = _parse_number(value)
    if number != int(number) or abs(number) > LABEL_MAX:
        raise SourceError(f"label {str(value)[:40]}", f"a label is a whole number up to {LABEL_MAX}: the class to learn")
    return int(number)


# --- sources ----------------------------------------------------------------------------------------------------


async def read_lines(
    file: IO[bytes], fields: Sequence[SensorField], *, on_trouble: OnTrouble, now_ms: Callable[[], int]
) -> AsyncGenerator[Sample, None]:
    """Samples from lines, as they come, until the file ends. A thread waits for the next line."""
    while line := await _read_line(file):
        text = line.decode("utf-8", "replace")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        try:
            yield parse_line(text, fields, now_ms())
        except SourceError as error:
            on_trouble(str(error))


async def _read_line(file: IO[bytes]) -> bytes:
    """The next line; a reader that nobody waits for any more is left behind, because a device may never speak again."""
    run: Any = trio.to_thread.run_sync  # trio-typing, which libp2p brings, knows only its old arguments.
    line: bytes = await run(file.readline, LINE_BYTES_MAX, abandon_on_cancel=True)
    return line


async def read_csv(
    path: Path, fields: Sequence[SensorField], *, label: str, on_trouble: OnTrouble, now_ms: Callable[[], int]
) -> AsyncGenerator[Sample, None]:
    """Samples from a CSV file with a header that names the fields; `label`: the column of the label, or empty.

    Raises: SourceError: the file cannot be read, or lacks a column.
    """
    try:
        text = await trio.to_thread.run_sync(lambda: path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read", str(error)) from error
    rows = csv.DictReader(io.StringIO(text))
    rows.fieldnames = [name.partition(":")[0] for name in rows.fieldnames or ()]  # A column may name its unit too.
    names = [*(field.name for field in fields), *([label] if label else [])]
    missing = [name for name in names if name not in (rows.fieldnames or ())]
    if missing:
        raise SourceError(f"{path} has no column {', '.join(missing[:4])}", f"it has {', '.join(list(rows.fieldnames or ())[:12])}")
    for row in rows:
        try:
            values = tuple(_parse_number(row[field.name]) for field in fields)
            yield Sample(now_ms(), values, _parse_label(row[label]) if label else None)
        except SourceError as error:
            on_trouble(f"line {rows.line_num}: {error}")


def find_csv_fields(path: Path, *, label: str) -> tuple[SensorField, ...]:
    """All columns of a CSV file but the label; a column may say its unit and decimals, as NAME:UNIT:DECIMALS. Raises: SourceError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read", str(error)) from error
    return parse_fields(",".join(column for column in columns if column.partition(":")[0] != label))


def open_serial(path: Path, baud: int) -> IO[bytes]:
    """A serial device, set to raw lines of 8 bits at that speed; other files are read as they are. Raises: SourceError."""
    if baud not in BAUDS:
        raise SourceError(f"{baud} baud", f"expected one of {', '.join(map(str, BAUDS))}")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        if os.isatty(descriptor):
            tty.setraw(descriptor)
            modes = termios.tcgetattr(descriptor)
            modes[4] = modes[5] = BAUDS[baud]
            termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        return os.fdopen(descriptor, "rb", buffering=0)
    except (OSError, termios.error) as error:
        raise SourceError(f"the device {path} cannot be opened", str(error)) from error


def find_own_fields() -> tuple[SensorField, ...]:
    """What this machine can tell of itself: its load, and the temperatures that Linux shows."""
    zones = tuple(SensorField(f"temperature {zone.name.removeprefix('thermal_zone')}", "Cel", 3) for zone in _find_zones())
    return (SensorField("load", "1", 2), *zones)


async def read_self(*, every_s: float, on_trouble: OnTrouble) -> AsyncGenerator[Sample, None]:
    """The machine's load and temperatures, at regular times."""
    while True:
        try:
            temperatures = [int((zone / "temp").read_text()) / 1000 for zone in _find_zones()]
        except (OSError, ValueError) as error:
            on_trouble(f"a thermal zone cannot be read ({error}); this time is skipped")
        else:
            yield Sample(time.time_ns() // 1_000_000, (os.getloadavg()[0], *temperatures))
        await trio.sleep(every_s)


def _find_zones() -> list[Path]:
    return sorted(zone for zone in _THERMAL.glob("thermal_zone*") if (zone / "temp").is_file()) if _THERMAL.is_dir() else []
