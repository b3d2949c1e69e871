"""Compressed models: what is kept, what is refused, and what a learner goes on from (docs/compression.md)."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from learnae.errors import ModelMismatchError, ModelRejectedError, TaskError
from learnae.learning.check import check_task
from learnae.learning.codec import StateDict, encode_tensors
from learnae.learning.compressed import BLOCK_CODECS, BlockLayout
from learnae.learning.header import read_header, read_manifest
from learnae.learning.inline import InlineLearner
from learnae.learning.model_files import EXACT_MAX, ModelFiles
from learnae.learning.reduce import average_models, is_between
from learnae.protocol.rules import AUDITABLE_CODECS, MODEL_CODECS
from tests.learning.tasks import LINES, SLICE_BYTES, WIDE, make_config, write_task

LOSSY = tuple(codec for codec in MODEL_CODECS if codec != "raw")


def make_state(seed: int, *, around: StateDict | None = None) -> StateDict:
    """A model with two matrices, a vector, a counter and a mask; near another one, if given."""
    rng = torch.Generator().manual_seed(seed)
    state = {
        "a.weight": torch.randn(40, 30, generator=rng),
        "b.weight": torch.randn(7, 40, generator=rng, dtype=torch.float64).to(torch.float16),
        "b.bias": torch.rand(7, generator=rng),
    }
    if around is not None:
        state = {name: (around[name].float() + 0.1 * tensor.float()).to(tensor.dtype) for name, tensor in state.items()}
    return {**state, "seen": torch.tensor(seed), "mask": torch.tensor([True, False])}


INITIAL = make_state(1)
INITIAL_FILE = encode_tensors(INITIAL)
STATE = make_state(2, around=INITIAL)


def make_files(codec: str, initial: bytes = INITIAL_FILE) -> ModelFiles:
    files = ModelFiles("task", codec, read_manifest(INITIAL_FILE))
    files.set_initial(initial)
    return files


@pytest.mark.parametrize("codec", LOSSY)
def test_model_files__what_is_written_is_read_by_others_with_its_names_shapes_and_types(codec: str) -> None:
    content = make_files(codec).write(STATE)
    read = make_files(codec).read(content)

    assert {name: (t.dtype, t.shape) for name, t in read.items()} == {name: (t.dtype, t.shape) for name, t in STATE.items()}
    for name in ("seen", "mask"):
        assert torch.equal(read[name], STATE[name])
    if codec != "float16":
        assert torch.equal(read["b.bias"], STATE["b.bias"]), "vectors travel exactly: a variance must not become negative"
    off = (read["a.weight"] - STATE["a.weight"]).norm() / (STATE["a.weight"] - INITIAL["a.weight"]).norm()
    assert off < {"float16": 0.01, "int8": 0.1, "delta8": 0.01, "delta4": 0.3, "delta2": 0.5}[codec]
    assert len(content) < len(INITIAL_FILE) * {"float16": 0.6, "int8": 0.45, "delta8": 0.45, "delta4": 0.3, "delta2": 0.25}[codec]


@pytest.mark.parametrize("codec", LOSSY)
def test_model_files__the_initial_model_is_read_raw_and_no_other_raw_file_is(codec: str) -> None:
    files = make_files(codec)

    assert torch.equal(files.read(INITIAL_FILE)["a.weight"], INITIAL["a.weight"])
    with pytest.raises(ModelRejectedError):
        files.read(encode_tensors(STATE))


def test_model_files__error_feedback__own_models_go_on_in_full_precision_and_old_ones_from_the_file() -> None:
    files = make_files("delta2")
    contents = [files.write(make_state(seed, around=INITIAL)) for seed in range(2, 3 + EXACT_MAX)]

    for seed, content in list(enumerate(contents, start=2))[1:]:
        assert torch.equal(files.read_own(content)["a.weight"], make_state(seed, around=INITIAL)["a.weight"])
        assert not torch.equal(files.read(content)["a.weight"], files.read_own(content)["a.weight"])
    assert torch.equal(files.read_own(contents[0])["a.weight"], files.read(contents[0])["a.weight"]), "forgotten"


def test_model_files__error_feedback__small_steps_are_not_rounded_away_for_ever() -> None:
    """A step that one file cannot show is kept by its author and shows in a later one."""
    files, step = make_files("int8"), 2e-4
    model, state = files.write(STATE), STATE
    for _ in range(100):
        state = files.read_own(model)
        state["a.weight"] = state["a.weight"] + step
        model = files.write(state)

    moved = (files.read(model)["a.weight"] - STATE["a.weight"]).mean().item()
    assert moved == pytest.approx(100 * step, rel=0.1)


def test_model_files__a_model_too_small_for_a_codec_is_refused_at_the_start() -> None:
    tiny = encode_tensors({"w": torch.ones(2, 2)})
    with pytest.raises(TaskError, match=r"too small for the codec delta4: a file could have .* use the codec raw"):
        ModelFiles("task", "delta4", read_manifest(tiny))
    ModelFiles("task", "raw", read_manifest(tiny))


def change(name: str, tensor: torch.Tensor | None) -> Callable[[StateDict], StateDict]:
    def spoil(tensors: StateDict) -> StateDict:
        return {key: value for key, value in {**tensors, name: tensor}.items() if value is not None}

    return spoil


def scales(value: float) -> Callable[[StateDict], StateDict]:
    return lambda tensors: {**tensors, "scales": torch.full_like(tensors["scales"], value)}


HOSTILE: list[tuple[str, str, Callable[[StateDict], StateDict]]] = [
    ("NaN scale", "'scales' holds NaN or infinity", scales(float("nan"))),
    ("infinite scale", "'scales' holds NaN or infinity", scales(float("inf"))),
    ("negative scale", "one of its scales is negative", scales(-1.0)),
    ("huge scale", "not finite once its codes are multiplied", scales(3e38)),
    ("scales of another type", "'scales'", lambda t: {**t, "scales": t["scales"].half()}),
    ("too few scales", "'scales'", lambda t: {**t, "scales": t["scales"][:-1].clone()}),
    ("no scales", "'scales': local has BF16 [7], remote lacks it", change("scales", None)),
    ("wrong ancestor", "differences from model 0707070707070707..., expected", change("ancestor", torch.full((32,), 7, dtype=torch.uint8))),
    ("short ancestor", "'ancestor'", change("ancestor", torch.zeros(31, dtype=torch.uint8))),
    ("no ancestor", "'ancestor'", change("ancestor", None)),
    ("no codes", "its codes are nothing", change("codes", None)),
    ("codes in two dimensions", "its codes are U8 [2, 3]", change("codes", torch.zeros(2, 3, dtype=torch.uint8))),
    ("codes of another type", "its codes are I8 [4]", change("codes", torch.zeros(4, dtype=torch.int8))),
    ("codes that are no stream", "not a deflated stream", change("codes", torch.full((64,), 1, dtype=torch.uint8))),
    ("a bomb", "do not inflate to exactly", change("codes", torch.tensor(list(zlib.compress(bytes(300_000))), dtype=torch.uint8))),
    ("too many bytes", "at most", change("codes", torch.zeros(9000, dtype=torch.uint8))),
    ("one too many", "that the session's models do not have", change("more", torch.zeros(1))),
    ("NaN in a vector", "'exact:b.bias' holds NaN", lambda t: {**t, "exact:b.bias": t["exact:b.bias"] * float("nan")}),
    ("vector of another shape", "'exact:b.bias'", lambda t: {**t, "exact:b.bias": t["exact:b.bias"][:3].clone()}),
]


@pytest.mark.parametrize(("words", "spoil"), [item[1:] for item in HOSTILE], ids=[item[0] for item in HOSTILE])
def test_model_files__hostile_file_is_rejected_with_its_reason(words: str, spoil: Callable[[StateDict], StateDict]) -> None:
    files = make_files("delta8")
    good = files.write(STATE)
    files.read(good)

    with pytest.raises(ModelRejectedError) as caught:
        files.read(encode_tensors(spoil(load(good))))
    assert words in str(caught.value) and len(str(caught.value)) < 600


def test_model_files__delta_to_another_initial_model_is_rejected() -> None:
    other = encode_tensors(make_state(9))
    content = make_files("delta4", other).write(STATE)

    with pytest.raises(ModelRejectedError, match=f"expected the session's initial model {hashlib.sha256(INITIAL_FILE).hexdigest()[:16]}"):
        make_files("delta4").read(content)


def test_model_files__initial_model_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelMismatchError):
        make_files("int8", encode_tensors({**INITIAL, "a.weight": torch.ones(30, 40)}))


def test_layout__nothing_large_is_allocated_for_a_bomb() -> None:
    """A stream that would inflate to 10 MB is stopped at the size that the manifest gives."""
    layout = BlockLayout(BLOCK_CODECS["delta8"], read_manifest(INITIAL_FILE))
    bomb = zlib.compress(bytes(10_000_000), 9)
    content = encode_tensors({**load(make_files("delta8").write(STATE)), "codes": torch.frombuffer(bytearray(bomb), dtype=torch.uint8)})
    assert len(content) > layout.file_bytes_max
    files = ModelFiles("task", "delta8", read_manifest(INITIAL_FILE))
    files.set_initial(INITIAL_FILE)
    tracemalloc.start()
    try:
        with pytest.raises(ModelRejectedError, match="at most"):
            files.read(content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_block_files__any_changed_byte_is_refused_or_a_finite_model() -> None:
    files = make_files("delta2")
    good = files.write(STATE)
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(good), 300):
        broken = bytearray(good)
        broken[place] ^= int(rng.integers(1, 256))
        try:
            read = files.read(bytes(broken))
        except ModelRejectedError:
            continue
        assert all(bool(torch.isfinite(tensor).all()) for tensor in read.values() if tensor.is_floating_point())


# --- through a learner ------------------------------------------------------------------------------------------


def open_pair(folder: Path, codec: str) -> tuple[InlineLearner, InlineLearner, bytes]:
    config = replace(make_config(folder, text=WIDE), codec=codec)
    first, second = InlineLearner(config), InlineLearner(config)
    first.open()
    second.open()
    initial = first.initial_model(1)
    first.set_initial(initial)
    second.set_initial(initial)
    return first, second, initial


@pytest.mark.parametrize("codec", LOSSY)
def test_learner__what_it_claims_is_what_others_measure_in_its_file(tmp_path: Path, codec: str) -> None:
    """The evaluation is of the file as it travels, so an announcement is true for whoever fetches it."""
    ours, theirs, initial = open_pair(tmp_path, codec)
    own = range(ours.private_slices)
    model, claimed = ours.train(initial, private_slices=own, slices=(), seed=1)
    other, _ = theirs.train(initial, private_slices=own, slices=(), seed=2)
    average, averaged, remote = ours.average(model, other, remote_share=0.5)

    assert theirs.evaluate(model, reference=initial) == claimed
    assert theirs.evaluate(average, reference=model) == averaged
    assert theirs.evaluate(other, reference=model) == remote
    assert max(map(len, (model, other, average))) < len(initial)


def test_learner__full_precision_that_it_remembers_is_not_changed_by_what_it_does_next(tmp_path: Path) -> None:
    ours, _, initial = open_pair(tmp_path, "delta8")
    model, _ = ours.train(initial, private_slices=range(ours.private_slices), slices=(), seed=1)
    exact = {name: tensor.clone() for name, tensor in ours.files.read_own(model).items()}

    ours.evaluate(initial, reference=None)
    ours.train(model, private_slices=range(ours.private_slices), slices=(), seed=2)

    assert all(torch.equal(tensor, exact[name]) for name, tensor in ours.files.read_own(model).items())
    assert not torch.equal(ours.files.read(model)["0.weight"], exact["0.weight"])


def test_task_check__tells_what_each_codec_makes_of_the_model(tmp_path: Path) -> None:
    wide, tiny = (check_task(write_task(tmp_path, text), "mine", slice_bytes=SLICE_BYTES, device="cpu") for text in (WIDE, LINES))

    found = next(line for line in wide.lines if line.startswith("compressed it would travel as float16 "))
    sizes = {codec: int(size) for codec, size in re.findall(r"(\w+) (\d+) bytes, accuracy [01]\.\d{3}", found)}
    assert list(sizes) == list(LOSSY)
    assert sizes["delta2"] < sizes["delta4"] < sizes["delta8"]
    assert any("delta2 (the model is too small for it)" in line for line in tiny.lines)


@pytest.mark.parametrize("codec", ["raw", "float16", "int8", "delta8"])
def test_recount__rounded_models_count_as_derived_and_others_do_not(tmp_path: Path, codec: str) -> None:
    """docs/audits.md: the tolerance follows the codec's step, and no further."""
    ours, theirs, initial = open_pair(tmp_path, codec)
    own = range(ours.private_slices)
    before, _ = ours.train(initial, private_slices=own, slices=(), seed=1)
    remote, _ = theirs.train(initial, private_slices=own, slices=(), seed=2)
    after, evaluation, _ = ours.average(before, remote, remote_share=0.5)
    unrelated, _ = ours.train(before, private_slices=own, slices=(), seed=3)
    validation, _ = ours.read_validation(bytes(16))

    found = theirs.recount(before, after, remote, validation)

    assert found.derives and found.correct_after == evaluation.correct
    assert not theirs.recount(before, unrelated, remote, validation).derives


# --- audits -----------------------------------------------------------------------------------------------------


def make_typed(seed: int, dtype: torch.dtype, *, apart: float = 0.05) -> StateDict:
    """Models of one type around the same weights: with a block of zeros, tiny numbers, and variances above 65,504 if the type has them."""
    rng, base = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    weights = torch.randn(20, 256, generator=base) + apart * torch.randn(20, 256, generator=rng, dtype=torch.float64)
    weights[0], weights[1], weights[2] = 0.0, weights[1] * 1e-6, weights[2] * 2.0**-126
    large = 1.0 if dtype is torch.float16 else 2e5
    return {"w": weights.to(dtype), "variance": (large * torch.rand(9, generator=rng)).to(dtype), "seen": torch.tensor(seed)}


def open_typed(codec: str, initial: StateDict) -> ModelFiles:
    files = ModelFiles("task", codec, read_manifest(encode_tensors(initial)))
    files.set_initial(encode_tensors(initial))
    return files


def judge(files: ModelFiles, before: bytes, after: bytes, remote: bytes) -> bool:
    """As a juror does, who has but the three files."""
    states = [files.read(model) for model in (before, after, remote)]
    return is_between(*states, slacks=[files.compute_slack(before, states[0]), files.compute_slack(after, states[1])])


@pytest.mark.parametrize("apart", [0.05, 1e-3, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("codec", AUDITABLE_CODECS)
def test_audit__honest_averages_are_derived_in_every_type_and_from_files_alone(codec: str, dtype: torch.dtype, apart: float) -> None:
    """docs/audits.md, Tolerance: also of models that are as near as their rounding, and by a node that was started again."""
    ours, jurors = (open_typed(codec, make_typed(1, dtype, apart=apart)) for _ in range(2))
    before, remote = ours.write(make_typed(2, dtype, apart=apart)), jurors.write(make_typed(3, dtype, apart=apart))
    for share in (0.1, 0.5, 0.9, 1.0):
        for local in (ours.read_own(before), jurors.read(before)):
            after = ours.write(average_models(local, ours.read(remote), remote_share=share))
            assert judge(jurors, before, after, remote)
        assert not judge(jurors, before, ours.write(make_typed(4, dtype)), remote), "models trained alone are not"


def forge(model: bytes, begin: int, bits: bytes) -> bytes:
    place = read_header(model)["scales"].begin + begin
    return model[:place] + bits + model[place + len(bits) :]


@pytest.mark.parametrize("codec", ["int8", "delta8"])
@pytest.mark.parametrize("scale", [b"\x00\x7f", b"\x80\x3f", b"\x01\x00"], ids=["1.7e38", "1", "1e-40"])
def test_audit__trick__a_block_of_zeros_with_a_scale_is_refused(codec: str, scale: bytes) -> None:
    """The scale of zeros changes no value, and would excuse all others."""
    initial = make_typed(1, torch.float32)
    files = open_typed(codec, initial)
    unrelated = make_typed(4, torch.float32)
    unrelated["w"][0] = initial["w"][0]  # Zeros for both codecs.
    model = files.write(unrelated)
    files.read(model)

    with pytest.raises(ModelRejectedError, match="block 0 of 'w' has a scale that no value needs"):
        files.read(forge(model, 0, scale))


@pytest.mark.parametrize("codec", ["int8", "delta8"])
def test_audit__trick__a_wide_step_beside_small_codes_is_refused(codec: str) -> None:
    """A step a hundred times too wide: the codes are a hundredth, the values about the same, the rounding a hundred times larger."""
    files = open_typed(codec, make_typed(1, torch.float32))
    layout = BlockLayout(BLOCK_CODECS[codec], read_manifest(encode_tensors(make_typed(1, torch.float32))))
    tensors = load(files.write(make_typed(2, torch.float32)))
    quantiser = layout.codec.quantiser
    codes = quantiser.unpack(bytes(tensors["codes"].numpy()), 20 * 256)
    tensors["codes"] = torch.frombuffer(bytearray(quantiser.pack((codes // 100).astype(np.int8))), dtype=torch.uint8)
    tensors["scales"] = tensors["scales"] * 100

    with pytest.raises(ModelRejectedError, match="has a scale that no value needs"):
        files.read(encode_tensors(tensors))


@pytest.mark.parametrize("codec", ["int8", "delta8"])
@pytest.mark.parametrize("in_before", [False, True], ids=["in the new model", "in both"])
def test_audit__trick__a_huge_value_in_a_block_excuses_no_other_block(codec: str, *, in_before: bool) -> None:
    """The huge value needs its scale, so the file is read; but the value must lie on the line too, and helps its own block only."""
    files = open_typed(codec, make_typed(1, torch.float32))
    mine, unrelated, remote = (make_typed(seed, torch.float32) for seed in (2, 4, 3))
    for state in (unrelated, mine) if in_before else (unrelated,):
        state["w"][5, 7] = 1e6

    assert not judge(files, files.write(mine), files.write(unrelated), files.write(remote))


@pytest.mark.parametrize("value", [65_504.0, -65_504.0, 1e30])
def test_audit__trick__float16__large_biases_excuse_no_weights(value: float) -> None:
    """A unit that is never on may have any bias; its last digit is worth more than a whole weight."""
    files = open_typed("float16", make_typed(1, torch.float32))
    mine, unrelated, remote = (make_typed(seed, torch.float32) for seed in (2, 4, 3))
    for state in (mine, unrelated):
        state["variance"] = torch.full_like(state["variance"], value)
    before, theirs = files.write(mine), files.write(remote)
    mean = average_models(mine, files.read(theirs), remote_share=0.5)
    unrelated["variance"] = mean["variance"]

    assert judge(files, before, files.write(mean), theirs)
    assert not judge(files, before, files.write(unrelated), theirs)


def test_float16__a_tensor_beyond_its_range_travels_as_it_is_and_no_other_may() -> None:
    files = open_typed("float16", make_typed(1, torch.float32))
    state = make_typed(2, torch.float32)
    state["variance"][3] = 2e5
    content = files.write(state)

    assert {name: spec.dtype for name, spec in read_header(content).items()} == {"w": "F16", "variance": "F32", "seen": "I64"}
    assert torch.equal(files.read(content)["variance"], state["variance"])
    state["variance"][:] = 65_504.0
    assert read_header(files.write(state))["variance"].dtype == "F16"
    with pytest.raises(ModelRejectedError, match="'variance' travels as F32 though float16 can hold it, expected F16"):
        files.read(encode_tensors({**state, "w": state["w"].half()}))
    with pytest.raises(ModelMismatchError):
        files.read(encode_tensors({**state, "w": state["w"].bfloat16()}))
