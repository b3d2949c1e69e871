"""The table that ends a session in the terminal: who reached what, who helped, who got what out."""

from __future__ import annotations

from learnae.report.model import SessionReport
from learnae.report.words import clean_text, format_percent, format_points, format_wei, pick_unit, shorten

_LEFT = (0, 1)  # columns of text; the others are numbers


def format_table(report: SessionReport) -> str:
    """The peers as an aligned table of plain text, with the medians and sums below; under 100 letters wide."""
    unit, exponent = pick_unit(max(report.fund_wei, 1))
    head = ("peer", "role", "alone", "swarm", "gain", "helped", "was helped", f"deposit {unit}", f"payout {unit}")
    rows = [
        (
            shorten(clean_text(peer.name), 14),
            peer.role,
            format_percent(peer.accuracy_alone),
            format_percent(peer.accuracy),
            format_points(peer.accuracy - peer.accuracy_alone),
            f"{peer.help_given:,}",
            f"{peer.help_received:,}",
            format_wei(peer.deposit_wei, exponent),
            format_wei(peer.payout_wei, exponent),
        )
        for peer in report.peers
    ]
    alone, swarm = report.median_accuracy_alone, report.median_accuracy
    foot = (
        "median / sum",
        "",
        format_percent(alone),
        format_percent(swarm),
        format_points(swarm - alone),
        f"{sum(peer.help_given for peer in report.peers):,}",
        f"{sum(peer.help_received for peer in report.peers):,}",
        format_wei(report.fund_wei, exponent),
        format_wei(report.paid_wei, exponent),
    )
    widths = [max(len(row[column]) for row in (head, *rows, foot)) for column in range(len(head))]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_align(head, widths), rule, *(_align(row, widths) for row in rows), rule, _align(foot, widths)]
    ledgers = "every honest peer holds the same ledger" if report.ledgers_equal else "THE LEDGERS OF HONEST PEERS DIFFER"
    lines.append(f"pooled training reaches {format_percent(report.accuracy_pooled)}; {ledgers}")
    return "\n".join(lines)


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    cells = (
        cell.ljust(width) if column in _LEFT else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()
