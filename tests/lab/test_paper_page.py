"""The report of section 7: Figures 6 to 10, the table, the plain values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from learnae.lab.paper import PAPER_SETTING, PUBLISHED, Reproduction, Setting, compute_values, reproduce, run_fast
from learnae.lab.paper_page import write_paper_report
from learnae.lab.paper_summary import format_table, judge_figures, summarise
from learnae.lab.plots import draw_corrections, draw_progress
from learnae.lab.swarm import CREDIT_WEI

SMALL = Setting(peers=12, cycles=10, malicious=3)


def run_seeds(setting: Setting, count: int) -> Reproduction:
    seeds = range(count)
    return reproduce(setting, seeds, [compute_values(run_fast(setting, seed), malicious=setting.malicious) for seed in seeds])


@pytest.fixture(scope="module")
def section_7() -> Reproduction:
    return run_seeds(PAPER_SETTING, 40)


@pytest.fixture(scope="module")
def folder(section_7: Reproduction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "new"
    write_paper_report(section_7, folder, through="fast", seconds=1.5)
    return folder


def read_svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def find(root: ElementTree.Element, name: str, kind: str) -> list[ElementTree.Element]:
    return [item for item in root.iter() if item.tag.endswith(name) and kind in item.get("class", "").split()]


def test_report__writes_the_page_the_values_and_five_figures(folder: Path) -> None:
    """Section 7: Figures 6 to 10, each as a file that needs nothing else; no draft stays behind."""
    names = sorted(path.name for path in folder.iterdir())

    assert names == ["figure-10.svg", "figure-6.svg", "figure-7.svg", "figure-8.svg", "figure-9.svg", "paper.html", "paper.json"]
    for path in folder.glob("*.svg"):
        root = read_svg(path.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert [item for item in root.iter() if item.tag.endswith("style")]
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None and title.text is not None and title.text.startswith("Figure ")


def test_page__fetches_nothing_and_shows_every_figure(folder: Path) -> None:
    page = (folder / "paper.html").read_text(encoding="utf-8")

    assert not re.search(r"(src|href)=|url\(|<script", page)
    for number in range(6, 11):
        assert f"<h2>Figure {number}: " in page
    for figure in PUBLISHED:
        assert f">{figure.section}  {figure.words}<" in page


@pytest.mark.parametrize(("name", "malicious"), [("figure-6", 0), ("figure-8", 10)])
def test_figures_6_and_8__draw_every_peer_and_dash_the_malicious(folder: Path, name: str, malicious: int) -> None:
    """7.1, 7.2: "The malicious peers are denoted with thick dashed lines"."""
    root = read_svg((folder / f"{name}.svg").read_text(encoding="utf-8"))
    style = next(item.text or "" for item in root.iter() if item.tag.endswith("style"))

    assert len(find(root, "path", "balance")) == 100
    assert len(find(root, "path", "silent")) == malicious
    assert re.search(r"\.balance\.silent \{[^}]*stroke-dasharray", style)


@pytest.mark.parametrize(("name", "malicious"), [("figure-7", 0), ("figure-9", 10), ("figure-10", 10)])
def test_figures_7_9_and_10__draw_a_bar_for_every_peer(folder: Path, name: str, malicious: int) -> None:
    root = read_svg((folder / f"{name}.svg").read_text(encoding="utf-8"))
    bars = [len(find(root, "rect", kind)) for kind in ("bar-up", "bar-down", "bar-silent")]

    assert sum(bars) == 100
    assert bars[2] == malicious


def test_lines__end_at_the_payouts_and_bars_at_the_corrections() -> None:
    """The drawing says what the numbers say: two peers that help one another once."""
    pair = run_fast(Setting(peers=2, cycles=1, malicious=0), 3)
    drawing = draw_progress([[1000, 900], [1000, 1100]], pair.honest, [1, 9], malicious=0)
    paid = [wei / CREDIT_WEI for wei in pair.honest.consolidated]

    for peer, credits in enumerate(paid):
        assert f"peer {peer}, factor {(1, 9)[peer]}: {(900, 1100)[peer]:,} credits after tips, {credits:,.1f} from the fund" in drawing
    assert draw_corrections(pair.honest, malicious=1).count("<rect") == 2


def test_summary__holds_each_figure_as_published_median_and_band(section_7: Reproduction, folder: Path) -> None:
    """Issue: under `honest` and `malicious`, each figure as paper, median, low, high."""
    summary = json.loads((folder / "paper.json").read_text(encoding="utf-8"))

    assert summary == summarise(section_7, through="fast", seconds=1.5)
    assert set(summary["honest"]) == {"peers_up", "mean_gain", "mean_loss"}
    both = {"discrepancy_relative", "discrepancy_symmetric"}
    assert set(summary["malicious"]) == {*summary["honest"], *both, "malicious_change", "other_loss"}
    for block in (summary["honest"], summary["malicious"]):
        for figure in block.values():
            assert figure["low"] <= figure["median"] <= figure["high"]
            assert figure["inside"] == (figure["low"] <= figure["paper"] <= figure["high"])
    assert summary["honest"]["mean_gain"]["paper"] == 241.84
    assert all(summary[name] == summary["malicious"][name] for name in both)
    assert (summary["peers"], summary["cycles"], summary["malicious_peers"], summary["seeds"]) == (100, 50, 10, 40)


def test_table__shows_published_figures_beside_ours(section_7: Reproduction) -> None:
    lines = format_table(section_7, through="fast", seconds=2.0).splitlines()

    assert lines[0] == "Section 7 with 100 peers, 50 cycles, 10 malicious: 40 seeds in 2.0 s, on the ledger alone"
    gain = next(line for line in lines if "mean gain" in line)
    assert gain.split()[5:7] == ["+241.84", f"{section_7.bands[PUBLISHED[1]].median:+.2f}"]
    assert gain.endswith("in")
    assert next(line for line in lines if "/ a " in line).endswith("outside")
    assert max(map(len, lines[:-1])) <= 110


def test_judgement__is_about_the_papers_setting_and_enough_seeds_only(section_7: Reproduction) -> None:
    """Nothing is said to fit that was not compared."""
    assert judge_figures(section_7).startswith("All 8 figures of 7.1 and 7.2 lie in our band.")
    assert "fits as mean of |a − b| / (a + b)." in judge_figures(section_7)
    few = run_seeds(PAPER_SETTING, 2)
    assert judge_figures(few) == "2 seeds cannot tell whether the published figures fit; 40 or more can."
    assert "outside" not in format_table(few, through="fast", seconds=1.0)
    assert format_table(few, through="protocol", seconds=1.0).splitlines()[-2] == "Every balance is that of the ledger alone, to the wei."
    assert "cannot be compared" in judge_figures(run_seeds(SMALL, 2))


@pytest.mark.parametrize("setting", [Setting(2, 1, 0), Setting(2, 1, 1), Setting(2, 4, 0), Setting(3, 2, 2), Setting(500, 3, 400)])
def test_report__of_any_setting_can_be_drawn(setting: Setting, tmp_path: Path) -> None:
    """Two peers and one cycle may leave nobody that gains or loses: a dash, no error."""
    result = run_seeds(setting, 1)
    page = write_paper_report(result, tmp_path, through="protocol", seconds=0.1)

    assert page.read_text(encoding="utf-8").count("<h2>Figure ") == 5
    assert "nan" not in (tmp_path / "figure-6.svg").read_text(encoding="utf-8").lower().split("</style>")[1]
    assert ("–" in format_table(result, through="fast", seconds=0.1)) == (None in result.values[0].values())
