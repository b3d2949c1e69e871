"""A task of one's own: does a tumour's cell nuclei look benign or malignant? 569 real cases that scikit-learn ships.

Try it:            learnae task check examples/my_task.py --data 1/3
Walked through in: docs/your-own-model.md
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

LEARNING_RATE = 0.05
EPOCHS = 4


def build_model() -> torch.nn.Module:
    """30 measurements in, two classes out. Every peer builds the same layers; the session brings the initial weights."""
    return torch.nn.Sequential(torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))


def load_data(source: str) -> tuple[np.ndarray, np.ndarray]:
    """My own cases: x (cases, 30) float32, y (cases,) int64, 0 malignant and 1 benign.

    In real life `source` is the path of your file. Here it is PART/OF, so that three people can play with one data set.
    """
    part, of = (int(number) for number in source.split("/"))
    x, y = _cases()
    mine = np.arange(len(x)) % 5 > 0  # Every fifth case is test data.
    return x[mine][part - 1 :: of], y[mine][part - 1 :: of]


def load_test_data(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Cases that nobody trains on, for the report. Leave this function out if you have none."""
    x, y = _cases()
    aside = np.arange(len(x)) % 5 == 0
    return x[aside], y[aside]


def _cases() -> tuple[np.ndarray, np.ndarray]:
    """All cases in a fixed shuffled order, each measurement scaled to a mean of 0 and a deviation of 1."""
    bunch = load_breast_cancer()
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), bunch.target[order].astype(np.int64)
