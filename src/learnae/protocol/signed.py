"""What a member signs with its wallet for the session's contract and gives to the others: its claim and its ballot (section 6).

Anybody may send them on, many in one transaction (`protocol.relay`), so a member needs no transaction of its own. The wallet's
signature is opaque here: 64 bytes that the chain's backend makes, and checks before it sends them.
Source: paper 6, Fig. 5; docs/protocol.md, "Settlement". Deviation: the paper's members send each vote themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from learnae.ids import CODEC_DAG_CBOR, Cid

WALLET_SIGNATURE_BYTES: Final = 64  # EIP-2098
EVIDENCE_BYTES: Final = 32
POINTS_MAX: Final = 2**64 - 1  # As the contract.
NAYS_BYTES_MAX: Final = 512  # A bit for each of the 4,095 members that a session can have.


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSigned:
    """My share of the fund, as my wallet signed it; `evidence` is the digest of the checkpoint that it was computed from (6)."""

    points: int
    evidence: bytes
    signature: bytes

    def to_body(self) -> list[object]:
        return [self.points, self.evidence, self.signature]


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotSigned:
    """My votes on all claims, as my wallet signed them; `nays` are the member indices whose claims I reject, rising (6)."""

    nays: tuple[int, ...]
    signature: bytes

    def to_body(self) -> list[object]:
        bits = bytearray(max(self.nays, default=-1) // 8 + 1)
        for index in self.nays:
            bits[index // 8] |= 1 << index % 8
        return [bytes(bits), self.signature]


def parse_claim(body: Any) -> ClaimSigned | None:
    """Read a body of the kind; None if it is not exactly what `to_body` writes."""
    match body:
        case [int() as points, bytes() as evidence, bytes() as signature] if type(points) is int:
            if 1 <= points <= POINTS_MAX and len(evidence) == EVIDENCE_BYTES and len(signature) == WALLET_SIGNATURE_BYTES:
                return ClaimSigned(points=points, evidence=evidence, signature=signature)
    return None


def parse_ballot(body: Any) -> BallotSigned | None:
    """Read a body of the kind; None if it is not exactly what `to_body` writes: no byte of zeros at the end."""
    match body:
        case [bytes() as bits, bytes() as signature] if len(bits) <= NAYS_BYTES_MAX and len(signature) == WALLET_SIGNATURE_BYTES:
            if not bits.endswith(b"\0"):
                nays = tuple(index for index in range(8 * len(bits)) if bits[index // 8] >> index % 8 & 1)
                return BallotSigned(nays=nays, signature=signature)
    return None


def to_vertex_cid(digest: bytes) -> Cid:
    """The vertex whose SHA-256 digest a claim names as its evidence."""
    return Cid(bytes((1, CODEC_DAG_CBOR, 0x12, 0x20)) + digest)
