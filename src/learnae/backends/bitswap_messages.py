"""Bitswap's messages as bytes: what is wanted, blocks, and who has what; versions 1.0 to 1.2.

Pure: no I/O. py-libp2p's protobuf classes do the wire format; here are the limits, and the CIDs: IPFS programs also name blocks by CIDv0,
which is SHA-256 of a dag-pb block, so both names are the same block here.
Source: IPFS specs, Bitswap protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError
from libp2p.bitswap.pb.bitswap_pb2 import Message as _Pb

from learnae.ids import CODEC_DAG_PB, Cid, is_cid

PROTOCOLS: Final = ("/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0")  # best first
WANTS_MAX: Final = 1024  # Of one message: as many as Kubo keeps of one peer; the rest is asked for again.
NAME_BYTES_MAX: Final = 64  # A CID that could be ours has 34 or 36 bytes; longer names are of hashes that are not used here.
BLOCKS_MAX: Final = 1024  # Of one message: nobody here asks one peer for more at a time.
BLOCK_BYTES_MAX: Final = 2 << 20  # Bitswap's own limit.


class MessageError(ValueError):
    """Bytes of a peer that are no Bitswap message."""


@dataclass(frozen=True, slots=True)
class Want:
    """One entry of a wanted list. `name` is the CID as the asker wrote it, and is written so in the answer."""

    name: bytes
    is_cancel: bool = False
    only_presence: bool = False  # "want-have": the asker wants to know who has it
    wants_no: bool = False  # answer also if it is not here


@dataclass(slots=True)
class Message:
    wants: list[Want] = field(default_factory=list)
    is_full: bool = False  # the wants replace all earlier ones
    blocks: list[bytes] = field(default_factory=list)
    lacking: list[bytes] = field(default_factory=list)  # names that the sender does not have
    entries: int = 0  # of all kinds, also those that were left out


def read_name(name: bytes) -> Cid | None:
    """The CID that a name stands for; None for one that no block here can have."""
    if is_cid(name):
        return Cid(name)
    if len(name) == 34 and name[:2] == b"\x12\x20":
        return Cid(bytes((1, CODEC_DAG_PB)) + name)
    return None


def parse_message(raw: bytes) -> Message:
    """Read what a stranger sent; what is beyond the limits, and names that no block here can have, are left out. Raises: MessageError."""
    try:
        told = _Pb.FromString(raw)
    except DecodeError as error:
        raise MessageError("it is no Bitswap message") from error
    wants = [
        Want(bytes(entry.block), entry.cancel, entry.wantType == _Pb.Wantlist.Have, entry.sendDontHave)
        for entry in told.wantlist.entries[:WANTS_MAX]
        if len(entry.block) <= NAME_BYTES_MAX
    ]
    blocks = [bytes(block.data) for block in told.payload[:BLOCKS_MAX]] + [bytes(block) for block in told.blocks[:BLOCKS_MAX]]
    lacking = [bytes(entry.cid) for entry in told.blockPresences[:WANTS_MAX] if entry.type == _Pb.DontHave]
    entries = len(told.wantlist.entries) + len(told.payload) + len(told.blocks) + len(told.blockPresences)
    return Message(wants, told.wantlist.full, blocks[:BLOCKS_MAX], lacking, entries)


def encode_wants(cids: Iterable[Cid], *, is_cancel: bool = False) -> bytes:
    """Ask for blocks, and to be told of those that are not there; or take that back."""
    entries = [_Pb.Wantlist.Entry(block=cid, priority=1, cancel=is_cancel, sendDontHave=not is_cancel) for cid in cids]
    return bytes(_Pb(wantlist=_Pb.Wantlist(entries=entries)).SerializeToString())


def encode_answer(
    blocks: Iterable[tuple[bytes, bytes]], *, version: str, has: Iterable[bytes] = (), lacking: Iterable[bytes] = ()
) -> bytes:
    """Blocks by the name under which they were asked for, and (from 1.2 on) what is here and what is not."""
    if version == PROTOCOLS[2]:
        return bytes(_Pb(blocks=[block for _, block in blocks]).SerializeToString())
    payload = [_Pb.Block(prefix=_compute_prefix(name), data=block) for name, block in blocks]
    if version == PROTOCOLS[1]:
        return bytes(_Pb(payload=payload).SerializeToString())
    here = [_Pb.BlockPresence(cid=name, type=_Pb.Have) for name in has]
    absent = [_Pb.BlockPresence(cid=name, type=_Pb.DontHave) for name in lacking]
    return bytes(_Pb(payload=payload, blockPresences=here + absent).SerializeToString())


def _compute_prefix(name: bytes) -> bytes:
    """A CID without its digest: version, codec, hash and length of the digest."""
    return name[:4] if name[0] == 1 else bytes((0, CODEC_DAG_PB, 0x12, 0x20))
