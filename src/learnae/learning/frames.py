"""What a node and its learning worker say to one another over pipes: a JSON header and binary attachments, never pickle.

    4 bytes   length of the header, big-endian
    header    JSON object; "sizes" lists the lengths of the attachments
    ...       the attachments, one after another

Both sides are ours, but models pass through, so lengths are bounded and checked. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import json
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
    sizes = [len(item) for item in attachments]
    header = json.dumps({**values, "sizes": sizes}).encode()
    if len(header) > HEADER_BYTES_MAX or len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame with {len(sizes)} attachments of {sum(sizes)} bytes in total is larger than allowed")
    return b"".join((len(header).to_bytes(4, "big"), header, *attachments))


class FrameReader:
    """Puts frames together from pieces of a stream. `feed`, then `take` until it gives None."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._header: tuple[dict[str, Any], list[int]] | None = None

    def feed(self, piece: bytes) -> None:
        self._pending += piece

    def take(self) -> Frame | None:
        """The next whole frame, None if more bytes are needed. Raises: FrameError."""
        if self._header is None:
            self._header = self._take_header()
            if self._header is None:
                return None
        values, sizes = self._header
        if len(self._pending) < sum(sizes):
            return None
        attachments, place = [], 0
        for size in sizes:
            attachments.append(bytes(memoryview(self._pending)[place : place + size]))
            place += size
        del self._pending[:place]
        self._header = None
        return Frame(values, tuple(attachments))

    def _take_header(self) -> tuple[dict[str, Any], list[int]] | None:
        if len(self._pending) < 4:
            return None
        size = int.from_bytes(self._pending[:4], "big")
        if size > HEADER_BYTES_MAX:
            raise FrameError(f"a frame's header claims {size} bytes, at most {HEADER_BYTES_MAX} are allowed")
        if len(self._pending) < 4 + size:
            return None
        try:
            values = parse_json(bytes(self._pending[4 : 4 + size]))
        except ValueError as error:
            raise FrameError("a frame's header is not JSON") from error
        del self._pending[: 4 + size]
        sizes = values.pop("sizes", None) if isinstance(values, dict) else None
        if not isinstance(sizes, list) or not all(type(item) is int and item >= 0 for item in sizes):
            raise FrameError("a frame's header does not list the sizes of its attachments")
        if len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
            raise FrameError(f"a frame claims {len(sizes)} attachments of {sum(sizes)} bytes in total, more than allowed")
        return values, sizes
