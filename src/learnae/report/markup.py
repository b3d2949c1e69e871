"""A few lines that make HTML and SVG in which every text from outside is escaped by default, and linear scales for plots."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

from learnae.report.words import drop_controls

Place = Callable[[float], float]


class Markup(str):
    """Text that is safe to stand in the page as it is. Only `tag` and `join` make it, and constants of this package."""

    __slots__ = ()


def join(parts: Iterable[str]) -> Markup:
    """One after another; whatever is not `Markup` is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(drop_controls(part)) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """An element. `class_` is class, underscores are hyphens, None leaves an attribute out; values are escaped."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items() if value is not None)
    inner = join(children)
    return Markup(f"<{name}{pairs}/>") if not inner and name in _EMPTY else Markup(f"<{name}{pairs}>{inner}</{name}>")


_EMPTY = frozenset({"line", "path", "rect", "circle", "meta", "br"})


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return html.escape(drop_controls(value))
    return f"{value:.2f}".rstrip("0").rstrip(".")


def svg(width: float, height: float, *children: str, says: str, **attributes: str | float | None) -> Markup:
    """A drawing that fills the width it is given; `says` is what screen readers say."""
    return tag("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=says, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: float, y: float, *words: str, class_: str = "", **attributes: str | float | None) -> Markup:
    return tag("text", *words, x=x, y=y, class_=class_ or None, **attributes)


def polyline(points: Sequence[tuple[float, float]], class_: str, *, title: str = "", style: str | None = None) -> Markup:
    """An open line through `points`; nothing for less than two."""
    if len(points) < 2:
        return Markup("")
    steps = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", *([tag("title", title)] if title else []), d=steps, class_=class_, style=style)


def scale(low: float, high: float, start: float, end: float) -> Place:
    """A function that carries [low, high] over to [start, end], straight; values outside are held at the ends."""
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return start + (end - start) * min(1.0, max(0.0, (value - low) / width))

    return place


def round_ticks(high: float, count: int) -> list[float]:
    """About `count` round numbers from 0 to `high`."""
    if high <= 0:
        return [0.0]
    rough = high / count
    power = 10.0
    while power > rough:
        power /= 10
    while power * 10 <= rough:
        power *= 10
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * index for index in range(int(high / step + 1e-9) + 1)]
