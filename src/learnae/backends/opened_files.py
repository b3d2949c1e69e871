"""Which peers may have which files that are not public: the door of a node's block store (docs/audits.md).

In memory only: after a restart the core opens again what is still to be open.
"""

from __future__ import annotations

from collections.abc import Iterable

from learnae.backends.unixfs import collect_all
from learnae.ids import Cid, PeerId
from learnae.ports import BlockStore


class OpenedFiles:
    """A block store as others see it: its public blocks, and files that were opened to one peer or another."""

    def __init__(self, blocks: BlockStore) -> None:
        self._blocks = blocks
        self._readers: dict[Cid, set[PeerId]] = {}  # block -> who may have it

    def open(self, cid: Cid, peers: Iterable[PeerId]) -> None:
        """Give all blocks of a file to these peers too. Of a file that is not here nothing is opened."""
        readers = frozenset(peers)
        for block in collect_all(cid, self._blocks.get_block) or ():
            self._readers.setdefault(block, set()).update(readers)

    def read(self, cid: Cid, peer: PeerId) -> bytes | None:
        """A block that this peer may have; None if it is not here or not for this peer."""
        if peer in self._readers.get(cid, ()):
            return self._blocks.get_block(cid)
        return self._blocks.get_public_block(cid)
