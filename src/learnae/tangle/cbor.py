"""Canonical dag-cbor of plain values: whole numbers, bytes, text, booleans, None and lists; links only where asked for.

Decoding is libipld's, which is strict and fast. Encoding is our own, because libipld writes every byte string that looks like a
CID as a link: one public key or signature in 256 does, and the same value would have two encodings. Here bytes are bytes;
the parents of a vertex are links (`encode_links`), so that IPLD tools can walk the graph.
Source: the dag-cbor specification; RFC 8949, section 4.2.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import libipld

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


def decode(encoded: bytes) -> Any:
    """Read one dag-cbor value; links come out as bytes. Whether it was canonical shows when it is encoded again.

    Raises: ValueError: not dag-cbor, bytes left over, or nested deeper than the interpreter allows.
    """
    try:
        return libipld.decode_dag_cbor(encoded)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _append(parts: list[bytes], value: object) -> None:
    kind = type(value)
    if kind is int:
        assert isinstance(value, int)
        parts.append(encode_head(0, value) if value >= 0 else encode_head(1, -1 - value))
    elif kind is bytes:
        assert isinstance(value, bytes)
        parts.append(encode_head(2, len(value)))
        parts.append(value)
    elif kind is list:
        assert isinstance(value, list)
        parts.append(encode_head(4, len(value)))
        for item in value:
            _append(parts, item)
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
