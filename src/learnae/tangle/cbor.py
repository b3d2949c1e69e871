"""Canonical dag-cbor of plain values: whole numbers, bytes, text, booleans, None and lists; links only where asked for.

Decoding is libipld's, which is strict and fast. Encoding is our own, because libipld writes every byte string that looks like a
CID as a link: one public key or signature in 256 does, and the same value would have two encodings. Here bytes are bytes;
the parents of a vertex are links (`encode_links`), so that IPLD tools can walk the graph.
Source: the dag-cbor specification; RFC 8949, section 4.2.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import libipld

DEPTH_MAX: Final = 16  # Rules, tickets, direct messages and records nest three deep.

_LINK = b"\xd8\x2a\x58"  # Tag 42 and a byte string with a one-byte length.


def encode(value: object) -> bytes:
    """The one canonical encoding of a plain value. Raises: TypeError: the value is not plain."""
    parts: list[bytes] = []
    _append(parts, value)
    return b"".join(parts)


def encode_links(cids: Iterable[bytes]) -> bytes:
    """A list of CIDs as links (tag 42, identity multibase prefix)."""
    links = [_LINK + bytes((len(cid) + 1, 0)) + cid for cid in cids]
    return encode_head(4, len(links)) + b"".join(links)


def decode(encoded: bytes, *, depth_max: int = DEPTH_MAX, items_max: int | None = None) -> Any:
    """Read one dag-cbor value; links come out as bytes. Whether it was canonical shows when it is encoded again.

    The depth is checked first: how deep the decoder itself may recurse depends on the interpreter's limit, which libraries raise
    until a hostile document overruns the stack. So are the items, where a limit is given: one of a single byte becomes an object of
    up to 64, so a megabyte of them would take that many megabytes for a moment.
    Raises: ValueError: not dag-cbor, bytes left over, lists nested deeper than `depth_max`, or more than `items_max` items.
    """
    if not _is_small(encoded, depth_max, len(encoded) if items_max is None else items_max):
        raise ValueError("nested too deep, or too many items")
    return libipld.decode_dag_cbor(encoded)


def decode_judged(encoded: bytes) -> Any:
    """As `decode`, for what passed its limits before it was kept."""
    return libipld.decode_dag_cbor(encoded)


def _is_small(encoded: bytes, depth_max: int, items_max: int) -> bool:
    """Whether the items of a document nest at most `depth_max` levels and are at most `items_max`; walks headers, builds nothing.

    What follows a malformed header does not count: the decoder stops there.
    """
    outer: list[int] = []  # How many items are still to come on each level around this one.
    left, position, end = 1, 0, len(encoded)
    items_left = items_max
    while position < end:
        while left == 0:
            if not outer:
                return True
            left = outer.pop()
        left -= 1
        items_left -= 1
        if items_left < 0:
            return False
        byte = encoded[position]
        step = _STEPS[byte]
        if step:  # A number, or bytes whose length is in the first byte.
            position += step
            continue
        major, low = byte >> 5, byte & 31
        position += 1
        size = 0 if low < 24 else 1 << (low - 24) if low < 28 else -1
        if size < 0:
            return True
        value = low if size == 0 else int.from_bytes(encoded[position : position + size], "big")
        position += size
        if major < 4:
            position += value
        else:
            if len(outer) >= depth_max:
                return False
            outer.append(left)
            left = value if major == 4 else 2 * value if major == 5 else 1
    return True


def _append(parts: list[bytes], value: object) -> None:
    kind = type(value)
    if kind is list:
        assert isinstance(value, list)
        parts.append(encode_head(4, len(value)))
        for item in value:  # The usual leaves at once: every other item is one.
            if type(item) is bytes:
                size = len(item)
                parts.append(_BYTES_HEADS[size] if size < 256 else encode_head(2, size))
                parts.append(item)
            elif type(item) is int and 0 <= item < 256:
                parts.append(_NUMBERS[item])
            else:
                _append(parts, item)
    elif kind is int:
        assert isinstance(value, int)
        parts.append(encode_head(0, value) if value >= 0 else encode_head(1, -1 - value))
    elif kind is bytes:
        assert isinstance(value, bytes)
        parts.append(encode_head(2, len(value)))
        parts.append(value)
    elif kind is str:
        assert isinstance(value, str)
        text = value.encode()
        parts.append(encode_head(3, len(text)))
        parts.append(text)
    elif value is None or value is True or value is False:
        parts.append(b"\xf6" if value is None else b"\xf5" if value else b"\xf4")
    else:
        raise TypeError(f"cannot encode a {kind.__name__}")


def encode_head(major: int, number: int) -> bytes:
    """The head of an item: its major type (0 whole number, 2 bytes, 4 list, ...) and its number, in the shortest form."""
    if number < 24:
        return bytes((major << 5 | number,))
    if number < 0x100:
        return bytes((major << 5 | 24, number))
    if number < 0x10000:
        return bytes((major << 5 | 25,)) + number.to_bytes(2, "big")
    if number < 0x1_0000_0000:
        return bytes((major << 5 | 26,)) + number.to_bytes(4, "big")
    return bytes((major << 5 | 27,)) + number.to_bytes(8, "big")


_NUMBERS = tuple(encode_head(0, number) for number in range(256))
_BYTES_HEADS = tuple(encode_head(2, size) for size in range(256))


def _compute_step(byte: int) -> int:
    """How far the next item is from one that begins so and holds no others; 0 if its header does not say."""
    major, low = byte >> 5, byte & 31
    if low >= 28 or major in (4, 5, 6):
        return 0
    if major in (2, 3):
        return 1 + low if low < 24 else 0
    return 1 if low < 24 else 1 + (1 << (low - 24))


_STEPS = tuple(_compute_step(byte) for byte in range(256))
