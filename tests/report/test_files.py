"""summary.json and report.html: complete, self-contained, safe to open."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from learnae.report import SessionReport, compute_summary, format_table, write_report
from learnae.report.page import compose_page
from learnae.report.swarm import RIBBONS_MAX
from tests.report.made_up import ETHER, make_report

HOSTILE = "<script>alert(1)</script>\"'\u202e&"


class Balanced(HTMLParser):
    """Collects tags, attributes and text; fails where an end tag does not fit."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def rename(report: SessionReport, name: str) -> SessionReport:
    """The same session with another name for its first peer."""
    old = report.peers[0].name
    peers = (replace(report.peers[0], name=name, peer_id=name), *report.peers[1:])
    names = {old: name}
    adoptions = tuple(
        entry._replace(helper=names.get(entry.helper, entry.helper), adopter=names.get(entry.adopter, entry.adopter))
        for entry in report.adoptions
    )
    return replace(report, peers=peers, adoptions=adoptions, session=name, machine=name, ticket_digest=name)


def test_summary__holds_what_programs_read() -> None:
    report = make_report()

    summary = compute_summary(report)

    assert {"session", "seconds", "accuracy_pooled", "fund_wei", "paid_wei", "ledgers_equal", "peers"} <= summary.keys()
    peers = summary["peers"]
    assert isinstance(peers, list)
    wanted = {"name", "peer_id", "role", "accuracy_alone", "accuracy", "help_given", "help_received", "deposit_wei", "payout_wei"}
    assert all(wanted <= peer.keys() for peer in peers)
    assert [peer["role"] for peer in peers] == ["honest", "silent", "honest", "restarted", "honest", "honest"]
    assert summary["fund_wei"] == str(6 * ETHER // 10)
    assert all(isinstance(peer[key], str) and peer[key].isdigit() for peer in peers for key in ("deposit_wei", "payout_wei"))


def test_summary__writes_null_for_what_was_not_measured() -> None:
    summary = compute_summary(replace(make_report(), accuracy_pooled=math.nan))

    assert summary["accuracy_pooled"] is None
    assert "NaN" not in json.dumps(summary, allow_nan=False)


def test_write_report__leaves_two_whole_files(tmp_path: Path) -> None:
    page = write_report(make_report(), tmp_path / "new" / "folder")

    assert json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))["session"] == "digits-demo"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "summary.json"]


@pytest.mark.parametrize("count", [1, 2, 6, 9, 13, 30])
def test_page__is_well_formed_for_any_number_of_peers(count: int) -> None:
    parsed = Balanced(compose_page(make_report(count)))

    assert parsed.open == []
    assert parsed.seen.count("svg") == 4 + count  # four plots and one small drawing a peer


def test_page__fetches_and_runs_nothing() -> None:
    """The page opens from disk, says nothing to anybody, and forbids itself everything but its own style."""
    page = compose_page(make_report())
    parsed = Balanced(page)

    assert not {"script", "link", "img", "iframe", "object", "image", "use", "a"} & set(parsed.seen)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in {"href", "src", "xlink:href"}]
    assert not re.search(r"url\(|@import|https?:", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'") in parsed.attributes


def test_page__escapes_all_text_from_outside() -> None:
    """A peer's name is text: no tag, no attribute, no reversed line comes from it."""
    page = compose_page(rename(make_report(), HOSTILE))
    parsed = Balanced(page)

    assert "script" not in parsed.seen
    assert "\u202e" not in page
    assert any("<script>" in words for words in parsed.words)  # shown, as text


def test_page__bounds_what_a_long_name_takes() -> None:
    plain, long = make_report(), rename(make_report(), "x" * 50_000)

    assert len(compose_page(long)) < len(compose_page(plain)) + 30_000


def test_page__follows_the_readers_scheme_and_names_the_paper() -> None:
    page = compose_page(make_report())

    assert "prefers-color-scheme: dark" in page
    assert all(section in page for section in ("section 4.1", "section 4.3, equation 1", "section 6, figures 3 and 4", "figures 7 and 9"))


def test_page__draws_the_strongest_ribbons_and_says_so() -> None:
    page = compose_page(make_report(30))

    assert page.count('class="ribbon"') == RIBBONS_MAX
    assert f"the {RIBBONS_MAX} that gained most are drawn" in page


def broken_reports() -> Iterator[SessionReport]:
    report = make_report()
    yield replace(report, ledger=(), adoptions=(), stages=(), pooled_curve=())
    yield replace(report, peers=tuple(replace(peer, curve=(), alone_curve=(), accuracy=math.nan) for peer in report.peers))
    yield replace(report, peers=tuple(replace(peer, curve=((0.0, math.nan), (1.0, 2.0), (2.0, -math.inf))) for peer in report.peers))
    yield replace(
        report, fund_wei=0, paid_wei=0, peers=tuple(replace(p, deposit_wei=0, payout_wei=0, tips_balance_wei=0) for p in report.peers)
    )
    yield replace(report, seconds=0.0, accuracy_pooled=math.nan)
    yield replace(report, peers=tuple(replace(peer, role="silent") for peer in report.peers))


@pytest.mark.parametrize("report", list(broken_reports()))
def test_page__stands_when_figures_are_missing(report: SessionReport) -> None:
    """A session that was cut short still gets its report, without a `nan` in any drawing."""
    parsed = Balanced(compose_page(report))

    assert parsed.open == []
    assert not [value for name, value in parsed.attributes if name in {"d", "x", "y", "cx", "cy", "width", "height"} and "nan" in value]
    assert format_table(report)


def test_page__tells_wei_that_rounding_left_behind() -> None:
    report = make_report()
    dust = report.fund_wei - report.paid_wei

    assert 0 < dust < 6
    assert f"{dust} wei of rounding stay" in compose_page(report)
    assert "of rounding stay" not in compose_page(replace(report, paid_wei=report.fund_wei))


def test_table__is_narrow_aligned_and_complete() -> None:
    report = make_report()

    lines = format_table(report).splitlines()

    assert all(len(line) < 100 for line in lines)
    assert [line.split()[0] for line in lines[2:8]] == [peer.name for peer in report.peers]
    assert len({len(line) for line in (lines[0], lines[2], lines[9])}) == 1
    assert "every honest peer holds the same ledger" in lines[-1]


def test_table__says_loudly_when_ledgers_differ() -> None:
    assert "LEDGERS OF HONEST PEERS DIFFER" in format_table(replace(make_report(), ledgers_equal=False))


def test_table__keeps_names_from_writing_to_the_terminal() -> None:
    assert "\x1b" not in format_table(rename(make_report(), "\x1b[2Jada"))
