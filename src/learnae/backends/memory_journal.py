"""The journal of a test or a simulation: the same order and the same answers, gone with the process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from learnae.ids import Cid


class MemoryJournal:
    """`Journal` in two dictionaries."""

    def __init__(self) -> None:
        self._vertices: dict[Cid, bytes] = {}
        self._records: dict[str, bytes] = {}

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
        for cid, block in vertices:
            self._vertices.setdefault(cid, block)
        for name, value in records:
            if value is None:
                self._records.pop(name, None)
            else:
                self._records[name] = value

    def vertices(self) -> Iterator[bytes]:
        return iter(list(self._vertices.values()))

    def records(self) -> dict[str, bytes]:
        return dict(self._records)

    def close(self) -> None:
        """Nothing to close."""
