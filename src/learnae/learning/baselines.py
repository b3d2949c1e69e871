"""What the same data give without the swarm: every peer alone, and all data pooled in one place. For reports and benchmarks.

Same task, same initial model, same split into training and validation data, same passes per training cycle as the peers have.
Sources are what `load_data` takes; the test data are those of the first source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner
from learnae.protocol.measures import Evaluation


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy after so many passes over the training data, and after so many seconds of training (measuring not counted)."""

    passes: int
    seconds: float
    validation: float
    test: float


Curve = tuple[Point, ...]
Clock = Callable[[], float]


def train_alone(config: LearnerConfig, *, initial_model: bytes, cycles: int, seed: int = 0, clock: Clock = time.perf_counter) -> Curve:
    """One peer with its own data only: training cycles and nothing else. The last point is the result.

    Raises: what `InlineLearner` raises.
    """
    learner = InlineLearner(config)
    learner.open()
    return _train(learner, initial_model, cycles, seed, clock)


def train_pooled(
    config: LearnerConfig, sources: Sequence[str], *, initial_model: bytes, cycles: int, seed: int = 0, clock: Clock = time.perf_counter
) -> Curve:
    """One learner with the training data of all the sources, and their validation data as validation data."""
    learners = []
    for source in sources:
        learner = InlineLearner(replace(config, source=source, share_permille=0))
        learner.open()
        learners.append(learner)
    pooled = learners[0]
    pooled.take_over(learners[1:])
    return _train(pooled, initial_model, cycles, seed, clock)


def measure_models(config: LearnerConfig, models: Sequence[bytes]) -> list[Evaluation]:
    """Measure models on the task's test data. Raises: TaskError: it has none; ModelRejectedError."""
    learner = InlineLearner(config)
    learner.open()
    return [learner.test(model) for model in models]


def _train(learner: InlineLearner, model: bytes, cycles: int, seed: int, clock: Clock) -> Curve:
    passes = learner.task.values.epochs
    slices = range(learner.private_slices)
    points = [_measure(learner, model, 0, 0.0)]
    seconds = 0.0
    for cycle in range(cycles):
        begin = clock()
        model, _ = learner.train(model, private_slices=slices, slices=(), seed=seed * 1_000_003 + cycle)
        seconds += clock() - begin
        points.append(_measure(learner, model, (cycle + 1) * passes, seconds))
    return tuple(points)


def _measure(learner: InlineLearner, model: bytes, passes: int, seconds: float) -> Point:
    return Point(passes, seconds, learner.evaluate(model, reference=None).accuracy, learner.test(model).accuracy)
