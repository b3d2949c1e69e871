"""The canonical encoding on which every vertex, rule and direct message rests."""

from __future__ import annotations

import sys

import pytest

from learnae.protocol.sync import decode_sync
from learnae.tangle import cbor


@pytest.mark.parametrize("nest", [b"\x81", b"\xc6", b"\xa1\x61a", b"\xd8\x2a"])
def test_decode__refuses_a_bomb_whatever_the_interpreters_limit_is(nest: bytes) -> None:
    """Attack: libraries raise the recursion limit; then a deep document would overrun the decoder's stack and end the process."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(ValueError, match="nested too deep"):
            cbor.decode(nest * 200_000 + b"\x00")
        assert decode_sync(nest * 200_000 + b"\x00") is None
    finally:
        sys.setrecursionlimit(limit)


def test_decode__takes_what_nests_as_deep_as_allowed() -> None:
    """The neighbour of the rule above: the limit is a limit, not one less."""
    value: object = 7
    for _ in range(cbor.DEPTH_MAX):
        value = [value]

    assert cbor.decode(cbor.encode(value)) == value
    with pytest.raises(ValueError, match="nested too deep"):
        cbor.decode(cbor.encode([value]))


def test_encode__bytes_stay_bytes_even_if_they_look_like_a_link() -> None:
    """One key in 256 begins like a CID: it must have one encoding, and that is a byte string."""
    key = bytes((1, 0x55, 0x12, 0x1C)) + bytes(28)

    assert cbor.encode(key) == b"\x58\x20" + key
    assert cbor.encode_links([key])[:5] == b"\x81\xd8\x2a\x58\x21"
