"""What `peers` measures, the same for both systems, and the data that both train on: the demo's six unequal shares of 5,000 digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load

from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner, split_examples
from learnae.learning.task import Examples, load_examples, load_task

PEERS = 6
SEED = 0
MARKS_S = (10, 30, 60)  # After the training began.
KILL_S = 62.0  # One peer is killed then.
JOIN_S = 75.0  # Somebody comes late then, with the data of the one that was killed.
LATE_MAX_S = 30.0  # After its start a late joiner is looked at every second, for so long at most.
NEAR = 0.01  # It has arrived when it is so near to the others' median, in accuracy.
SPANS = {"calm": (KILL_S - 12, KILL_S), "one is killed": (KILL_S, KILL_S + 12), "one comes late": (JOIN_S, JOIN_S + 12)}


@dataclass(slots=True)
class Side:
    """What was seen of one system."""

    accuracies: dict[int, list[float]] = field(default_factory=dict)  # at each mark, on the held-out digits, by peer
    cpu_s: float = 0.0  # of all six peers with all their processes, from the beginning to the last mark
    main_mb: float = 0.0  # resident memory of a peer's main process, the median
    all_mb: float = 0.0  # with its children
    steps_s: float = 0.0  # local steps of a peer, the mean until the last mark
    gaps_s: dict[str, float] = field(default_factory=dict)  # by SPANS: longest time in which one of the others got no further
    late_s: float = LATE_MAX_S  # from the late joiner's start until its accuracy is near the others' median
    late_others: float = 0.0  # that median


def source_of(peer: int) -> str:
    return f"{peer % PEERS + 1}/{PEERS}@{SEED}"


def load_share(peer: int) -> Examples:
    """What a peer trains on: its share without the private validation examples."""
    task = load_task("digits")
    return split_examples(load_examples(task, source_of(peer)), task.values.validation_share)[0]


def count_steps(peer: int) -> int:
    """Steps of gradient descent in one training cycle of ours."""
    values = load_task("digits").values
    return values.epochs * -(-len(load_share(peer)[0]) // values.batch)


def write_share(path: Path, peer: int, *, initial: bytes, late: bool) -> None:
    """What a hivemind peer needs, as plain arrays."""
    x, y = load_share(peer)
    test_x, test_y = load_examples(load_task("digits"), source_of(0), test=True)
    tensors = {"x": x, "y": y, "test_x": test_x, "test_y": test_y}
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays |= {name.replace(".", "_"): value for name, value in load(initial).items()}
    np.savez(path, late=np.array(late), **arrays)


def test_models(models: list[bytes]) -> list[float]:
    """Accuracies on the held-out digits."""
    learner = InlineLearner(LearnerConfig(task="digits", source=source_of(0), slice_bytes=65_536, device="cpu"))
    learner.open()
    return [learner.test(model).accuracy for model in models]


def list_family(pid: int) -> list[psutil.Process]:
    """A peer's main process and all below it."""
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]


def read_cpu_s(families: list[list[psutil.Process]]) -> float:
    """Processor time of all of them, user and system. Ended children of a process count with it."""
    times = [process.cpu_times() for family in families for process in family]
    return float(sum(one.user + one.system for one in times))


def read_memory_mb(family: list[psutil.Process]) -> list[float]:
    return [process.memory_info().rss / 1e6 for process in family]


def find_longest_gap_s(times_s: list[float], from_s: float, to_s: float) -> float:
    """The longest time between two of them, counting both ends of the span."""
    marks = [from_s, *(time_s for time_s in sorted(times_s) if from_s <= time_s <= to_s), to_s]
    return max(later - earlier for earlier, later in pairwise(marks))
