"""The line between light publishers and nodes: frames, and what a stranger may send on it."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from learnae.backends.sensor_link import open_link
from learnae.backends.sensor_sources import BAUDS, Sample, open_serial, parse_fields, parse_line, read_lines
from learnae.protocol import events as ev
from learnae.sensor_errors import LinkError, SourceError
from learnae.sensors import link
from learnae.sensors.link import AskHello, Attach, Attached, FrameReader, Hello, Odd, Page, Watch, fill_pages, parse_answer, parse_question
from learnae.tangle import cbor
from tests.sensors.builders import MEMBER, Key, make_lane
from tests.sensors.station_bed import make_hello, open_bed

ISSUER = Key("issuer").peer
TIPS = {make_lane().tangle.genesis: (5, MEMBER.peer)}
ODD = Odd(time_ms=5, texts=("a payload that is no JSON", "°"), signature=bytes(64))
QUESTIONS: list[link.Question] = [
    AskHello(),
    Attach(issuer=ISSUER, vertices=(b"a", b"b")),
    Attach(issuer=ISSUER, odd=ODD),
    Watch(have={ISSUER: 3, MEMBER.peer: 0}, odd=7),
]
ANSWERS: list[link.Answer] = [
    Hello(net=b"12345678", codename="garden", starts_ms=5, slice_bytes=100, members=(MEMBER.peer,)),
    Attached(have=3, why="no", tips=TIPS),
    Page(vertices=(b"a",), done=True, odd=2, texts=("odd",)),
]


@given(st.lists(st.integers(1, 40), max_size=30))
def test_frames__are_cut_out_of_any_pieces(cuts: list[int]) -> None:
    stream = b"".join(question.encode() for question in QUESTIONS) * 2
    reader = FrameReader(parse_question)
    found: list[link.Question] = []
    for size in [*cuts, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        frames = reader.receive(piece)
        assert frames is not None
        found += frames
    assert found == QUESTIONS * 2


@pytest.mark.parametrize("answer", ANSWERS)
def test_answer__is_read_back(answer: Hello | Attached | Page) -> None:
    assert FrameReader(parse_answer).receive(answer.encode()) == [answer]


@given(st.binary(max_size=120))
def test_strangers_bytes__are_a_frame_or_none(content: bytes) -> None:
    found: link.Question | link.Answer | None
    for found in (parse_question(content), parse_answer(content)):
        assert found is None or found.encode()[4:] == content


@pytest.mark.parametrize(
    "values",
    [
        [9], [], {}, [1, b"short", []], [1, ISSUER, [b"x"] * 257], [1, ISSUER, ["text"]], [1, ISSUER, [b"x" * 70_000]],
        [1, ISSUER, [], []], [1, ISSUER, [], [5, [], bytes(64)]], [1, ISSUER, [], [5, ["two\nlines"], bytes(64)]],
        [1, ISSUER, [], [5, ["x"] * 9, bytes(64)]], [1, ISSUER, [], [5, ["x" * 201], bytes(64)]], [1, ISSUER, [], [5, ["x"], b"short"]],
        [2, b"x" * 41, 0], [2, b"", -1], [2, b""], [0, 1],
    ],
)  # fmt: skip
def test_malformed_question__is_none(values: object) -> None:
    encoded = cbor.encode(values) if isinstance(values, list) else b"\xa0"
    assert parse_question(encoded) is None


def test_frame__that_announces_too_much_ends_the_line() -> None:
    assert FrameReader(parse_question).receive((link.FRAME_BYTES_MAX + 1).to_bytes(4, "big")) is None
    assert FrameReader(parse_question).receive((3).to_bytes(4, "big") + b"\xff\xff\xff") is None


def test_pages__fit_into_frames() -> None:
    pages = fill_pages([bytes(60_000)] * 30 + [b"x"] * 600)
    assert [len(page) for page in pages[:-3]] and sum(map(len, pages)) == 630
    assert all(len(page) <= link.VERTICES_MAX and sum(map(len, page)) <= link.FRAME_BYTES_MAX for page in pages)


def test_hostile_client__is_left_and_the_node_goes_on(tmp_path: Path) -> None:
    """Garbage, a frame without end, and a client that says nothing: others are served."""

    async def run() -> None:
        async with open_bed(tmp_path, make_hello()) as bed:
            host, _, port = bed.address.partition(":")
            silent = await trio.open_tcp_stream(host, int(port))
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x00\x00\x00\x02\xff\xff"):
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(garbage)
                    with trio.fail_after(10):
                        assert await stream.receive_some(10) == b""
            async with open_link(bed.address) as good:
                assert (await good.hello()).codename == "garden"
                answer = await good.attach(Attach(issuer=ISSUER, vertices=(b"no vertex",)))
                assert answer.have == 0 and "not dag-cbor" in answer.why
                page = await good.page(Watch(have={}))
                assert page.done and len(page.texts) == 1 and "was refused: not dag-cbor" in page.texts[0]
                assert (await good.page(Watch(have={}, odd=page.odd))).texts == ()
            await silent.aclose()
            assert [tell.topic for tell in bed.told] == [ev.Topic.TROUBLE] and not bed.broken

    trio.run(run)


def test_silent_node__is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learnae.backends.sensor_link.ANSWER_S_MAX", 0.1)

    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        async with listeners[0], open_link(f"127.0.0.1:{port}") as line:
            with pytest.raises(LinkError, match="it did not answer within"):
                await line.hello()

    trio.run(run)


# --- sources ----------------------------------------------------------------------------------------------------


def test_serial_device__is_read_line_by_line() -> None:
    """Issue: a serial device path. A pseudo-terminal is one."""
    fields = parse_fields("a,b")
    troubles: list[str] = []
    master, slave = os.openpty()
    try:
        with open_serial(Path(os.ttyname(slave)), 9600) as device:
            os.write(master, b"1.5;2 3\n# a remark\n\nx y\n4 5\n")

            async def run() -> list[Sample]:
                found: list[Sample] = []
                lines = read_lines(device, fields, on_trouble=troubles.append, now_ms=lambda: 7)
                with trio.move_on_after(20):
                    async with aclosing(lines):
                        found.append(await anext(lines))
                        found.append(await anext(lines))
                return found

            assert trio.run(run) == [Sample(7, (1.5, 2.0), 3), Sample(7, (4.0, 5.0))]
    finally:
        os.close(master)
        os.close(slave)
    assert troubles == ["'x' is not a number: check what the sensor sends"]


@pytest.mark.parametrize(
    ("path", "baud", "why"), [("/nowhere", 9600, "cannot be opened"), ("/dev/null", 1234, "1234 baud: expected one of 1200")]
)
def test_serial_device__that_cannot_be_used_is_told(path: str, baud: int, why: str) -> None:
    assert 9600 in BAUDS
    with pytest.raises(SourceError, match=why):
        open_serial(Path(path), baud)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1, 2", Sample(7, (1.0, 2.0))),
        ("1;2;3", Sample(7, (1.0, 2.0), 3)),
        ('{"a": 1, "b": "2.5", "label": 4, "time": 9, "more": 1}', Sample(9, (1.0, 2.5), 4)),
        ("1", "a line of 1 values"),
        ("1 2 3 4", "a line of 4 values"),
        ("1 nan", "'nan' is not a number"),
        ("1 2 0.5", "a label is a whole number"),
        ('{"a": 1}', "a line without b"),
        ('{"a": 1, "b": true}', "'True' is not a number"),
        ('{"a": 1, "b": 2, "time": -1}', "expected Unix milliseconds"),
        ('{"a"', "a line that is not JSON"),
    ],
)
def test_line__is_a_sample_or_a_sentence(line: str, expected: Sample | str) -> None:
    fields = parse_fields("a,b:Cel:1")
    if isinstance(expected, Sample):
        assert parse_line(line, fields, 7) == expected
    else:
        with pytest.raises(SourceError, match=expected):
            parse_line(line, fields, 7)
