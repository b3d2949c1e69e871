"""What counts as time that passed, for a node whose machine is told the right time while it runs."""

from __future__ import annotations

import time

import pytest

from learnae.node.steady import make_steady_clock


@pytest.mark.parametrize("step_s", [7200.0, -86400.0])
def test_steady_clock__steps_of_the_machines_clock_are_no_time(step_s: float) -> None:
    """Attacks, clocks: nothing that pays depends on a peer's clock, nor on when NTP sets it."""
    shown_s, passed_s = 1_000_000.0, 50.0
    clock = make_steady_clock(lambda: shown_s, lambda: passed_s)
    assert clock() == 1_000_000.0
    shown_s, passed_s = shown_s + step_s + 3, passed_s + 3
    assert clock() == 1_000_003.0


def test_steady_clock__shows_the_machines_time_at_first() -> None:
    assert abs(make_steady_clock()() - time.time()) < 1
