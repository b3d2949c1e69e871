"""A vertex: one signed statement of one issuer, with the statements it had seen before.

Canonical dag-cbor, named by its CID, signed with the issuer's libp2p key. This module encodes, decodes and judges the
shape of single vertices; what a body means is `protocol.validation`, how vertices hang together is `tangle.dag`.

Source: LEARNAE DAO paper 2.1, 2.2 (PubSub messages and Tangle transactions become one structure); docs/protocol.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from learnae.ids import CODEC_DAG_CBOR, PEER_ID_BYTES, Cid, PeerId, compute_cid, is_cid
from learnae.tangle import cbor
from learnae.tangle.verdict import Ruling, reject

VERSION: Final = 1
NET_BYTES: Final = 8
TAG_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64
DIGEST_BYTES: Final = 32
VERTEX_BYTES_MAX: Final = 64 * 1024  # A checkpoint of 700 issuers fits; a flood of them stays cheap.
PARENTS_MAX: Final = 8  # Own previous vertex and three tips are usual; eight allow merging after a partition.
BODY_DEPTH_MAX: Final = 8  # Our bodies nest three deep; the decoder must not recurse at a stranger's will.
SEQUENCE_MAX: Final = 2**48
TIME_MS_MAX: Final = 2**53
KIND_MAX: Final = 255

_DOMAIN = b"learnae vertex 1\n"
_FIELDS = 10
_SIGNATURE_HEAD = b"\x58\x40"  # A byte string of 64 bytes.
_SIGNATURE_TAIL = 2 + SIGNATURE_BYTES  # The signature's header and itself end every vertex; what precedes them is signed.

Sign = Callable[[bytes], bytes]
"""Signs a message with an Ed25519 key: 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What shows that an issuer signed one vertex without the vertex: SHA-256 of its fields 0 to 8, and the signature."""

    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """One decoded vertex; `encoded` are its canonical bytes and `cid` their name. `body` is never modified."""

    net: bytes
    parents: tuple[Cid, ...]
    issuer: PeerId
    sequence: int
    time_ms: int
    kind: int
    tag: bytes
    body: object
    cid: Cid
    encoded: bytes

    def compute_statement(self) -> Statement:
        """A hundred bytes in place of the whole vertex, so that a proof of a fork always fits into one."""
        digest = hashlib.sha256(self.encoded[:-_SIGNATURE_TAIL]).digest()
        return Statement(digest=digest, signature=self.encoded[-SIGNATURE_BYTES:])


def compute_genesis(net: bytes) -> Cid:
    """The CID that the first vertex of every issuer names as its own previous vertex."""
    return compute_cid(cbor.encode(["learnae genesis", net]), CODEC_DAG_CBOR)


def create_vertex(  # noqa: PLR0913 - the fields of a vertex
    *,
    net: bytes,
    parents: tuple[Cid, ...],
    issuer: PeerId,
    sequence: int,
    time_ms: int,
    kind: int,
    body: object,
    sign: Sign,
    tag: bytes = b"",
) -> Vertex:
    """Encode and sign a vertex. `parents[0]` is the issuer's own previous vertex; the rest gets sorted."""
    parents = (parents[0], *sorted(set(parents[1:]) - {parents[0]}))
    fields = [VERSION, net, list(parents), issuer, sequence, time_ms, kind, tag, body]
    unsigned = _encode_unsigned(fields)
    signature = sign(compute_signed(net, issuer, sequence, hashlib.sha256(unsigned).digest()))
    encoded = unsigned + _SIGNATURE_HEAD + signature
    fault = _find_fault([*fields, signature])
    assert not fault and len(encoded) <= VERTEX_BYTES_MAX, f"created a vertex that nobody accepts: {fault or len(encoded)}"
    return _make_vertex(fields, encoded)


class VertexCodec:
    """Decodes and verifies vertices; stateless."""

    def decode(self, encoded: bytes) -> Vertex | Ruling:
        """Decode canonical bytes, or say why they are not a vertex. The signature is not checked here."""
        # 1. Size, before anything is parsed.
        if len(encoded) > VERTEX_BYTES_MAX:
            return reject(f"a vertex of {len(encoded)} bytes, at most {VERTEX_BYTES_MAX} are allowed")
        # 2. dag-cbor of bounded depth: the ten fields are one level, the body starts below them.
        try:
            fields = cbor.decode(encoded, depth_max=BODY_DEPTH_MAX + 1)
        except ValueError as error:
            return reject(f"not dag-cbor: {str(error)[:100]}")
        # 3. Shape and field lengths.
        fault = _find_fault(fields)
        if fault:
            return reject(fault)
        # 4. Canonical: exactly these bytes encode these fields.
        *unsigned, signature = fields
        try:
            canonical = _encode_unsigned(unsigned) + _SIGNATURE_HEAD + signature
        except TypeError as error:
            return reject(str(error))
        if canonical != encoded:
            return reject("not the canonical encoding")
        return _make_vertex(unsigned, encoded)

    def decode_judged(self, encoded: bytes) -> Vertex:
        """Decode bytes that this peer judged before it kept them: nothing is checked again."""
        return _make_vertex(cbor.decode_judged(encoded)[:-1], encoded)

    def parse(self, vertex: Vertex) -> object:
        """What the body says. Plain values here; the codec of a lane knows its kinds."""
        return vertex.body

    def verify(self, vertex: Vertex) -> bool:
        """Whether the issuer signed this vertex."""
        return verify_statement(vertex.compute_statement(), net=vertex.net, issuer=vertex.issuer, sequence=vertex.sequence)


def compute_signed(net: bytes, issuer: PeerId, sequence: int, digest: bytes) -> bytes:
    """What an issuer signs for one vertex; every part has a fixed length, so no two vertices share it."""
    return _DOMAIN + net + issuer + sequence.to_bytes(8, "big") + digest


def verify_statement(statement: Statement, *, net: bytes, issuer: PeerId, sequence: int) -> bool:
    """Whether the issuer signed a vertex of this digest under this number.

    libsodium also refuses low-order keys and non-canonical signatures.
    """
    signed = compute_signed(net, issuer, sequence, statement.digest)
    try:
        crypto_sign_open(statement.signature + signed, issuer)
    except BadSignatureError:
        return False
    return True


def _encode_unsigned(fields: list[Any]) -> bytes:
    """Fields 0 to 8 of a vertex behind the head of a list of ten: what is signed."""
    version, net, parents, *rest = fields
    return b"\x8a" + cbor.encode([version, net])[1:] + cbor.encode_links(parents) + cbor.encode(rest)[1:]


def _make_vertex(unsigned: list[Any], encoded: bytes) -> Vertex:
    _, net, parents, issuer, sequence, time_ms, kind, tag, body = unsigned
    return Vertex(
        net=net,
        parents=tuple(parents),
        issuer=PeerId(issuer),
        sequence=sequence,
        time_ms=time_ms,
        kind=kind,
        tag=tag,
        body=body,
        cid=compute_cid(encoded, CODEC_DAG_CBOR),
        encoded=encoded,
    )


def _find_fault(fields: object) -> str:
    """The first rule of shape that decoded fields break, or an empty string."""
    if not isinstance(fields, list) or len(fields) != _FIELDS:
        return "not a list of ten fields"
    version, net, parents, issuer, sequence, time_ms, kind, tag, _body, signature = fields
    if version != VERSION or type(version) is not int:
        return f"version {version!r}, expected {VERSION}"
    for name, value, sizes in (
        ("net", net, (NET_BYTES,)),
        ("issuer", issuer, (PEER_ID_BYTES,)),
        ("tag", tag, (0, TAG_BYTES)),
        ("signature", signature, (SIGNATURE_BYTES,)),
    ):
        if not isinstance(value, bytes) or len(value) not in sizes:
            return f"{name} is not {' or '.join(map(str, sizes))} bytes"
    for name, number, least, most in (
        ("sequence", sequence, 1, SEQUENCE_MAX),
        ("time_ms", time_ms, 0, TIME_MS_MAX),
        ("kind", kind, 0, KIND_MAX),
    ):
        if type(number) is not int or not least <= number <= most:
            return f"{name} is not a whole number from {least} to {most}"
    if not isinstance(parents, list) or not 1 <= len(parents) <= PARENTS_MAX or not all(map(is_cid, parents)):
        return f"parents are not 1 to {PARENTS_MAX} CIDs"
    others = parents[1:]
    if others != sorted(set(others)) or parents[0] in others:
        return "parents after the first are not sorted and unique"
    return ""

