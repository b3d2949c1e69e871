"""Figures 6 to 10 of the paper as drawings, and where each published figure lies among ours."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Final

from learnae.lab.paper import Figure, Outcome, Pair, Reproduction, compute_discrepancies
from learnae.lab.swarm import CREDIT_WEI, DEPOSIT_CREDITS, FACTOR_MAX, FACTOR_MIN
from learnae.report.markup import Markup, Place, join, label, line, polyline, round_ticks, scale, svg, tag

WIDTH: Final = 1000.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 18.0, 18.0, 46.0
PAYOUT_SHARE: Final = 0.1  # Part of the width that shows the consolidation, after the last cycle.
BINS: Final = 24
NARROW_PEERS: Final = 400  # Above so many, bars are thinner than a dot: every n-th peer is drawn.


def pick_hue(factor: int) -> str:
    """The colour of a Contribution Factor: violet for the least, green for the most."""
    share = (factor - FACTOR_MIN) / (FACTOR_MAX - FACTOR_MIN)
    return f"hsl({268 - 118 * share:.0f} 58% {56 - 12 * share:.0f}%)"


def format_signed(value: float, decimals: int = 0) -> str:
    return f"{value:+,.{decimals}f}".replace("-", "−")


# --- Figures 6 and 8 ------------------------------------------------------------------------------------------------


def draw_progress(progress: Sequence[Sequence[int]], outcome: Outcome, factors: Sequence[int], *, malicious: int) -> Markup:
    """Figures 6 and 8: every peer's balance under tips, cycle by cycle, and at the right what the fund makes of it.

    `progress` is `compute_progress` of the same draws; lines of malicious peers are thick and dashed.
    """
    height = 460.0
    finals = [paid / CREDIT_WEI for paid in outcome.consolidated]
    low = min(*(min(balances) for balances in progress), *finals)
    high = max(*(max(balances) for balances in progress), *finals)
    cycles = len(progress[0]) - 1
    end = WIDTH - RIGHT - 14
    last = end - PAYOUT_SHARE * (end - LEFT)
    x, y = scale(0, cycles, LEFT, last), scale(low, high, height - BOTTOM, TOP)
    parts = _draw_scale(low, high, y, WIDTH - RIGHT)
    for tick in round_ticks(cycles, 10):
        parts.append(label(x(tick), height - BOTTOM + 20, f"{tick:g}", class_="mid soft"))
    parts.append(label((LEFT + last) / 2, height - 6, "cycle", class_="mid small soft"))
    parts.append(tag("rect", x=last, y=TOP, width=end - last, height=height - TOP - BOTTOM, class_="zone"))
    parts.append(label((last + end) / 2, height - 6, "consolidation", class_="mid small soft"))
    order = sorted(range(len(progress)), key=lambda peer: (peer < malicious, factors[peer]))  # Malicious ones above the others.
    for peer in order:
        points = [(x(cycle), y(balance)) for cycle, balance in enumerate(progress[peer])] + [(end, y(finals[peer]))]
        parts += _draw_line(points, peer, factors[peer], progress[peer][-1], finals[peer], is_malicious=peer < malicious)
    parts.append(label(LEFT - 8, TOP - 6, "credits", class_="end small soft"))
    return svg(WIDTH, height, *parts, says="Balance of every peer during the session and after the consolidation")


def _draw_line(
    points: list[tuple[float, float]], peer: int, factor: int, tips: float, final: float, *, is_malicious: bool
) -> list[Markup]:
    kind = "malicious " if is_malicious else ""
    words = f"{kind}peer {peer}, factor {factor}: {tips:,.0f} credits after tips, {final:,.1f} from the fund"
    style = None if is_malicious else f"stroke:{pick_hue(factor)}"
    dot = tag("circle", tag("title", words), cx=points[-1][0], cy=points[-1][1], r=3.4 if is_malicious else 2.4,
              class_="dot silent" if is_malicious else "dot", style=None if is_malicious else f"fill:{pick_hue(factor)}")  # fmt: skip
    return [polyline(points, "balance silent" if is_malicious else "balance", title=words, style=style), dot]


def draw_factor_key() -> Markup:
    """Which colour is which Contribution Factor."""
    squares = [tag("i", style=f"background:{pick_hue(factor)};margin-right:2px") for factor in range(FACTOR_MIN, FACTOR_MAX + 1)]
    return tag("span", f"Contribution Factor {FACTOR_MIN} ", *squares, f" {FACTOR_MAX}")


# --- Figures 7, 9 and 10 ----------------------------------------------------------------------------------------------


def draw_corrections(outcome: Outcome, *, malicious: int) -> Markup:
    """Figures 7 and 9: by how many credits the consolidation changes each balance; dotted lines are the means of gains and losses."""
    changes = outcome.compute_corrections()
    words = [f"peer {peer}: {format_signed(change, 1)} credits by the consolidation" for peer, change in enumerate(changes)]
    return _draw_bars(changes, words, malicious=malicious, unit="credits", says="Correction of every balance by the consolidation")


def draw_discrepancies(pair: Pair, *, malicious: int) -> Markup:
    """Figure 10: by how many per cent each final balance differs because some peers never reported."""
    changes = [change or 0.0 for change in compute_discrepancies(pair)]
    words = [f"peer {peer}: {format_signed(change, 1)} % because of the malicious peers" for peer, change in enumerate(changes)]
    return _draw_bars(changes, words, malicious=malicious, unit="%", says="Discrepancy of every final balance between the experiments")


def _draw_bars(changes: Sequence[float], words: Sequence[str], *, malicious: int, unit: str, says: str) -> Markup:
    height = 380.0
    low, high = min(0.0, *changes), max(0.0, *changes)
    pad = 0.06 * ((high - low) or 1.0)
    low, high = low - (pad if low < 0 else 0), high + (pad if high > 0 else 0)
    count = len(changes)
    y = scale(low, high, height - BOTTOM, TOP)
    right = WIDTH - RIGHT - 74  # Room for the words at the means.
    step = (right - LEFT) / count
    parts = _draw_scale(low, high, y, right, is_signed=True)
    stride = ceil(count / NARROW_PEERS)
    for peer in range(0, count, stride):
        top, bottom = sorted((y(changes[peer]), y(0.0)))
        kind = "bar-silent" if peer < malicious else "bar-up" if changes[peer] > 0 else "bar-down"
        bar = tag("rect", tag("title", words[peer]), x=LEFT + peer * step + 0.12 * step, y=top, width=max(0.5, 0.76 * step * stride),
                  height=max(0.6, bottom - top), class_=kind)  # fmt: skip
        parts.append(bar)
    for tick in round_ticks(count, 10):
        if tick < count:
            parts.append(label(LEFT + (tick + 0.5) * step, height - BOTTOM + 20, f"{tick:g}", class_="mid soft"))
    parts.append(label((LEFT + right) / 2, height - 6, "peer", class_="mid small soft"))
    parts.append(label(LEFT - 8, TOP - 6, unit, class_="end small soft"))
    parts += _draw_means(changes, y, right, unit)
    return svg(WIDTH, height, *parts, says=says)


def _draw_means(changes: Sequence[float], y: Place, right: float, unit: str) -> list[Markup]:
    parts = []
    for side in ([change for change in changes if change > 0], [change for change in changes if change < 0]):
        if not side:
            continue
        mean = sum(side) / len(side)
        decimals = 1 if unit == "%" else 0
        parts.append(line(LEFT, y(mean), right, y(mean), "mean"))
        parts.append(label(right + 6, y(mean) + 4, f"mean {format_signed(mean, decimals)}", class_="small strong"))
        parts.append(label(right + 6, y(mean) + 19, f"of {len(side)} peers", class_="tiny soft"))
    return parts


def _draw_scale(low: float, high: float, y: Place, right: float, *, is_signed: bool = False) -> list[Markup]:
    """Horizontal lines at round numbers; the deposit or the zero is drawn stronger."""
    base = 0 if is_signed else DEPOSIT_CREDITS
    parts = []
    for tick in _round_between(low, high, 6):
        parts.append(line(LEFT, y(tick), right, y(tick), "axis" if tick == base else "grid"))
        words = format_signed(tick) if is_signed and tick else f"{tick:,.0f}".replace("-", "−")
        parts.append(label(LEFT - 8, y(tick) + 4, words, class_="end" if tick == base else "end soft"))
    return parts


def _round_between(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    ticks = round_ticks(high - low, count)
    step = ticks[1] if len(ticks) > 1 else 1.0
    return [step * index for index in range(ceil(low / step), floor(high / step) + 1)]


# --- our seeds and the paper's numbers ----------------------------------------------------------------------------------


def draw_distribution(result: Reproduction, figure: Figure) -> Markup:
    """How often which value came up over all seeds, the 95 % band shaded; the published value is the vertical line."""
    width, height, foot = 300.0, 132.0, 104.0
    band = result.bands[figure]
    values = [value for value in (values[figure] for values in result.values) if value is not None]
    if not values or band.low is None or band.high is None:
        return svg(width, height, label(width / 2, height / 2, "nothing to count", class_="mid soft"), says=figure.words)
    low, high = min(*values, figure.paper), max(*values, figure.paper)
    x = scale(low, high, 12, width - 12)
    bins = BINS if figure.decimals else min(BINS, int(high - low) + 1)  # Whole numbers would leave gaps among more bars than there are.
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(bins * (value - low) / ((high - low) or 1.0)))] += 1
    y = scale(0, max(counts), foot, 44)
    wide = (width - 24) / bins
    kind, tone = ("published", "") if band.contains(figure.paper) or not result.is_comparable else ("published outside", "fill-silent")
    shown = f"{figure.paper:,.{figure.decimals}f}".replace("-", "−") + figure.unit
    turn = "end" if x(figure.paper) > width / 2 else ""
    parts = [
        tag("rect", x=x(band.low), y=38, width=max(1.0, x(band.high) - x(band.low)), height=foot - 38, class_="zone"),
        *[
            tag("rect", x=12 + place * wide + 0.5, y=y(count), width=wide - 1, height=foot - y(count), class_="sum")
            for place, count in enumerate(counts)
            if count
        ],
        line(12, foot, width - 12, foot, "axis"),
        line(x(figure.paper), 30, x(figure.paper), foot, kind),
        label(x(figure.paper) + (-5 if turn else 5), 34, f"published {shown}", class_=f"{turn} small strong over {tone}".strip()),
        label(8, 14, f"{figure.section}  {figure.words}", class_="small soft"),
        label(12, foot + 18, f"{low:,.{figure.decimals}f}".replace("-", "−"), class_="small soft"),
        label(width - 12, foot + 18, f"{high:,.{figure.decimals}f}".replace("-", "−"), class_="end small soft"),
    ]
    return tag("figure", svg(width, height, join(parts), says=f"{figure.words}: published {shown}"), class_="small-multiple")
