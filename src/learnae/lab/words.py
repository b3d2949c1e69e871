"""Measures as people and programs read them: tables for a terminal, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from learnae import __version__
from learnae.lab.measure import PROMISED_RULES, Measure

Value = TypeVar("Value")

MARK: Final = "!"
_COLUMNS: Final = (
    "share", "attack", "level", "in_catalogue", "rule", "seeds", "gain", "gain_error", "honest_loss", "victim_loss", "false_rejection",
    "detected", "time_to_detect", "time_unit", "fund_share", "broken", "note",
)  # fmt: skip


def format_json(measures: Sequence[Measure]) -> str:
    return json.dumps({"version": __version__, "measures": [measure.to_json() for measure in measures]}, indent=1, allow_nan=False)


def format_csv(measures: Sequence[Measure]) -> str:
    """One line for each cell; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for measure in measures:
        writer.writerow({**measure.to_json(), "broken": "; ".join(measure.broken)})
    return text.getvalue()


def format_gains(measures: Sequence[Measure]) -> str:
    """Malicious gain, attacks by rules, one table for each share of attackers."""
    return "\n\n".join(_format_share(share, [m for m in measures if m.share == share]) for share in _unique(m.share for m in measures))


def _format_share(share: float, measures: Sequence[Measure]) -> str:
    rules, attacks = _unique(m.rule for m in measures), _unique(m.attack for m in measures)
    cells = {(m.attack, m.rule): m for m in measures}
    rows = [("attack", "level", *rules)]
    for attack in attacks:
        row = [cells.get((attack, rule)) for rule in rules]
        level = next(cell.level for cell in row if cell is not None)
        inside = next(cell.in_catalogue for cell in row if cell is not None)
        rows.append((attack if inside else f"({attack})", level, *("" if cell is None else format_gain(cell) for cell in row)))
    title = f"{share:.0%} attackers: malicious gain (payout with the attack / payout if honest)"
    return f"{title}\n{_align(rows, left=2)}"


def format_gain(cell: Measure) -> str:
    """The gain, a mark if a promise is broken, else room for it, so that points stand below each other."""
    return f"{cell.gain:.2f}{MARK if cell.broken else ' '}"


def format_details(measures: Sequence[Measure]) -> str:
    """Every measure of every cell, one line each."""
    rows = [("attack", "rule", "share", "gain", "±", "honest loss", "victims lose", "falsely rejected", "detected", "after", "fund")]
    for m in measures:
        after = "" if m.time_to_detect is None else f"{m.time_to_detect:.1f} {m.time_unit}"
        rows.append(
            (
                m.attack, m.rule, f"{m.share:.0%}", format_gain(m), f"{m.gain_error:.2f}", f"{m.honest_loss:.2%}", _part(m.victim_loss),
                f"{m.false_rejection:.2%}", _part(m.detected), after, f"{m.fund_share:.1%}",
            )
        )  # fmt: skip
    notes = [f"{m.attack} against {m.rule} at {m.share:.0%}: {m.note}" for m in measures if m.note]
    return "\n".join([_align(rows, left=2), *notes])


def format_promises(measures: Sequence[Measure]) -> str:
    """Which promises hold, and which cells break one. The marks of the table, in words."""
    broken = [m for m in measures if m.broken]
    lines = [f"{MARK} {m.attack} against {m.rule} at {m.share:.0%}: {', '.join(m.broken)} (gain {m.gain:.3f})" for m in broken]
    promised = [m for m in measures if m.rule in PROMISED_RULES and m.in_catalogue]
    if promised and not broken:
        lines.append("every promise of docs/lab.md holds in this table")
    elif broken:
        lines.append("docs/lab.md says why; names in brackets stand beside the catalogue and are not promised to fail")
    return "\n".join(lines)


def _part(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _unique(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))


def _align(rows: Sequence[Sequence[object]], *, left: int) -> str:
    """Columns side by side; the first `left` of them are text, the others numbers."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )
