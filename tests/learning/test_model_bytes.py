"""Models as bytes: what is accepted, and the corpus of what is not (threats.md, hostile models)."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load

from learnae.errors import LearningError, ModelMismatchError, ModelRejectedError
from learnae.learning.checks import check_model
from learnae.learning.codec import decode_tensors, encode_tensors
from learnae.learning.header import HEADER_BYTES_MAX, TENSORS_MAX, HeaderError, read_header, read_manifest
from learnae.learning.process import find_import_path
from tests.learning.hostile import GOOD, GOOD_BYTES, hostile_models, make_file

MANIFEST = replace(read_manifest(make_file(GOOD)), file_bytes=4000)
"""Of the small good model, with room for what each hostile file adds, so that its own fault is what is found."""
CORPUS = list(hostile_models())
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@pytest.mark.parametrize(("words", "content"), [item[1:] for item in CORPUS], ids=[item[0] for item in CORPUS])
def test_check_model__hostile_file_is_rejected_with_its_reason(words: str, content: bytes) -> None:
    with pytest.raises(ModelRejectedError) as caught:
        check_model(content, MANIFEST)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_check_model__good_file_passes_also_with_metadata() -> None:
    assert list(check_model(make_file(GOOD), MANIFEST)) == ["bias", "steps", "mask"]
    roomy = read_manifest(make_file({**GOOD, "__metadata__": {"format": "pt", "written": "by somebody else's program"}}))
    check_model(make_file({**GOOD, "__metadata__": {"format": "pt"}}), roomy)


def test_check_model__two_percent_larger_is_allowed_and_more_is_not() -> None:
    """protocol.md, limits: a model may be 2 % larger than the session's manifest says."""

    def padded(size: int) -> bytes:
        text = json.dumps(header).encode()
        return make_file(text + b" " * size, bytes(8000))

    header = {"w": {"dtype": "U8", "shape": [8000], "data_offsets": [0, 8000]}}
    manifest = read_manifest(padded(0))
    room = manifest.file_bytes_max - manifest.file_bytes
    assert room == manifest.file_bytes * 2 // 100

    check_model(padded(room), manifest)
    with pytest.raises(ModelRejectedError, match="at most"):
        check_model(padded(room + 1), manifest)


def test_read_header__too_many_tensors_are_rejected() -> None:
    def count(number: int) -> dict[str, object]:
        return {str(index): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for index in range(number)}

    assert len(read_header(make_file(count(TENSORS_MAX), b""))) == TENSORS_MAX
    with pytest.raises(HeaderError, match="holds 513 tensors, at most 512"):
        read_header(make_file(count(TENSORS_MAX + 1), b""))


def test_read_header__nothing_is_allocated_for_what_a_header_merely_claims() -> None:
    """threats.md: never over 4 times the input in memory."""
    deep = b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    huge = make_file({"w": {"dtype": "F64", "shape": [2**47], "data_offsets": [0, 2**47 * 8 - 1]}}, b"")
    assert len(deep) < HEADER_BYTES_MAX

    tracemalloc.start()
    for content in (make_file(deep, b""), huge):
        with pytest.raises(HeaderError):
            read_header(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * len(deep)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_check_model__random_bytes_never_do_anything_but_reject(noise: bytes, place: int) -> None:
    good = make_file(GOOD)
    for content in (noise, good[:place] + noise, good[:place] + noise + good[place + len(noise) :]):
        try:
            header = check_model(content, MANIFEST)
        except LearningError:
            continue
        assert {name: (spec.dtype, spec.shape) for name, spec in header.items()} == {
            name: (spec.dtype, spec.shape) for name, spec in MANIFEST.tensors.items()
        }


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=6), st.integers(0, 2**32))
def test_codec__tensors_come_back_equal_and_bytes_are_canonical(plan: list[tuple[torch.dtype, list[int]]], seed: int) -> None:
    order = torch.Generator().manual_seed(seed)
    state = {f"t{index}": (torch.randn(shape, generator=order) * 3).to(dtype) for index, (dtype, shape) in enumerate(plan)}

    content = encode_tensors(state)
    decoded = decode_tensors(content, check_model(content, read_manifest(content)))

    assert encode_tensors(dict(reversed(state.items()))) == content
    assert decoded.keys() == state.keys()
    for name, tensor in state.items():
        assert decoded[name].dtype == tensor.dtype and torch.equal(decoded[name], tensor)
    assert all(torch.equal(tensor, decoded[name]) for name, tensor in load(content).items()), "the library reads the same"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_check_model__one_bad_value_anywhere_is_found(dtype: torch.dtype, value: float) -> None:
    """threats.md: no NaN spreads."""
    tensor = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    manifest = read_manifest(encode_tensors({"w": tensor}))
    check_model(encode_tensors({"w": tensor}), manifest)
    check_model(encode_tensors({"w": -tensor}), manifest)
    tensor[1, 2] = value

    with pytest.raises(ModelRejectedError, match="'w' holds NaN or infinity"):
        check_model(encode_tensors({"w": tensor}), manifest)


def test_decode_tensors__own_their_memory() -> None:
    """A decoded model can be trained in place without writing into the bytes it came from."""
    content = encode_tensors({"w": torch.ones(3)})
    decoded = decode_tensors(content, read_header(content))
    decoded["w"] += 1

    assert torch.equal(decode_tensors(content, read_header(content))["w"], torch.ones(3))


def test_encode_tensors__tied_weights_are_written_once_per_name() -> None:
    shared = torch.ones(3)

    assert read_header(encode_tensors({"a": shared, "b": shared})).keys() == {"a", "b"}


def test_errors__say_what_was_got_and_expected() -> None:
    error = ModelMismatchError("fc.weight", [2, 3], None)
    assert str(error) == "cannot average parameter 'fc.weight': local has [2, 3], remote lacks it; the architectures differ"
    again = ModelMismatchError.from_text(str(error))
    assert type(again) is ModelMismatchError and str(again) == str(error)


def test_checks__need_no_torch_and_headers_need_no_numpy() -> None:
    """A node checks and transports models without loading torch."""
    script = (
        "import sys, learnae.learning.process, learnae.learning.header, learnae.learning.synthetic, learnae.learning.immediate\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()\n"
        "import learnae.learning.checks\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env={**os.environ, "PYTHONPATH": find_import_path()})


def test_good_file__is_what_the_library_writes_too(tmp_path: object) -> None:
    path = f"{tmp_path}/model.safetensors"
    with open(path, "wb") as file:
        file.write(make_file(GOOD))
    with safe_open(path, framework="numpy") as opened:
        assert np.array_equal(opened.get_tensor("bias"), np.array(struct.unpack("<ff", GOOD_BYTES[:8]), np.float32))
