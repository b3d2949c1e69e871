"""Headers of safetensors files, read with suspicion: what a file says that it holds, before any of it is touched.

A model or a dataslice from a stranger is checked here first: `read_header` accepts nothing but one canonical layout (every
byte of the file belongs to exactly one tensor), `Manifest` says what the session expects, and nothing is allocated in between.
Needs neither torch nor numpy. Pickle has no place here or anywhere else: such a file fails at its first eight bytes.
Source: safetensors format description (huggingface/safetensors README, "Format"); threats.md, hostile models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from learnae.bounded_json import JsonTooDeepError, parse_json
from learnae.ids import Content

HEADER_BYTES_MAX: Final = 64 * 1024  # About 100 bytes for each of 512 tensors.
TENSORS_MAX: Final = 512  # A ResNet-152 has 932 with its counters; sessions train smaller models.
RANK_MAX: Final = 8  # More dimensions than a 3-D convolution has; keeps a shape's product cheap.
NAME_CHARS_MAX: Final = 200
EXCESS_PERMILLE: Final = 20  # A model may be 2 % larger than the session's: room for another writer's header (protocol.md).
DTYPE_BYTES: Final[Mapping[str, int]] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


class HeaderError(ValueError):
    """What is wrong with a header, as the end of a sentence; callers turn it into their own error."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type and shape of one tensor, and where its bytes lie: from `begin` to `end`, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int = 0
    end: int = 0

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


Header = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What every model of a session looks like: name -> type and shape, and the size of the initial model's file."""

    tensors: Mapping[str, TensorSpec]
    file_bytes: int

    @property
    def file_bytes_max(self) -> int:
        return self.file_bytes + self.file_bytes * EXCESS_PERMILLE // 1000

    @property
    def parameters(self) -> int:
        return sum(math.prod(spec.shape) for spec in self.tensors.values())


def read_manifest(model: Content) -> Manifest:
    """The manifest of a session, from its initial model. Raises: HeaderError."""
    header = read_header(model)
    return Manifest({name: TensorSpec(spec.dtype, spec.shape) for name, spec in header.items()}, len(model))


def read_header(content: Content) -> Header:
    """Names, types, shapes and places of all tensors of a safetensors file, in the order of their bytes.

    Raises: HeaderError: the file is not safetensors, is larger or deeper than the limits, names a tensor twice, or its
    tensors do not cover the rest of the file exactly once.
    """
    if len(content) < 8:
        raise HeaderError(f"it has {len(content)} bytes, fewer than a safetensors file needs")
    size = int.from_bytes(content[:8], "little")
    if size > HEADER_BYTES_MAX:
        raise HeaderError(f"it is not a safetensors file: its header claims {size} bytes, at most {HEADER_BYTES_MAX} are allowed")
    if 8 + size > len(content):
        raise HeaderError(f"its header claims {size} bytes, but only {len(content) - 8} follow")
    entries = _parse_json(bytes(content[8 : 8 + size]))
    entries.pop("__metadata__", None)
    if len(entries) > TENSORS_MAX:
        raise HeaderError(f"it holds {len(entries)} tensors, at most {TENSORS_MAX} are allowed")
    specs = [(name, _read_spec(name, entry, 8 + size)) for name, entry in entries.items()]
    specs.sort(key=lambda item: (item[1].begin, item[1].end))
    place = 8 + size
    for name, spec in specs:
        if spec.begin != place:
            raise HeaderError(f"tensor {name!r} starts at byte {spec.begin}, expected {place}: tensors overlap or leave a gap")
        if spec.end - spec.begin != spec.size_bytes:
            raise HeaderError(f"tensor {name!r} claims {spec.end - spec.begin} bytes, but {spec} needs {spec.size_bytes}")
        place = spec.end
    if place != len(content):
        raise HeaderError(f"its tensors end at byte {place}, but the file has {len(content)} bytes")
    return dict(specs)


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        text.decode("utf-8")  # `json` would also guess UTF-16.
        entries = parse_json(text, pairs=_unique, constant=_no_constant)
    except HeaderError:
        raise
    except JsonTooDeepError:
        raise HeaderError("its header is nested too deeply") from None
    except ValueError:  # Also UnicodeDecodeError, and integers of thousands of digits.
        raise HeaderError("its header is not JSON") from None
    if not isinstance(entries, dict):
        raise HeaderError("its header is not a JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError("its header names something twice")
    return found


def _no_constant(text: str) -> float:
    raise HeaderError(f"its header holds {text}")


def _read_spec(name: str, entry: Any, data_begin: int) -> TensorSpec:
    shown = name[:NAME_CHARS_MAX]
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise HeaderError(f"a tensor's name is not printable or longer than {NAME_CHARS_MAX} characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"tensor {shown!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise HeaderError(f"tensor {shown!r} has a type that is not allowed, expected one of {', '.join(DTYPE_BYTES)}")
    if not _are_sizes(shape) or len(shape) > RANK_MAX:
        raise HeaderError(f"tensor {shown!r} has a shape that is not a list of at most {RANK_MAX} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise HeaderError(f"tensor {shown!r} has data_offsets that are not a begin and an end")
    return TensorSpec(dtype, tuple(shape), data_begin + offsets[0], data_begin + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def find_model_fault(model: Content, manifest: Manifest) -> tuple[str, TensorSpec, TensorSpec | None] | str | None:
    """What keeps these bytes from being a model of the session, None if nothing does. Values are not looked at.

    Returns: a sentence's end; or (name, expected, found) for a tensor that is missing or has another type or shape.
    """
    if len(model) > manifest.file_bytes_max:
        return f"it has {len(model)} bytes, at most {manifest.file_bytes_max} are allowed in this session"
    try:
        header = read_header(model)
    except HeaderError as error:
        return str(error)
    return find_tensor_fault(header, manifest.tensors)


def find_tensor_fault(header: Header, tensors: Mapping[str, TensorSpec]) -> tuple[str, TensorSpec, TensorSpec | None] | str | None:
    """What in a header is not exactly these tensors; as `find_model_fault`."""
    for name, expected in tensors.items():
        found = header.get(name)
        if found is None or (found.dtype, found.shape) != (expected.dtype, expected.shape):
            return name, expected, found
    unknown = next((name for name in header if name not in tensors), None)
    return None if unknown is None else f"it holds a tensor {unknown!r} that the session's models do not have"
