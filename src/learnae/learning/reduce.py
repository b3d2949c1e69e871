"""The averaging step, replaceable: two models in, one out (paper, section 1: "any other way of reducing data among a pair of nodes").

`mean` is the paper's. To add another, write a function of the same shape, put it into `REDUCERS`, and its name into
`protocol.rules.REDUCERS` so that sessions can choose it. Source: LEARNAE DAO paper, sections 1 and 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Protocol

import torch

from learnae.errors import ModelMismatchError
from learnae.learning.codec import StateDict


class Reducer(Protocol):
    def __call__(self, local: StateDict, remote: StateDict, *, remote_share: float) -> StateDict: ...


def average_models(local: StateDict, remote: StateDict, *, remote_share: float) -> StateDict:
    """Average two models parameter by parameter; neither input changes.

    Whole numbers are counters (such as the batches that a normalisation has seen): the larger one is kept. Booleans stay local.

    Args:
        local, remote: name -> tensor, equal names and shapes on both sides, e.g. "fc.weight": float32 (classes, features).
        remote_share: weight of `remote` in the mean, 0 to 1; the paper uses 0.5.
    Returns: a new state dict with the names, dtypes and device of `local`.
    Raises: ModelMismatchError: a name or shape differs, so the architectures do.
    Source: LEARNAE DAO paper, section 4.1.
    """
    assert 0 <= remote_share <= 1
    for name in local.keys() | remote.keys():
        ours, theirs = local.get(name), remote.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise ModelMismatchError(name, None if ours is None else list(ours.shape), None if theirs is None else list(theirs.shape))
    return {name: _average(ours, remote[name].to(ours.device), remote_share) for name, ours in local.items()}


def _average(ours: torch.Tensor, theirs: torch.Tensor, share: float) -> torch.Tensor:
    if ours.is_floating_point():  # In doubles: the mean of equals is the same again, and nothing overflows.
        return (ours.double() * (1 - share) + theirs.double() * share).to(ours.dtype)
    if ours.dtype is torch.bool:
        return ours.clone()
    return torch.maximum(ours, theirs.to(ours.dtype))


DERIVED_TOLERANCE: Final = 1e-3  # Of the distance between the two models: machines round float32 differently in the seventh digit.


def is_between(before: StateDict, after: StateDict, remote: StateDict, *, slack: float = 0.0) -> bool:
    """Whether `after` is a mean of the two others at some share of `remote` above 0 and up to 1 (docs/audits.md).

    The share is found by least squares over all parameters. Whole numbers and booleans are not looked at.

    Args:
        slack: distance from the line that the session's codec explains: models that were rounded lie beside it.
    """
    along = across = norm = 0.0
    floats = [name for name, tensor in before.items() if tensor.is_floating_point()]
    for name in floats:
        step, way = after[name].double() - before[name].double(), remote[name].double() - before[name].double()
        along += float((step * way).sum())
        norm += float((way * way).sum())
    share = along / norm if norm else 0.0
    for name in floats:
        step, way = after[name].double() - before[name].double(), remote[name].double() - before[name].double()
        across += float(((step - share * way) ** 2).sum())
    length = math.sqrt(norm)
    beyond = slack / length if length else math.inf if slack else 0.0
    return -beyond < share <= 1 + DERIVED_TOLERANCE + beyond and math.sqrt(across) <= DERIVED_TOLERANCE * length + slack


REDUCERS: Final[Mapping[str, Reducer]] = {"mean": average_models}
