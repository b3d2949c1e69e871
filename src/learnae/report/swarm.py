"""Plot (b): who became better by whose models, as a ring of peers and ribbons that narrow towards the one who adopted."""

from __future__ import annotations

import math
from collections import defaultdict

from learnae.report.markup import Markup, join, label, svg, tag
from learnae.report.model import SessionReport
from learnae.report.words import clean_text, format_count, shorten

SIZE, RADIUS = 640.0, 224.0
RIBBONS_MAX = 90  # More are a blot that nobody can read; the strongest are drawn, the ledger shows all.
HELPERS_MAX = 8
_FEW = ("#2f6fde", "#d9782d", "#12906b", "#a855c7", "#c53a5a", "#8a7a1f", "#2b93b8", "#6d6f78")


def count_pairs(report: SessionReport) -> int:
    """How many ribbons there would be: pairs of a helper and an adopter."""
    return len({(adoption.helper, adoption.adopter) for adoption in report.adoptions if adoption.helper != adoption.adopter})


def pick_colour(index: int, count: int) -> str:
    """A colour that stands out on white and on near black: hand-picked for few peers, around the colour circle for many."""
    return _FEW[index] if count <= len(_FEW) else f"hsl({360 * index / count:.0f} 55% 52%)"


def draw_adoptions(report: SessionReport) -> Markup:
    """The ring. Width of a ribbon: percentage points gained in total; its colour: the helper's."""
    gains: dict[tuple[int, int], list[float]] = defaultdict(list)
    index = {peer.name: place for place, peer in enumerate(report.peers)}
    for adoption in report.adoptions:
        if adoption.helper != adoption.adopter and math.isfinite(adoption.gain_points):
            gains[index[adoption.helper], index[adoption.adopter]].append(max(0.0, adoption.gain_points))
    widest = max((sum(points) for points in gains.values()), default=0.0) or 1.0
    thick = 15.0 if len(report.peers) <= 12 else 8.0
    ribbons = [
        _draw_ribbon(report, helper, adopter, points, 1.2 + thick * math.sqrt(sum(points) / widest))
        for (helper, adopter), points in sorted(gains.items(), key=lambda entry: -sum(entry[1]))[:RIBBONS_MAX]
    ]
    return svg(SIZE, SIZE, *ribbons, *_draw_peers(report), says="Who adopted models of whom")


def _spot(index: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * index / count - math.pi / 2
    return SIZE / 2 + radius * math.cos(angle), SIZE / 2 + radius * math.sin(angle)


def _draw_ribbon(report: SessionReport, helper: int, adopter: int, points: list[float], width: float) -> Markup:
    """Wide at the helper, a point at the adopter; bent to the left of its way, so that both directions can be seen."""
    count = len(report.peers)
    (x1, y1), (x2, y2) = _spot(helper, count, RADIUS - 12), _spot(adopter, count, RADIUS - 14)
    span = math.hypot(x2 - x1, y2 - y1) or 1.0
    across_x, across_y = -(y2 - y1) / span, (x2 - x1) / span
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    pull = 0.42  # Towards the centre of the ring, and a little aside.
    bend_x = middle_x + pull * (SIZE / 2 - middle_x) + 0.1 * span * across_x
    bend_y = middle_y + pull * (SIZE / 2 - middle_y) + 0.1 * span * across_y
    half = width / 2
    shape = (
        f"M{x1 + half * across_x:.1f} {y1 + half * across_y:.1f}"
        f"Q{bend_x + 0.6 * half * across_x:.1f} {bend_y + 0.6 * half * across_y:.1f} {x2:.1f} {y2:.1f}"
        f"Q{bend_x - 0.6 * half * across_x:.1f} {bend_y - 0.6 * half * across_y:.1f} {x1 - half * across_x:.1f} {y1 - half * across_y:.1f}Z"
    )
    who = f"{clean_text(report.peers[adopter].name)} adopted from {clean_text(report.peers[helper].name)}"
    words = f"{who} {format_count(len(points), 'time')}, +{sum(points):.1f} points in total"
    return tag("path", tag("title", words), d=shape, class_="ribbon", style=f"fill:{pick_colour(helper, count)}")


def _draw_peers(report: SessionReport) -> list[Markup]:
    count = len(report.peers)
    most = max(peer.help_given for peer in report.peers) or 1
    parts = []
    for index, peer in enumerate(report.peers):
        x, y = _spot(index, count, RADIUS)
        size = (6 + 10 * math.sqrt(max(0, peer.help_given) / most)) * (1.0 if count <= 12 else 0.7)
        words = f"{clean_text(peer.name)}: gave {peer.help_given:,} credits of help, adopted {format_count(peer.adoptions, 'time')}"
        dot = tag("circle", tag("title", words), cx=x, cy=y, r=size, class_="peer", style=f"fill:{pick_colour(index, count)}")
        parts += [dot, _draw_name(peer.name, index, count, silent=peer.role == "silent")]
    return parts


def _draw_name(name: str, index: int, count: int, *, silent: bool) -> Markup:
    x, y = _spot(index, count, RADIUS + 24)
    kind = "strong" if not silent else "strong fill-silent"
    if count > 12:  # Along the ray, turned where it would stand on its head.
        angle = 360 * index / count - 90
        flipped = angle > 90
        turn = f"rotate({angle + (180 if flipped else 0):.1f} {x:.1f} {y:.1f})"
        return label(x, y + 4, shorten(name, 12), class_=kind + (" end" if flipped else ""), transform=turn)
    cosine = math.cos(2 * math.pi * index / count - math.pi / 2)
    anchor = "" if cosine > 0.2 else " end" if cosine < -0.2 else " mid"
    return label(x, y + 5, shorten(name, 14), class_=kind + anchor)


def draw_helpers(report: SessionReport) -> Markup:
    """Who helped most: bars of credits given, with how often others adopted from each."""
    times: dict[str, int] = defaultdict(int)
    for adoption in report.adoptions:
        times[adoption.helper] += 1
    order = sorted(range(len(report.peers)), key=lambda place: -report.peers[place].help_given)[:HELPERS_MAX]
    most = max(report.peers[order[0]].help_given, 1)
    rows = []
    for place in order:
        peer = report.peers[place]
        bar = tag(
            "span",
            class_="bar",
            style=f"width:{100 * max(0, peer.help_given) / most:.1f}%;background:{pick_colour(place, len(report.peers))}",
        )
        count = tag("span", f"{peer.help_given:,} credits · adopted by others {format_count(times[peer.name], 'time')}", class_="soft")
        rows.append(tag("li", tag("span", shorten(peer.name, 40), class_="name"), tag("span", bar, class_="track"), count))
    return tag("ol", *rows, class_="helpers")


def draw_role(role: str) -> Markup:
    return join([tag("span", role, class_=f"chip {role}")])
