"""`report.html`: one file, no script, nothing fetched; follows the reader's light or dark scheme."""

from __future__ import annotations

from learnae.report.balances import draw_balances
from learnae.report.curves import draw_accuracy, draw_peer_curves
from learnae.report.document import compose_document, footer, header, legend, section, tile
from learnae.report.ledger import draw_ledger
from learnae.report.markup import Markup, join, tag
from learnae.report.model import PeerReport, SessionReport
from learnae.report.readings import ACCURACY, ADOPTIONS, BALANCES, LEDGER, TABLE
from learnae.report.swarm import RIBBONS_MAX, count_pairs, draw_adoptions, draw_helpers, draw_role
from learnae.report.words import clean_text, format_count, format_duration, format_percent, format_points, format_wei, pick_unit, shorten


def compose_page(report: SessionReport) -> str:
    """The whole page as text."""
    parts = [_compose_top(report), _compose_tiles(report), _compose_stages(report)]
    parts += [_compose_accuracy(report), _compose_adoptions(report), _compose_ledger(report), _compose_balances(report)]
    parts += [_compose_table(report), _compose_footer(report)]
    return compose_document(f"{clean_text(report.session)} – LEARNAE session", *parts)


def _compose_top(report: SessionReport) -> Markup:
    count = format_count(len(report.peers), "peer")
    words = f"{count} trained one model together in {format_duration(report.seconds)}, each on its own data, with no server between them."
    return header("LEARNAE session", report.session, words)


def _compose_tiles(report: SessionReport) -> Markup:
    swarm, alone = report.median_accuracy, report.median_accuracy_alone
    unit, exponent = pick_unit(max(report.fund_wei, 1))
    silent = sum(peer.role == "silent" for peer in report.peers)
    return tag(
        "div",
        tile(format_percent(swarm), "accuracy in the swarm", "median of the honest peers, on a test set that nobody trained on"),
        tile(
            format_points(swarm - alone),
            "points above training alone",
            f"the same peers alone reach {format_percent(alone)}",
            "good" if swarm > alone else "bad",
        ),
        tile(
            format_points(swarm - report.accuracy_pooled),
            "points from pooled training",
            f"all data in one place would reach {format_percent(report.accuracy_pooled)}",
        ),
        tile(
            f"{len(report.adoptions):,}",
            "adoptions of averaged models",
            f"{sum(peer.help_given for peer in report.peers):,} credits of help",
        ),
        tile(
            f"{format_wei(report.paid_wei, exponent)} {unit}",
            "paid out by the DAO",
            f"of a fund of {format_wei(report.fund_wei, exponent)} {unit}{_name_dust(report)}",
        ),
        tile(
            "equal" if report.ledgers_equal else "different",
            "ledgers of the honest peers",
            f"at voting time, with {format_count(silent, 'silent peer')}" if silent else "at voting time",
            "good" if report.ledgers_equal else "bad",
        ),
        class_="tiles",
    )


def _name_dust(report: SessionReport) -> str:
    """Shares are rounded down, so less wei than peers may stay behind (section 6)."""
    dust = report.fund_wei - report.paid_wei
    return f"; {dust} wei of rounding stay" if 0 < dust < len(report.peers) else ""


def _compose_stages(report: SessionReport) -> Markup:
    if not report.stages:
        return Markup("")
    ends = [mark.start_s for mark in report.stages[1:]] + [report.seconds]
    parts = []
    for mark, end_s in zip(report.stages, ends, strict=True):
        lasted = max(0.0, end_s - mark.start_s)
        share = lasted / max(report.seconds, 1e-9)
        words = join([tag("span", mark.name, style="all:unset"), tag("i", f" {format_duration(lasted)}")])
        parts.append(tag("span", words, style=f"flex:{share:.3f} 0 auto", title=f"{clean_text(mark.name)}: {format_duration(lasted)}"))
    return tag("div", *parts, class_="ribbon-bar")


def _compose_accuracy(report: SessionReport) -> Markup:
    return section(
        "Accuracy over time",
        "What does a peer gain by not being alone?",
        legend(("swarm", "in the swarm"), ("alone", "the same peer alone"), ("pooled", "pooled: all data in one place")),
        tag("div", draw_accuracy(report), class_="wide"),
        draw_peer_curves(report),
        reading=ACCURACY,
    )


def _compose_adoptions(report: SessionReport) -> Markup:
    pairs = count_pairs(report)
    some = f" Of {pairs} pairs, the {RIBBONS_MAX} that gained most are drawn." if pairs > RIBBONS_MAX else ""
    return section(
        "Who learned from whom",
        "Whose models made others better?",
        tag("div", draw_adoptions(report), draw_helpers(report), class_="pair"),
        reading=ADOPTIONS + some,
    )


def _compose_ledger(report: SessionReport) -> Markup:
    rows = zip(report.peers, report.ledger, strict=False)
    silent = [clean_text(peer.name) for peer, row in rows if peer.role == "silent" and not any(row)]
    more = f" The row of {', '.join(silent[:5])} is empty: it never reported the help it got." if silent else ""
    return section(
        "The shared ledger",
        "Who owes how much to whom?",
        tag("div", draw_ledger(report), class_="wide"),
        reading=LEDGER + more,
    )


def _compose_balances(report: SessionReport) -> Markup:
    return section(
        "What became of the deposits",
        "Does it pay to help, and does it pay to keep silent?",
        legend(("dao", "paid by the DAO"), ("tips", "had they tipped each other directly")),
        tag("div", draw_balances(report), class_="wide"),
        reading=BALANCES,
    )


def _compose_table(report: SessionReport) -> Markup:
    unit, exponent = pick_unit(max(report.fund_wei, 1))
    heads = ("peer", "role", "alone", "in the swarm", "gain", "help given", "help received", f"deposit, {unit}", f"payout, {unit}")
    foot = (
        "all",
        format_count(len(report.peers), "peer"),
        format_percent(report.median_accuracy_alone),
        format_percent(report.median_accuracy),
        format_points(report.median_accuracy - report.median_accuracy_alone),
        f"{sum(peer.help_given for peer in report.peers):,}",
        f"{sum(peer.help_received for peer in report.peers):,}",
        format_wei(report.fund_wei, exponent),
        format_wei(report.paid_wei, exponent),
    )
    table = tag(
        "table",
        tag("thead", tag("tr", *[tag("th", words, scope="col") for words in heads])),
        tag("tbody", *[_compose_row(peer, exponent) for peer in report.peers]),
        tag("tfoot", tag("tr", *[tag("td", words) for words in foot])),
    )
    return section(
        "Peer by peer",
        "The same in figures.",
        tag("div", table, class_="wide"),
        reading=TABLE,
    )


def _compose_row(peer: PeerReport, exponent: int) -> Markup:
    gain = peer.accuracy - peer.accuracy_alone
    change = peer.payout_wei - peer.deposit_wei
    cells = [
        tag(
            "td",
            shorten(peer.name, 40),
            tag("small", f"{clean_text(peer.peer_id)[:12]}…{clean_text(peer.peer_id)[-6:]}", title=clean_text(peer.peer_id)),
        ),
        tag("td", draw_role(peer.role)),
        tag("td", format_percent(peer.accuracy_alone)),
        tag("td", format_percent(peer.accuracy)),
        tag("td", format_points(gain), class_="up" if gain > 0 else "down"),
        tag("td", f"{peer.help_given:,}"),
        tag("td", f"{peer.help_received:,}"),
        tag("td", format_wei(peer.deposit_wei, exponent)),
        tag("td", format_wei(peer.payout_wei, exponent), class_="up" if change >= 0 else "down"),
    ]
    return tag("tr", *cells)


def _compose_footer(report: SessionReport) -> Markup:
    facts = (
        ("session", report.session),
        ("ticket digest", report.ticket_digest or "–"),
        ("seed", str(report.seed)),
        ("learnae", report.version or "–"),
        ("machine", report.machine or "–"),
        ("duration", format_duration(report.seconds)),
    )
    return footer(*facts)
