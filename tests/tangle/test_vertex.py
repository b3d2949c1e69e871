"""A vertex is one canonical byte string, signed by its issuer for one lane and one number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.ids import CODEC_DAG_CBOR, Cid, PeerId, compute_cid
from learnae.tangle import cbor
from learnae.tangle.verdict import Ruling, Verdict
from learnae.tangle.vertex import (
    BODY_DEPTH_MAX,
    KIND_MAX,
    PARENTS_MAX,
    SEQUENCE_MAX,
    SIGNATURE_BYTES,
    TIME_MS_MAX,
    VERTEX_BYTES_MAX,
    Vertex,
    VertexCodec,
    create_vertex,
    verify_statement,
)
from tests.protocol.builders import ALICE, BOB, make_cid, make_sign

NET = b"12345678"
CODEC = VertexCodec()
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=40) | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3),
    max_leaves=8,
)


def make(**changes: Any) -> Vertex:
    fields: dict[str, Any] = {"net": NET, "parents": (make_cid("a"), make_cid("b")), "issuer": ALICE, "sequence": 7, "time_ms": 1000,
                              "kind": 3, "body": [b"x", 1], "sign": make_sign("alice")}  # fmt: skip
    return create_vertex(**{**fields, **changes})


def decode(fields: list[Any]) -> Vertex | Ruling:
    """Decode what an encoder without our checks writes; parents as links."""
    parents = fields[2]
    head = b"\x8a" + b"".join(cbor.encode(field) for field in fields[:2])
    linked = cbor.encode_links(parents) if isinstance(parents, list) and all(type(p) is bytes for p in parents) else cbor.encode(parents)
    return CODEC.decode(head + linked + b"".join(cbor.encode(field) for field in fields[3:]))


def fields_of(vertex: Vertex) -> list[Any]:
    return [
        1,
        vertex.net,
        list(vertex.parents),
        vertex.issuer,
        vertex.sequence,
        vertex.time_ms,
        vertex.kind,
        vertex.tag,
        vertex.body,
        bytes(64),
    ]


def is_rejected(result: Vertex | Ruling, word: str) -> bool:
    return isinstance(result, Ruling) and result.verdict is Verdict.REJECT and word in result.why


@given(body=plain, sequence=st.integers(1, SEQUENCE_MAX), time_ms=st.integers(0, TIME_MS_MAX), kind=st.integers(0, KIND_MAX))
def test_vertex__decodes_to_what_was_created(body: object, sequence: int, time_ms: int, kind: int) -> None:
    """Every vertex re-encodes to itself; its name is the CID of its bytes."""
    vertex = make(body=body, sequence=sequence, time_ms=time_ms, kind=kind)

    assert CODEC.decode(vertex.encoded) == CODEC.decode_judged(vertex.encoded) == vertex
    assert (vertex.body, vertex.sequence, vertex.time_ms, vertex.kind) == (body, sequence, time_ms, kind)
    assert vertex.cid == compute_cid(vertex.encoded, CODEC_DAG_CBOR)
    assert CODEC.verify(vertex)


@given(data=st.data())
def test_vertex__changed_anywhere_is_refused_or_not_signed(data: st.DataObject) -> None:
    """Threats, signatures: nothing unsigned acts. One changed byte gives no vertex, or one that its issuer did not sign."""
    encoded = bytearray(make().encoded)
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))

    result = CODEC.decode(bytes(encoded))

    assert isinstance(result, Ruling) or (result.encoded == bytes(encoded) and not CODEC.verify(result))


@given(st.binary(max_size=300) | plain.map(cbor.encode) | st.lists(plain, min_size=10, max_size=10).map(cbor.encode))
def test_decoder__answers_any_bytes_with_a_ruling(content: bytes) -> None:
    """Threats, malformed bytes: never a crash."""
    result = CODEC.decode(content)

    assert isinstance(result, Ruling) and result.verdict is Verdict.REJECT


@given(data=st.data())
def test_decoder__cut_or_lengthened_vertex_is_refused(data: st.DataObject) -> None:
    """A vertex is exactly its bytes: nothing missing, nothing behind."""
    encoded = make().encoded
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    longer = encoded + data.draw(st.binary(min_size=1, max_size=20))

    assert isinstance(CODEC.decode(cut), Ruling)
    assert isinstance(CODEC.decode(longer), Ruling)


def test_decoder__other_encodings_of_the_same_values_are_refused() -> None:
    """Protocol, reading order: decode, encode again, compare; a long head, a wide float or an endless list is another name."""
    vertex = make()
    long_version = vertex.encoded.replace(b"\x8a\x01", b"\x8a\x18\x01", 1)
    endless = b"\x9f" + vertex.encoded[1:] + b"\xff"

    assert isinstance(CODEC.decode(long_version), Ruling)
    assert isinstance(CODEC.decode(endless), Ruling)
    assert isinstance(CODEC.decode(cbor2.dumps([*fields_of(vertex)[:8], 1.5, bytes(64)])), Ruling)
    assert isinstance(CODEC.decode(cbor2.dumps([*fields_of(vertex)[:8], {"a": 1}, bytes(64)])), Ruling)


@pytest.mark.parametrize(
    ("index", "value", "word"),
    [
        (0, 2, "version"),
        (0, True, "version"),
        (1, b"1234567", "net"),
        (2, [], "parents"),
        (2, [make_cid(str(i)) for i in range(PARENTS_MAX + 1)], "parents"),
        (2, [b"no cid"], ""),
        (2, [make_cid("a"), make_cid("a")], "sorted and unique"),
        (2, [make_cid("z"), *sorted([make_cid("a"), make_cid("b")], reverse=True)], "sorted and unique"),
        (3, b"short", "issuer"),
        (4, 0, "sequence"),
        (4, SEQUENCE_MAX + 1, "sequence"),
        (4, True, "sequence"),
        (5, -1, "time_ms"),
        (5, TIME_MS_MAX + 1, "time_ms"),
        (6, KIND_MAX + 1, "kind"),
        (7, b"short tag", "tag"),
        (9, bytes(63), "signature"),
    ],
)
def test_decoder__field_outside_of_its_range_is_named(index: int, value: object, word: str) -> None:
    """Shape and field lengths: each broken rule is rejected by its name."""
    fields = fields_of(make())
    fields[index] = value

    assert is_rejected(decode(fields), word)


def test_decoder__longest_vertex_passes_and_one_byte_more_does_not() -> None:
    """Limits: a vertex has at most 64 KiB."""
    room = VERTEX_BYTES_MAX - len(make(body=bytes(60_000)).encoded) + 60_000

    assert len(make(body=bytes(room)).encoded) == VERTEX_BYTES_MAX
    assert is_rejected(decode([*fields_of(make())[:8], bytes(room + 1), bytes(64)]), "at most")


def test_decoder__deep_body_is_refused_without_recursion() -> None:
    """Limits: bodies nest at most eight deep; a stranger cannot exhaust the stack."""
    deep: object = 1
    for _ in range(BODY_DEPTH_MAX):
        deep = [deep]

    assert make(body=deep).body == deep
    assert is_rejected(decode([*fields_of(make())[:8], [deep], bytes(64)]), "deep")
    assert isinstance(CODEC.decode(b"\x81" * 60_000), Ruling)
    assert isinstance(CODEC.decode(b"\xd8\x2a" * 30_000), Ruling)


@pytest.mark.parametrize(
    "content", [b"\x9b" + b"\xff" * 8, b"\x5b" + b"\x7f" * 8, b"\xbb" + b"\x7f" * 8, b"\x9a\x7f\xff\xff\xff" + bytes(100)]
)
def test_decoder__promised_lengths_allocate_nothing(content: bytes) -> None:
    """Threats, oversized: a head that promises 2^63 items is only a head."""
    assert isinstance(CODEC.decode(content), Ruling)


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ],
)
def test_verify__low_order_key_signs_nothing(key: bytes) -> None:
    """Threats, signatures: with a low-order key one signature would fit every message."""
    vertex = make()
    forged = replace(vertex, issuer=PeerId(key), encoded=vertex.encoded[:-SIGNATURE_BYTES] + key + bytes(32))

    assert not CODEC.verify(forged)


def test_verify__signature_holds_for_one_issuer_lane_and_number() -> None:
    """Threats, signatures: no use across issuers, sessions, lanes or numbers."""
    statement = make().compute_statement()

    assert verify_statement(statement, net=NET, issuer=ALICE, sequence=7)
    assert not verify_statement(statement, net=NET, issuer=BOB, sequence=7)
    assert not verify_statement(statement, net=b"87654321", issuer=ALICE, sequence=7)
    assert not verify_statement(statement, net=NET, issuer=ALICE, sequence=8)
    assert not verify_statement(replace(statement, digest=bytes(32)), net=NET, issuer=ALICE, sequence=7)


def test_create__sorts_the_other_parents_and_keeps_the_own_first() -> None:
    """Protocol: parents[0] is the issuer's own previous vertex, the rest sorted and unique."""
    own, others = make_cid("own"), [make_cid(str(i)) for i in range(3)]
    vertex = make(parents=(own, *sorted(others, reverse=True), others[0], own))

    assert vertex.parents == (own, *sorted(others))


def test_cbor__bytes_that_look_like_a_cid_stay_bytes() -> None:
    """One value has one encoding: only parents are links."""
    cid = make_cid("x")

    assert cbor.decode(cbor.encode([cid])) == [cid]
    assert cbor.encode([cid])[1:3] == b"\x58\x24"
    assert cbor.decode(cbor.encode_links([cid])) == [cid]


@given(plain)
def test_cbor__equals_an_independent_encoder(value: object) -> None:
    """The encoding is the canonical one of RFC 8949: another library writes the same bytes."""
    assert cbor.encode(value) == cbor2.dumps(value, canonical=True)
    assert cbor.decode(cbor.encode(value)) == value


@pytest.mark.parametrize("value", [1.0, {"a": 1}, (1,), {1}, object()])
def test_cbor__what_is_not_plain_is_refused(value: object) -> None:
    """Floats, maps and the like have no place in what is signed."""
    with pytest.raises(TypeError, match="cannot encode"):
        cbor.encode(value)


def test_vertex__names_are_cids() -> None:
    assert isinstance(make().cid, bytes) and Cid(make().cid) != make(sequence=8).cid
