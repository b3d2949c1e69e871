"""Files as IPFS sees them: a tree of blocks whose root CID equals `ipfs add --cid-version=1 --raw-leaves`.

A file is cut into raw leaves of 256 KiB. One leaf is the file itself; more leaves hang under dag-pb nodes of at most 174
links, laid out like Kubo's balanced builder: every node but the last of its level is full. So the size of a file fixes the
shape of its tree, and a node that a stranger sends is accepted only if it is, byte for byte, the node of that shape.

Pure: no I/O. Does not read directories, inlined data, other chunkers or trickle trees.
Source: IPLD dag-pb and UnixFS specs; Kubo's defaults (chunker size-262144, 174 links a block).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from learnae.errors import BlockMismatchError
from learnae.ids import CODEC_DAG_PB, CODEC_RAW, Cid, Content, cid_text, compute_cid
from learnae.ports import FileLostError

LEAF_BYTES: Final = 262144
LINKS_MAX: Final = 174  # Kubo's default: a node of 174 links stays near 8 KiB.
NODE_BYTES_MAX: Final = 16384  # 174 links of at most 53 bytes, the sizes and the frame take under 12 KiB.
BLOCK_BYTES_MAX: Final = LEAF_BYTES
FILE_BYTES_MAX: Final = LEAF_BYTES * LINKS_MAX**3  # 1.25 TiB: three levels of nodes; bounds the recursion.

_CID_FIELD = b"\x0a\x24"  # PBLink.Hash, 36 bytes
_NAME_FIELD = b"\x12\x00"  # PBLink.Name, empty, as Kubo writes it


class NodeError(ValueError):
    """A dag-pb block is not a node of a file in the layout above; the text says where it departs."""


@dataclass(frozen=True, slots=True)
class Child:
    """One link of a node: the block, the bytes of the file below it, and how many levels of nodes are below it."""

    cid: Cid
    file_bytes: int
    depth: int  # 0: a raw leaf


def compute_depth(file_bytes: int) -> int:
    """Levels of dag-pb nodes above the leaves of a file of `file_bytes`: 0 up to 256 KiB, 1 up to 43.5 MiB, ..."""
    depth, span = 0, LEAF_BYTES
    while span < file_bytes:
        depth, span = depth + 1, span * LINKS_MAX
    return depth


def compute_child_sizes(file_bytes: int, depth: int) -> list[int]:
    """File bytes below each link of a node of this depth: all full but the last."""
    span = LEAF_BYTES * LINKS_MAX ** (depth - 1)
    full, rest = divmod(file_bytes, span)
    return [span] * full + ([rest] if rest else [])


class Each(Protocol):
    """What `map` does, and `ThreadPoolExecutor.map` in other threads."""

    def __call__(self, work: Callable[[int], tuple[Cid, Content]], starts: Iterable[int], /) -> Iterable[tuple[Cid, Content]]: ...


def build_blocks(content: Content) -> Iterator[tuple[Cid, bytes]]:
    """All blocks of the file, leaves before the nodes above them; the last is the root."""
    return ((cid, bytes(block)) for cid, block in view_blocks(content))


def view_blocks(content: Content, *, each: Each = map) -> Iterator[tuple[Cid, Content]]:
    """The same without copying: leaves are views of the file. `each` cuts and hashes them."""
    view = memoryview(content)

    def cut(start: int) -> tuple[Cid, Content]:
        block = view[start : start + LEAF_BYTES]
        return compute_cid(block, CODEC_RAW), block

    level: list[tuple[Cid, int]] = []
    for cid, block in each(cut, range(0, max(1, len(view)), LEAF_BYTES)):
        level.append((cid, len(block)))
        yield cid, block
    depth = 0
    while len(level) > 1:
        depth += 1
        above: list[tuple[Cid, int]] = []
        for start in range(0, len(level), LINKS_MAX):
            group = level[start : start + LINKS_MAX]
            size = sum(below for _, below in group)
            node = encode_node([cid for cid, _ in group], size, depth)
            cid = compute_cid(node, CODEC_DAG_PB)
            above.append((cid, size))
            yield cid, node
        level = above


def count_tree(file_bytes: int) -> tuple[int, int]:
    """How many blocks a file of this size has, and their bytes."""
    count = level = max(1, -(-file_bytes // LEAF_BYTES))
    while level > 1:
        level = -(-level // LINKS_MAX)
        count += level
    return count, _compute_tree_bytes(file_bytes, compute_depth(file_bytes))


def compute_root(content: Content) -> Cid:
    """The CID of the file, without keeping its blocks."""
    root = Cid(b"")
    for cid, _ in view_blocks(content):
        root = cid
    return root


def encode_node(cids: list[Cid], file_bytes: int, depth: int) -> bytes:
    """The dag-pb block above `cids`, which are leaves if `depth` is 1, and nodes of `depth - 1` otherwise."""
    sizes = compute_child_sizes(file_bytes, depth)
    assert len(sizes) == len(cids) <= LINKS_MAX, "the links do not match the size of the file"
    out = bytearray()
    for cid, size in zip(cids, sizes, strict=True):
        link = _CID_FIELD + cid + _NAME_FIELD + b"\x18" + encode_varint(_compute_tree_bytes(size, depth - 1))
        out += b"\x12" + encode_varint(len(link)) + link
    data = b"\x08\x02\x18" + encode_varint(file_bytes) + b"".join(b"\x20" + encode_varint(size) for size in sizes)
    return bytes(out + b"\x0a" + encode_varint(len(data)) + data)


def parse_node(block: bytes, *, file_bytes: int | None = None, depth: int | None = None) -> list[Child]:
    """Read one node from a stranger: its links, in file order.

    Args:
        file_bytes, depth: what the node above said of this one; None for a root, whose depth follows from its size.
    Raises: NodeError: not a canonical node of such a file. The work done is bounded by the size of the block.
    """
    if len(block) > NODE_BYTES_MAX:
        raise NodeError(f"a node has {len(block)} bytes, at most {NODE_BYTES_MAX} are allowed")
    cids, said_bytes = _read_node(block)
    if file_bytes is not None and said_bytes != file_bytes:
        raise NodeError(f"a node claims {said_bytes} bytes of file, the one above it says {file_bytes}")
    if not 0 < said_bytes <= FILE_BYTES_MAX:
        raise NodeError(f"a node claims {said_bytes} bytes of file, at most {FILE_BYTES_MAX} are allowed")
    depth = compute_depth(said_bytes) if depth is None else depth
    if depth < 1:
        raise NodeError(f"a file of {said_bytes} bytes is one raw block, not a node")
    sizes = compute_child_sizes(said_bytes, depth)
    codec = CODEC_RAW if depth == 1 else CODEC_DAG_PB
    if len(cids) != len(sizes) or any(cid[:4] != bytes((1, codec, 0x12, 0x20)) for cid in cids):
        raise NodeError(f"a node of {said_bytes} bytes has {len(cids)} links of the wrong number or kind, {len(sizes)} were expected")
    if encode_node(cids, said_bytes, depth) != block:
        raise NodeError("a node is not in the canonical form that Kubo writes")
    return [Child(cid, size, depth - 1) for cid, size in zip(cids, sizes, strict=True)]


def collect_blocks(root: Cid, read: Callable[[Cid], bytes | None], *, bytes_max: int = FILE_BYTES_MAX) -> list[Child] | None:
    """The leaves of a file in order, reading only its nodes; None if a node is absent or malformed, or the file too large.

    `read` gives the (verified) bytes of a node or None. A file of one raw block is one leaf of unknown size, told as 0.
    """
    nodes: list[Cid] = []
    return _collect(root, read, bytes_max, nodes)


@dataclass(frozen=True, slots=True)
class FileView:
    """A file, read block by block as it is used. Its length is in bytes."""

    root: Cid
    leaves: list[Child]
    read: Callable[[Cid], bytes | None]

    def __len__(self) -> int:
        return sum(leaf.file_bytes for leaf in self.leaves)

    def __iter__(self) -> Iterator[bytes]:
        """The leaves in order. Raises: FileLostError: one is absent or damaged."""
        for leaf in self.leaves:
            block = self.read(leaf.cid)
            if block is None or len(block) != leaf.file_bytes:
                raise FileLostError(self.root)
            yield block


def view_file(root: Cid, read: Callable[[Cid], bytes | None], *, bytes_max: int) -> FileView | None:
    """The file below `root`; None if a node of it is absent or damaged, or the file is larger than `bytes_max`.

    A file of one raw block is read here, and not again: its size is known from nothing else.
    """
    leaves = collect_blocks(root, read, bytes_max=bytes_max)
    if leaves is None:
        return None
    if leaves[0].cid == root:
        block = read(root)
        if block is None or len(block) > bytes_max:
            return None
        return FileView(root, [Child(root, len(block), 0)], {root: block}.get)
    return FileView(root, leaves, read)


def read_file(root: Cid, read: Callable[[Cid], bytes | None], *, bytes_max: int) -> bytes | None:
    """The whole file below `root`; None if a block is absent or damaged, or the file is larger than `bytes_max`."""
    view = view_file(root, read, bytes_max=bytes_max)
    try:
        return None if view is None else b"".join(view)
    except FileLostError:
        return None


def check_block(cid: Cid, block: Content, *, hashed: bool = False) -> None:
    """Raises: BlockMismatchError: it is larger than any block, or has another CID; `hashed`: the caller compared the CID already."""
    if len(block) > LEAF_BYTES or not (hashed or compute_cid(block, cid[1]) == cid):
        raise BlockMismatchError(cid_text(cid), len(block))


def collect_all(root: Cid, read: Callable[[Cid], bytes | None]) -> list[Cid] | None:
    """The CIDs of all blocks of a file, nodes first; None as in `collect_blocks`."""
    nodes: list[Cid] = []
    leaves = _collect(root, read, FILE_BYTES_MAX, nodes)
    return None if leaves is None else nodes + [leaf.cid for leaf in leaves]


def _collect(root: Cid, read: Callable[[Cid], bytes | None], bytes_max: int, nodes: list[Cid]) -> list[Child] | None:
    if root[1] != CODEC_DAG_PB:
        return [Child(root, 0, 0)]
    block = read(root)
    if block is None:
        return None
    try:
        level = parse_node(block)
        nodes.append(root)
        if sum(child.file_bytes for child in level) > bytes_max:
            return None
        while level[0].depth:
            below: list[Child] = []
            for child in level:
                block = read(child.cid)
                if block is None:
                    return None
                nodes.append(child.cid)
                below += parse_node(block, file_bytes=child.file_bytes, depth=child.depth)
            level = below
    except NodeError:
        return None
    return level


@lru_cache(maxsize=1024)
def _compute_tree_bytes(file_bytes: int, depth: int) -> int:
    """Tsize: the bytes of all blocks of a subtree. Shape and link width follow from the size alone."""
    if depth == 0:
        return file_bytes
    sizes = compute_child_sizes(file_bytes, depth)
    below = sum(_compute_tree_bytes(size, depth - 1) for size in sizes)
    return below + len(encode_node([Cid(bytes(36))] * len(sizes), file_bytes, depth))


def _read_node(block: bytes) -> tuple[list[Cid], int]:
    """CIDs and file size as the bytes claim; whether all the rest is right is told by encoding them again."""
    cids: list[Cid] = []
    at = 0
    while at < len(block) and block[at] == 0x12:
        length, at = _read_varint(block, at + 1)
        if length > 64 or block[at : at + 2] != _CID_FIELD or len(cids) == LINKS_MAX:
            raise NodeError("a link of a node is not the CIDv1 of a block, or there are too many")
        cids.append(Cid(block[at + 2 : at + 38]))
        at += length
    if at >= len(block) or block[at] != 0x0A:
        raise NodeError("a node has no UnixFS part after its links")
    _, at = _read_varint(block, at + 1)
    if block[at : at + 3] != b"\x08\x02\x18":
        raise NodeError("the UnixFS part of a node is not that of a file without inlined data")
    file_bytes, _ = _read_varint(block, at + 3)
    if any(len(cid) != 36 for cid in cids):
        raise NodeError("a link of a node is cut short")
    return cids, file_bytes


def encode_varint(value: int) -> bytes:
    """A number as protobuf and libp2p write it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(block: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(block) and shift < 63:
        byte = block[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise NodeError("a number in a node is cut short or longer than 63 bits")
