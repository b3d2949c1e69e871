"""The table of the laboratory as a heat map: one page, no script, nothing fetched; and the drawing alone as SVG.

Blue cells are attacks that cost their ring something, orange ones pay. The scale is logarithmic, because a gain of 10 is as far
from 1 as a gain of a tenth. Marked cells break a promise; faint names stand beside the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from learnae.lab.measure import Measure
from learnae.lab.words import MARK
from learnae.report.document import compose_document, compose_drawing, header, legend
from learnae.report.markup import Markup, label, svg, tag

LEFT: Final = 190.0
CELL_WIDTH: Final = 76.0
CELL_HEIGHT: Final = 27.0
GAP: Final = 16.0  # between the attacks on the ledger and those on the protocol
STRONGEST: Final = 4.0  # A gain of 4, or of a quarter, has the full colour.
_STYLE: Final = Markup(
    ".cost{fill:var(--swarm)}.pays{fill:var(--alone)}.even{fill:var(--line)}"
    ".broken{fill:none;stroke:var(--silent);stroke-width:2.2}.level{font-size:11px;letter-spacing:.08em;text-transform:uppercase}"
)


def draw_heatmap(measures: Sequence[Measure]) -> Markup:
    """One share of attackers: attacks downwards, rules across."""
    rules = list(dict.fromkeys(measure.rule for measure in measures))
    groups = _group(measures)
    cells = {(measure.attack, measure.rule): measure for measure in measures}
    parts = [line for column, rule in enumerate(rules) for line in _draw_name(rule, LEFT + (column + 0.5) * CELL_WIDTH)]
    top = 40.0
    for title, rows in groups:
        parts.append(label(0, top + 12, title, class_="level soft"))
        top += 20
        for attack, inside in rows:
            parts.append(label(LEFT - 10, top + 18, attack, class_="end" if inside else "end soft"))
            for column, rule in enumerate(rules):
                cell = cells.get((attack, rule))
                if cell is not None:
                    parts.append(_draw_cell(cell, LEFT + column * CELL_WIDTH, top))
            top += CELL_HEIGHT
        top += GAP
    says = f"Malicious gain of each attack under each reward rule, {measures[0].share:.0%} attackers"
    return svg(LEFT + len(rules) * CELL_WIDTH + 6, top, *parts, says=says)


def _draw_name(rule: str, x: float) -> list[Markup]:
    """A rule's name over its column, broken at its first hyphen so that two of them never touch."""
    first, hyphen, rest = rule.partition("-")
    lines = [first + hyphen, rest] if rest else [first]
    return [label(x, 31 - 14 * (len(lines) - 1 - index), words, class_="mid small strong") for index, words in enumerate(lines)]


def _group(measures: Sequence[Measure]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Rows by level, and those beside the catalogue last."""
    titles = {
        ("ledger", True): "on the ledger",
        ("protocol", True): "on the protocol, real peers",
        ("ledger", False): "beside the catalogue",
        ("protocol", False): "beside the catalogue",
    }
    groups: dict[str, dict[tuple[str, bool], None]] = {title: {} for title in titles.values()}
    for measure in measures:
        groups[titles[measure.level, measure.in_catalogue]][measure.attack, measure.in_catalogue] = None
    return [(title, list(rows)) for title, rows in groups.items() if rows]


def _draw_cell(cell: Measure, x: float, y: float) -> Markup:
    strength = compute_strength(cell.gain)
    kind = "even" if abs(strength) < 0.01 else "pays" if strength > 0 else "cost"
    opacity = 0.55 if kind == "even" else 0.10 + 0.80 * abs(strength)
    words = f"{cell.attack} against {cell.rule}: gain {cell.gain:.3f} ± {cell.gain_error:.3f}, honest loss {cell.honest_loss:.2%}"
    if cell.note:
        words += f", {cell.note}"
    box = tag(
        "rect", tag("title", words), x=x + 1.5, y=y + 1.5, width=CELL_WIDTH - 3, height=CELL_HEIGHT - 3, rx=4, class_=kind,
        style=f"fill-opacity:{opacity:.3f}",
    )  # fmt: skip
    number = label(
        x + CELL_WIDTH / 2,
        y + 18,
        f"{cell.gain:.2f}{' ' + MARK if cell.broken else ''}",
        class_="mid cell-number" + (" inverse" if abs(strength) > 0.6 else ""),
    )
    frame = [tag("rect", x=x + 2.5, y=y + 2.5, width=CELL_WIDTH - 5, height=CELL_HEIGHT - 5, rx=3, class_="broken")] if cell.broken else []
    return tag("g", box, *frame, number)


def compute_strength(gain: float) -> float:
    """-1 to 1: how far a gain is from 1, by its logarithm; nothing and less count as the end of the scale."""
    if gain <= 1 / STRONGEST:
        return -1.0
    return min(1.0, math.log(gain) / math.log(STRONGEST))


def compose_svg(measures: Sequence[Measure]) -> str:
    """One share of attackers as a file of its own."""
    title = f"Malicious gain of attacks under reward rules, {measures[0].share:.0%} attackers"
    return compose_drawing(draw_heatmap(measures), title, style=_STYLE)


def compose_page(measures: Sequence[Measure], promises: str) -> str:
    """All shares on one page, each with its best responses, and the promises that are broken."""
    lead = (
        "What a ring of attackers is paid, over what it would be paid if it were honest: at 1.00 the attack is idle, above it pays. "
        "Point at a cell for its error and the loss of the honest."
    )
    sections = [_compose_share([m for m in measures if m.share == share]) for share in dict.fromkeys(m.share for m in measures)]
    if promises:
        sections.append(tag("section", tag("h2", "Promises"), *(tag("p", line) for line in promises.splitlines())))
    return compose_document(
        "Attacks and reward rules", header("LEARNAE laboratory", "Attacks and reward rules", lead), *sections, style=_STYLE
    )


def _compose_share(measures: Sequence[Measure]) -> Markup:
    key = legend(
        ("alone", "the attack pays"), ("line", "idle"), ("swarm", "the attack costs"), ("silent", f"framed and {MARK}: breaks a promise")
    )
    found = [tag("li", tag("b", m.rule), f": {m.note}") for m in measures if m.note]
    notes = tag("div", tag("p", "Best response of the adaptive attacker to"), tag("ul", *found), class_="reading") if found else Markup("")
    return tag("section", tag("h2", f"{measures[0].share:.0%} attackers"), key, tag("div", draw_heatmap(measures), class_="wide"), notes)
