"""Small task files that tests write, and learners over them."""

from __future__ import annotations

from pathlib import Path

from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner

SLICE_BYTES = 900

LINES = """
import torch
EPOCHS = 2
BATCH = 16


def build_model():
    hidden = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.1)
    return torch.nn.Sequential(*hidden, torch.nn.Linear(8, 3))


def load_data(source):
    order = torch.Generator().manual_seed(len(source))
    x = torch.randn(120, 4, generator=order)
    return x, x[:, :3].argmax(dim=1)


def load_test_data(source):
    return load_data(source + "test")
"""
"""Which of three numbers is the largest; with normalisation and dropout, which are what goes wrong first."""

WIDE = LINES.replace("Linear(4, 8)", "Linear(4, 200)").replace("Norm1d(8)", "Norm1d(200)").replace("Linear(8, 3)", "Linear(200, 3)")
"""The same with a model that is large enough to be worth compressing."""


def write_task(folder: Path, text: str = LINES, *, extra: str = "") -> str:
    """Write a task file; `extra` comes after `text` and so replaces what it defines."""
    path = folder / "task.py"
    path.write_text(text + extra)
    return str(path)


def make_config(folder: Path, *, text: str = LINES, extra: str = "", share_permille: int = 400, device: str = "cpu") -> LearnerConfig:
    """Slices of about 30 examples, so four slices of 102, of which one is shared by default."""
    task = write_task(folder, text, extra=extra)
    return LearnerConfig(task=task, source="mine", slice_bytes=SLICE_BYTES, share_permille=share_permille, device=device)


def open_learner(folder: Path, *, text: str = LINES, extra: str = "", share_permille: int = 400) -> InlineLearner:
    learner = InlineLearner(make_config(folder, text=text, extra=extra, share_permille=share_permille))
    learner.open()
    return learner
