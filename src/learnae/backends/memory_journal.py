"""The journal of a test or a simulation: the same order and the same answers, gone with the process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from learnae.ids import Cid


class MemoryJournal:
    """`Journal` in memory."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._numbers: dict[Cid, int] = {}
        self._records: dict[str, bytes] = {}

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
        for cid, block in vertices:
            if cid not in self._numbers:
                self._numbers[cid] = len(self._blocks)
                self._blocks.append(block)
        for name, value in records:
            if value is None:
                self._records.pop(name, None)
            else:
                self._records[name] = value

    def vertices(self) -> Iterator[bytes]:
        return iter(list(self._blocks))

    @property
    def vertices_count(self) -> int:
        return len(self._blocks)

    def read_vertex(self, number: int) -> bytes:
        return self._blocks[number]

    def find_vertex(self, cid: Cid) -> tuple[int, bytes] | None:
        number = self._numbers.get(cid)
        return None if number is None else (number, self._blocks[number])

    def records(self) -> dict[str, bytes]:
        return dict(self._records)

    def close(self) -> None:
        """Nothing to close."""
