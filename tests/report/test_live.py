"""The live view, on a terminal and without one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from learnae.report.live import EVENTS_SHOWN, SUMMARY_EVERY_S, LiveView


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def show(view: LiveView, *, width: int = 120, height: int = 40) -> str:
    """What a terminal of this size would show."""
    view._console = Console(file=io.StringIO(), width=width, height=height)
    with view._console.capture() as captured:
        view._console.print(view.render())
    return captured.get()


def test_plain__writes_stages_and_events_as_lines() -> None:
    clock, out = Clock(), io.StringIO()

    with LiveView(["ada"], file=out, clock=clock) as view:
        view.stage("Training", 90)
        clock.now_s += 12
        view.event("ada joined")
        view.stage("Training", 78)

    assert out.getvalue().splitlines() == ["[    0 s] == Training, 1 min 30 s", "[   12 s] ada joined"]


def test_plain__sums_up_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()

    with LiveView(["ada", "carl"], file=out, clock=clock) as view:
        view.stage("Training")
        view.update("ada", state="training", cycles=3, accuracy=0.9, adoptions=1)
        clock.now_s += SUMMARY_EVERY_S
        view.update("carl", cycles=4, accuracy=0.8)
        view.update("carl", cycles=5)

    assert out.getvalue().splitlines()[1:] == ["[   10 s] Training: median accuracy 85.0\u00a0%, 7 work cycles, 1 adoptions, 2 peers"]


def test_table__shows_every_peer_its_bar_and_the_time_left() -> None:
    clock = Clock()
    view = LiveView(["ada", "carl"], plain=False, clock=clock)
    view.stage("Training", 90)
    view.update("ada", state="training", cycles=17, accuracy=0.9, adoptions=3, help_given=1200, help_received=31)
    view.update("latecomer", state="joining")
    clock.now_s += 30

    text = show(view)

    assert "1 min 0 s left" in text
    assert all(words in text for words in ("ada", "carl", "latecomer", "17", "90.0\u00a0%", "1,200"))
    assert "━" * 9 in text


def test_table__fits_a_small_terminal() -> None:
    view = LiveView([f"peer-{index}" for index in range(100)], plain=False)

    assert len(show(view, height=24).splitlines()) <= 24
    assert "more" in show(view, height=24)


def test_view__keeps_names_and_events_from_writing_to_the_terminal() -> None:
    view = LiveView(["\x1b[2Jada", "[bold]carl"], plain=False)
    view.event("\x1b]0;title\x07")

    text = show(view)

    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "[bold]carl" in text


def test_view__keeps_the_last_events_only() -> None:
    view = LiveView(["ada"], plain=False)
    for number in range(EVENTS_SHOWN + 5):
        view.event(f"event {number:02d}.")

    text = show(view)

    assert "event 04." not in text
    assert "event 05." in text


def test_live__draws_on_a_terminal_and_gives_it_back() -> None:
    out = io.StringIO()

    with LiveView(["ada"], file=out, plain=False) as view:
        view.stage("Voting", 5)
        view.update("ada", state="done", accuracy=0.95)

    assert "ada" in out.getvalue()
    assert "95.0\u00a0%" in out.getvalue()


def test_update__refuses_what_it_does_not_know() -> None:
    view = LiveView(["ada"], plain=False)

    with pytest.raises(TypeError, match="colour"):
        view.update("ada", colour="red")
