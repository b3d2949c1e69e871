"""Numbers and foreign text as people read them."""

from __future__ import annotations

import math

import pytest

from learnae.report.words import (
    TEXT_MAX,
    clean_text,
    drop_controls,
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_wei,
    pick_unit,
    shorten,
)

ETHER = 10**18


@pytest.mark.parametrize(
    ("amount", "exponent", "decimals", "expected"),
    [
        (ETHER, 18, 4, "1.0000"),
        (ETHER - 1, 18, 4, "1.0000"),  # three wei of rounding do not read as a loss
        (12_345 * ETHER // 10, 18, 1, "1,234.5"),
        (7, 0, 4, "7"),
        (0, 18, 2, "0.00"),
        (2**255, 0, 4, f"{2**255:,}"),  # no float on the way
    ],
)
def test_format_wei__is_exact_to_the_last_shown_digit(amount: int, exponent: int, decimals: int, expected: str) -> None:
    """Style 8: amounts are integers, in the report too."""
    assert format_wei(amount, exponent, decimals=decimals) == expected


def test_format_wei__signs_what_is_not_nothing() -> None:
    assert format_wei(-ETHER, decimals=1, sign=True) == "−1.0"
    assert format_wei(ETHER, decimals=1, sign=True) == "+1.0"
    assert format_wei(-1, decimals=1, sign=True) == "0.0"


@pytest.mark.parametrize(("amount", "unit"), [(ETHER, "ETH"), (ETHER // 1000, "ETH"), (ETHER // 10_000, "gwei"), (5, "wei"), (0, "wei")])
def test_pick_unit__keeps_figures_short(amount: int, unit: str) -> None:
    assert pick_unit(amount)[0] == unit


def test_numbers__that_are_none_become_a_dash() -> None:
    assert [format_percent(math.nan), format_points(math.inf)] == ["–", "–"]
    assert [format_percent(0.9432), format_points(-0.0123), format_points(0.05)] == ["94.3\u00a0%", "−1.2", "+5.0"]


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0 s"), (59.6, "1 min 0 s"), (172.4, "2 min 52 s"), (7260, "2 h 1 min")])
def test_format_duration__reads_like_speech(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_clean_text__shows_controls_and_bounds_the_length() -> None:
    """A name cannot move the cursor, turn the line around, or fill the screen."""
    assert drop_controls("a\x1b[31m\u202eb\n") == "a·[31m·b·"
    assert len(clean_text("x" * 10_000)) == TEXT_MAX


def test_small_words() -> None:
    assert [format_count(1, "peer"), format_count(1200, "peer")] == ["1 peer", "1,200 peers"]
    assert [shorten("hilbert", 7), shorten("hilbert", 4)] == ["hilbert", "hil…"]
