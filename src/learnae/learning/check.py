"""`learnae task check FILE --data SOURCE`: try everything that a session will do with a task, and explain what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace

from learnae.errors import LearningError
from learnae.learning.config import LearnerConfig, compute_task_digest
from learnae.learning.inline import InlineLearner


@dataclass(frozen=True, slots=True)
class TaskReport:
    """`lines` is what was found, in order and in sentences; `fault` is the error that ended it, or None."""

    lines: tuple[str, ...]
    fault: LearningError | None

    @property
    def is_good(self) -> bool:
        return self.fault is None


def check_task(task: str, source: str, *, slice_bytes: int = 256 * 1024, device: str = "auto") -> TaskReport:
    """Load, train one cycle, average, share a slice; never raises for what is wrong with the task or the data."""
    lines: list[str] = []
    try:
        _try_everything(LearnerConfig(task=task, source=source, slice_bytes=slice_bytes, device=device), lines)
    except LearningError as error:
        return TaskReport(tuple(lines), error)
    return TaskReport(tuple(lines), None)


def _try_everything(config: LearnerConfig, lines: list[str]) -> None:
    learner = InlineLearner(config)
    facts = learner.open()
    task, values = learner.task, learner.task.values
    lines.append(f"task {task.name} runs; its digest, which a session's rules hold, is {compute_task_digest(config.task).hex()[:16]}...")
    lines.append(
        f"data {config.source!r}: {facts.train_examples} examples to train on, {facts.validation_examples} private ones to validate with"
    )
    x, y = learner.data_manifest.x, learner.data_manifest.y
    lines.append(f"one example is x {x} and y {y}; a dataslice of {config.slice_bytes} bytes holds {learner.examples_per_slice} of them")
    lines.append(f"the model has {facts.parameters} numbers in {facts.model_bytes} bytes; it trains on {facts.device}")
    initial = learner.initial_model(0)
    before = learner.evaluate(initial, reference=None)
    slices = range(facts.private_slices)
    trained, after = learner.train(initial, private_slices=slices, slices=(), seed=1)
    lines.append(
        f"one training cycle ({values.epochs} passes, batches of {values.batch}): accuracy {before.accuracy:.3f} -> {after.accuracy:.3f}"
    )
    if after.gained <= after.lost:
        lines.append("that did not improve it: is the learning rate right, and does the data tell anything about y?")
    again, _ = learner.train(initial, private_slices=slices, slices=(), seed=1)
    if again != trained:
        lines.append("training twice with one seed gave two models: something in the task uses randomness of its own")
    other, _ = learner.train(initial, private_slices=slices, slices=(), seed=2)
    _, average, _ = learner.average(trained, other, remote_share=0.5)
    lines.append(f"two models average: accuracy {average.accuracy:.3f}")
    if task.load_test_data is not None:
        lines.append(f"on the test data it reaches {learner.test(trained).accuracy:.3f}")
    _try_sharing(config, initial, lines)


def _try_sharing(config: LearnerConfig, initial: bytes, lines: list[str]) -> None:
    sharer = InlineLearner(replace(config, share_permille=1000))
    facts = sharer.open()
    sharer.train(initial, private_slices=(), slices=(sharer.read_shared_slice(0),), seed=1)
    lines.append(f"if you opened your data to others, they would be {facts.shared_slices} dataslices; by default none leaves this machine")
