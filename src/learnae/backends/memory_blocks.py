"""The block store of a test or a simulation: the same promises as the one on disk, except that nothing survives.

Not durable, not bounded by a disk; the quota and the order of eviction are those of `disk_blocks`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from learnae.backends.held_blocks import HeldBlocks
from learnae.backends.unixfs import FileView, build_blocks, check_block, collect_all, read_file, view_file
from learnae.errors import DiskFullError
from learnae.ids import Cid, Content

QUOTA_BYTES = 5 << 30


class MemoryBlocks:
    """`BlockStore` in a dictionary, oldest use first."""

    def __init__(self, *, quota_bytes: int = QUOTA_BYTES) -> None:
        self._quota_bytes = quota_bytes
        self._lock = threading.RLock()
        self._held = HeldBlocks(self._lock, self._use)
        self._blocks: OrderedDict[Cid, bytes] = OrderedDict()  # in order of last use
        self._private: set[Cid] = set()
        self._pins: set[Cid] = set()
        self._used_bytes = 0

    def put_file(self, content: Content, *, public: bool = True) -> Cid:
        blocks = list(build_blocks(content))
        self.put_blocks(blocks, public=public, hashed=True)
        return blocks[-1][0]

    def put_block(self, cid: Cid, block: bytes) -> None:
        self.put_blocks([(cid, block)])

    def put_blocks(self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False, synced: bool = True) -> None:
        given: dict[Cid, bytes] = {}
        for cid, block in blocks:
            check_block(cid, block, hashed=hashed)
            given[cid] = block
        with self._lock:
            new = {cid: block for cid, block in given.items() if cid not in self._blocks}
            self._make_room(sum(map(len, new.values())), set(given))
            for cid, block in new.items():
                self._blocks[cid] = block
                self._used_bytes += len(block)
            if public:
                self._private -= given.keys()
            else:
                self._private |= new.keys()

    def get_file(self, cid: Cid, *, bytes_max: int) -> bytes | None:
        return read_file(cid, self.get_block, bytes_max=bytes_max)

    def view_file(self, cid: Cid, *, bytes_max: int) -> FileView | None:
        return view_file(cid, self.get_block, bytes_max=bytes_max)

    def get_block(self, cid: Cid) -> bytes | None:
        with self._lock:
            return None if self._use(cid) is None else self._blocks[cid]

    def get_public_block(self, cid: Cid) -> bytes | None:
        return None if cid in self._private else self.get_block(cid)

    def has_public_block(self, cid: Cid) -> bool:
        return cid in self._blocks and cid not in self._private

    def has_file(self, cid: Cid) -> bool:
        blocks = collect_all(cid, self._blocks.get)
        return blocks is not None and all(block in self._blocks for block in blocks)

    def has_block(self, cid: Cid) -> bool:
        return cid in self._blocks

    def pin(self, cid: Cid) -> None:
        self._pins.add(cid)

    def unpin(self, cid: Cid) -> None:
        self._pins.discard(cid)

    def hold(self) -> AbstractContextManager[Callable[[Cid], int | None]]:
        return self._held.hold()

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    # --- inside; the caller holds the lock ------------------------------------------------------------------------

    def _use(self, cid: Cid) -> int | None:
        """How many bytes the block has, if it is here; it is the last to go."""
        if cid not in self._blocks:
            return None
        self._blocks.move_to_end(cid)
        return len(self._blocks[cid])

    def _make_room(self, more_bytes: int, wanted: set[Cid]) -> None:
        if self._used_bytes + more_bytes <= self._quota_bytes:
            return
        kept = wanted | self._held.cids | {block for root in self._pins for block in collect_all(root, self._blocks.get) or (root,)}
        victims: list[Cid] = []
        freed_bytes = 0
        for cid, block in self._blocks.items():
            if self._used_bytes - freed_bytes + more_bytes <= self._quota_bytes:
                break
            if cid not in kept:
                victims.append(cid)
                freed_bytes += len(block)
        if self._used_bytes - freed_bytes + more_bytes > self._quota_bytes:
            raise DiskFullError("the block store", more_bytes, f"its quota is {self._quota_bytes} bytes")
        for cid in victims:
            self._used_bytes -= len(self._blocks.pop(cid))
            self._private.discard(cid)
