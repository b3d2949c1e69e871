"""Plot (d): what became of every deposit, under direct tips (4.3) and under the DAO (6): the paper's figures 7 and 9."""

from __future__ import annotations

from learnae.report.markup import Markup, Place, label, line, round_ticks, scale, svg, tag
from learnae.report.model import PeerReport, SessionReport
from learnae.report.words import clean_text, format_wei, pick_unit, shorten

WIDTH, HEIGHT = 1000.0, 380.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 12.0, 20.0, 74.0


def draw_balances(report: SessionReport) -> Markup:
    """Two bars a peer, up or down from the deposit line."""
    unit, exponent = pick_unit(max((peer.deposit_wei for peer in report.peers), default=0) // 10 or report.fund_wei)
    changes = [peer.payout_wei - peer.deposit_wei for peer in report.peers]
    changes += [peer.tips_balance_wei - peer.deposit_wei for peer in report.peers]
    up, down = max(0, *changes) / 10**exponent, min(0, *changes) / 10**exponent
    pad = 0.12 * ((up - down) or 1.0)
    y = scale(down - pad, up + pad, HEIGHT - BOTTOM, TOP)
    ticks = sorted({sign * tick for tick in round_ticks(max(up, -down), 4) for sign in (-1, 1)})
    parts: list[Markup] = []
    for tick in (tick for tick in ticks if down - pad <= tick <= up + pad):
        parts.append(line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "axis" if tick == 0 else "grid"))
        words = "deposit" if tick == 0 else f"{tick:+g}".replace("-", "−")
        parts.append(label(LEFT - 8, y(tick) + 4, words, class_="end" if tick == 0 else "end soft"))
    step = (WIDTH - LEFT - RIGHT) / len(report.peers)
    for index, peer in enumerate(report.peers):
        parts += _draw_peer(peer, LEFT + index * step, step, (unit, exponent), y)
    parts.append(label(LEFT - 8, TOP - 4, unit, class_="end soft small"))
    return svg(WIDTH, HEIGHT, *parts, says="Change of every deposit under tips and under the DAO")


def _draw_peer(peer: PeerReport, left: float, step: float, unit: tuple[str, int], y: Place) -> list[Markup]:
    name, exponent = unit
    bar = min(48.0, 0.36 * step)
    middle = left + step / 2
    parts = []
    for amount, kind, x in ((peer.tips_balance_wei, "tips", middle - bar - 1), (peer.payout_wei, "dao", middle + 1)):
        change = (amount - peer.deposit_wei) / 10**exponent
        top, bottom = sorted((y(change), y(0.0)))
        where = "under tips" if kind == "tips" else "from the DAO"
        exact = f"{format_wei(amount, exponent, decimals=6)} {name}"
        sign = format_wei(amount - peer.deposit_wei, exponent, decimals=6, sign=True)
        words = f"{clean_text(peer.name)} {where}: {exact} ({sign})"
        parts.append(tag("rect", tag("title", words), x=x, y=top, width=bar, height=max(1.5, bottom - top), rx=2, class_=f"bar-{kind}"))
        if step > 110:
            edge = top - 5 if change >= 0 else bottom + 13
            parts.append(
                label(x + bar / 2, edge, format_wei(amount - peer.deposit_wei, exponent, decimals=3, sign=True), class_="mid tiny soft")
            )
    kind = "fill-silent" if peer.role == "silent" else ""
    if step < 90:
        turn = f"rotate(-50 {middle:.1f} {HEIGHT - BOTTOM + 18:.1f})"
        parts.append(label(middle + 4, HEIGHT - BOTTOM + 18, shorten(peer.name, 10), class_=f"end small {kind}", transform=turn))
    else:
        parts.append(label(middle, HEIGHT - BOTTOM + 22, shorten(peer.name, 14), class_=f"mid {kind}"))
        if peer.role != "honest":
            parts.append(label(middle, HEIGHT - BOTTOM + 40, peer.role, class_=f"mid small soft {kind}"))
    return parts
