"""Reading files as other IPFS programs write them: any chunker, CIDv0, wrapped or raw leaves, balanced or trickle trees.

A session's own files have one layout (`unixfs`); this reads what comes from elsewhere. Blocks arrive in any order and are
verified already; what a node claims of sizes below it is checked, so that a tree is never larger than its root says.

Pure: no I/O. Does not read directories, shards, symbolic links, or blocks named by another hash than SHA-256.
Source: IPLD dag-pb and UnixFS specs; py-libp2p's protobuf classes do the wire format.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import base58
from google.protobuf.message import DecodeError
from libp2p.bitswap.pb.dag_pb_pb2 import PBNode
from libp2p.bitswap.pb.unixfs_pb2 import Data

from learnae.backends.bitswap_messages import read_name
from learnae.backends.unixfs import NodeError
from learnae.ids import CODEC_DAG_PB, CODEC_RAW, Cid, parse_cid

WINDOW: Final = 32  # Parts of the file that are on their way or wait for those before them: 64 MiB of the largest blocks.
LINKS_MAX: Final = 8192  # Of one node; Kubo writes 174, newer profiles 1024.
DEPTH_MAX: Final = 16
_KINDS: Final = {Data.Directory: "a directory", Data.HAMTShard: "a large directory", Data.Symlink: "a symbolic link"}


def parse_any_cid(text: str) -> Cid:
    """Read a CID as IPFS programs print it: version 1 (`bafy...`, `bafk...`), or 0 (`Qm...`), which is another name of a dag-pb block.

    Raises: ValueError: it is neither.
    """
    if not text.startswith("Qm"):
        return parse_cid(text)
    is_base58 = len(text) == 46 and all(letter in base58.BITCOIN_ALPHABET.decode() for letter in text)
    found = read_name(base58.b58decode(text)) if is_base58 else None
    if found is None:
        raise ValueError(f"not a CIDv0: {text[:70]!r}")
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """A subtree of the file."""

    cid: Cid
    file_bytes: int | None  # as the node above says; None: the root
    depth: int


class FileReader:
    """The bytes of one file in their order, and which blocks come next."""

    def __init__(self, root: Cid, *, bytes_max: int) -> None:
        """Raises: NodeError: the CID is not that of a file."""
        if root[1] not in (CODEC_RAW, CODEC_DAG_PB):
            raise NodeError("it is a CID of data, not of a file")
        self._bytes_max = bytes_max
        self._parts: deque[_Part | bytes] = deque([_Part(root, None, 0)])
        self._blocks: dict[Cid, bytes] = {}
        self._asked: set[Cid] = set()
        self.file_bytes: int | None = None  # once the root is here

    @property
    def is_done(self) -> bool:
        return not self._parts

    def take_wanted(self, count: int) -> list[Cid]:
        """Up to `count` blocks to ask for now; each is told once."""
        wanted = [part.cid for part in self._window() if part.cid not in self._asked]
        taken = list(dict.fromkeys(wanted))[:count]
        self._asked.update(taken)
        return taken

    def handle_block(self, cid: Cid, block: bytes) -> None:
        if cid in self._asked:
            self._blocks[cid] = block

    def read(self) -> Iterator[bytes]:
        """What is here of the file behind what was read before. Raises: NodeError: it is no file, or larger than was allowed."""
        while self._parts:
            part = self._parts[0]
            if isinstance(part, bytes):
                self._parts.popleft()
                yield part
                continue
            block = self._blocks.get(part.cid)
            if block is None:
                return
            self._parts.popleft()
            self._parts.extendleft(reversed(self._open(part, block)))
            if all(other.cid != part.cid for other in self._window()):
                del self._blocks[part.cid]
                self._asked.discard(part.cid)

    def _window(self) -> Iterator[_Part]:
        return (part for part in islice(self._parts, WINDOW) if isinstance(part, _Part))

    def _open(self, part: _Part, block: bytes) -> list[_Part | bytes]:
        inline, below = (block, []) if part.cid[1] == CODEC_RAW else _parse(block, part.depth)
        size_bytes = len(inline) + sum(child.file_bytes or 0 for child in below)
        if part.file_bytes is None:
            if size_bytes > self._bytes_max:
                raise NodeError(f"it has {size_bytes} bytes, at most {self._bytes_max} are taken")
            self.file_bytes = size_bytes
        elif size_bytes != part.file_bytes:
            raise NodeError(f"a part of it has {size_bytes} bytes where the node above says {part.file_bytes}")
        return [*([inline] if inline else []), *below]


def _parse(block: bytes, depth: int) -> tuple[bytes, list[_Part]]:
    """The bytes in a node, and what is below it. Raises: NodeError."""
    try:
        node = PBNode.FromString(block)
        told = Data.FromString(node.Data)
    except DecodeError as error:
        raise NodeError("a node of it is neither dag-pb nor UnixFS") from error
    if told.Type not in (Data.File, Data.Raw):
        raise NodeError(f"it is {_KINDS.get(told.Type, 'something else')}, not a file; name a file in it by its own CID")
    if len(node.Links) != len(told.blocksizes) or len(node.Links) > LINKS_MAX or (node.Links and depth >= DEPTH_MAX):
        raise NodeError(f"a node of it has {len(node.Links)} links, {len(told.blocksizes)} sizes, and {depth} nodes above it")
    below: list[_Part] = []
    for link, size_bytes in zip(node.Links, told.blocksizes, strict=True):
        cid = read_name(bytes(link.Hash))
        if cid is None or cid[1] not in (CODEC_RAW, CODEC_DAG_PB):
            raise NodeError("a part of it is named by another hash than SHA-256, or is no file")
        if not size_bytes:
            raise NodeError("a part of it has no bytes")
        below.append(_Part(cid, size_bytes, depth + 1))
    return bytes(told.Data), below
