"""Issue: a line that cannot be used is told, and the next one is read."""

from __future__ import annotations

import io

import pytest
import trio

from learnae.backends.sensor_sources import read_lines
from learnae.sensors.readings import SensorField

FIELDS = (SensorField("t", "Cel"),)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f'{{"t": {"1" * 400}}}', "is not a number"),
        ("1e999", "is not a number"),
        ('{"t": true}', "is not a number"),
        (f'{{"t": 1, "time": {2**60}}}', "expected Unix milliseconds"),
        ('{"t": 1, "label": 1e300}', "a label is a whole number up to"),
        (f'{{"t": 1, "label": {"1" * 400}}}', "is not a number"),
        ("1 5000000000", "a label is a whole number up to"),
    ],
)
def test_line_beyond_what_a_reading_holds__is_told_and_skipped(line: str, why: str) -> None:
    troubles: list[str] = []

    async def read() -> list[float]:
        file = io.BytesIO(f"{line}\n2 1\n".encode())
        return [sample.values[0] async for sample in read_lines(file, FIELDS, on_trouble=troubles.append, now_ms=lambda: 1)]

    assert trio.run(read) == [2.0]
    assert [why in trouble for trouble in troubles] == [True]
