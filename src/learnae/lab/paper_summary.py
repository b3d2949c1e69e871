"""A reproduction of section 7 in plain values for programs, and as a table for a terminal."""

from __future__ import annotations

from typing import Any

from learnae.lab.paper import BOTH, HONEST, PAPER_SETTING, PUBLISHED, SEEDS_MIN, SILENT, Figure, Reproduction, Setting
from learnae.report.words import format_count

THROUGH_WORDS = {
    "fast": "on the ledger alone",
    "protocol": "by real peers in the simulator, on the contract's reference model",
    "contract": "by real peers in the simulator, on the real contract on the embedded chain",
}


def summarise(result: Reproduction, *, through: str, seconds: float) -> dict[str, Any]:
    """Plain values that JSON can hold. A figure is `paper`, `median`, `low`, `high` (the 95 % band) and `representative`.

    `honest` and `malicious` hold the figures of 7.1 and 7.2; the discrepancy of 7.3, in per cent, stands both under `malicious`, whose
    effect it is, and at the top.
    """
    setting = result.setting
    seed, shown = result.shown
    figures: dict[str, dict[str, dict[str, float | bool | None]]] = {HONEST: {}, SILENT: {}, BOTH: {}}
    for figure, band in result.bands.items():
        figures[figure.experiment][figure.name] = {
            "paper": figure.paper,
            "median": band.median,
            "low": band.low,
            "high": band.high,
            "representative": shown[figure],
            "inside": band.contains(figure.paper),
        }
    both = figures[BOTH]
    return {
        "peers": setting.peers,
        "cycles": setting.cycles,
        "malicious_peers": setting.malicious,
        "is_the_papers_setting": result.is_the_papers,
        "seeds": len(result.seeds),
        "first_seed": result.seeds[0],
        "representative_seed": seed,
        "through": through,
        "seconds": round(seconds, 3),
        HONEST: figures[HONEST],
        SILENT: {**figures[SILENT], **both},
        **both,
    }


def describe_setting(setting: Setting) -> str:
    return f"{setting.peers} peers, {setting.cycles} cycles, {setting.malicious} malicious"


def name_experiment(experiment: str, setting: Setting) -> str:
    """The title of one block of figures, with its section."""
    if experiment == HONEST:
        return "No malicious peers (7.1)"
    if experiment == SILENT:
        return f"{setting.malicious} of {setting.peers} peers never report (7.2)"
    return "Discrepancy of the final balances between the two (7.3)"


def format_value(figure: Figure, value: float | None) -> str:
    """A figure as people read it, with a real minus sign; a dash where there is none."""
    if value is None:
        return "–"
    sign = "+" if figure.sign else ""
    return f"{value:{sign},.{figure.decimals}f}".replace("-", "−") + figure.unit


def format_band(result: Reproduction, figure: Figure) -> str:
    band = result.bands[figure]
    return "–" if band.low is None else f"{format_value(figure, band.low)} to {format_value(figure, band.high)}"


def judge_figures(result: Reproduction) -> str:
    """One sentence: do the published figures lie in our bands?"""
    if not result.is_the_papers:
        return f"The published figures are about {describe_setting(PAPER_SETTING)}: they cannot be compared with this setting."
    if not result.is_comparable:
        return f"{format_count(len(result.seeds), 'seed')} cannot tell whether the published figures fit; {SEEDS_MIN} or more can."
    others = [figure for figure in PUBLISHED if figure.experiment != BOTH and not result.bands[figure].contains(figure.paper)]
    fitting = [figure.words for figure in PUBLISHED if figure.experiment == BOTH and result.bands[figure].contains(figure.paper)]
    text = f"{len(others)} of the 8 figures of 7.1 and 7.2 lie outside." if others else "All 8 figures of 7.1 and 7.2 lie in our band."
    if fitting:
        return f"{text} The discrepancy of 7.3 is published without its definition; it fits as {' and as '.join(fitting)}."
    return f"{text} The discrepancy of 7.3 fits neither definition."


def format_table(result: Reproduction, *, through: str, seconds: float) -> str:
    """The published figures beside ours, for a terminal of 100 letters."""
    seed, shown = result.shown
    count = len(result.seeds)
    head = ("", "published", "median", "95 % band", f"seed {seed}", "")
    rows: list[tuple[str, ...] | str] = []
    for experiment in (HONEST, SILENT, BOTH):
        rows.append(name_experiment(experiment, result.setting))
        for figure in (figure for figure in PUBLISHED if figure.experiment == experiment):
            band = result.bands[figure]
            mark = "" if not result.is_comparable or band.low is None else "in" if band.contains(figure.paper) else "outside"
            cells = (format_value(figure, figure.paper), format_value(figure, band.median), format_band(result, figure))
            rows.append((f"  {figure.words}", *cells, format_value(figure, shown[figure]), mark))
    lines = [row for row in (head, *rows) if not isinstance(row, str)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    what = f"{describe_setting(result.setting)}: {format_count(count, 'seed')} in {seconds:.1f} s"
    text = [f"Section 7 with {what}, {THROUGH_WORDS[through]}", ""]
    for row in (head, *rows):
        if isinstance(row, str):
            text.append(row)
        else:
            text.append("  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip())
    exact = [] if through == "fast" else ["Every balance is that of the ledger alone, to the wei."]
    return "\n".join([*text, "", *exact, judge_figures(result)])
