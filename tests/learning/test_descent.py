"""Gradient descent: the same steps as torch's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learnae.learning.descent import GradientDescent
from learnae.learning.process import find_import_path
from tests.learning.tasks import write_task


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01), (0.0, 0.1)])
def test_descent__takes_the_steps_that_torch_takes(momentum: float, weight_decay: float) -> None:
    torch.manual_seed(1)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ours.bias.requires_grad_(False)
    theirs.bias.requires_grad_(False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(10, 3)
    pairs = (
        (ours, GradientDescent(ours.parameters(), learning_rate=0.1, momentum=momentum, weight_decay=weight_decay)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)),
    )
    for _ in range(5):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            model(x).pow(2).sum().backward()
            optimizer.step()

    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)
    assert torch.equal(ours.bias, theirs.bias)


def test_training__does_not_load_the_compiler(tmp_path: Path) -> None:
    """Issue: a node stays below 400 MB with torch loaded; the compiler alone takes 74 of them."""
    script = (
        "import sys\n"
        "from learnae.learning.inline import InlineLearner\n"
        "from learnae.learning.config import LearnerConfig\n"
        f"learner = InlineLearner(LearnerConfig(task={write_task(tmp_path)!r}, source='x', slice_bytes=900, device='cpu'))\n"
        "learner.open()\n"
        "model = learner.initial_model(1)\n"
        "learner.average(model, learner.train(model, private_slices=(0,), slices=(), seed=1)[0], remote_share=0.5)\n"
        "assert not {'sympy', 'torch._dynamo', 'pandas', 'sklearn'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env={**os.environ, "PYTHONPATH": find_import_path()})
