"""`learnae mam create | parse`: lines in, lines out, and a sentence for every line that cannot be done."""

from __future__ import annotations

import io
import json
import sys

import pytest

from learnae.cli import main
from learnae.sensors.mam_lines import LINE_BYTES_MAX, answer_create, answer_parse

SEED = "LEARNAE" + "9" * 74


class FakeInput:
    """Standard input of bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, content: bytes) -> list[dict[str, object]]:
    monkeypatch.setattr(sys, "stdin", FakeInput(content))
    assert main(["mam", command]) == 0
    written = capsys.readouterr()
    assert "insecure" in written.err and "Curl-P-27" in written.err
    return [json.loads(line) for line in written.out.splitlines()]


def test_command__creates_and_parses_through_pipes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"seed": SEED, "text": f"21,{n} °C", "security": 1, "start": n} for n in range(2)]
    made = pipe(monkeypatch, capsys, "create", "\n\n".join(map(json.dumps, lines)).encode())
    assert [sorted(message) for message in made] == [["address", "next_root", "payload", "root"]] * 2
    assert made[0]["next_root"] == made[1]["root"]

    asked = [{"payload": message["payload"], "root": message["root"]} for message in made]
    read = pipe(monkeypatch, capsys, "parse", "\n".join(map(json.dumps, asked)).encode() + b"\n")
    assert [message["text"] for message in read] == ["21,0 °C", "21,1 °C"]
    assert read[0]["next_root"] == made[1]["root"]


def test_command__goes_on_after_lines_that_cannot_be_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"seed": SEED, "message": "ABC", "security": 1}).encode()
    long = b'{"seed": "' + b"A" * (3 * LINE_BYTES_MAX) + b'"}'
    made = pipe(monkeypatch, capsys, "create", b"\n".join([b"nonsense", long, b"[1]", good]))

    assert [sorted(line) for line in made] == [["error"]] * 3 + [["address", "next_root", "payload", "root"]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"7", "a line that is not a JSON object"),
        (b"{}", "`seed` is missing; known names are seed, message"),
        (json.dumps({"seed": SEED}).encode(), "neither or both of `message` and `text`"),
        (json.dumps({"seed": SEED, "message": "A", "sed": 1}).encode(), "unknown name 'sed'"),
        (json.dumps({"seed": SEED, "message": "A", "security": "2"}).encode(), "`security` is '2'; expected int"),
        (json.dumps({"seed": SEED, "message": "A", "count": True}).encode(), "`count` is 'True'; expected int"),
    ],
)
def test_create_line__is_answered_with_what_is_wrong(line: bytes, why: str) -> None:
    assert why in answer_create(line)["error"]


def test_parse_line__is_answered_with_what_is_wrong() -> None:
    assert "`payload` is missing" in answer_parse(b'{"root": "A"}')["error"]
    assert "the root is 1 characters" in answer_parse(b'{"root": "A", "payload": "9A9A9A9A"}')["error"]
