"""Frames between a node and its worker: whole however the stream is cut, and bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.learning.frames import ATTACHMENTS_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX, Frame, FrameError, FrameReader, encode_frame


@given(st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=4), st.integers(1, 30))
def test_frames__come_back_whole_however_the_stream_is_cut(frames: list[list[bytes]], cut: int) -> None:
    stream = b"".join(encode_frame({"n": index}, attachments) for index, attachments in enumerate(frames))
    reader, found = FrameReader(), []
    for begin in range(0, len(stream), cut):
        reader.feed(stream[begin : begin + cut])
        while (frame := reader.take()) is not None:
            found.append(frame)

    assert found == [Frame({"n": index}, tuple(attachments)) for index, attachments in enumerate(frames)]
    assert reader.take() is None


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
    ],
)
def test_frames__broken_stream_is_an_error(stream: bytes, words: str) -> None:
    reader = FrameReader()
    reader.feed(stream)

    with pytest.raises(FrameError, match=words):
        reader.take()


def test_frames__too_large_ones_are_not_sent() -> None:
    encode_frame({}, [b""] * ATTACHMENTS_MAX)
    with pytest.raises(FrameError, match="larger than allowed"):
        encode_frame({}, [b""] * (ATTACHMENTS_MAX + 1))
    with pytest.raises(FrameError, match="larger than allowed"):
        encode_frame({"text": "a" * HEADER_BYTES_MAX})
