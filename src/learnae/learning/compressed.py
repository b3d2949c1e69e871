"""Compressed models as safetensors files: how each codec lays a model out, and whether a stranger's file is laid out so.

Matrices (tensors with two or more dimensions) are quantised; vectors, single numbers, whole numbers and booleans travel exactly as they
are, because they are few and a variance must not become negative. A file of blocks holds

    codes     U8 (bytes)   deflated codes of all matrices, one after another in the order of their names
    scales    BF16 (blocks)
    ancestor  U8 (32)      SHA-256 of the initial model's file, if the codes are differences from it
    exact:N   as it is     tensor N, for each that is not a matrix

All but the length of `codes` follows from the session's manifest and is checked before anything is allocated.
Source: docs/compression.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch

from learnae.errors import ModelRejectedError
from learnae.ids import Content
from learnae.learning.checks import check_header, check_model, check_values
from learnae.learning.codec import StateDict, decode_tensors, encode_tensors
from learnae.learning.header import FLOATS, Header, HeaderError, Manifest, TensorSpec, read_header
from learnae.learning.quantise import CodesError, Quantiser, Scales, Values, count_blocks
from learnae.learning.reduce import compute_rounding

ANCESTOR_BYTES: Final = 32
LARGEST_HALF: Final = 65504.0
EIGHT_BITS: Final = Quantiser(half=127, per_byte=1)
FOUR_BITS: Final = Quantiser(half=7, per_byte=2, step_rms=1.0)
THREE_VALUES: Final = Quantiser(half=1, per_byte=5, step_rms=1.5)


@dataclass(frozen=True, slots=True)
class BlockCodec:
    quantiser: Quantiser
    is_delta: bool  # the codes are differences from the session's initial model


BLOCK_CODECS: Final[Mapping[str, BlockCodec]] = {
    "int8": BlockCodec(EIGHT_BITS, False),
    "delta8": BlockCodec(EIGHT_BITS, True),
    "delta4": BlockCodec(FOUR_BITS, True),
    "delta2": BlockCodec(THREE_VALUES, True),
}


@dataclass(frozen=True)
class BlockLayout:
    """The files of one codec for one manifest."""

    codec: BlockCodec
    manifest: Manifest

    @cached_property
    def matrices(self) -> Mapping[str, TensorSpec]:
        """What is quantised, in the order of the codes."""
        return {name: spec for name, spec in sorted(self.manifest.tensors.items()) if is_matrix(spec)}

    @cached_property
    def _values(self) -> int:
        return sum(math.prod(spec.shape) for spec in self.matrices.values())

    @cached_property
    def _fixed(self) -> dict[str, TensorSpec]:
        """Every tensor of a file but its codes."""
        blocks = sum(count_blocks(math.prod(spec.shape)) for spec in self.matrices.values())
        found = {f"exact:{name}": spec for name, spec in self.manifest.tensors.items() if name not in self.matrices}
        found["scales"] = TensorSpec("BF16", (blocks,))
        if self.codec.is_delta:
            found["ancestor"] = TensorSpec("U8", (ANCESTOR_BYTES,))
        return found

    @property
    def codes_bytes_max(self) -> int:
        """Of the deflated codes; what cannot be deflated grows by less than a thousandth."""
        packed = self.codec.quantiser.count_bytes(self._values)
        return packed + packed // 1000 + 64

    @cached_property
    def file_bytes_max(self) -> int:
        header = 512 + sum(128 + 6 * len(name) for name in self._fixed)
        return header + self.codes_bytes_max + sum(spec.size_bytes for spec in self._fixed.values())

    def encode(self, state: StateDict, initial: StateDict, ancestor: bytes) -> bytes:
        """A model as a file. `ancestor` is the digest of the file of `initial`; both count only if the codec sends differences."""
        tensors = {f"exact:{name}": tensor for name, tensor in state.items() if name not in self.matrices}
        codes, scales = [], []
        for name in self.matrices:
            values = _flatten(state[name])
            if self.codec.is_delta:
                values = values - _flatten(initial[name])
            found, steps = self.codec.quantiser.quantise(values)
            codes.append(found)
            scales.append(steps)
        stream = self.codec.quantiser.pack(np.concatenate(codes))
        tensors["codes"] = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
        tensors["scales"] = torch.from_numpy(np.concatenate(scales).view(np.int16)).view(torch.bfloat16)
        if self.codec.is_delta:
            tensors["ancestor"] = torch.frombuffer(bytearray(ancestor), dtype=torch.uint8)
        return encode_tensors(tensors)

    def check(self, model: Content, ancestor: bytes) -> Header:
        """The header of a file that is laid out as this session's are, with finite scales and the right ancestor.

        Raises: ModelRejectedError, ModelMismatchError. Codes are not looked at yet.
        """
        if len(model) > self.file_bytes_max:
            raise ModelRejectedError(f"it has {len(model)} bytes, at most {self.file_bytes_max} are possible with this session's codec")
        try:
            header = read_header(model)
        except HeaderError as error:
            raise ModelRejectedError(str(error)) from None
        codes = header.get("codes")
        if codes is None or codes.dtype != "U8" or len(codes.shape) != 1 or codes.size_bytes > self.codes_bytes_max:
            found = "nothing" if codes is None else str(codes)
            raise ModelRejectedError(f"its codes are {found}, expected U8 of one dimension and at most {self.codes_bytes_max} bytes")
        check_header(header, {**self._fixed, "codes": codes})
        check_values(model, header)
        scales = _read_scales(model, header["scales"])
        if bool((scales > 0x7FFF).any()):
            raise ModelRejectedError("one of its scales is negative")
        if self.codec.is_delta:
            named = bytes(memoryview(model)[header["ancestor"].begin : header["ancestor"].end])
            if named != ancestor:
                found, expected = f"{named.hex()[:16]}...", f"{ancestor.hex()[:16]}..."
                raise ModelRejectedError(f"its values are differences from model {found}, expected the session's initial model {expected}")
        return header

    def decode(self, model: Content, header: Header, initial: StateDict) -> StateDict:
        """The tensors of a file that was checked.

        Raises: ModelRejectedError: its codes are wrong, a block's scale is not the one that its values need, or a value is not finite.
        """
        quantiser = self.codec.quantiser
        stream = bytes(memoryview(model)[header["codes"].begin : header["codes"].end])
        try:
            codes = quantiser.unpack(stream, self._values)
        except CodesError as error:
            raise ModelRejectedError(str(error)) from None
        exact = {name.removeprefix("exact:"): spec for name, spec in header.items() if name.startswith("exact:")}
        state = decode_tensors(model, exact)
        scales, place, block = _read_scales(model, header["scales"]), 0, 0
        for name, spec in self.matrices.items():
            count = math.prod(spec.shape)
            blocks = count_blocks(count)
            found, steps = codes[place : place + count], scales[block : block + blocks]
            false = quantiser.find_false_step(found, steps)
            if false is not None:
                raise ModelRejectedError(f"block {false} of {name!r} has a scale that no value needs, expected one value with a full code")
            values = torch.from_numpy(quantiser.restore(found, steps)).reshape(spec.shape)
            place, block = place + count, block + blocks
            dtype = initial[name].dtype
            state[name] = (values + initial[name].float() if self.codec.is_delta else values).to(dtype)
            if not bool(torch.isfinite(state[name]).all()):
                raise ModelRejectedError(f"parameter {name!r} is not finite once its codes are multiplied by their scales")
        return state

    def compute_slack(self, model: Content, header: Header, state: StateDict, initial: StateDict) -> StateDict:
        """How far each value of a file that was decoded to `state` may lie from the one that was encoded; exact tensors are left out.

        Half a step; and what is computed in float32 on both ways and rounded to the parameter's type in the end.
        """
        scales, block, slack = _read_scales(model, header["scales"]), 0, {}
        for name, spec in self.matrices.items():
            count = math.prod(spec.shape)
            blocks = count_blocks(count)
            off = torch.from_numpy(self.codec.quantiser.compute_errors_max(count, scales[block : block + blocks])).reshape(spec.shape)
            block += blocks
            size = state[name].double().abs()
            if self.codec.is_delta:
                size = size + initial[name].double().abs()
            slack[name] = off + compute_rounding(state[name].dtype, state[name].double().abs()) + 2**-22 * size
        return slack


@dataclass(frozen=True)
class HalfLayout:
    """Every floating-point tensor as float16, under its own name; one with a value beyond the range of float16 travels as it is."""

    manifest: Manifest

    @property
    def file_bytes_max(self) -> int:
        return self.manifest.file_bytes_max

    def encode(self, state: StateDict, initial: StateDict, ancestor: bytes) -> bytes:
        return encode_tensors({name: tensor.half() if is_halved(tensor) else tensor for name, tensor in state.items()})

    def check(self, model: Content, ancestor: bytes) -> Header:
        """The header of a file in which just the tensors that need it are not float16. Raises: ModelRejectedError, ModelMismatchError."""
        if len(model) > self.file_bytes_max:
            raise ModelRejectedError(f"it has {len(model)} bytes, at most {self.file_bytes_max} are possible with this session's codec")
        try:
            found = read_header(model)
        except HeaderError as error:
            raise ModelRejectedError(str(error)) from None
        whole = {name for name, spec in self.manifest.tensors.items() if spec.dtype in FLOATS and found.get(name, spec).dtype == spec.dtype}
        halved = {name for name, spec in self.manifest.tensors.items() if spec.dtype in FLOATS} - whole
        expected = {name: TensorSpec("F16", spec.shape) if name in halved else spec for name, spec in self.manifest.tensors.items()}
        header = check_model(model, Manifest(expected, self.manifest.file_bytes))
        for name, tensor in decode_tensors(model, {name: header[name] for name in whole}).items():
            if is_halved(tensor) and header[name].dtype != "F16":
                raise ModelRejectedError(f"parameter {name!r} travels as {header[name].dtype} though float16 can hold it, expected F16")
        return header

    def decode(self, model: Content, header: Header, initial: StateDict) -> StateDict:
        return {name: tensor.to(initial[name].dtype) for name, tensor in decode_tensors(model, header).items()}

    def compute_slack(self, model: Content, header: Header, state: StateDict, initial: StateDict) -> StateDict:
        """As `BlockLayout.compute_slack`: what float16 rounds away, and the parameter's type if it is coarser."""
        slack = {}
        for name, tensor in state.items():
            if tensor.is_floating_point() and header[name].dtype == "F16":
                size = tensor.double().abs()
                slack[name] = compute_rounding(torch.float16, size) + compute_rounding(tensor.dtype, size)
        return slack


def is_matrix(spec: TensorSpec) -> bool:
    return spec.dtype in FLOATS and len(spec.shape) >= 2


def make_layout(codec: str, manifest: Manifest) -> BlockLayout | HalfLayout:
    return HalfLayout(manifest) if codec == "float16" else BlockLayout(BLOCK_CODECS[codec], manifest)


def is_halved(tensor: torch.Tensor) -> bool:
    """Whether a tensor travels as float16 with that codec: floating-point numbers, all within its range."""
    return tensor.is_floating_point() and bool((tensor.abs() <= LARGEST_HALF).all())


def _flatten(tensor: torch.Tensor) -> Values:
    found: Values = tensor.detach().cpu().float().contiguous().numpy().reshape(-1)
    return found


def _read_scales(model: Content, spec: TensorSpec) -> Scales:
    return np.frombuffer(memoryview(model)[spec.begin : spec.end], dtype="<u2")
