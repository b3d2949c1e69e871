"""Scales and medians of the plots."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from learnae.report.curves import POINTS_MAX, Frame, compute_median_curve, error_digits, thin
from learnae.report.markup import Markup, join, round_ticks, scale, tag
from learnae.report.model import PeerReport, SessionReport, StageMark
from tests.report.made_up import make_report


def test_median_curve__holds_last_values_and_waits_for_half_of_the_peers() -> None:
    curves = [((0.0, 0.1), (10.0, 0.5)), ((4.0, 0.3), (8.0, 0.9)), ((6.0, 0.2),)]

    points = dict(compute_median_curve(curves, 10.0, steps=6))

    assert min(points) == 4.0
    assert points[4.0] == pytest.approx(0.2)  # of 0.1 and 0.3: the third has not begun
    assert points[6.0] == 0.2
    assert points[10.0] == 0.5


def test_median_curve__of_nothing_is_nothing() -> None:
    assert compute_median_curve([(), ()], 10.0) == ()


def test_thin__keeps_the_last_point_and_drops_what_is_no_number() -> None:
    curve = tuple((float(at), 0.5) for at in range(10_001))

    assert len(thin(curve)) <= POINTS_MAX + 1
    assert thin(curve)[-1] == curve[-1]
    assert thin(((0.0, math.nan), (1.0, 0.5))) == ((1.0, 0.5),)


def test_scale__gives_equal_way_to_equal_shares_of_error() -> None:
    """From 80 to 90 % halves the errors, and so does 90 to 95 %."""
    assert error_digits(0.9) - error_digits(0.8) == pytest.approx(error_digits(0.95) - error_digits(0.9))
    assert error_digits(1.0) == pytest.approx(3.0)


def test_frame__places_better_above_and_later_to_the_right() -> None:
    frame = Frame(make_report(), 0, 100, 0, 100)

    assert frame.y(0.95) < frame.y(0.9) < frame.y(0.5)
    assert frame.x(0) == 0
    assert frame.x(172.4) == 100
    ticks = frame.ticks(10)
    assert all(frame.y(lower) - frame.y(upper) >= 10 for upper, lower in pairwise(ticks))


def test_scale__holds_what_lies_outside() -> None:
    place = scale(0, 10, 100, 200)

    assert [place(-5), place(5), place(50)] == [100, 150, 200]


@pytest.mark.parametrize(("high", "expected"), [(170, [0, 50, 100, 150]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, [0]), (-3, [0])])
def test_round_ticks__are_round(high: float, expected: list[float]) -> None:
    assert round_ticks(high, 5) == pytest.approx(expected)


def test_markup__escapes_text_and_lets_markup_pass() -> None:
    assert join(["<b>", Markup("<i>")]) == "&lt;b&gt;<i>"
    assert tag("p", 'a"&', class_="x", title='"><script>', stroke_width=1.5, y=None) == (
        '<p class="x" title="&quot;&gt;&lt;script&gt;" stroke-width="1.5">a&quot;&amp;</p>'
    )


def make_peer(name: str) -> PeerReport:
    return PeerReport(
        name=name,
        peer_id="",
        role="honest",
        accuracy_alone=0.8,
        accuracy=0.9,
        curve=(),
        alone_curve=(),
        help_given=0,
        help_received=0,
        deposit_wei=0,
        payout_wei=0,
        tips_balance_wei=0,
    )


def make_session(*names: str, ledger: tuple[tuple[int, ...], ...] = ()) -> SessionReport:
    return SessionReport(
        session="s",
        seconds=1,
        seed=0,
        accuracy_pooled=0.9,
        pooled_curve=(),
        fund_wei=0,
        paid_wei=0,
        ledgers_equal=True,
        peers=tuple(make_peer(name) for name in names),
        ledger=ledger,
        stages=(StageMark("Training", 0),),
    )


def test_report__refuses_figures_that_do_not_fit_together() -> None:
    """Our own bug, so an assertion."""
    assert make_session("a", "b", ledger=((0, 1), (2, 0))).median_accuracy == 0.9
    with pytest.raises(AssertionError, match="unique"):
        make_session("a", "a")
    with pytest.raises(AssertionError, match="square"):
        make_session("a", "b", ledger=((0, 1),))
    with pytest.raises(AssertionError, match="needs a peer"):
        make_session()


def test_report__medians_leave_out_silent_peers() -> None:
    report = make_report()
    honest = sorted(peer.accuracy for peer in report.peers if peer.role != "silent")

    assert report.median_accuracy == honest[2]
