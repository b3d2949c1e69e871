"""Whether a stranger's bytes are a model of this session: layout, size and values. Needs numpy, not torch.

Source: threats.md, hostile models: exact names, shapes, dtypes of the session's manifest, finite, size capped before allocation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learnae.errors import ModelMismatchError, ModelRejectedError
from learnae.ids import Content
from learnae.learning.header import FLOATS, Header, Manifest, TensorSpec, find_model_fault, find_tensor_fault, read_header

_BITS = {"F64": ("<u8", 0x7FF0_0000_0000_0000), "F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""How the exponent looks in each float type: all its bits are 1 in NaN and infinity, and only there."""


def check_model(model: Content, manifest: Manifest) -> Header:
    """Check a model against the session's manifest; its header, for reading it.

    Raises: ModelMismatchError: a tensor is missing or has another type or shape. ModelRejectedError: anything else; the
    message says what was got and what was expected. Nothing larger than one tensor's bits is allocated, and only after the header is right.
    """
    fault = find_model_fault(model, manifest)
    if isinstance(fault, str):
        raise ModelRejectedError(fault)
    if fault is not None:
        raise ModelMismatchError(*fault)
    header = read_header(model)
    check_values(model, header)
    return header


def check_header(header: Header, expected: Mapping[str, TensorSpec]) -> None:
    """Whether a header names exactly these tensors with these types and shapes. Raises: ModelMismatchError, ModelRejectedError."""
    fault = find_tensor_fault(header, expected)
    if isinstance(fault, str):
        raise ModelRejectedError(fault)
    if fault is not None:
        raise ModelMismatchError(*fault)


def check_values(model: Content, header: Header) -> None:
    """Whether all values are finite and booleans are booleans. Raises: ModelRejectedError."""
    for name, spec in header.items():
        if not is_finite(model, spec):
            raise ModelRejectedError(f"parameter {name!r} holds NaN or infinity; only finite values are accepted")
        if spec.dtype == "BOOL" and not is_boolean(model, spec):
            raise ModelRejectedError(f"parameter {name!r} is BOOL but holds bytes other than 0 and 1")


def is_finite(content: Content, spec: TensorSpec) -> bool:
    """Whether all values of one tensor are finite; whole numbers always are."""
    if spec.dtype not in FLOATS:
        return True
    kind, exponent = _BITS[spec.dtype]
    bits = np.frombuffer(memoryview(content)[spec.begin : spec.end], dtype=kind)
    mask = bits.dtype.type(exponent)
    return not bool(((bits & mask) == mask).any())


def is_boolean(content: Content, spec: TensorSpec) -> bool:
    return not bool((np.frombuffer(memoryview(content)[spec.begin : spec.end], dtype=np.uint8) > 1).any())
