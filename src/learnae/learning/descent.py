"""Stochastic gradient descent with momentum, as torch.optim.SGD computes it, without what torch.optim loads on first use.

The first step of any torch.optim optimizer imports torch's compiler and sympy: 2 s and 74 MB in every worker (torch 2.13).
A task that wants another optimizer defines build_optimizer() and pays that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch


class Optimizer(Protocol):
    """What training asks of an optimizer; torch's have it."""

    def zero_grad(self) -> None: ...

    def step(self) -> object: ...


class GradientDescent:
    """v <- momentum v + gradient + weight_decay w;  w <- w - learning_rate v. The first v is the first gradient."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, learning_rate: float, momentum: float, weight_decay: float) -> None:
        self._parameters = [item for item in parameters if item.requires_grad]
        self._velocities: list[torch.Tensor | None] = [None] * len(self._parameters)
        self._learning_rate, self._momentum, self._weight_decay = learning_rate, momentum, weight_decay

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for index, parameter in enumerate(self._parameters):
            change = parameter.grad
            if change is None:
                continue
            if self._weight_decay:
                change = change.add(parameter, alpha=self._weight_decay)
            if self._momentum:
                velocity = self._velocities[index]
                change = self._velocities[index] = change.clone() if velocity is None else velocity.mul_(self._momentum).add_(change)
            parameter.add_(change, alpha=-self._learning_rate)
