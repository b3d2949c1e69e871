"""The averaging step, replaceable: two models in, one out (paper, section 1: "any other way of reducing data among a pair of nodes").

`mean` is the paper's. To add another, write a function of the same shape, put it into `REDUCERS`, and its name into
`protocol.rules.REDUCERS` so that sessions can choose it. Source: LEARNAE DAO paper, sections 1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


_PIECE: Final = 1 << 16  # Numbers that are averaged at a time: in doubles they fit into a core's cache.


def _average(ours: torch.Tensor, theirs: torch.Tensor, share: float) -> torch.Tensor:
    if ours.is_floating_point():  # In doubles: the mean of equals is the same again, and nothing overflows.
        mean = torch.empty(ours.shape, dtype=ours.dtype, device=ours.device)
        target, one, other = mean.view(-1), ours.reshape(-1), theirs.reshape(-1)
        for begin in range(0, len(target), _PIECE):
            piece = slice(begin, begin + _PIECE)
            ours_part, theirs_part = (part[piece].to(torch.float64, copy=True) for part in (one, other))
            target[piece] = ours_part.mul_(1 - share).add_(theirs_part.mul_(share))
        return mean
    if ours.dtype is torch.bool:
        return ours.clone()
    return torch.maximum(ours, theirs.to(ours.dtype))


MARGIN: Final = 1.01  # Of what rounding explains: that is itself computed from rounded values.


def compute_rounding(dtype: torch.dtype, size: torch.Tensor) -> torch.Tensor:
    """How far, at most, numbers of this absolute size move when they are rounded to a floating-point type: half of its last digit."""
    kind = torch.finfo(dtype)
    relative = max(kind.eps / 2, 2**-50)  # The mean is computed in doubles, of which float64 keeps all digits: there its own error counts.
    return size * relative + kind.smallest_normal * kind.eps


def is_between(before: StateDict, after: StateDict, remote: StateDict, *, slacks: Sequence[StateDict] = ()) -> bool:
    """Whether `after` is a mean of the two others at one share of `remote` above 0 and up to 1 (docs/audits.md).

    Each value allows the shares at which the mean, rounded, can be what it is; some share must suit all values. No value is excused by
    another: one large number explains nothing but itself. Whole numbers must be the larger ones, booleans those of `before`.

    Args:
        slacks: tensors by which the codec may have moved each value of `before` and of `after`; what is not named was not moved.
    """
    least, most, moved = 0.0, 1.0, False
    for name, old in before.items():
        if not old.is_floating_point():
            if not torch.equal(_average(old, remote[name], 1.0), after[name]):
                return False
            continue
        step, way = after[name].double() - old.double(), remote[name].double() - old.double()
        room = sum((slack[name] for slack in slacks if name in slack), torch.zeros_like(step))
        room = MARGIN * (room + compute_rounding(old.dtype, torch.maximum(old.double().abs(), remote[name].double().abs())))
        moved = moved or bool(step.any())
        goes = way != 0
        if not bool(torch.isfinite(way).all() and (step[~goes].abs() <= room[~goes]).all()):
            return False
        if bool(goes.any()):
            ends = torch.stack([(step - room)[goes] / way[goes], (step + room)[goes] / way[goes]])
            least = max(least, float(ends.amin(dim=0).max()))
            most = min(most, float(ends.amax(dim=0).min()))
    return moved and least <= most


REDUCERS: Final[Mapping[str, Reducer]] = {"mean": average_models}
