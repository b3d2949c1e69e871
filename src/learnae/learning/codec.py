"""Models and dataslices as bytes and back: safetensors only. Bytes from others pass `checks` or `slices` before they come here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import save

from learnae.errors import TaskError
from learnae.ids import Content
from learnae.learning.header import TENSORS_MAX, Header, HeaderError, Manifest, read_manifest

StateDict = dict[str, torch.Tensor]

_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def encode_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file; equal tensors give equal bytes. Tied weights are written once per name."""
    owners: set[int] = set()
    written: StateDict = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.data_ptr() in owners or memory.nbytes() != plain.nbytes:  # safetensors takes no two tensors out of one memory.
            plain = plain.clone()
        owners.add(memory.data_ptr())
        written[name] = plain
    return save(written)


def decode_tensors(content: Content, header: Header) -> StateDict:
    """The tensors of a file whose header was checked; they own their memory.

    Shapes and dtypes are the header's, e.g. "fc.weight": float32 (classes, features).
    """
    view = memoryview(content)
    return {
        name: torch.frombuffer(bytearray(view[spec.begin : spec.end]), dtype=_TORCH[spec.dtype]).reshape(spec.shape)
        if spec.size_bytes
        else torch.empty(spec.shape, dtype=_TORCH[spec.dtype])
        for name, spec in header.items()
    }


def encode_model(task: str, model: torch.nn.Module) -> tuple[bytes, Manifest]:
    """A freshly built model as bytes, and the manifest that all models of its session follow.

    Raises: TaskError: the model holds something that cannot be sent, such as a complex or sparse tensor.
    """
    state = model.state_dict()
    if not state or len(state) > TENSORS_MAX:
        raise TaskError(task, f"its model has {len(state)} parameters and buffers, expected 1 to {TENSORS_MAX}")
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _TORCH.values() or tensor.layout is not torch.strided:
            raise TaskError(task, f"parameter {name!r} of its model is not a dense tensor of a type that models are sent in")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TaskError(task, f"parameter {name!r} of its new model holds NaN or infinity")
    content = encode_tensors(state)
    try:
        return content, read_manifest(content)
    except HeaderError as error:
        raise TaskError(task, f"its model cannot be sent: {error}") from error
