"""What every `Journal` promises."""

from __future__ import annotations

from learnae.ids import CODEC_DAG_CBOR, Cid, compute_cid
from learnae.ports import Journal


def check_journal(journal: Journal) -> None:
    """`journal` is new and empty."""
    assert list(journal.vertices()) == []
    assert journal.records() == {}

    first, second = _vertex(b"first"), _vertex(b"second")
    journal.append([first, second], [("stage", b"training"), ("sequence", b"1")])
    assert list(journal.vertices()) == [b"first", b"second"]
    assert journal.records() == {"stage": b"training", "sequence": b"1"}

    journal.append([first, _vertex(b"third")], [("sequence", b"2"), ("stage", None), ("absent", None)])
    assert list(journal.vertices()) == [b"first", b"second", b"third"], "a known vertex is kept once, at its first place"
    assert journal.records() == {"sequence": b"2"}, "None deletes, a new value replaces"

    journal.append([], [("empty", b"")])
    assert journal.records() == {"sequence": b"2", "empty": b""}

    many = [_vertex(b"%d" % number) for number in range(1000)]
    journal.append(many)
    assert list(journal.vertices())[3:] == [block for _, block in many]
    journal.close()


def _vertex(block: bytes) -> tuple[Cid, bytes]:
    return compute_cid(block, CODEC_DAG_CBOR), block
