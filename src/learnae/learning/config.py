"""What a learner is told before it starts, and where a task's file is. Needs neither torch nor numpy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from learnae.errors import TaskError

BUILT_IN: Final = ("digits",)
"""Tasks that are shipped: a module of this name beside this one."""
TASK_BYTES_MAX: Final = 1 << 20  # A task is a page of Python; this keeps a wrong file name from being read whole.


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """`task` is a built-in name or the path of a Python file; `source` is passed to its `load_data` as it is."""

    task: str
    source: str
    slice_bytes: int = 256 * 1024  # size of a dataslice, as the session's rules say
    share_permille: int = 0  # how much of the own training data is opened to others; the rest never leaves
    reducer: str = "mean"
    codec: str = "raw"  # in which models travel, as the session's rules say; all but raw need `set_initial`
    device: str = "auto"  # "cpu", "cuda", "cuda:1", or "auto": cuda if there is one
    threads: int = 1  # of torch; one, because several peers often share a machine


def find_task_file(task: str) -> Path:
    """The Python file of a task. Raises: TaskError: there is no such file."""
    path = Path(__file__).with_name(f"{task}.py") if task in BUILT_IN else Path(task)
    if not path.is_file():
        raise TaskError(task, f"there is no such file; give the path of a Python file, or a built-in task: {', '.join(BUILT_IN)}")
    return path.resolve()


def read_task_source(task: str) -> bytes:
    """The text of a task, which everybody in a session should have read. Raises: TaskError."""
    path = find_task_file(task)
    try:
        with path.open("rb") as file:
            text = file.read(TASK_BYTES_MAX + 1)
    except OSError as error:
        raise TaskError(task, f"it cannot be read: {error.strerror}") from error
    if len(text) > TASK_BYTES_MAX:
        raise TaskError(task, f"it is larger than {TASK_BYTES_MAX} bytes; is it a Python file?")
    return text


def compute_task_digest(task: str) -> bytes:
    """SHA-256 of the task's file: what `SessionRules.task_digest` holds. Raises: TaskError."""
    return hashlib.sha256(read_task_source(task)).digest()
