"""What a node and its learning worker say to one another over pipes: a JSON header and binary attachments, never pickle.

    4 bytes   length of the header, big-endian
    header    JSON object; "sizes" lists the lengths of the attachments
    ...       the attachments, one after another

Both sides are ours, but models pass through, so lengths are bounded and checked. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from learnae.bounded_json import parse_json

HEADER_BYTES_MAX: Final = 64 * 1024  # A list of 1,024 slice numbers, or an error with its text.
ATTACHMENTS_MAX: Final = 1100  # A training cycle takes up to 1,024 slices, and a model.
FRAME_BYTES_MAX: Final = 2 << 30  # Two models of a session at the 1 GiB that networks of this kind can bear.


class FrameError(ValueError):
    """A stream of frames is broken: the other side is not what it should be."""


@dataclass(frozen=True, slots=True)
class Frame:
    values: dict[str, Any]
    attachments: tuple[bytes, ...] = ()


def encode_frame(values: dict[str, Any], attachments: Sequence[bytes] = ()) -> bytes:
    """One frame. Raises: FrameError: it is larger than the limits."""
    return b"".join(encode_parts(values, attachments))


def encode_parts(values: dict[str, Any], attachments: Sequence[bytes] = ()) -> list[bytes]:
    """One frame in parts to be written one after another, so that models are not copied. Raises: FrameError as `encode_frame`."""
    sizes = [len(item) for item in attachments]
    header = json.dumps({**values, "sizes": sizes}).encode()
    if len(header) > HEADER_BYTES_MAX or len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame with {len(sizes)} attachments of {sum(sizes)} bytes in total is larger than allowed")
    return [len(header).to_bytes(4, "big") + header, *attachments]


class FrameReader:
    """Puts frames together from pieces of a stream. `feed`, then `take` until it gives None."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = 0  # bytes of all pieces
        self._head: int | None = None  # length of a header that is not whole yet
        self._header: tuple[dict[str, Any], list[int]] | None = None

    def feed(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(memoryview(piece))
            self._size += len(piece)

    def take(self) -> Frame | None:
        """The next whole frame, None if more bytes are needed. Raises: FrameError."""
        if self._header is None:
            self._header = self._take_header()
            if self._header is None:
                return None
        values, sizes = self._header
        if self._size < sum(sizes):
            return None
        self._header = None
        return Frame(values, tuple(map(self._cut, sizes)))

    def _cut(self, size: int) -> bytes:
        """The next `size` bytes, which are there; copied once."""
        self._size -= size
        parts: list[memoryview] = []
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def _take_header(self) -> tuple[dict[str, Any], list[int]] | None:
        if self._head is None:
            if self._size < 4:
                return None
            self._head = int.from_bytes(self._cut(4), "big")
        if self._head > HEADER_BYTES_MAX:
            raise FrameError(f"a frame's header claims {self._head} bytes, at most {HEADER_BYTES_MAX} are allowed")
        if self._size < self._head:
            return None
        try:
            values = parse_json(self._cut(self._head))
        except ValueError as error:
            raise FrameError("a frame's header is not JSON") from error
        self._head = None
        sizes = values.pop("sizes", None) if isinstance(values, dict) else None
        if not isinstance(sizes, list) or not all(type(item) is int and item >= 0 for item in sizes):
            raise FrameError("a frame's header does not list the sizes of its attachments")
        if len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
            raise FrameError(f"a frame claims {len(sizes)} attachments of {sum(sizes)} bytes in total, more than allowed")
        return values, sizes
