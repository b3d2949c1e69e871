"""Dataslices: own data cut into pieces of one size, and the check of a stranger's piece (4.1).

A slice is a safetensors file with two tensors, `x` and `y`, one row per example in both. Cutting is deterministic, so the same
data give the same bytes, and the same CIDs, on every run. Source: paper 4.1; threats.md, hostile models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from learnae.errors import SliceRejectedError, TaskDataError
from learnae.ids import Content
from learnae.learning.checks import is_boolean, is_finite
from learnae.learning.codec import decode_tensors, encode_tensors
from learnae.learning.header import HeaderError, TensorSpec, read_header
from learnae.learning.task import Examples
from learnae.protocol.audits import VALIDATION_BYTES_MAX

SALT_BYTES = 16
HEADER_ROOM_BYTES = 64  # By how much a slice's header may grow with the number of examples: a few digits, padded to 8.


@dataclass(frozen=True, slots=True)
class DataManifest:
    """What one example of this task looks like; `classes` bounds y where the loss is cross entropy."""

    x: TensorSpec  # shape of one example, without the row
    y: TensorSpec
    classes: int | None = None

    @property
    def example_bytes(self) -> int:
        return self.x.size_bytes + self.y.size_bytes


def read_data_manifest(examples: Examples, classes: int | None) -> DataManifest:
    x, y = examples
    header = read_header(encode_tensors({"x": x[:1], "y": y[:1]}))
    rows, labels = (TensorSpec(header[name].dtype, header[name].shape[1:]) for name in "xy")
    return DataManifest(rows, labels, classes)


def compute_examples_per_slice(source: str, examples: Examples, manifest: DataManifest, slice_bytes: int) -> int:
    """How many examples fit into one slice. Raises: TaskDataError: not even one does."""
    x, y = examples
    overhead = len(encode_tensors({"x": x[:1], "y": y[:1]})) - manifest.example_bytes + HEADER_ROOM_BYTES
    count = (slice_bytes - overhead) // max(1, manifest.example_bytes)
    if count < 1:
        needed = overhead + manifest.example_bytes
        raise TaskDataError(source, f"one example needs a dataslice of {needed} bytes, but the session's slices have {slice_bytes}")
    return count


def encode_slice(examples: Examples, index: int, per_slice: int) -> bytes:
    """Slice number `index`: up to `per_slice` examples in the order of the data."""
    rows = slice(index * per_slice, (index + 1) * per_slice)
    return encode_tensors({"x": examples[0][rows], "y": examples[1][rows]})


def encode_validation(examples: Examples, salt: bytes) -> bytes:
    """Private validation examples as a file for auditors. The salt keeps its CID from confirming a guess of what is in it."""
    assert len(salt) == SALT_BYTES
    return encode_tensors({"salt": torch.tensor(list(salt), dtype=torch.uint8), "x": examples[0], "y": examples[1]})


def decode_validation(content: Content, manifest: DataManifest) -> Examples:
    """A stranger's validation file as tensors. Raises: SliceRejectedError, as `decode_slice`."""
    return _decode_examples(content, manifest, VALIDATION_BYTES_MAX, {"salt": TensorSpec("U8", (SALT_BYTES,))})


def decode_slice(content: Content, manifest: DataManifest, slice_bytes: int) -> Examples:
    """A stranger's slice as tensors. Raises: SliceRejectedError: it is not data of this task; nothing was allocated for it."""
    return _decode_examples(content, manifest, slice_bytes, {})


def _decode_examples(content: Content, manifest: DataManifest, bytes_max: int, extra: dict[str, TensorSpec]) -> Examples:
    """Tensors `x` and `y` of a file that also holds exactly the tensors `extra`."""
    if len(content) > bytes_max:
        raise SliceRejectedError(f"it has {len(content)} bytes, at most {bytes_max} are allowed in this session")
    try:
        header = read_header(content)
    except HeaderError as error:
        raise SliceRejectedError(str(error)) from error
    expected_names = {"x", "y", *extra}
    if header.keys() != expected_names or any(str(header[name]) != str(spec) for name, spec in extra.items()):
        raise SliceRejectedError(f"it holds tensors {sorted(header)[:4]}, expected {' and '.join(sorted(expected_names))}")
    rows = {header[name].shape[:1] for name in "xy"}
    if len(rows) != 1 or rows & {(), (0,)}:
        raise SliceRejectedError("x and y do not have one row per example, and at least one")
    for name, expected in (("x", manifest.x), ("y", manifest.y)):
        found = header[name]
        if (found.dtype, found.shape[1:]) != (expected.dtype, expected.shape):
            raise SliceRejectedError(f"examples of {name} are {TensorSpec(found.dtype, found.shape[1:])}, expected {expected}")
        if not is_finite(content, found) or (found.dtype == "BOOL" and not is_boolean(content, found)):
            raise SliceRejectedError(f"{name} holds values that are not finite numbers")
    tensors = decode_tensors(content, header)
    if manifest.classes is not None and not _are_classes(tensors["y"], manifest.classes):
        raise SliceRejectedError(f"y holds classes outside 0 to {manifest.classes - 1}")
    return tensors["x"], tensors["y"]


def _are_classes(y: torch.Tensor, classes: int) -> bool:
    values = y.numpy()
    return bool(np.all((values >= 0) & (values < classes)))
