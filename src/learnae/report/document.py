"""What every page of this package is made of: one HTML file, no script, nothing fetched; sections, tiles and legends."""

from __future__ import annotations

from importlib.resources import files

from learnae.report.markup import Markup, join, tag
from learnae.report.readings import set_reading
from learnae.report.words import clean_text

# The page may style itself and nothing else: even a text that slipped through could load or run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def read_style() -> Markup:
    """The style sheet of all pages and drawings; it follows the reader's light or dark scheme."""
    return Markup(files("learnae.report").joinpath("style.css").read_text(encoding="utf-8"))


def compose_document(title: str, *parts: Markup, style: Markup | None = None) -> str:
    """A whole page as text. `style` adds rules to the common ones."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", clean_text(title)),
        tag("style", join([read_style(), style or Markup("")])),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *parts)), lang="en") + "\n"


def compose_drawing(drawing: Markup, title: str, *, style: Markup | None = None) -> str:
    """One drawing as an SVG file that needs nothing else; it follows the reader's light or dark scheme. `style` adds rules."""
    start, rest = drawing.split(">", 1)
    sheet = tag("style", join([read_style(), style or Markup("")]))
    back = tag("rect", width="100%", height="100%", style="fill:var(--card)")
    space = '<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, DejaVu Sans, sans-serif" '
    head = Markup(start.replace("<svg ", space, 1) + ">")
    return join([head, tag("title", title), sheet, back, Markup(rest)]) + "\n"


def header(eyebrow: str, title: str, lead: str) -> Markup:
    return tag("header", tag("p", eyebrow, class_="eyebrow"), tag("h1", clean_text(title)), tag("p", lead, class_="lead-in"))


def section(title: str, question: str, *content: Markup, reading: str) -> Markup:
    """A card: a plot or table under its title and question, and below what one sees in it (`readings.set_reading`)."""
    return tag("section", tag("h2", title), tag("p", question, class_="question"), *content, set_reading(reading))


def tile(figure: str, what: str, more: str, kind: str = "") -> Markup:
    """One number in large type; `kind` is good, bad or empty."""
    return tag("div", tag("b", figure), tag("span", what, class_="what"), tag("span", more), class_=f"tile {kind}".strip())


def legend(*entries: tuple[str, str]) -> Markup:
    """Coloured squares with words; a colour is the name of a variable of the style sheet."""
    return tag("div", *[tag("span", tag("i", style=f"background:var(--{colour})"), words) for colour, words in entries], class_="legend")


def footer(*facts: tuple[str, str]) -> Markup:
    return tag("footer", *[tag("dl", tag("dt", name), tag("dd", clean_text(words)), style="margin:0") for name, words in facts])
