"""Plot (a): accuracy over time, of everybody at once and peer by peer.

The vertical scale is the logarithm of the error, labelled with accuracies: from 94 to 95 % is as far as from 88 to 90 %,
because both remove a sixth of the errors. A linear scale would hide all that happens after the first seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import median

from learnae.report.markup import Markup, Place, join, label, line, polyline, round_ticks, scale, svg, tag
from learnae.report.model import Curve, PeerReport, SessionReport
from learnae.report.words import clean_text, format_duration, format_percent, shorten

WIDTH, HEIGHT = 1000.0, 430.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 168.0, 34.0, 44.0
POINTS_MAX = 400  # Per line; more cannot be seen and only make the file heavy.
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)
_ERROR_MIN = 0.001


def error_digits(accuracy: float) -> float:
    """Minus the decimal logarithm of the error: 0.9 is 1, 0.99 is 2."""
    return -math.log10(max(_ERROR_MIN, 1 - accuracy))


def compute_median_curve(curves: Sequence[Curve], end_s: float, steps: int = 160) -> Curve:
    """The median over all curves that have begun, at `steps` moments until `end_s`; a curve holds its last value."""
    begun = [curve for curve in curves if curve]
    if not begun:
        return ()
    starts = sorted(curve[0][0] for curve in begun)
    first = starts[len(starts) // 2]  # From where half of them have begun.
    times = [[at for at, _ in curve] for curve in begun]
    points = []
    for step in range(steps + 1):
        now = first + (end_s - first) * step / steps
        held = [curve[bisect_right(at, now) - 1][1] for curve, at in zip(begun, times, strict=True) if at[0] <= now]
        points.append((now, median(held)))
    return tuple(points)


def thin(curve: Curve) -> Curve:
    """At most `POINTS_MAX` points, the last one among them; without points that are no numbers."""
    finite = tuple(point for point in curve if math.isfinite(point[0]) and math.isfinite(point[1]))
    stride = -(-len(finite) // POINTS_MAX) or 1
    return finite[::stride] + (finite[-1:] if len(finite) % stride != 1 and stride > 1 else ())


class Frame:
    """Both axes of one drawing: `place` turns (seconds, accuracy) into a point."""

    def __init__(self, report: SessionReport, left: float, right: float, top: float, bottom: float) -> None:
        shown = [curve for peer in report.peers for curve in (peer.curve, peer.alone_curve)] + [report.pooled_curve]
        values = [value for curve in shown for _, value in thin(curve)]
        values += [peer.accuracy for peer in report.peers] + [report.accuracy_pooled]
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        self.low, self.high = min(finite), min(1.0, max(finite) + 0.3 * (1 - max(finite)))
        self.end_s = max([report.seconds, *(curve[-1][0] for curve in shown if curve)])
        self.x: Place = scale(0, self.end_s, left, right)
        vertical = scale(error_digits(self.low), error_digits(self.high), bottom, top)
        self.y: Place = lambda accuracy: vertical(error_digits(accuracy))

    def points(self, curve: Curve, hold_until_s: float = 0.0) -> list[tuple[float, float]]:
        held = thin(curve)
        if held and held[-1][0] < hold_until_s:
            held = (*held, (hold_until_s, held[-1][1]))
        return [(self.x(at), self.y(value)) for at, value in held]

    def ticks(self, gap: float) -> list[float]:
        """Accuracies to label, from the top down, at least `gap` apart on the page."""
        kept: list[float] = []
        for tick in reversed([tick for tick in _TICKS if self.low <= tick <= self.high]):
            if not kept or self.y(tick) - self.y(kept[-1]) >= gap:
                kept.append(tick)
        return kept


def draw_accuracy(report: SessionReport) -> Markup:
    """All peers as thin lines, medians as thick ones, each named at its end."""
    frame = Frame(report, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    alone = [polyline(frame.points(peer.alone_curve), "thin alone", title=f"{clean_text(peer.name)} alone") for peer in report.peers]
    swarm = [polyline(frame.points(peer.curve), "thin swarm", title=f"{clean_text(peer.name)} in the swarm") for peer in report.peers]
    judged = [peer for peer in report.peers if peer.role != "silent"] or list(report.peers)
    median_alone = compute_median_curve([thin(peer.alone_curve) for peer in judged], frame.end_s)
    median_swarm = compute_median_curve([thin(peer.curve) for peer in judged], frame.end_s)
    return svg(
        WIDTH,
        HEIGHT,
        _draw_axes(frame),
        _draw_stages(report, frame),
        *alone,
        *swarm,
        polyline(frame.points(report.pooled_curve, frame.end_s), "thick pooled", title="pooled training"),
        polyline(frame.points(median_alone), "thick alone", title="median of the peers alone"),
        polyline(frame.points(median_swarm), "halo"),
        polyline(frame.points(median_swarm), "thick swarm", title="median of the peers in the swarm"),
        *[_draw_restart(peer, frame) for peer in report.peers],
        _draw_names(report, frame),
        says="Accuracy over time: the swarm, the same peers alone, and pooled training",
    )


def _draw_axes(frame: Frame) -> Markup:
    parts = []
    for tick in frame.ticks(24):
        y = frame.y(tick)
        parts += [
            line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            label(LEFT - 8, y + 4, format_percent(tick, 1 if tick > 0.99 else 0), class_="end soft"),
        ]
    for tick in round_ticks(frame.end_s, 6):
        parts.append(label(frame.x(tick), HEIGHT - BOTTOM + 20, f"{tick:g} s", class_="mid soft"))
    parts.append(line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    return join(parts)


def _draw_stages(report: SessionReport, frame: Frame) -> Markup:
    parts = []
    last = -1000.0
    for index, mark in enumerate(report.stages):
        x = frame.x(mark.start_s)
        if index:
            parts.append(line(x, TOP - 6, x, HEIGHT - BOTTOM, "stage"))
        if x - last > 6.4 * len(report.stages[index - 1].name if index else "") + 12:  # Names never run into one another.
            parts.append(label(x + 4, TOP - 12, shorten(mark.name, 16), class_="small soft"))
            last = x
    return join(parts)


def _draw_restart(peer: PeerReport, frame: Frame) -> Markup:
    if peer.restarted_at_s is None:
        return Markup("")
    before = [value for at, value in thin(peer.curve) if at <= peer.restarted_at_s]
    x, y = frame.x(peer.restarted_at_s), frame.y(before[-1] if before else frame.low)
    words = f"{clean_text(peer.name)} was killed and started again after {format_duration(peer.restarted_at_s)}"
    foot = HEIGHT - BOTTOM
    return join(
        [
            line(x, y + 6, x, foot - 20, "stage"),
            tag("circle", tag("title", words), cx=x, cy=y, r=6, class_="restart"),
            label(x, foot - 8, f"{shorten(peer.name, 14)} restarts", class_="mid small over"),
        ]
    )


def _draw_names(report: SessionReport, frame: Frame) -> Markup:
    """Labels at the right end, pushed apart so that none covers another."""
    entries = [
        (report.median_accuracy, "in the swarm", "swarm"),
        (report.median_accuracy_alone, "alone", "alone"),
        (report.accuracy_pooled, "pooled", "pooled"),
    ]
    entries.sort(reverse=True)
    places = [frame.y(value) for value, _, _ in entries]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + 36)
    excess = max(0.0, places[-1] - (HEIGHT - BOTTOM - 16))
    parts = []
    for (value, words, kind), y in zip(entries, places, strict=True):
        parts.append(line(WIDTH - RIGHT, frame.y(value), WIDTH - RIGHT + 14, y - excess, f"lead {kind}"))
        parts.append(label(WIDTH - RIGHT + 20, y - excess + 1, format_percent(value), class_=f"big fill-{kind}"))
        parts.append(label(WIDTH - RIGHT + 20, y - excess + 16, words, class_="small soft"))
    return join(parts)


def draw_peer_curves(report: SessionReport) -> Markup:
    """One small drawing a peer, all on the same scales: in the swarm, alone, and the pooled line to reach for."""
    return tag("div", *[_draw_peer(report, peer) for peer in report.peers], class_="multiples" + (" many" if len(report.peers) > 9 else ""))


def _draw_peer(report: SessionReport, peer: PeerReport) -> Markup:
    width, height = 300.0, 150.0
    frame = Frame(report, 8, width - 8, 34, height - 10)
    pooled = frame.y(report.accuracy_pooled)
    drawing = svg(
        width,
        height,
        *[line(8, frame.y(tick), width - 8, frame.y(tick), "grid") for tick in frame.ticks(34)],
        line(8, pooled, width - 8, pooled, "lead pooled"),
        polyline(frame.points(peer.alone_curve, frame.end_s), "mid-line alone"),
        polyline(frame.points(peer.curve, frame.end_s), "mid-line swarm"),
        *(
            [tag("circle", cx=frame.x(peer.restarted_at_s), cy=height - 16, r=5, class_="restart")]
            if peer.restarted_at_s is not None
            else []
        ),
        label(8, 20, shorten(peer.name, 18), class_="strong"),
        label(
            width - 8,
            20,
            tag("tspan", format_percent(peer.accuracy_alone), class_="fill-alone"),
            tag("tspan", " → ", class_="fill-soft"),
            tag("tspan", format_percent(peer.accuracy), class_="fill-swarm strong"),
            class_="end",
        ),
        says=f"{clean_text(peer.name)}: {format_percent(peer.accuracy_alone)} alone, {format_percent(peer.accuracy)} in the swarm",
    )
    return tag("figure", drawing, class_="small-multiple")
