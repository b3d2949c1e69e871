"""What every `Journal` promises."""

from __future__ import annotations

import pytest

from learnae.ids import CODEC_DAG_CBOR, Cid, compute_cid
from learnae.ports import Journal


def check_journal(journal: Journal) -> None:
    """`journal` is new and empty."""
    assert list(journal.vertices()) == []
    assert journal.records() == {}
    assert journal.vertices_count == 0

    first, second = _vertex(b"first"), _vertex(b"second")
    journal.append([first, second], [("stage", b"training"), ("sequence", b"1")])
    assert list(journal.vertices()) == [b"first", b"second"]
    assert journal.records() == {"stage": b"training", "sequence": b"1"}

    journal.append([first, _vertex(b"third")], [("sequence", b"2"), ("stage", None), ("absent", None)])
    assert list(journal.vertices()) == [b"first", b"second", b"third"], "a known vertex is kept once, at its first place"
    assert journal.records() == {"sequence": b"2"}, "None deletes, a new value replaces"

    journal.append([], [("empty", b"")])
    assert journal.records() == {"sequence": b"2", "empty": b""}

    assert journal.vertices_count == 3
    assert [journal.read_vertex(number) for number in range(3)] == [b"first", b"second", b"third"]
    assert journal.find_vertex(_vertex(b"third")[0]) == (2, b"third")
    assert journal.find_vertex(_vertex(b"never")[0]) is None
    with pytest.raises(IndexError):
        journal.read_vertex(3)

    many = [_vertex(b"%d" % number) for number in range(1000)]
    journal.append(many)
    assert list(journal.vertices())[3:] == [block for _, block in many]
    assert journal.vertices_count == 1003 and journal.find_vertex(many[-1][0]) == (1002, b"999")
    journal.close()


def _vertex(block: bytes) -> tuple[Cid, bytes]:
    return compute_cid(block, CODEC_DAG_CBOR), block
