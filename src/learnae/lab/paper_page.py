"""The report of a reproduction of section 7: one self-contained page, and Figures 6 to 10 as files of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from learnae import __version__
from learnae.lab.paper import BOTH, HONEST, PUBLISHED, SILENT, Reproduction, compute_progress, run_fast
from learnae.lab.paper_summary import (
    THROUGH_WORDS,
    describe_setting,
    format_band,
    format_value,
    judge_figures,
    name_experiment,
    summarise,
)
from learnae.lab.plots import draw_corrections, draw_discrepancies, draw_distribution, draw_factor_key, draw_progress
from learnae.lab.swarm import draw_swarm
from learnae.report.document import compose_document, compose_drawing, footer, header, legend, section, tile
from learnae.report.files import replace_file
from learnae.report.markup import Markup, tag
from learnae.report.words import format_count, format_duration

_PROGRESS = (
    "One line is one peer's balance as that peer counts it: its deposit, less the tips it gave, plus those it got (**section 4.3**). "
    "After the last cycle the fund is divided by what the whole swarm reported of each peer (**section 6**), and every line goes to what "
    "it pays. "
)
_READINGS: Mapping[str, str] = {
    "figure-6": _PROGRESS
    + "Tips leave a peer's own luck in its balance, how much it happened to be helped; the fund goes by what it gave, so the colours sort.",
    "figure-7": "What the consolidation adds to or takes from each balance that tips would have left. The gains and the losses are equal "
    "in sum, because the fund is the sum of all deposits.",
    "figure-8": _PROGRESS
    + "The thick dashed lines never report, so under tips they only gain; from the fund they get what the others say of them.",
    "figure-9": "Red bars are the malicious peers: what they kept by silence is taken back, and goes to those who had helped them "
    "without being paid.",
    "figure-10": "How far each peer's payout with malicious peers is from its payout without. Rows are missing, columns are not: each "
    "peer is still judged by all others. Gains have a ceiling: there stand the peers that had helped no malicious one. The paper gives "
    "3.2 % as the mean and does not say of what: as a share of the payout itself our mean is about 6 %, as a share of the sum of both "
    "payouts about 3 %.",
}
_TITLES: Mapping[str, tuple[str, str]] = {
    "figure-6": ("Figure 6: balances without malicious peers", "What becomes of a deposit, cycle by cycle?"),
    "figure-7": ("Figure 7: corrections without malicious peers", "Who gains by the consolidation, and who loses?"),
    "figure-8": ("Figure 8: balances with malicious peers", "Does it pay to keep silent?"),
    "figure-9": ("Figure 9: corrections with malicious peers", "Does the consolidation find them?"),
    "figure-10": ("Figure 10: discrepancy due to malicious peers", "What does their silence cost the others?"),
}


def draw_figures(result: Reproduction) -> dict[str, Markup]:
    """Figures 6 to 10 of the representative seed, by name."""
    setting = result.setting
    seed, _ = result.shown
    draws = draw_swarm(seed, peers=setting.peers, cycles=setting.cycles)
    pair, quiet = run_fast(setting, seed), setting.malicious
    return {
        "figure-6": draw_progress(compute_progress(draws), pair.honest, draws.factors, malicious=0),
        "figure-7": draw_corrections(pair.honest, malicious=0),
        "figure-8": draw_progress(compute_progress(draws, malicious=quiet), pair.malicious, draws.factors, malicious=quiet),
        "figure-9": draw_corrections(pair.malicious, malicious=quiet),
        "figure-10": draw_discrepancies(pair, malicious=quiet),
    }


def compose_paper_page(result: Reproduction, figures: Mapping[str, Markup], *, through: str, seconds: float) -> str:
    """The page as text."""
    count = len(result.seeds)
    lead = (
        f"The two experiments of section 7, {describe_setting(result.setting)}, done again with {format_count(count, 'seed')} "
        f"{THROUGH_WORDS[through]}, and with the reward code that a node uses. The drawings show seed {result.shown[0]}, whose figures "
        "are nearest to the medians."
    )
    parts = [header("LEARNAE, the paper's experiments", "Section 7, done again", lead), _compose_tiles(result), _compose_figures(result)]
    for name, drawing in figures.items():
        title, question = _TITLES[name]
        key = legend(*_list_colours(name)) if name not in ("figure-6", "figure-8") else _compose_key(is_silent=name == "figure-8")
        parts.append(section(title, question, key, tag("div", drawing, class_="wide"), reading=_READINGS[name]))
    parts.append(
        footer(
            ("seeds", f"{result.seeds[0]} to {result.seeds[-1]}"),
            ("setting", describe_setting(result.setting)),
            ("duration", format_duration(seconds)),
            ("learnae", __version__),
        )
    )
    return compose_document("Section 7 of the LEARNAE paper, done again", *parts)


def _compose_tiles(result: Reproduction) -> Markup:
    bands = {(figure.experiment, figure.name): (figure, band) for figure, band in result.bands.items()}
    compared = [figure for figure in PUBLISHED if figure.experiment != BOTH]
    inside = sum(result.bands[figure].contains(figure.paper) for figure in compared)
    change, change_band = bands[SILENT, "malicious_change"]
    discrepancy, discrepancy_band = bands[BOTH, "discrepancy_symmetric"]
    return tag(
        "div",
        tile(
            f"{inside} of {len(compared)}" if result.is_comparable else "–",
            "published figures in our band",
            "sections 7.1 and 7.2, 95 % of the seeds",
            "" if not result.is_comparable else "good" if inside == len(compared) else "bad",
        ),
        tile(
            format_value(change, change_band.median),
            "credits, for a peer that kept silent",
            f"what the consolidation takes back; published {format_value(change, change.paper)}",
        ),
        tile(
            format_value(discrepancy, discrepancy_band.median),
            "discrepancy between the experiments",
            f"published {discrepancy.paper:g} %; see Figure 10 for what it is a share of",
        ),
        class_="tiles",
    )


def _compose_figures(result: Reproduction) -> Markup:
    seed, shown = result.shown
    rows = []
    for experiment in (HONEST, SILENT, BOTH):
        rows.append(tag("tr", tag("td", tag("strong", name_experiment(experiment, result.setting)), colspan="5")))
        for figure in (figure for figure in PUBLISHED if figure.experiment == experiment):
            band = result.bands[figure]
            kind = "" if not result.is_comparable else "up" if band.contains(figure.paper) else "down"
            cells = [tag("td", figure.words), tag("td", format_value(figure, figure.paper), class_=kind or None)]
            cells += [tag("td", format_value(figure, band.median)), tag("td", format_band(result, figure))]
            rows.append(tag("tr", *cells, tag("td", format_value(figure, shown[figure]))))
    heads = ("figure", "published", "median", "95 % band", f"seed {seed}")
    table = tag(
        "table", tag("thead", tag("tr", *[tag("th", words, scope="col") for words in heads])), tag("tbody", *rows), class_="figures"
    )
    distributions = tag("div", *[draw_distribution(result, figure) for figure in PUBLISHED], class_="multiples")
    return section(
        "Published and reproduced",
        "Could the paper's run have been one of ours?",
        tag("div", table, class_="wide"),
        distributions,
        reading=f"{judge_figures(result)} Bars count seeds; the shaded part is the middle 95 %, the line is what the paper says. The "
        "formula of ModelChange is lost in the text; a random level times the helper's Contribution Factor, in whole credits, fits.",
    )


def _list_colours(name: str) -> tuple[tuple[str, str], ...]:
    colours = (("pooled", "more than before"), ("alone", "less than before"))
    return colours if name == "figure-7" else (*colours, ("silent", "malicious peers"))


def _compose_key(*, is_silent: bool) -> Markup:
    dashes = tag("span", tag("i", class_="dashes"), "malicious")
    return tag("div", draw_factor_key(), *([dashes] if is_silent else []), class_="legend")


def write_paper_report(result: Reproduction, folder: Path, *, through: str, seconds: float) -> Path:
    """Write `paper.html`, `paper.json` and `figure-6.svg` to `figure-10.svg` into `folder` (made if absent); returns the page's path.

    Each file appears whole or not at all. Raises: OSError: the folder or disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_figures(result)
    for name, drawing in figures.items():
        replace_file(folder / f"{name}.svg", compose_drawing(drawing, _TITLES[name][0]))
    summary = summarise(result, through=through, seconds=seconds)
    replace_file(folder / "paper.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    page = folder / "paper.html"
    replace_file(page, compose_paper_page(result, figures, through=through, seconds=seconds))
    return page
