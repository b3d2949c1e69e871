"""Plot (c): the Shared Contribution Ledger as a heat map (Fig. 4): the peer of a row owes credits to the peer of a column."""

from __future__ import annotations

import math

from learnae.report.markup import Markup, label, line, svg, tag
from learnae.report.model import SessionReport
from learnae.report.words import clean_text, shorten

WIDTH = 860.0
LEFT, SUMS = 120.0, 74.0


def draw_ledger(report: SessionReport) -> Markup:
    """Darker is more; sums beside and below, which is what the reward rule divides the fund by."""
    count = len(report.peers)
    side = min(88.0, (WIDTH - LEFT - SUMS) / count)
    tall = side if count > 12 else min(side, 52.0)
    top = 96.0 if side < 70 else 34.0  # Slanted names need height.
    most = max((value for row in report.ledger for value in row), default=0) or 1
    parts = []
    for row, peer in enumerate(report.peers):
        y = top + row * tall
        owed = sum(report.ledger[row]) if report.ledger else 0
        kind = "end" + (" fill-silent" if peer.role == "silent" else "")
        parts.append(label(LEFT - 8, y + tall / 2 + 4, shorten(peer.name, 14), class_=kind))
        parts += [_draw_cell(report, row, column, (LEFT + column * side, y, side, tall), most) for column in range(count)]
        parts.append(label(LEFT + count * side + 10, y + tall / 2 + 4, f"{owed:,}", class_="soft small"))
    height = top + count * tall + 46
    parts += _draw_columns(report, side, top, top + count * tall)
    parts.append(label(LEFT - 8, top - 10, "owes ↓   to →", class_="end soft small"))
    parts.append(label(LEFT + count * side + 10, top - 10, "owes in all", class_="soft small"))
    return svg(
        LEFT + count * side + SUMS + 12, height, *parts, says="The ledger: credits that the peer of a row owes to the peer of a column"
    )


def _draw_cell(report: SessionReport, row: int, column: int, place: tuple[float, float, float, float], most: int) -> Markup:
    x, y, side, tall = place
    value = report.ledger[row][column] if report.ledger else 0
    share = math.sqrt(max(0, value) / most)
    words = f"{clean_text(report.peers[row].name)} owes {clean_text(report.peers[column].name)} {value:,} credits"
    kind = "cell self" if row == column else "cell"
    gap = 1.5 if side > 30 else 0.6
    box = tag(
        "rect",
        tag("title", words),
        x=x + gap,
        y=y + gap,
        width=side - 2 * gap,
        height=tall - 2 * gap,
        rx=min(5.0, side / 8),
        class_=kind,
        style=f"fill-opacity:{0.06 + 0.94 * share:.3f}" if value > 0 else "fill-opacity:.04",
    )
    if len(report.peers) > 12 or value <= 0:
        return tag("g", box)
    return tag(
        "g", box, label(x + side / 2, y + tall / 2 + 4, f"{value:,}", class_="mid cell-number" + (" inverse" if share > 0.62 else ""))
    )


def _draw_columns(report: SessionReport, side: float, top: float, bottom: float) -> list[Markup]:
    count = len(report.peers)
    totals = [sum(row[column] for row in report.ledger) for column in range(count)]
    most = max(totals, default=0) or 1
    parts = [line(LEFT, bottom + 6, LEFT + count * side, bottom + 6, "axis")]
    for column, peer in enumerate(report.peers):
        x = LEFT + (column + 0.5) * side
        slanted = f"rotate(-45 {x:.1f} {top - 10:.1f})" if side < 70 else None
        parts.append(label(x, top - 10, shorten(peer.name, 14), class_="" if slanted else "mid", transform=slanted))
        total = totals[column]
        if side >= 44:
            parts.append(label(x, bottom + 24, f"{total:,}", class_="mid soft small"))
        else:
            words = tag("title", f"{clean_text(peer.name)} is owed {total:,} credits in all")
            height = max(1.0, 34 * total / most)
            parts.append(tag("rect", words, x=x - side / 2 + 1.5, y=bottom + 8, width=side - 3, height=height, class_="sum"))
    parts.append(label(LEFT - 8, bottom + 24, "is owed in all", class_="end soft small"))
    return parts
