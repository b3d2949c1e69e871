"""The canonical encoding on which every vertex, rule and direct message rests."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from learnae.protocol.sync import SYNC_BYTES_MAX, SYNC_VERTICES_MAX, SYNC_WANT_MAX, SyncMessage, decode_sync
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


@pytest.mark.parametrize("item", [b"\x80", b"\x60", b"\xa0", b"\x41a", b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a"])
def test_direct_message__of_a_megabyte_of_tiny_items_takes_no_megabytes(item: bytes) -> None:
    """Attack: each item becomes an object of up to 64 bytes, so the items are counted before any is built."""
    count = (SYNC_BYTES_MAX - 16) // len(item)
    bomb = b"\x85\x01\xf6\xf4\x80" + cbor.encode_head(4, count) + item * count
    assert len(bomb) <= SYNC_BYTES_MAX
    tracemalloc.start()
    try:
        assert decode_sync(bomb) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < len(bomb)


def test_direct_message__with_as_many_items_as_allowed_is_read() -> None:
    """The neighbour of the rule above."""
    cids = tuple(b"\x01\x55\x12\x20" + number.to_bytes(32, "big") for number in range(SYNC_WANT_MAX))
    message = SyncMessage(have={bytes(32): 1}, want=cids, vertices=(b"",) * SYNC_VERTICES_MAX)  # type: ignore[dict-item, arg-type]
    assert decode_sync(message.encode()) == message
    with pytest.raises(ValueError, match="too many items"):
        cbor.decode(b"\x83\x01\x02\x03", items_max=3)


def test_encode__bytes_stay_bytes_even_if_they_look_like_a_link() -> None:
    """One key in 256 begins like a CID: it must have one encoding, and that is a byte string."""
    key = bytes((1, 0x55, 0x12, 0x1C)) + bytes(28)

    assert cbor.encode(key) == b"\x58\x20" + key
    assert cbor.encode_links([key])[:5] == b"\x81\xd8\x2a\x58\x21"
