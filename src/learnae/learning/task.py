"""What a user brings: a Python file that builds a model and loads data. docs/your-own-model.md walks through one.

    def build_model() -> torch.nn.Module                 required
    def load_data(source: str) -> (x, y)                 required; tensors or arrays, one row per example
    def load_test_data(source: str) -> (x, y)            optional; kept aside for reports, never trained on
    def loss(outputs, y) -> scalar tensor                optional; cross entropy
    def correct(outputs, y) -> bool tensor, one per example    optional; largest output equals y
    def score(outputs, y) -> float tensor in 0..1, one per example    instead of `correct`, e.g. for regression
    def build_optimizer(model) -> torch.optim.Optimizer  optional; SGD with the values below
    LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, BATCH, EPOCHS, VALIDATION_SHARE     optional numbers

A task is code that the user chose to run; nothing of it ever comes over the network.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

import numpy as np
import torch

from learnae.errors import LearningError, TaskDataError, TaskError
from learnae.learning.config import find_task_file
from learnae.learning.descent import GradientDescent, Optimizer

Examples = tuple[torch.Tensor, torch.Tensor]
"""x of shape (examples, ...) and y of shape (examples, ...)."""
EXAMPLES_MIN: Final = 4  # Fewer cannot be split into data to train on and data to validate with.
_DTYPES: Final = frozenset({
    torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """How one training cycle goes; the defaults suit small networks (docs/accuracy.md)."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int = 32
    epochs: int = 4  # passes over the slices of one training cycle
    validation_share: float = 0.15  # of the own data; private, never trained on


_RANGES: Final = {
    "LEARNING_RATE": (0.0, 1e6), "MOMENTUM": (0.0, 0.9999), "WEIGHT_DECAY": (0.0, 1e6),
    "BATCH": (1, 1 << 24), "EPOCHS": (1, 10_000), "VALIDATION_SHARE": (0.01, 0.9),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file, read and checked as far as that goes without data."""

    name: str
    file: Path
    build_model: Callable[[], torch.nn.Module]
    load_data: Callable[[str], Any]
    load_test_data: Callable[[str], Any] | None
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None  # None: cross entropy
    correct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None  # None: largest output equals y, unless there is a score
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    build_optimizer: Callable[[torch.nn.Module], Optimizer] | None
    values: Hyperparameters

    def compute_loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, y) if self.loss is None else self.loss(outputs, y)

    def compute_correct(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return outputs.argmax(dim=1) == y if self.correct is None else self.correct(outputs, y)

    def make_optimizer(self, model: torch.nn.Module) -> Optimizer:
        if self.build_optimizer is not None:
            return self.build_optimizer(model)
        values = self.values
        return GradientDescent(
            model.parameters(), learning_rate=values.learning_rate, momentum=values.momentum, weight_decay=values.weight_decay
        )


class Blame:
    """Whatever the user's code raises inside becomes a TaskError that says what was being done, and in which line.

    With a `source` it becomes a TaskDataError about that. Not an `except`: interrupts and our own errors pass through.
    """

    def __init__(self, task: str, file: Path, doing: str, *, source: str | None = None) -> None:
        self._task, self._file, self._doing, self._source = task, file, doing, source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, LearningError):
            return
        lines = [frame.lineno for frame in traceback.extract_tb(trace) if Path(frame.filename) == self._file]
        where = f", line {lines[-1]}" if lines and lines[-1] else ""
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no message"
        why = f"{self._doing} failed with {type(error).__name__}: {first} ({self._file.name}{where})"
        raise (TaskError(self._task, why) if self._source is None else TaskDataError(self._source, why)) from error


def load_task(name: str) -> Task:
    """Run a task's file and take out what it defines. Raises: TaskError with what is missing or wrong, and the line."""
    file = find_task_file(name)
    module = _run_file(name, file)
    for required in ("build_model", "load_data"):
        if not hasattr(module, required):
            raise TaskError(name, f"it defines no {required}(); see docs/your-own-model.md for the two functions that a task needs")
    found: dict[str, Any] = {}
    for part in ("build_model", "load_data", "load_test_data", "loss", "correct", "score", "build_optimizer"):
        found[part] = getattr(module, part, None)
        if found[part] is not None and not callable(found[part]):
            raise TaskError(name, f"{part} is {type(found[part]).__name__}, expected a function")
    if found["correct"] is not None and found["score"] is not None:
        raise TaskError(name, "it defines both correct() and score(); keep correct() to count right answers, score() for everything else")
    if found["loss"] is not None and found["correct"] is None and found["score"] is None:
        raise TaskError(name, "it defines loss() but neither correct() nor score(); say how good an output is with one of them")
    return Task(name=name, file=file, values=_read_values(name, module), **found)


def _run_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"learnae_task_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise TaskError(name, f"{file.name} is not a Python file; its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    with Blame(name, file, "running the file"):
        spec.loader.exec_module(module)
    return module


def _read_values(name: str, module: ModuleType) -> Hyperparameters:
    values: dict[str, Any] = {}
    for constant, (least, most) in _RANGES.items():
        value = getattr(module, constant, None)
        if value is None:
            continue
        whole = isinstance(least, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise TaskError(name, f"{constant} is {value!r}, expected {kind} from {least} to {most}")
        values[constant.lower()] = value
    return Hyperparameters(**values)


def load_examples(task: Task, source: str, *, test: bool = False) -> Examples:
    """The user's own data, or the task's test data, as two tensors of equal length.

    Raises: TaskDataError: loading failed, or what came back is not usable.
    """
    load = task.load_test_data if test else task.load_data
    assert load is not None
    with Blame(task.name, task.file, "loading them", source=source):
        loaded = load(source)
    if not isinstance(loaded, tuple) or len(loaded) != 2:
        raise TaskDataError(source, f"loading it gave {type(loaded).__name__}, expected a tuple (x, y)")
    x, y = (_to_tensor(source, label, part) for label, part in zip("xy", loaded, strict=True))
    if x.dim() < 1 or y.dim() < 1 or len(x) != len(y):
        raise TaskDataError(source, f"x has shape {list(x.shape)} and y {list(y.shape)}, expected one row per example in both")
    if len(x) < EXAMPLES_MIN:
        raise TaskDataError(source, f"it has {len(x)} examples, expected {EXAMPLES_MIN} or more")
    return x, y


def _to_tensor(source: str, label: str, part: Any) -> torch.Tensor:
    if isinstance(part, np.ndarray):
        if part.dtype.kind not in "fiub" or part.dtype in (np.uint16, np.uint32, np.uint64, np.longdouble):
            raise TaskDataError(source, f"{label} is an array of {part.dtype}, expected numbers such as float32, int64 or uint8")
        part = torch.from_numpy(np.ascontiguousarray(part))
    if not isinstance(part, torch.Tensor):
        raise TaskDataError(source, f"{label} is {type(part).__name__}, expected a torch tensor or a numpy array")
    if part.dtype not in _DTYPES:
        raise TaskDataError(source, f"{label} is a tensor of {part.dtype}, expected numbers such as float32, int64 or uint8")
    if part.is_floating_point() and not bool(torch.isfinite(part).all()):
        raise TaskDataError(source, f"{label} holds NaN or infinity; clean the data first")
    return part.detach().cpu().contiguous()
