"""A learner that works at once, in this process: what the worker runs, and what benchmarks and the simulator use directly.

Model in, model out, as bytes; nothing is kept between calls but the data, a cache of what was measured and, where models travel
compressed, the full precision of the newest own ones (`model_files`). Without a codec the same model, slices and seed give the same
bytes again on the same machine (momentum starts at zero in every training cycle, so there is no hidden state). Source: paper 4.1, Fig. 1.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import torch

from learnae.errors import DeviceError, TaskDataError, TaskError, TrainingDivergedError
from learnae.ids import Content
from learnae.learning.codec import StateDict, encode_model
from learnae.learning.config import LearnerConfig
from learnae.learning.header import Manifest
from learnae.learning.model_files import ModelFiles
from learnae.learning.reduce import REDUCERS, is_between
from learnae.learning.slices import (
    DataManifest,
    compute_examples_per_slice,
    decode_slice,
    decode_validation,
    encode_slice,
    encode_validation,
    read_data_manifest,
)
from learnae.learning.task import Blame, Examples, Task, load_examples, load_task
from learnae.protocol.measures import Evaluation, Recount, TaskFacts

SCORE_TOTAL: Final = 1_000_000  # A score of 1.0, where right answers are not counted.
MEASURED_MAX: Final = 64  # Models whose marks are remembered: a local model, its rivals and the last few averages.
MEASURE_BATCH: Final = 1024  # Examples that are measured at a time; bounds memory.
SPLIT_SEED: Final = 1  # Which examples are private validation is fixed, so a restart never trains on them.

Marks = np.ndarray[tuple[int], np.dtype[np.int64]]
"""One number per example: 1 for right and 0 for wrong, or a score of 0 to SCORE_TOTAL."""
Progress = Callable[[int, int], None]
"""Called with passes done and passes to do."""


def compute_evaluation(marks: Marks, reference: Marks | None, *, scored: bool) -> Evaluation:
    """Counts from marks, and what changed from the reference's marks on the same examples.

    `gained - lost` is always the difference of `correct`; scores are rounded down to millionths.
    """
    change = marks - (marks if reference is None else reference)
    gained, lost = int(change[change > 0].sum()), -int(change[change < 0].sum())
    correct, count = int(marks.sum()), len(marks)
    if not scored:
        return Evaluation(correct=correct, total=count, gained=gained, lost=lost)
    scaled, before = correct // count, (correct - gained + lost) // count
    lost = max(lost // count, before - scaled)
    return Evaluation(correct=scaled, total=SCORE_TOTAL, gained=lost + scaled - before, lost=lost)


def choose_device(name: str) -> torch.device:
    """The device to train on. Raises: DeviceError: it is not there, or is no device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(name, "there is no device of that name") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(name, "models are trained on cpu or cuda only")
    if device.type == "cuda" and (device.index or 0) >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise DeviceError(name, f"this machine offers {torch.cuda.device_count()} CUDA devices")
    return device


def describe_device(name: str) -> str:
    """The device that `name` stands for, after multiplying two matrices on it. Raises: DeviceError: it is not there, or fails."""
    device = choose_device(name)
    try:
        total = float((torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum())
    except RuntimeError as error:
        raise DeviceError(name, f"it does not compute: {str(error).splitlines()[0]}") from error
    if total != 64.0**3:
        raise DeviceError(name, f"it multiplies wrongly: {total} instead of {64.0**3}")
    if device.type == "cpu":
        why = "" if name != "auto" else "; no CUDA device was found" if torch.version.cuda else "; this build of PyTorch knows no CUDA"
        return f"models are trained on the CPU (PyTorch {torch.__version__}{why})"
    return f"models are trained on {torch.cuda.get_device_name(device)} (PyTorch {torch.__version__}, CUDA {torch.version.cuda})"


def split_examples(examples: Examples, validation_share: float) -> tuple[Examples, Examples]:
    """Own data as (to train on, private validation); the same split for the same data on every run."""
    x, y = examples
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    count = min(len(x) - 2, max(1, round(len(x) * validation_share)))
    return (x[order[count:]], y[order[count:]]), (x[order[:count]], y[order[:count]])


def pool_examples(parts: Sequence[Examples]) -> Examples:
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


class InlineLearner:
    """The methods of the `Learner` port without `async`. `open` comes first; every method raises what the port says."""

    def __init__(self, config: LearnerConfig, *, on_progress: Progress | None = None) -> None:
        self._config = config
        self._on_progress = on_progress
        self._measured: OrderedDict[tuple[bytes, bool], Marks] = OrderedDict()
        self._initial: Content | None = None  # the session's, once it was given

    def open(self) -> TaskFacts:
        """Load the task and the data, and try everything once on two examples. Raises: TaskError, TaskDataError, DeviceError."""
        config = self._config
        torch.set_num_threads(config.threads)
        self._device = choose_device(config.device)
        task = self._task = load_task(config.task)
        self._train, self._validation = split_examples(load_examples(task, config.source), task.values.validation_share)
        self._test: Examples | None = None
        self._net, content, self._manifest = build_net(task, self._device)
        self._files = ModelFiles(task.name, config.codec, self._manifest)
        if self._initial is not None:
            self._files.set_initial(self._initial)
        self._scored = task.score is not None
        self._data = read_data_manifest(self._train, self._probe())
        self._per_slice = compute_examples_per_slice(config.source, self._train, self._data, config.slice_bytes)
        slices = -(-len(self._train[0]) // self._per_slice)
        self._shared = slices * config.share_permille // 1000
        return TaskFacts(
            train_examples=len(self._train[0]),
            validation_examples=len(self._validation[0]),
            device=str(self._device),
            parameters=self._manifest.parameters,
            model_bytes=len(content),
            private_slices=self.private_slices,
            shared_slices=self._shared,
        )

    @property
    def manifest(self) -> Manifest:
        """What every model of this task looks like."""
        return self._manifest

    @property
    def files(self) -> ModelFiles:
        """How models become files and come back."""
        return self._files

    @property
    def data_manifest(self) -> DataManifest:
        return self._data

    @property
    def task(self) -> Task:
        return self._task

    def initial_model(self, seed: int) -> bytes:
        """A new model with random weights; the same for the same seed on the same machine."""
        return build_net(self._task, torch.device("cpu"), seed)[1]

    def set_initial(self, model: Content) -> None:
        """The session's initial model; needed first where models travel compressed. Raises: ModelRejectedError."""
        self._files.set_initial(model)
        self._initial = model

    def read_shared_slice(self, index: int) -> bytes:
        """One of the slices that are opened to others, 0 to `shared_slices` - 1; the private ones come after them."""
        if not 0 <= index < self._shared:
            raise IndexError(f"slice {index} is not one of the {self._shared} that are shared")
        return encode_slice(self._train, index, self._per_slice)

    def evaluate(self, model: Content, *, reference: Content | None) -> Evaluation:
        """Measure on the private validation set."""
        marks = self._measure(model)
        return compute_evaluation(marks, None if reference is None else self._measure(reference), scored=self._scored)

    def test(self, model: Content) -> Evaluation:
        """Measure on the test data that the task keeps aside for reports. Raises: TaskError: it has none."""
        if self._test is None:
            if self._task.load_test_data is None:
                raise TaskError(self._task.name, "it defines no load_test_data(), so there is nothing to test with")
            self._test = load_examples(self._task, self._config.source, test=True)
        return compute_evaluation(self._measure(model, on_test=True), None, scored=self._scored)

    def train(self, model: Content, *, private_slices: Sequence[int], slices: Sequence[Content], seed: int) -> tuple[bytes, Evaluation]:
        """Train a copy of `model` on all the slices together, shuffled by `seed`; the evaluation's reference is `model`.

        Raises: SliceRejectedError, ModelRejectedError (before anything is trained), TrainingDivergedError, TaskError.
        """
        state = self._files.read_own(model)
        examples = self._gather(private_slices, slices)
        content = self._files.write(self._run(state, examples, seed))
        return content, self.evaluate(content, reference=model)

    def average(self, local: Content, remote: Content, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        """The session's reduce step (4.1), its evaluation, and that of `remote`; `local` is the reference of both."""
        theirs = self._files.read(remote)
        content = self._files.write(REDUCERS[self._config.reducer](self._files.read_own(local), theirs, remote_share=remote_share))
        return content, self.evaluate(content, reference=local), self.evaluate(remote, reference=local)

    def read_validation(self, salt: Content) -> tuple[bytes, int]:
        """The private validation examples for auditors, and the total of an evaluation on them (docs/audits.md)."""
        return encode_validation(self._validation, bytes(salt)), SCORE_TOTAL if self._scored else len(self._validation[0])

    def recount(self, before: Content, after: Content, remote: Content, validation: Content) -> Recount:
        """Measure another member's models on its opened validation file, and check how the new model was made.

        Raises: ModelRejectedError, SliceRejectedError: what the other one gave is not acceptable.
        """
        examples = decode_validation(validation, self._data)
        states = [self._files.read(model) for model in (before, after, remote)]
        counts = []
        for state in states[:2]:
            self._net.load_state_dict(state)
            counts.append(compute_evaluation(self._mark(examples), None, scored=self._scored))
        slacks = [self._files.compute_slack(model, state) for model, state in zip((before, after), states[:2], strict=True)]
        derives = after == remote or is_between(*states, slacks=slacks)
        return Recount(correct_before=counts[0].correct, correct_after=counts[1].correct, total=counts[0].total, derives=derives)

    @property
    def private_slices(self) -> int:
        return -(-len(self._train[0]) // self._per_slice) - self._shared

    @property
    def examples_per_slice(self) -> int:
        return self._per_slice

    def take_over(self, others: Sequence[InlineLearner]) -> None:
        """Pool the data of other learners of the same task with the own: what no peer can do, to compare with."""
        self._train = pool_examples([self._train, *(other._train for other in others)])
        self._validation = pool_examples([self._validation, *(other._validation for other in others)])
        self._measured.clear()

    def close(self) -> None:
        self._measured.clear()

    # --- inside ---------------------------------------------------------------------------------------------

    def _measure(self, model: Content, *, on_test: bool = False) -> Marks:
        key = (hashlib.sha256(model).digest(), on_test)
        if key in self._measured:
            self._measured.move_to_end(key)
            return self._measured[key]
        examples = self._test if on_test else self._validation
        assert examples is not None
        self._net.load_state_dict(self._files.read(model))
        marks = self._measured[key] = self._mark(examples)
        if len(self._measured) > MEASURED_MAX:
            self._measured.popitem(last=False)
        return marks

    def _mark(self, examples: Examples) -> Marks:
        task = self._task
        self._net.eval()
        marks = []
        with torch.no_grad():
            for x, y in _batches(examples, range(len(examples[0])), MEASURE_BATCH):
                x, y = x.to(self._device), y.to(self._device)
                with Blame(task.name, task.file, "measuring the model"):
                    outputs = self._net(x)
                    mark = task.compute_correct(outputs, y) if task.score is None else task.score(outputs, y)
                marks.append(self._to_marks(mark, len(y)))
        return np.concatenate(marks)

    def _to_marks(self, mark: object, count: int) -> Marks:
        what = "correct" if not self._scored else "score"
        if not isinstance(mark, torch.Tensor) or mark.shape != (count,):
            shown = list(mark.shape) if isinstance(mark, torch.Tensor) else type(mark).__name__
            raise TaskError(self._task.name, f"{what}() gave {shown} for {count} examples, expected a tensor of shape [{count}]")
        if not self._scored:
            if mark.dtype is not torch.bool:
                raise TaskError(self._task.name, f"correct() gave a tensor of {mark.dtype}, expected torch.bool")
            return mark.cpu().numpy().astype(np.int64)
        scaled = torch.nan_to_num(mark.double().cpu(), nan=0.0).clamp(0, 1) * SCORE_TOTAL
        return scaled.round().to(torch.int64).numpy()

    def _gather(self, private_slices: Sequence[int], slices: Sequence[Content]) -> Examples:
        """Own examples by slice number (counted after the shared ones), then those of the strangers' slices, checked."""
        parts = [decode_slice(content, self._data, self._config.slice_bytes) for content in slices]
        x, y = self._train
        rows: list[int] = []
        for index in private_slices:
            begin = (self._shared + index) * self._per_slice
            if index < 0 or begin >= len(x):
                raise IndexError(f"there is no private slice {index}")
            rows += range(begin, min(begin + self._per_slice, len(x)))
        if rows:
            parts.insert(0, (x[rows], y[rows]))
        if not parts:
            raise IndexError("there is no slice to train on")
        return pool_examples(parts)

    def _run(self, state: StateDict, examples: Examples, seed: int) -> StateDict:
        """Passes of gradient descent from `state`; global random state is restored afterwards."""
        task, net = self._task, self._net
        order = torch.Generator().manual_seed(seed)
        on_gpu = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=on_gpu), Blame(task.name, task.file, "training"):
            torch.manual_seed(seed)
            net.load_state_dict(state)
            net.train()
            optimizer = task.make_optimizer(net)
            for epoch in range(task.values.epochs):
                rows = torch.randperm(len(examples[0]), generator=order)
                for x, y in _batches(examples, rows, task.values.batch, skip_lone=True):
                    optimizer.zero_grad()
                    task.compute_loss(net(x.to(self._device)), y.to(self._device)).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                if self._on_progress is not None:
                    self._on_progress(epoch + 1, task.values.epochs)
        trained = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
        for name, tensor in trained.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise TrainingDivergedError(name, task.values.learning_rate)
        return trained

    def _probe(self) -> int | None:
        """Try model, loss and marks on two examples, so that what does not fit is said at once; the number of classes, if any."""
        task = self._task
        x, y = (part[:2].to(self._device) for part in self._train)
        self._net.eval()
        with Blame(task.name, task.file, f"running the model on x of shape {list(x.shape)} and {x.dtype}"), torch.no_grad():
            outputs = self._net(x)
        classes = None
        if task.loss is None:
            classes = self._count_classes(outputs)
        with Blame(task.name, task.file, "computing the loss"), torch.enable_grad():
            self._net.zero_grad()
            loss = task.compute_loss(self._net(x), y)
            if loss.dim() != 0:
                raise TaskError(task.name, f"loss() gave a tensor of shape {list(loss.shape)}, expected one number, e.g. a mean")
            loss.backward()  # type: ignore[no-untyped-call]
            self._net.zero_grad()
        self._mark((self._train[0][:2], self._train[1][:2]))
        return classes

    def _count_classes(self, outputs: object) -> int:
        """Cross entropy wants one output per class, and y as class numbers."""
        source, task = self._config.source, self._task
        if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
            shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise TaskError(task.name, f"its model gave {shape} for 2 examples, expected [2, classes]; or define loss() and correct()")
        classes = outputs.shape[1]
        for _, y in (self._train, self._validation):
            if y.dtype is not torch.int64 or y.dim() != 1:
                raise TaskDataError(source, f"y is {y.dtype} of shape {list(y.shape)}, expected class numbers: torch.int64 of [{len(y)}]")
            if not 0 <= int(y.min()) <= int(y.max()) < classes:
                found = f"{int(y.min())} to {int(y.max())}"
                raise TaskDataError(source, f"y holds classes {found}, but the model has {classes} outputs: 0 to {classes - 1}")
        return classes


def build_net(task: Task, device: torch.device, seed: int = 0) -> tuple[torch.nn.Module, bytes, Manifest]:
    """A new model, its bytes and its manifest. Raises: TaskError."""
    with torch.random.fork_rng(devices=[]), Blame(task.name, task.file, "build_model()"):
        torch.manual_seed(seed)
        net = task.build_model()
    if not isinstance(net, torch.nn.Module):
        raise TaskError(task.name, f"build_model() gave {type(net).__name__}, expected a torch.nn.Module")
    return net.to(device), *encode_model(task.name, net)


def _batches(examples: Examples, rows: Iterable[int] | torch.Tensor, size: int, *, skip_lone: bool = False) -> Iterator[Examples]:
    """Batches of these rows. A last batch of one example is left out if asked: normalisation layers cannot train on it."""
    x, y = examples
    index = rows if isinstance(rows, torch.Tensor) else torch.as_tensor(list(rows))
    for begin in range(0, len(index), size):
        chosen = index[begin : begin + size]
        if skip_lone and begin and len(chosen) == 1:
            continue
        yield x[chosen], y[chosen]
