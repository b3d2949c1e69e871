"""The averaging step (paper, sections 1 and 4.1)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnae.errors import ModelMismatchError
from learnae.learning.reduce import REDUCERS, average_models
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
