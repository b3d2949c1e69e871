"""`learnae task check FILE --data SOURCE`: try everything that a session will do with a task, and explain what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace

from learnae.errors import LearningError, TaskError
from learnae.learning.codec import encode_tensors
from learnae.learning.config import LearnerConfig, compute_task_digest
from learnae.learning.inline import InlineLearner
from learnae.learning.model_files import ModelFiles
from learnae.protocol.rules import MODEL_CODECS


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
    _try_codecs(learner, initial, trained, lines)
    _try_sharing(config, initial, lines)


def _try_codecs(learner: InlineLearner, initial: bytes, trained: bytes, lines: list[str]) -> None:
    """What the trained model weighs and knows after it travelled, for each codec that a session could choose."""
    found = []
    for codec in MODEL_CODECS[1:]:
        try:
            files = ModelFiles(learner.task.name, codec, learner.manifest)
        except TaskError:
            found.append(f"{codec} (the model is too small for it)")
            continue
        files.set_initial(initial)
        content = files.write(learner.files.read(trained))
        arrived = learner.evaluate(encode_tensors(files.read(content)), reference=None)
        found.append(f"{codec} {len(content)} bytes, accuracy {arrived.accuracy:.3f}")
    lines.append(f"compressed it would travel as {'; '.join(found)} (docs/compression.md)")


def _try_sharing(config: LearnerConfig, initial: bytes, lines: list[str]) -> None:
    sharer = InlineLearner(replace(config, share_permille=1000))
    facts = sharer.open()
    sharer.train(initial, private_slices=(), slices=(sharer.read_shared_slice(0),), seed=1)
    lines.append(f"if you opened your data to others, they would be {facts.shared_slices} dataslices; by default none leaves this machine")
