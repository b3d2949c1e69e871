"""Blocks that a store keeps for now, pinned or not, because a fetch that runs counts on them.

In memory only: a kill ends the fetch as well. The store that owns one of these asks for `cids` when it makes room, under the same lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from learnae.ids import Cid


class HeldBlocks:
    """What is held in one store, by how many fetches.

    Args:
        lock: the store's own, held while it makes room: so a block is held before or after it, never in between.
        use: tells how many bytes a block has, if it is here, and notes that it is used now.
    """

    def __init__(self, lock: threading.RLock, use: Callable[[Cid], int | None]) -> None:
        self._lock, self._use = lock, use
        self._counts: Counter[Cid] = Counter()

    @property
    def cids(self) -> set[Cid]:
        return set(self._counts)

    @contextmanager
    def hold(self) -> Iterator[Callable[[Cid], int | None]]:
        """See `BlockStore.hold`."""
        mine: set[Cid] = set()

        def keep(cid: Cid) -> int | None:
            with self._lock:
                if cid not in mine:
                    mine.add(cid)
                    self._counts[cid] += 1
                return self._use(cid)

        try:
            yield keep
        finally:
            with self._lock:
                self._counts.subtract(mine)
                self._counts = +self._counts  # without those that nobody holds any more
