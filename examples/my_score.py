"""A task whose answers are numbers: how far will a patient's diabetes progress in a year? 442 cases that scikit-learn ships.

There is no right or wrong, so it defines its own loss, and a score of 0 to 1 for each answer instead of counting right ones.
"""

import numpy as np
import torch
from sklearn.datasets import load_diabetes

LEARNING_RATE = 0.02
EPOCHS = 8


def build_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def load_data(source: str) -> tuple[np.ndarray, np.ndarray]:
    """x (cases, 10) float32, y (cases, 1) float32: progression in units of 100 points. `source` is PART/OF."""
    part, of = (int(number) for number in source.split("/"))
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[part - 1 :: of]
    return (x[order] * 20).astype(np.float32), (y[order, None] / 100).astype(np.float32)


def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.mse_loss(outputs, y)


def score(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """1 for an exact answer, 0 for one that is 100 points off or more. Shape (cases,)."""
    return 1 - (outputs - y).abs().squeeze(1)
