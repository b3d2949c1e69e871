"""What is measured, which promise a cell breaks, and the table as text, CSV, JSON and heat map."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from learnae.lab.heatmap import compose_page, compose_svg, compute_strength
from learnae.lab.measure import Measure, measure, ratio
from learnae.lab.trial import Trial
from learnae.lab.words import format_csv, format_details, format_gains, format_json, format_promises

TRIAL = Trial(
    rule="audited", seed=0, ring_wei=100, ring_honest_wei=100, others_wei=900, others_honest_wei=900, others=9, others_rejected=0,
    fund_share=0.1,
)  # fmt: skip


def cell(*changes: dict[str, object], attack: str = "ring", rule: str = "audited", share: int = 100, in_catalogue: bool = True) -> Measure:
    trials = [replace(TRIAL, seed=seed, rule=rule, **change) for seed, change in enumerate(changes)]  # type: ignore[arg-type]
    return measure(attack, trials, level="ledger", in_catalogue=in_catalogue, share_permille=share)


# --- measures -------------------------------------------------------------------------------------------------------


def test_gain__is_the_ratio_of_sums_over_all_seeds() -> None:
    found = cell({"ring_wei": 300, "ring_honest_wei": 100}, {"ring_wei": 100, "ring_honest_wei": 300})

    assert found.gain == 1.0
    assert found.gain_error > 0.5


def test_gain_error__is_that_of_a_ratio() -> None:
    """Residuals of 30 and -30 around a ratio of 1: sqrt(2 * 900 * 2 / 1) / 200."""
    assert ratio([(130, 100), (70, 100)]) == (1.0, pytest.approx(0.3))
    assert ratio([(5, 4)]) == (1.25, 0.0)
    assert ratio([(0, 0)]) == (1.0, 0.0)


def test_losses__and_rejections_are_parts_of_what_honesty_gives() -> None:
    found = cell({"others_wei": 810, "victims_wei": 30, "victims_honest_wei": 40, "others_rejected": 3}, {})

    assert found.honest_loss == pytest.approx(0.05)
    assert found.victim_loss == pytest.approx(0.25)
    assert found.false_rejection == pytest.approx(3 / 18)
    assert cell({}).victim_loss is None


def test_detection__is_a_mean_over_offenders_that_were_found() -> None:
    found = cell({"offenders": 4, "found": 1, "found_after": 10.0}, {"offenders": 4, "found": 3, "found_after": 2.0}, {})

    assert found.detected == 0.5
    assert found.time_to_detect == pytest.approx((10 + 3 * 2) / 4)
    assert cell({}).detected is None and cell({"offenders": 1}).time_to_detect is None


# --- promises -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "broken"),
    [
        (cell({"ring_wei": 101}, {"ring_wei": 101}), ("profitable",)),
        (cell({"ring_wei": 100}, {"ring_wei": 100}), ()),
        (cell({"ring_wei": 130}, {"ring_wei": 75}), ()),  # more than 1, by chance
        (cell({"ring_wei": 101}, {"ring_wei": 101}, rule="raw"), ()),
        (cell({"ring_wei": 101}, {"ring_wei": 101}, share=301), ()),
        (cell({"ring_wei": 101}, {"ring_wei": 101}, share=300), ("profitable",)),
        (cell({"ring_wei": 101}, {"ring_wei": 101}, in_catalogue=False), ()),
        (cell({"others_wei": 890}), ("honest loss above 1 %",)),
        (cell({"others_rejected": 1}), ("honest members frozen",)),
        (cell({"fund_share": 0.21}, rule="budgeted"), ("a ring takes more than twice its share",)),
        (cell({"fund_share": 0.21}, rule="budgeted", attack="withhold"), ()),
        (cell({"ring_wei": 101}, rule="budgeted", attack="sybil-split"), ("a sybil nets something",)),
        (cell({"ring_wei": 102}, rule="audited-void"), ("profitable",)),
    ],
)  # fmt: skip
def test_promise__that_a_cell_breaks_is_named(found: Measure, broken: tuple[str, ...]) -> None:
    """Issue: where it is not reached, the table says so."""
    assert found.broken == broken


def test_promises__in_words() -> None:
    held, broken = cell({}), cell({"ring_wei": 120})

    assert format_promises([held]) == "every promise of docs/lab.md holds in this table"
    assert format_promises([held, broken]).splitlines()[0] == "! ring against audited at 10%: profitable (gain 1.200)"
    assert format_promises([cell({}, rule="raw")]) == ""


# --- what people and programs read --------------------------------------------------------------------------------------

TABLE = [
    cell({"ring_wei": 120}),
    cell({"ring_wei": 55}, rule="raw"),
    cell({"ring_wei": 250}, rule="raw", attack="clique", in_catalogue=False),
    replace(cell({}, attack="adaptive", rule="raw", share=300), note="60% <ring> + 40% honest"),
]


def test_gains__stand_attacks_by_rules_with_a_table_for_each_share() -> None:
    lines = format_gains(TABLE).splitlines()

    assert lines[0] == "10% attackers: malicious gain (payout with the attack / payout if honest)"
    assert lines[1].split() == ["attack", "level", "audited", "raw"]
    assert lines[2].split() == ["ring", "ledger", "1.20!", "0.55"]
    assert lines[3].split() == ["(clique)", "ledger", "2.50"]
    assert lines[5].startswith("30% attackers")
    assert len({len(line.rstrip("! ")) for line in lines[2:4]}) <= 2


def test_details__hold_every_measure_and_the_mixture() -> None:
    text = format_details(TABLE)

    assert "falsely rejected" in text and "1.20!" in text
    assert text.splitlines()[-1] == "adaptive against raw at 30%: 60% <ring> + 40% honest"


def test_csv__and_json_hold_the_same() -> None:
    rows = list(csv.DictReader(io.StringIO(format_csv(TABLE))))
    values = json.loads(format_json(TABLE))["measures"]

    assert [row["gain"] for row in rows] == [str(value["gain"]) for value in values] == ["1.2", "0.55", "2.5", "1.0"]
    assert rows[0]["broken"] == "profitable" and rows[1]["broken"] == ""
    assert set(rows[0]) == set(values[0])


def test_heat_map__is_well_formed_and_shows_every_cell() -> None:
    drawing = ElementTree.fromstring(compose_svg(TABLE[:3]))
    texts = ["".join(node.itertext()) for node in drawing.iter() if node.tag.endswith("text")]

    assert {"ring", "clique", "raw", "audited", "1.20 !", "0.55", "2.50"} <= set(texts)
    kinds = [node.get("class") for node in drawing.iter() if node.tag.endswith("rect")]
    assert kinds.count("pays") == 2 and kinds.count("cost") == 1 and kinds.count("broken") == 1


def test_page__escapes_what_comes_from_outside_and_loads_nothing() -> None:
    page = compose_page(TABLE, "! one & two")

    assert "60% &lt;ring&gt;" in page and "one &amp; two" in page
    assert "<script" not in page and "default-src &#x27;none&#x27;" in page
    assert page.count("<svg") == 2


@pytest.mark.parametrize(
    ("gain", "strength"), [(1.0, 0.0), (4.0, 1.0), (16.0, 1.0), (0.25, -1.0), (0.0, -1.0), (-7.0, -1.0), (2.0, 0.5), (0.5, -0.5)]
)
def test_strength__is_even_on_both_sides_of_one(gain: float, strength: float) -> None:
    assert compute_strength(gain) == pytest.approx(strength)
