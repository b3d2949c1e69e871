"""Names and amounts as distinct types, and the few pure functions that turn them into text and back.

`PeerId` and `Cid` are raw bytes inside the program (compact, canonical, cheap to hash) and text only at its borders.
Source: libp2p peer-ids spec (identity multihash of an Ed25519 key), multiformats CIDv1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NewType, Protocol

PeerId = NewType("PeerId", bytes)
"""The 32 bytes of a peer's Ed25519 public key; `peer_text` gives the libp2p form `12D3Koo...`."""

Cid = NewType("Cid", bytes)
"""A binary CIDv1 with SHA-256: 36 bytes; `cid_text` gives the base32 form `bafy...`."""

Address = NewType("Address", str)
"""An Ethereum address with its EIP-55 checksum, `0x` and 40 hex digits."""

Content = bytes | memoryview
"""The bytes of a file, wherever they lie in memory."""


class Pieces(Protocol):
    """A file that is read piece by piece as it is used; its length is in bytes. Raises (while it is read): FileLostError."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


Topic = NewType("Topic", str)
Credits = NewType("Credits", int)
"""Integer unit of help, Eq. 1."""

Wei = NewType("Wei", int)

WEI_PER_ETHER: Final = 10**18

CODEC_RAW: Final = 0x55
CODEC_DAG_PB: Final = 0x70
CODEC_DAG_CBOR: Final = 0x71
CID_BYTES: Final = 36
PEER_ID_BYTES: Final = 32

_CID_TEXTS_MAX = 256  # Most models are named once or twice.
_PEER_TEXTS_MAX = 4096  # Peers are named again and again; enough for the most members of a session.
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ED25519_MULTIHASH = bytes.fromhex("002408011220")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def compute_cid(block: Content, codec: int = CODEC_RAW) -> Cid:
    """The CIDv1 of one block: `codec` is `CODEC_RAW`, `CODEC_DAG_PB` or `CODEC_DAG_CBOR`; the hash is SHA-256."""
    return Cid(bytes((1, codec, 0x12, 0x20)) + hashlib.sha256(block).digest())


def is_cid(value: object) -> bool:
    """Whether `value` is a binary CIDv1 of a codec that is used here, with SHA-256."""
    return (
        isinstance(value, bytes)
        and len(value) == CID_BYTES
        and value[0] == 1
        and value[1] in (CODEC_RAW, CODEC_DAG_PB, CODEC_DAG_CBOR)
        and value[2:4] == b"\x12\x20"
    )


@lru_cache(maxsize=_CID_TEXTS_MAX)
def cid_text(cid: Cid) -> str:
    """Base32 text of a CID, as IPFS tools print it: `bafy...`, `bafk...`."""
    bits = int.from_bytes(cid, "big")
    width = len(cid) * 8
    pad = -width % 5
    bits <<= pad
    count = (width + pad) // 5
    return "b" + "".join(_BASE32[(bits >> (5 * (count - 1 - i))) & 31] for i in range(count))


def parse_cid(text: str) -> Cid:
    """Read the base32 text of a CIDv1.

    Raises: ValueError: the text is not base32, or not a SHA-256 CIDv1 of codec raw, dag-pb or dag-cbor.
    """
    if not text.startswith("b"):
        raise ValueError(f"not a base32 CIDv1: {text[:70]!r}")
    bits = 0
    for letter in text[1:71]:
        bits = bits << 5 | _BASE32.index(letter) if letter in _BASE32 else _fail_cid(text)
    width = (len(text) - 1) * 5
    cid = (bits >> (width % 8)).to_bytes(width // 8, "big") if width // 8 == CID_BYTES else b""
    if not is_cid(cid) or cid_text(Cid(cid)) != text:
        _fail_cid(text)
    return Cid(cid)


def _fail_cid(text: str) -> int:
    raise ValueError(f"not a base32 CIDv1: {text[:70]!r}")


@lru_cache(maxsize=_PEER_TEXTS_MAX)
def peer_text(peer_id: PeerId) -> str:
    """The libp2p text of a peer id, `12D3Koo...` (base58 of the identity multihash of the Ed25519 key)."""
    number = int.from_bytes(_ED25519_MULTIHASH + peer_id, "big")
    letters = ""
    while number:
        number, digit = divmod(number, 58)
        letters = _BASE58[digit] + letters
    return "1" + letters  # The multihash starts with one zero byte, which base58 writes as "1".


def parse_peer(text: str) -> PeerId:
    """Read the libp2p text of an Ed25519 peer id.

    Raises: ValueError: the text is not base58, or names a key that is not Ed25519.
    """
    number = 0
    for letter in text[:80]:
        digit = _BASE58.find(letter)
        if digit < 0:
            raise ValueError(f"not a libp2p peer id: {text[:80]!r}")
        number = number * 58 + digit
    size = len(_ED25519_MULTIHASH) + PEER_ID_BYTES
    if number.bit_length() > 8 * size:
        raise ValueError(f"not an Ed25519 peer id: {text[:80]!r}")
    key = number.to_bytes(size, "big")
    if not key.startswith(_ED25519_MULTIHASH) or peer_text(PeerId(key[6:])) != text:
        raise ValueError(f"not an Ed25519 peer id: {text[:80]!r}")
    return PeerId(key[6:])


def wei_text(wei: int) -> str:
    """An amount exactly, in both units: `0.01 ETH (10000000000000000 wei)`."""
    ether = f"{wei // WEI_PER_ETHER}.{wei % WEI_PER_ETHER:018d}".rstrip("0").rstrip(".")
    return f"{ether} ETH ({wei} wei)"


def short_name(peer_id: PeerId) -> str:
    """The last six letters of a peer id, for tables and logs that people read."""
    return peer_text(peer_id)[-6:]
