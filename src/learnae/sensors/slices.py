"""Dataslices from streams: a buffer that fills up with a sensor's readings until it is one dataslice (4.2, Fig. 1).

Consecutive readings of one time, each field once, are a row, its label the class to learn; a row that lacks a field or its label
trains nothing and is counted. Rows go into a slice in the order of the channel's messages, which is the same for everybody, and a
slice begins where the sensor says (`Batch.begins`) or where the one before is full. So a follower gets the same bytes as every
other, whatever came in which order, and also if it began to follow late.
Pure: safetensors written by hand, because what follows streams need not have torch. Source: paper 4.2.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from learnae.ids import Cid
from learnae.sensors.readings import Batch, Reading

LABEL_BYTES: Final = 8


class RowType(IntEnum):
    """What one value of a row becomes in a dataslice: the type that the session's task expects of its examples."""

    F32 = 0
    U8 = 1

    @property
    def value_bytes(self) -> int:
        return 4 if self is RowType.F32 else 1


ROWS_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where consecutive rows of a slice come from: rows of a message of the channel, in a vertex of the Tangle."""

    vertex: Cid
    sequence: int
    start: int  # the first of them, counted from 0 over the rows of the message that can be learnt from
    rows: int


@dataclass(frozen=True, slots=True)
class StreamSlice:
    """A full buffer: the bytes of a dataslice, and where each of its rows comes from, in their order."""

    content: bytes
    origins: tuple[Origin, ...]

    @property
    def rows(self) -> int:
        return sum(origin.rows for origin in self.origins)


def encode_rows(rows: Sequence[bytes], labels: Sequence[int], features: int, row_type: RowType = RowType.F32) -> bytes:
    """A dataslice as a safetensors file: y int64 (rows,), x float32 or uint8 (rows, features).

    `rows`: each `features` values, little-endian.
    """
    y_end = LABEL_BYTES * len(labels)
    x_end = y_end + row_type.value_bytes * features * len(rows)
    header = {
        "y": {"dtype": "I64", "shape": [len(labels)], "data_offsets": [0, y_end]},
        "x": {"dtype": row_type.name, "shape": [len(rows), features], "data_offsets": [y_end, x_end]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, struct.pack(f"<{len(labels)}q", *labels), *rows))


def compute_rows_per_slice(features: int, slice_bytes: int, row_type: RowType = RowType.F32) -> int:
    """How many rows fit into a dataslice; 0 if not even one does."""
    row_bytes = LABEL_BYTES + row_type.value_bytes * features
    widest = len(encode_rows([b""] * 0, [], features)) + 64  # Digits of counts and offsets, and padding.
    return max(0, min(ROWS_MAX, (slice_bytes - widest) // row_bytes))


def split_rows(readings: Iterable[Reading]) -> Iterator[list[Reading]]:
    """Readings in groups: one time, each field once."""
    row: list[Reading] = []
    seen: set[int] = set()
    for reading in readings:
        if row and (reading.time_ms != row[0].time_ms or reading.field in seen):
            yield row
            row, seen = [], set()
        row.append(reading)
        seen.add(reading.field)
    if row:
        yield row


@dataclass(slots=True)
class SensorBuffer:
    """Rows of one channel that are not a dataslice yet. `dropped` counts those that cannot be learnt from."""

    features: int
    rows_max: int
    row_type: RowType = RowType.F32
    dropped: int = 0
    begun: bool = False  # a beginning was seen; before it nothing is kept, or late followers would cut otherwise
    _rows: list[bytes] = field(default_factory=list)
    _labels: list[int] = field(default_factory=list)
    _origins: list[Origin] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def first(self) -> int | None:
        """Number of the oldest message in the buffer."""
        return self._origins[0].sequence if self._origins else None

    def add(self, batch: Batch, *, vertex: Cid, sequence: int) -> list[StreamSlice]:
        """Take in a message; the dataslices that became full, or ended, by it. They leave the buffer."""
        full: list[StreamSlice] = []
        if batch.begins and self._rows:
            full.append(self._purge())
        self.begun = self.begun or batch.begins
        if not self.begun or not self.rows_max:
            return full
        for place, (row, label) in enumerate(self._read_rows(batch.readings)):
            self._rows.append(row)
            self._labels.append(label)
            if self._origins and self._origins[-1].sequence == sequence:
                self._origins[-1] = replace(self._origins[-1], rows=self._origins[-1].rows + 1)
            else:
                self._origins.append(Origin(vertex, sequence, place, 1))
            if len(self._rows) == self.rows_max:
                full.append(self._purge())
        return full

    def _read_rows(self, readings: Iterable[Reading]) -> list[tuple[bytes, int]]:
        rows = []
        for together in split_rows(readings):
            row = pack_row(together, self.features, self.row_type)
            self.dropped += row is None
            rows += [] if row is None else [row]
        return rows

    def _purge(self) -> StreamSlice:
        made = StreamSlice(encode_rows(self._rows, self._labels, self.features, self.row_type), tuple(self._origins))
        self._rows, self._labels, self._origins = [], [], []
        return made


def pack_row(together: Sequence[Reading], features: int, row_type: RowType = RowType.F32) -> tuple[bytes, int] | None:
    """The readings of one time as one example; None if a field is missing or doubled, there is no one label, or a value does not fit."""
    values = {reading.field: reading.value for reading in together}
    labels = {reading.label for reading in together if reading.label is not None}
    if len(together) != features or len(values) != features or len(labels) != 1:
        return None
    row = [values[number] for number in range(features)]
    try:
        if row_type is RowType.F32:
            return struct.pack(f"<{features}f", *row), labels.pop()
        return (bytes(map(int, row)), labels.pop()) if all(value.is_integer() for value in row) else None
    except (OverflowError, ValueError):
        return None
