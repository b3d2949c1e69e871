"""What a node and its learning worker say to one another over a socket: JSON, with attachments in shared memory; never pickle.

    4 bytes   length of the header, big-endian
    header    JSON object; "sizes" lists the lengths of the attachments

The attachments lie one after another in a file in memory, whose descriptor travels with the first byte of the header. So a model
passes from one process to the other without being copied through a pipe. A request may also bring room for the attachments of its
answer ("room", then "in_room"). The node writes one request after another into the same memory, and gives the same room again when
nobody refers to the last answer, because new memory costs more than writing into it: what a worker was given is there until its answer.
For the same reason the worker keeps the requests' memory mapped from one to the next.

Both sides are ours, but models pass through, so lengths are bounded and checked.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import tempfile
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.ids import Content, Pieces

HEADER_BYTES_MAX: Final = 64 * 1024  # A list of 1,024 slice numbers, or an error with its text.
ATTACHMENTS_MAX: Final = 1100  # A training cycle takes up to 1,024 slices, and a model.
FRAME_BYTES_MAX: Final = 2 << 30  # Two models of a session at the 1 GiB that networks of this kind can bear.
PIECE_BYTES: Final = 64 * 1024  # Of the stream, read at a time.
FILES_MAX: Final = 4  # Descriptors that are taken with a piece of the stream; a frame has one.
FILES_SPACE: Final = socket.CMSG_SPACE(FILES_MAX * array("i").itemsize)
RECEIVE_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
KEPT_BYTES: Final = 256 << 20  # What larger requests needed is given back with their answer.
_POPULATE: Final = getattr(mmap, "MAP_POPULATE", 0)


class FrameError(ValueError):
    """A stream of frames is broken: the other side is not what it should be."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`attachments` are read where they lie: their memory is given back when nobody refers to them.

    `room` is for those of the answer. An answer that lies in the room of its request has their sizes alone, in `sizes`.
    """

    values: dict[str, Any]
    attachments: tuple[memoryview, ...] = ()
    room: SharedMemory | None = None
    sizes: tuple[int, ...] = ()


class SharedMemory:
    """A file that has no name, in memory on Linux, elsewhere where temporary files are; it grows with what is written into it."""

    def __init__(self, file: int | None = None) -> None:
        """`file`: a descriptor of such a file, which is this object's from now on; a new file if None."""
        self.file = _make_file() if file is None else file
        self._map: mmap.mmap | None = None

    def write(self, parts: Sequence[Content | Pieces]) -> None:
        """Put these bytes at its begin, one part after another. Raises: FileLostError."""
        place = 0
        for part in parts:
            for piece in [part] if isinstance(part, bytes | memoryview) else part:
                view = memoryview(piece)
                while view:
                    written = os.pwrite(self.file, view, place)
                    view, place = view[written:], place + written

    def view(self, sizes: Sequence[int]) -> tuple[memoryview, ...]:
        """Parts of these sizes, from its begin. Raises: FrameError: there are not so many bytes."""
        found_bytes = os.fstat(self.file).st_size
        if found_bytes < sum(sizes):
            raise FrameError(f"a frame's attachments have {found_bytes} bytes, its header says {sum(sizes)}")
        if self._map is None or len(self._map) < sum(sizes):
            self._map = mmap.mmap(self.file, sum(sizes), flags=mmap.MAP_SHARED | _POPULATE, prot=mmap.PROT_READ)
        memory = memoryview(self._map)
        return tuple(memory[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True))

    def is_same(self, other: SharedMemory) -> bool:
        """Whether both are one file, by two descriptors."""
        return os.path.samestat(os.fstat(self.file), os.fstat(other.file))

    def is_free(self) -> bool:
        """Whether nobody refers to what was viewed last, so that it may be written over."""
        try:
            if self._map is not None:
                self._map.close()
        except BufferError:
            return False
        self._map = None
        return True

    def close(self) -> None:
        """No more of it; what was viewed can still be read."""
        os.close(self.file)


def encode_frame(
    values: dict[str, Any], attachments: Sequence[Content | Pieces], memory: SharedMemory, *, room: SharedMemory | None = None
) -> tuple[bytes, list[int]]:
    """Write the attachments into `memory`; the bytes to send, and the descriptors that go with the first of them.

    Raises: FrameError: it is larger than the limits. FileLostError.
    """
    sizes = [len(item) for item in attachments]
    header = json.dumps({**values, "sizes": sizes, **({} if room is None else {"room": True})}).encode()
    if len(header) > HEADER_BYTES_MAX or len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame with {len(sizes)} attachments of {sum(sizes)} bytes in total is larger than allowed")
    memory.write(attachments)
    files = [memory.file] if any(sizes) and not values.get("in_room") else []
    return len(header).to_bytes(4, "big") + header, files if room is None else [*files, room.file]


class FrameReader:
    """Puts frames together from pieces of a stream and the descriptors that came with them. `feed`, then `take` until it gives None."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._files: deque[int] = deque()
        self._memory: SharedMemory | None = None  # of the last attachments

    def feed(self, piece: bytes, files: Iterable[int] = ()) -> None:
        """`files` are closed by this reader."""
        self._text += piece
        self._files.extend(files)

    def take(self) -> Frame | None:
        """The next whole frame, None if more bytes are needed. Raises: FrameError."""
        if len(self._text) < 4:
            return None
        size = int.from_bytes(self._text[:4], "big")
        if size > HEADER_BYTES_MAX:
            raise FrameError(f"a frame's header claims {size} bytes, at most {HEADER_BYTES_MAX} are allowed")
        if len(self._text) < 4 + size:
            return None
        text = bytes(self._text[4 : 4 + size])
        del self._text[: 4 + size]
        values, sizes = _read_header(text)
        has_room = values.pop("room", False) is True
        if values.pop("in_room", False) is True:
            return Frame(values, sizes=tuple(sizes))
        return Frame(values, self._open(sizes), SharedMemory(self._take_file()) if has_room else None)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popleft())
        self._keep(None)

    def _open(self, sizes: Sequence[int]) -> tuple[memoryview, ...]:
        if not any(sizes):
            return tuple(memoryview(b"") for _ in sizes)
        memory = SharedMemory(self._take_file())
        if self._memory is not None and memory.is_same(self._memory):
            memory.close()
        else:
            self._keep(memory)
        assert self._memory is not None
        try:
            return self._memory.view(sizes)
        finally:
            if sum(sizes) > KEPT_BYTES:
                self._keep(None)

    def _keep(self, memory: SharedMemory | None) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = memory

    def _take_file(self) -> int:
        if not self._files:
            raise FrameError("a frame's attachments, or the room for them, did not come with it")
        return self._files.popleft()


def pack_files(files: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """What `sendmsg` takes beside the first byte of a frame."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files).tobytes())] if files else []


def unpack_files(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what `recvmsg` gives beside the bytes."""
    files = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(content[: len(content) - len(content) % files.itemsize])
    return list(files)


def _read_header(text: bytes) -> tuple[dict[str, Any], list[int]]:
    try:
        values = parse_json(text)
    except ValueError as error:
        raise FrameError("a frame's header is not JSON") from error
    sizes = values.pop("sizes", None) if isinstance(values, dict) else None
    if not isinstance(sizes, list) or not all(type(item) is int and item >= 0 for item in sizes):
        raise FrameError("a frame's header does not list the sizes of its attachments")
    if len(sizes) > ATTACHMENTS_MAX or sum(sizes) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame claims {len(sizes)} attachments of {sum(sizes)} bytes in total, more than allowed")
    return values, sizes


def _make_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("learnae", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
