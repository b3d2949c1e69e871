"""Frames between a node and its worker: whole however the stream is cut, and bounded; attachments come in shared memory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.learning.frames import (
    ATTACHMENTS_MAX,
    FILES_SPACE,
    FRAME_BYTES_MAX,
    HEADER_BYTES_MAX,
    FrameError,
    FrameReader,
    SharedMemory,
    encode_frame,
    pack_files,
    unpack_files,
)


def encode(values: dict[str, object], attachments: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """A frame in memory of its own, whose descriptor is the receiver's."""
    memory = SharedMemory()
    content, files = encode_frame(values, attachments, memory)
    copies = [os.dup(file) for file in files]
    memory.close()
    return content, copies


def count_files() -> int:
    return len(os.listdir("/dev/fd"))


@given(st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=4), st.integers(1, 30))
def test_frames__come_back_whole_however_the_stream_is_cut(frames: list[list[bytes]], cut: int) -> None:
    before = count_files()
    reader, found = FrameReader(), []
    for index, attachments in enumerate(frames):
        content, files = encode({"n": index}, attachments)
        for begin in range(0, len(content), cut):
            reader.feed(content[begin : begin + cut], files)
            files = []
        while (frame := reader.take()) is not None:
            found.append((frame.values, [bytes(item) for item in frame.attachments]))

    assert found == [({"n": index}, attachments) for index, attachments in enumerate(frames)]
    assert reader.take() is None
    reader.close()
    assert count_files() == before


def test_frames__pass_through_a_socket_with_their_memory() -> None:
    """Several before the first is read: each takes its own attachments."""
    one, other = socket.socketpair()
    with one, other:
        for number in range(5):
            content, files = encode({"n": number}, [bytes([number]) * 300_000, b"", b"end"] if number != 2 else [])
            assert one.sendmsg([content], pack_files(files)) == len(content)
            for file in files:
                os.close(file)
        reader, found = FrameReader(), []
        while len(found) < 5:
            piece, ancillary, _, _ = other.recvmsg(7, FILES_SPACE)
            reader.feed(piece, unpack_files(ancillary))
            while (frame := reader.take()) is not None:
                found.append(frame)

    assert [frame.values["n"] for frame in found] == [0, 1, 2, 3, 4]
    for number, frame in enumerate(found):
        expected: Sequence[bytes] = [] if number == 2 else [bytes([number]) * 300_000, b"", b"end"]
        assert [bytes(item) for item in frame.attachments] == list(expected)


def header(values: object) -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ((HEADER_BYTES_MAX + 1).to_bytes(4, "big"), "header claims 65537 bytes"),
        (header(b"{"), "not JSON"),
        (header(b"\xff\xfe"), "not JSON"),
        (header([]), "does not list the sizes"),
        (header({}), "does not list the sizes"),
        (header({"sizes": 3}), "does not list the sizes"),
        (header({"sizes": [-1]}), "does not list the sizes"),
        (header({"sizes": [1.0]}), "does not list the sizes"),
        (header({"sizes": [True]}), "does not list the sizes"),
        (header({"sizes": [FRAME_BYTES_MAX + 1]}), "more than allowed"),
        (header({"sizes": [0] * (ATTACHMENTS_MAX + 1)}), "more than allowed"),
        (header({"sizes": [1]}), "did not come with it"),
    ],
)
def test_frames__broken_stream_is_an_error(stream: bytes, words: str) -> None:
    reader = FrameReader()
    reader.feed(stream)

    with pytest.raises(FrameError, match=words):
        reader.take()


def test_frames__memory_that_is_too_small_is_an_error() -> None:
    """Reading behind the end of mapped memory would end the process."""
    before = count_files()
    _, files = encode({}, [b"four"])
    reader = FrameReader()
    reader.feed(header({"sizes": [5]}), files)

    with pytest.raises(FrameError, match="have 4 bytes, its header says 5"):
        reader.take()
    reader.close()
    assert count_files() == before


def test_frames__closed_reader_keeps_no_memory() -> None:
    before = count_files()
    _, files = encode({}, [b"four"])
    reader = FrameReader()
    reader.feed(b"", files)
    reader.close()
    assert count_files() == before


def test_frames__one_memory_serves_frames_of_any_size() -> None:
    memory = SharedMemory()
    for attachments in ([b"a" * 100_000, b"b"], [b"short"], [], [b"c" * 200_000]):
        content, files = encode_frame({}, attachments, memory)
        reader = FrameReader()
        reader.feed(content, map(os.dup, files))
        frame = reader.take()
        assert frame is not None and [bytes(item) for item in frame.attachments] == attachments
    memory.close()


def test_frames__memory_stays_mapped_from_one_frame_to_the_next() -> None:
    memory, reader = SharedMemory(), FrameReader()

    def pass_on(attachment: bytes) -> memoryview:
        content, files = encode_frame({}, [attachment], memory)
        reader.feed(content, map(os.dup, files))
        frame = reader.take()
        assert frame is not None and bytes(frame.attachments[0]) == attachment
        return frame.attachments[0]

    first = pass_on(b"a" * 100_000)
    before = count_files()
    second = pass_on(b"b" * 50_000)
    assert first[:50_000] == second, "the same memory, written over"
    assert count_files() == before
    pass_on(b"c" * 200_000)
    reader.close()
    memory.close()


def test_frames__memory_of_a_large_one_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learnae.learning.frames.KEPT_BYTES", 10)
    memory, reader, before = SharedMemory(), FrameReader(), count_files()
    for attachment, kept in ((b"a" * 10, True), (b"b" * 11, False)):
        content, files = encode_frame({}, [attachment], memory)
        reader.feed(content, map(os.dup, files))
        frame = reader.take()
        assert frame is not None and bytes(frame.attachments[0]) == attachment
        del frame
        assert (count_files() > before) == kept
    memory.close()


def test_frames__answer_lies_in_the_room_of_its_request() -> None:
    room, memory = SharedMemory(), SharedMemory()
    content, files = encode_frame({}, [b"asked"], memory, room=room)
    reader = FrameReader()
    reader.feed(content, map(os.dup, files))
    request = reader.take()
    assert request is not None and request.room is not None and [bytes(item) for item in request.attachments] == [b"asked"]
    content, files = encode_frame({"in_room": True}, [b"one", b"two!"], request.room)
    assert files == []
    request.room.close()
    reader.feed(content)
    answer = reader.take()
    assert answer is not None and answer.sizes == (3, 4) and answer.attachments == ()
    views = room.view(answer.sizes)
    assert [bytes(item) for item in views] == [b"one", b"two!"]
    assert not room.is_free(), "somebody refers to the answer still"
    del views
    assert room.is_free()
    with pytest.raises(FrameError, match="have 7 bytes, its header says 8"):
        room.view([8])
    room.close()
    memory.close()


def test_frames__too_large_ones_are_not_sent() -> None:
    memory = SharedMemory()
    encode_frame({}, [b""] * ATTACHMENTS_MAX, memory)
    with pytest.raises(FrameError, match="larger than allowed"):
        encode_frame({}, [b""] * (ATTACHMENTS_MAX + 1), memory)
    with pytest.raises(FrameError, match="larger than allowed"):
        encode_frame({"text": "a" * HEADER_BYTES_MAX}, [], memory)
    memory.close()
