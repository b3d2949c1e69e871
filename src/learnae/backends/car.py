"""CAR version 1: a file that carries blocks from one IPFS program to another, with the CIDs of what they are for.

A CAR file is a header (the roots) and a row of sections (a CID and its block), each behind its length. What is read is a
stranger's: every length has a limit, every block is hashed, and only the kinds of block that this program keeps are let in.
Does not read CAR version 2, CIDv0, other hashes than SHA-256, or blocks above 256 KiB.
Source: IPLD, "Specification: CARv1".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

from learnae.backends.errors import CarError
from learnae.backends.unixfs import LEAF_BYTES, parse_node
from learnae.ids import CID_BYTES, CODEC_DAG_PB, Cid, cid_text, compute_cid, is_cid
from learnae.ports import BlockStore
from learnae.tangle import cbor

HEADER_BYTES_MAX: Final = 65536  # 1,500 roots; tools write one, or a few.
SECTION_BYTES_MAX: Final = CID_BYTES + LEAF_BYTES
_LENGTH_BYTES_MAX: Final = 4  # a varint up to 2**28, far above both limits
_ROOTS_KEY: Final = b"\x65roots"
_VERSION: Final = b"\x67version\x01"


def write_car(file: BinaryIO, roots: Sequence[Cid], blocks: Iterable[tuple[Cid, bytes]]) -> int:
    """Write a whole CAR file; returns its bytes. `blocks` are taken as they are."""
    header = b"\xa2" + _ROOTS_KEY + cbor.encode_links(roots) + _VERSION
    written = file.write(_encode_length(len(header)) + header)
    for cid, block in blocks:
        written += file.write(_encode_length(len(cid) + len(block)) + cid + block)
    return written


def read_car(file: BinaryIO, path: str) -> tuple[tuple[Cid, ...], Iterator[tuple[Cid, bytes]]]:
    """The roots, and the blocks one by one, each verified; memory: one block.

    Args:
        path: how errors call the file.
    Raises: CarError: at once for the header, later from the iterator.
    """
    size_bytes = _read_length(file, path, HEADER_BYTES_MAX)
    if size_bytes is None:
        raise CarError(path, "it is empty")
    roots = _parse_header(_read(file, path, size_bytes), path)
    return roots, _read_blocks(file, path)


def walk_file(root: Cid, store: BlockStore, *, leaves: bool = True) -> Iterator[tuple[Cid, bytes | None]]:
    """All blocks of a file depth first, each once, as `ipfs dag export` orders them; None for a block that is not here.

    Without `leaves` only nodes are read, and of the leaves come the CIDs alone.
    Raises: NodeError: a block is not a node of a file in the layout of `unixfs`.
    """
    seen: set[Cid] = set()

    def walk(cid: Cid, file_bytes: int | None, depth: int | None) -> Iterator[tuple[Cid, bytes | None]]:
        if cid in seen:
            return
        seen.add(cid)
        block = store.get_block(cid) if leaves or cid[1] == CODEC_DAG_PB else None
        yield cid, block
        if block is not None and cid[1] == CODEC_DAG_PB:
            for child in parse_node(block, file_bytes=file_bytes, depth=depth):
                yield from walk(child.cid, child.file_bytes, child.depth)

    return walk(root, None, None)


def _read_blocks(file: BinaryIO, path: str) -> Iterator[tuple[Cid, bytes]]:
    number = 0
    while (size_bytes := _read_length(file, path, SECTION_BYTES_MAX)) is not None:
        number += 1
        section = _read(file, path, size_bytes)
        cid, block = section[:CID_BYTES], section[CID_BYTES:]
        if not is_cid(cid):
            why = f"block {number} is named by {_describe_cid(cid)}, and only CIDv1 with SHA-256 (raw, dag-pb, dag-cbor) is kept here"
            raise CarError(path, f"{why}; add the file again with `ipfs add --cid-version=1 --raw-leaves` and export that")
        if compute_cid(block, cid[1]) != cid:
            raise CarError(path, f"the bytes of block {number} do not hash to its CID {cid_text(Cid(cid))}; get the file again")
        yield Cid(cid), block


def _parse_header(header: bytes, path: str) -> tuple[Cid, ...]:
    try:
        value = cbor.decode(header)
    except ValueError as error:
        raise CarError(path, "it does not begin with the header of a CAR file") from error
    version = value.get("version") if isinstance(value, dict) else None
    if version == 2:
        raise CarError(path, "it is CAR version 2; export it as version 1, as `ipfs dag export` does")
    roots = value.get("roots") if isinstance(value, dict) else None
    if version != 1 or not isinstance(roots, list):
        raise CarError(path, "its header is not that of CAR version 1")
    for root in roots:
        if not is_cid(root):
            raise CarError(path, f"a root is {_describe_cid(root)}, and only CIDv1 with SHA-256 is kept here")
    return tuple(Cid(root) for root in roots)


def _describe_cid(cid: object) -> str:
    if not isinstance(cid, bytes):
        return "no CID"
    return "a CIDv0" if cid[:2] == b"\x12\x20" else f"0x{cid[:8].hex()}..."


def _read(file: BinaryIO, path: str, size_bytes: int) -> bytes:
    content = file.read(size_bytes)
    if len(content) < size_bytes:
        raise CarError(path, f"it ends in the middle, {size_bytes - len(content)} bytes before the end of a block; get the file again")
    return content


def _read_length(file: BinaryIO, path: str, bytes_max: int) -> int | None:
    """The varint before a header or section; None at the end of the file."""
    length = 0
    for number in range(_LENGTH_BYTES_MAX):
        byte = file.read(1)
        if not byte:
            if number:
                raise CarError(path, "it ends in the middle of a length; get the file again")
            return None
        length |= (byte[0] & 0x7F) << 7 * number
        if byte[0] < 0x80:
            if length > bytes_max:
                raise CarError(path, f"it announces a part of {length} bytes, at most {bytes_max} are kept here (blocks of 256 KiB)")
            return length
    raise CarError(path, f"it announces a part of 256 MiB or more, at most {bytes_max} bytes are kept here")


def _encode_length(length: int) -> bytes:
    out = bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)

