"""A corpus of hostile model files: (what is wrong, words that the rejection has to say, the file)."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Iterator
from typing import Any

GOOD: dict[str, Any] = {
    "bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "steps": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
    "mask": {"dtype": "BOOL", "shape": [4], "data_offsets": [16, 20]},
}
"""Header of a model with a float, a counter and a mask; `GOOD_BYTES` are its values."""
GOOD_BYTES = struct.pack("<ffq", 1.5, -2.0, 7) + b"\0\1\1\0"


def make_file(header: object, body: bytes = GOOD_BYTES) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_tensor(name: str, **changes: object) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **changes}}


def hostile_models() -> Iterator[tuple[str, str, bytes]]:
    good = make_file(GOOD)
    yield from _not_safetensors(good)
    yield from _bad_headers(good)
    yield from _bad_layouts()
    yield from _wrong_models()


def _not_safetensors(good: bytes) -> Iterator[tuple[str, str, bytes]]:
    yield "empty", "0 bytes, fewer than a safetensors file needs", b""
    yield "seven bytes", "7 bytes", good[:7]
    yield "pickle", "not a safetensors file", pickle.dumps({"bias": [1.5, -2.0]}, protocol=4) + bytes(64)
    archive = io.BytesIO(b"PK\x03\x04" + bytes(100))
    yield "torch archive", "not a safetensors file", archive.getvalue()[:8] + bytes(92)
    yield "too large", "at most", good + bytes(5000)


def _bad_headers(good: bytes) -> Iterator[tuple[str, str, bytes]]:
    yield "huge header", "header claims 9223372036854775807 bytes", (2**63 - 1).to_bytes(8, "little") + good[8:]
    yield "header over limit", "header claims 65537 bytes, at most 65536", (65537).to_bytes(8, "little") + good[8:]
    yield "header cut off", "but only", good[:40]
    yield "not json", "not JSON", make_file(b"{bias}")
    yield "not utf-8", "not JSON", make_file(b'{"\xff": 1}')
    yield "a list", "not a JSON object", make_file([])
    yield "deep nesting", "nested too deeply", make_file(b"[" * 1500 + b"]" * 1500)
    yield "NaN in json", "holds NaN", make_file(b'{"bias": NaN}')
    yield "endless number", "not JSON", make_file(b'{"bias": ' + b"9" * 200 + b"e}")
    twice = json.dumps(GOOD)[:-1] + ', "bias": ' + json.dumps(GOOD["bias"]) + "}"
    yield "name twice", "names something twice", make_file(twice.encode())
    yield "field twice", "names something twice", make_file(b'{"bias":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}')
    yield "unprintable name", "not printable", make_file({**GOOD, "a\nb": GOOD["bias"]})
    yield "long name", "longer than 200", make_file({"n" * 201: GOOD["bias"]})
    yield "tensor is a number", "not described by", make_file({**GOOD, "bias": 1})
    yield "unknown field", "not described by", make_file(with_tensor("bias", code="os"))
    yield "unknown type", "type that is not allowed", make_file(with_tensor("bias", dtype="C64"))
    yield "type is a list", "type that is not allowed", make_file(with_tensor("bias", dtype=["F32"]))


def _bad_layouts() -> Iterator[tuple[str, str, bytes]]:
    yield "negative size", "list of at most 8 sizes", make_file(with_tensor("bias", shape=[-2]))
    yield "size is true", "list of at most 8 sizes", make_file(with_tensor("bias", shape=[True, 2]))
    yield "size is a float", "list of at most 8 sizes", make_file(with_tensor("bias", shape=[2.0]))
    yield "huge size", "list of at most 8 sizes", make_file(with_tensor("bias", shape=[2**60]))
    yield "nine dimensions", "list of at most 8 sizes", make_file(with_tensor("bias", shape=[1] * 9))
    yield "huge product", "needs", make_file(with_tensor("bias", shape=[2**40, 2**40]))
    yield "three offsets", "begin and an end", make_file(with_tensor("bias", data_offsets=[0, 4, 8]))
    yield "backwards", "begin and an end", make_file(with_tensor("bias", data_offsets=[8, 0]))
    yield "overlap", "overlap or leave a gap", make_file(with_tensor("steps", data_offsets=[4, 12]))
    yield "gap", "overlap or leave a gap", make_file(with_tensor("steps", data_offsets=[9, 17]))
    yield "out of range", "but the file has", make_file(GOOD, GOOD_BYTES[:-1])
    yield "trailing byte", "but the file has", make_file(GOOD, GOOD_BYTES + b"\0")
    yield "shape larger than bytes", "needs 12", make_file(with_tensor("bias", shape=[3]))


def _wrong_models() -> Iterator[tuple[str, str, bytes]]:
    missing = {"bias": GOOD["bias"], "steps": GOOD["steps"]}
    yield "missing", "'mask': local has BOOL [4], remote lacks it", make_file(missing, GOOD_BYTES[:16])
    extra = {**GOOD, "x": {"dtype": "U8", "shape": [0], "data_offsets": [20, 20]}}
    yield "one too many", "'x' that the session's models do not have", make_file(extra)
    yield "other shape", "local has F32 [2], remote has F32 [1, 2]", make_file(with_tensor("bias", shape=[1, 2]))
    yield "other type", "local has F32 [2], remote has I32 [2]", make_file(with_tensor("bias", dtype="I32"))
    yield "NaN", "'bias' holds NaN or infinity", make_file(GOOD, struct.pack("<ff", 1.5, float("nan")) + GOOD_BYTES[8:])
    yield "infinity", "'bias' holds NaN or infinity", make_file(GOOD, struct.pack("<ff", float("-inf"), 1.0) + GOOD_BYTES[8:])
    yield "bool of 2", "BOOL but holds bytes other", make_file(GOOD, GOOD_BYTES[:-1] + b"\2")
