"""Numbers and foreign text as people read them. Everything here returns plain text; `markup` escapes it for HTML."""

from __future__ import annotations

import math
import unicodedata

TEXT_MAX = 200  # Names and digests fit; a longer text comes from somebody who wants to break the page.

UNBROKEN = "\u00a0"  # A number and its sign stay on one line.

_UNITS = (("ETH", 18), ("gwei", 9), ("wei", 0))


def drop_controls(value: str) -> str:
    """`value` with a dot for each control and invisible formatting letter, bidirectional overrides among them."""
    return "".join("·" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co") else letter for letter in value)


def clean_text(value: str) -> str:
    """A text from outside as a page or terminal may show it: without controls, at most `TEXT_MAX` long."""
    return shorten(drop_controls(value), TEXT_MAX)


def format_percent(share: float, decimals: int = 1) -> str:
    """0.9432 as `94.3 %`; a dash for what is no number."""
    return f"{100 * share:.{decimals}f}{UNBROKEN}%" if math.isfinite(share) else "–"


def format_points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−") if math.isfinite(difference) else "–"


def format_duration(seconds: float) -> str:
    """172.4 as `2 min 52 s`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def pick_unit(largest_wei: int) -> tuple[str, int]:
    """The largest unit in which `largest_wei` is at least 0.001, and its decimal exponent."""
    for unit, exponent in _UNITS:
        if abs(largest_wei) * 1000 >= 10**exponent:
            return unit, exponent
    return _UNITS[-1]


def format_wei(amount: int, exponent: int = 18, *, decimals: int = 4, sign: bool = False) -> str:
    """An amount in the unit of `exponent`, rounded to the nearest of `decimals`, from integers alone; for reading, not for paying."""
    decimals = min(decimals, exponent)
    step = 10 ** (exponent - decimals)
    scaled = (abs(amount) + step // 2) // step
    whole, part = divmod(scaled, 10**decimals)
    mark = "−" if amount < 0 and scaled else "+" if sign and scaled else ""
    return f"{mark}{whole:,}.{part:0{decimals}d}" if decimals else f"{mark}{whole:,}"


def format_count(number: int, word: str) -> str:
    """`1 peer`, `6 peers`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shorten(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
