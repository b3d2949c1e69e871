"""The averaging step (paper, sections 1 and 4.1)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnae.errors import ModelMismatchError
from learnae.learning.codec import StateDict
from learnae.learning.reduce import REDUCERS, average_models, is_between
from learnae.protocol import rules

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_average__is_the_mean_and_changes_neither_input() -> None:
    """Section 4.1: all local parameters are averaged with their corresponding ones from a remote model."""
    local, remote = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}

    assert average_models(local, remote, remote_share=0.5)["w"].tolist() == [0.5, 3.0]
    assert average_models(local, remote, remote_share=0.25)["w"].tolist() == [0.25, 2.5]
    assert local["w"].tolist() == [0.0, 2.0] and remote["w"].tolist() == [1.0, 4.0]


@given(FINITE, FINITE, st.floats(0, 1))
def test_average__stays_between_and_is_symmetric(ours: float, theirs: float, share: float) -> None:
    local, remote = {"w": torch.tensor([ours])}, {"w": torch.tensor([theirs])}

    mean = average_models(local, remote, remote_share=share)["w"]

    assert min(ours, theirs) <= mean.item() <= max(ours, theirs)
    half = average_models(local, remote, remote_share=0.5)["w"]
    assert torch.equal(half, average_models(remote, local, remote_share=0.5)["w"])
    assert torch.equal(average_models(local, local, remote_share=0.5)["w"], local["w"])


def test_average__largest_values_do_not_overflow() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        most = {"w": torch.full((2,), torch.finfo(dtype).max, dtype=dtype)}
        mean = average_models(most, most, remote_share=0.5)["w"]
        assert mean.dtype is dtype and torch.equal(mean, most["w"])


def test_average__counters_keep_the_larger_and_masks_stay_local() -> None:
    """A count of batches seen has no mean: 3 and 6 do not make 4.5."""
    local = {"seen": torch.tensor(3), "mask": torch.tensor([True, False])}
    remote = {"seen": torch.tensor(6), "mask": torch.tensor([False, True])}

    assert average_models(local, remote, remote_share=0.5)["seen"].item() == 6
    assert average_models(remote, local, remote_share=0.5)["seen"].item() == 6
    assert average_models(local, remote, remote_share=0.5)["mask"].tolist() == [True, False]


def test_average__other_architecture_is_refused() -> None:
    with pytest.raises(ModelMismatchError, match=r"'w': local has \[2\], remote has \[3\]; the architectures differ"):
        average_models({"w": torch.ones(2)}, {"w": torch.ones(3)}, remote_share=0.5)
    with pytest.raises(ModelMismatchError, match=r"'w': local has \[2\], remote lacks it"):
        average_models({"w": torch.ones(2)}, {}, remote_share=0.5)
    with pytest.raises(ModelMismatchError, match=r"'w': local has None, remote has \[2\]"):
        average_models({}, {"w": torch.ones(2)}, remote_share=0.5)


def test_reducers__every_name_that_rules_allow_is_there() -> None:
    assert set(rules.REDUCERS) == set(REDUCERS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0,), (3, 7), (401, 499)])
def test_average__of_any_size_and_dtype_is_that_in_doubles(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Large tensors are averaged in pieces: the values are the same, and the inputs, also transposed ones, stay as they were."""
    ours, theirs = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2))
    if len(shape) == 2:
        ours = ours.t().contiguous().t()
    before = ours.clone(), theirs.clone()
    (mean,) = average_models({"w": ours}, {"w": theirs}, remote_share=0.3).values()
    assert torch.equal(mean, (ours.double() * 0.7 + theirs.double() * 0.3).to(dtype))
    assert torch.equal(ours, before[0])
    assert torch.equal(theirs, before[1])


# --- was it made so? (docs/audits.md) ----------------------------------------------------------------------------

FLOAT_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def make_models(dtype: torch.dtype = torch.float32, *, apart: float = 1.0) -> tuple[StateDict, StateDict, StateDict]:
    """Before, after at a share of a quarter, and remote: a matrix, a vector with large and tiny numbers, a counter, a mask."""
    rng = torch.Generator().manual_seed(1)
    models = []
    for seen in (5, 3):
        ends = torch.tensor([3e4, 1e-7, 0.0, -3e4], dtype=torch.float64) * (1 + torch.rand(4, generator=rng, dtype=torch.float64))
        w = torch.ones(30, 40) + apart * torch.randn(30, 40, generator=rng)
        models.append({"w": w.to(dtype), "v": ends.to(dtype), "seen": torch.tensor(seen), "mask": torch.tensor([seen == 5, False])})
    before, remote = models
    return before, average_models(before, remote, remote_share=0.25), remote


@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_is_between__a_mean_is_found_in_every_type_also_of_models_that_hardly_differ(dtype: torch.dtype, apart: float) -> None:
    before, after, remote = make_models(dtype, apart=apart)

    assert is_between(before, after, remote)
    for share in (1 / 3, 0.5, 1.0):
        assert is_between(before, average_models(before, remote, remote_share=share), remote)


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_is_between__one_value_off_by_two_of_its_last_digits_is_seen(dtype: torch.dtype) -> None:
    before, after, remote = make_models(dtype)
    place = int((before["w"] - remote["w"]).abs().argmin())  # Where the share explains least.
    value = after["w"].flatten()[place]
    off = value + 4 * torch.finfo(dtype).eps * max(before["w"].flatten()[place].abs(), remote["w"].flatten()[place].abs())
    if dtype is torch.float64:
        off = value * (1 + 1e-13)

    assert not is_between(before, {**after, "w": torch.where(after["w"] == value, off, after["w"])}, remote)


@pytest.mark.parametrize("large", [1e6, 1e30])
def test_is_between__large_values_that_do_nothing_excuse_no_other_value(large: float) -> None:
    """A bias of -1e30 on a unit that is never on makes two models far apart; the weights must still be a mean."""
    before, after, remote = make_models()
    before["v"] = torch.full((4,), -large)
    after["v"] = before["v"] * 0.75 + remote["v"] * 0.25
    assert is_between(before, after, remote)

    rng = torch.Generator().manual_seed(2)
    assert not is_between(before, {**after, "w": torch.randn(30, 40, generator=rng)}, remote)


def test_is_between__shares_up_to_one_and_the_same_for_all_values() -> None:
    before, after, remote = make_models()

    def mix(share: float) -> StateDict:
        return {**after, **{name: torch.lerp(before[name].double(), remote[name].double(), share).float() for name in ("w", "v")}}

    assert is_between(before, mix(0.9), remote)
    assert not is_between(before, mix(-0.1), remote) and not is_between(before, mix(1.1), remote)
    assert not is_between(before, before, remote), "nothing of the helper is in it"
    assert not is_between(before, {**mix(0.25), "v": mix(0.5)["v"]}, remote)
    assert not is_between(before, after, before), "only what the two models differ in can have moved"


def test_is_between__counters_and_masks_follow_the_mean_too() -> None:
    before, after, remote = make_models()

    assert not is_between(before, {**after, "seen": torch.tensor(6)}, remote)
    assert not is_between(before, {**after, "mask": remote["mask"]}, remote)


def test_is_between__a_codec_explains_what_it_moved_and_only_there() -> None:
    before, after, remote = make_models()
    moved = {**after, "w": after["w"] + 0.01}
    slack = {"w": torch.full((30, 40), 0.006, dtype=torch.float64)}

    assert not is_between(before, moved, remote) and not is_between(before, moved, remote, slacks=[slack])
    assert is_between(before, moved, remote, slacks=[slack, slack])
    assert not is_between(before, {**moved, "v": after["v"] * 1.001}, remote, slacks=[slack, slack])


def test_is_between__numbers_that_overflow_are_no_mean() -> None:
    most = torch.finfo(torch.float64).max
    before, remote = ({"w": torch.tensor([value], dtype=torch.float64)} for value in (most, -most))

    assert not is_between(before, {"w": torch.tensor([5.0], dtype=torch.float64)}, remote)
