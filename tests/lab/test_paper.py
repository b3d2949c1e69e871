"""Section 7: every published figure lies in our 95 % band, and the figures are computed as the paper defines them."""

from __future__ import annotations

import pytest

from learnae.ids import Wei
from learnae.lab.paper import (
    BOTH,
    HONEST,
    PAPER_SETTING,
    PUBLISHED,
    SILENT,
    Figure,
    Outcome,
    Pair,
    Reproduction,
    Setting,
    Values,
    compute_band,
    compute_discrepancies,
    compute_progress,
    compute_values,
    reproduce,
    run_fast,
)
from learnae.lab.swarm import CREDIT_WEI, SwarmDraws, draw_swarm

SEEDS = range(200)


@pytest.fixture(scope="module")
def section_7() -> Reproduction:
    values = [compute_values(run_fast(PAPER_SETTING, seed), malicious=10) for seed in SEEDS]
    return reproduce(PAPER_SETTING, SEEDS, values)


def find(experiment: str, name: str) -> Figure:
    return next(figure for figure in PUBLISHED if (figure.experiment, figure.name) == (experiment, name))


# --- the published figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", [f for f in PUBLISHED if f.name != "discrepancy_relative"], ids=lambda f: f"{f.section} {f.name}")
def test_published_figure__lies_in_our_band(section_7: Reproduction, figure: Figure) -> None:
    """Sections 7.1, 7.2 and 7.3, Figures 7, 9 and 10: each number of the text, over 200 seeds."""
    assert section_7.bands[figure].contains(figure.paper), section_7.bands[figure]


def test_published_figures__are_those_of_the_text() -> None:
    """Sections 7.1 to 7.3 word by word."""
    text = [(figure.section, figure.name, figure.paper) for figure in PUBLISHED]

    assert text == [
        ("7.1", "peers_up", 47),
        ("7.1", "mean_gain", 241.84),
        ("7.1", "mean_loss", -214.46),
        ("7.2", "peers_up", 51),
        ("7.2", "mean_gain", 272.59),
        ("7.2", "mean_loss", -283.71),
        ("7.2", "malicious_change", -608.56),
        ("7.2", "other_loss", -200.42),
        ("7.3", "discrepancy_relative", 3.2),
        ("7.3", "discrepancy_symmetric", 3.2),
    ]


def test_discrepancy__as_published_is_the_symmetric_one(section_7: Reproduction) -> None:
    """Section 7.3, Fig. 10: 3.2 % fits |a - b| / (a + b); divided by a alone it would be about twice as much."""
    relative = section_7.bands[find(BOTH, "discrepancy_relative")]
    symmetric = section_7.bands[find(BOTH, "discrepancy_symmetric")]

    assert relative.low is not None and symmetric.median is not None and relative.median is not None
    assert relative.low > 3.2
    assert relative.median == pytest.approx(2 * symmetric.median, rel=0.05)


def test_band__is_narrow_enough_to_exclude_other_models(section_7: Reproduction) -> None:
    """The bands are no licence: without the helper's factor, or with malicious peers that report, figures fall outside."""
    flat = [compute_values(run_flat(seed), malicious=10) for seed in range(40)]
    band = compute_band([values[find(HONEST, "mean_gain")] for values in flat])
    assert not band.contains(241.84)

    loud = [compute_values(run_fast(Setting(malicious=0), seed), malicious=10) for seed in range(40)]
    band = compute_band([values[find(SILENT, "malicious_change")] for values in loud])
    assert not band.contains(-608.56)


def run_flat(seed: int) -> Pair:
    """The experiment with a Contribution Factor of 5 for everybody."""
    from learnae.lab import paper

    draws = draw_swarm(seed)
    changes = tuple(5 * change // draws.factors[helper] for helper, change in zip(draws.helpers, draws.changes, strict=True))
    flat = SwarmDraws(seed, draws.peers, draws.cycles, (5,) * draws.peers, draws.helpers, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "draw_swarm", lambda *args, **options: flat)
        return run_fast(PAPER_SETTING, seed)


# --- how a figure is computed -----------------------------------------------------------------------------------------


def wei(*credits: float) -> tuple[Wei, ...]:
    return tuple(Wei(int(credit * CREDIT_WEI)) for credit in credits)


PAIR = Pair(
    Outcome(tips=wei(1000, 900, 1100, 1000), consolidated=wei(1300, 800, 900, 1000)),
    Outcome(tips=wei(1500, 800, 900, 800), consolidated=wei(1300, 1000, 800, 900)),
)


def test_values__follow_the_words_of_section_7() -> None:
    """7.1, 7.2: counts and means over those whose balance rose, and over those whose balance fell, by the consolidation."""
    values = {(figure.experiment, figure.name): value for figure, value in compute_values(PAIR, malicious=1).items()}

    assert values == {
        (HONEST, "peers_up"): 1,
        (HONEST, "mean_gain"): 300,
        (HONEST, "mean_loss"): -150,
        (SILENT, "peers_up"): 2,
        (SILENT, "mean_gain"): 150,
        (SILENT, "mean_loss"): -150,
        (SILENT, "malicious_change"): -200,
        (SILENT, "other_loss"): -100,
        (BOTH, "discrepancy_relative"): pytest.approx(100 * (0 + 200 / 800 + 100 / 900 + 100 / 1000) / 4),
        (BOTH, "discrepancy_symmetric"): pytest.approx(100 * (0 + 200 / 1800 + 100 / 1700 + 100 / 1900) / 4),
    }


def test_values__of_a_swarm_without_losers_have_no_mean_loss() -> None:
    """Two peers and one cycle are allowed: what cannot be computed is None, in the bands too."""
    same = Outcome(tips=wei(1000, 1000), consolidated=wei(1000, 1000))
    values = compute_values(Pair(same, same), malicious=0)
    result = reproduce(Setting(2, 1, 0), [4, 5], [values, values])

    assert values[find(HONEST, "mean_loss")] is None
    assert result.bands[find(HONEST, "mean_loss")].median is None
    assert not result.bands[find(HONEST, "mean_loss")].contains(0)
    assert result.bands[find(HONEST, "peers_up")].median == 0


def test_band__is_the_middle_and_the_central_95_percent() -> None:
    band = compute_band([None, *range(1, 42)])

    assert (band.median, band.low, band.high) == (21, 2, 40)
    assert band.contains(2) and band.contains(40) and not band.contains(41)
    assert compute_band([7.0]).low == 7.0


def test_representative__is_the_seed_nearest_to_the_medians(section_7: Reproduction) -> None:
    middle = dict.fromkeys(PUBLISHED, 0.0)
    far: Values = dict.fromkeys(PUBLISHED, 10.0)
    near: Values = dict.fromkeys(PUBLISHED, 1.0)
    others: list[Values] = [dict.fromkeys(PUBLISHED, value) for value in (-10.0, -1.0)]
    result = reproduce(PAPER_SETTING, [7, 8, 9, 10, 11], [far, *others, near, middle])

    assert result.shown == (11, middle)
    assert section_7.shown[0] in SEEDS


# --- what the plots show ------------------------------------------------------------------------------------------------


def test_progress__ends_where_tips_are_settled() -> None:
    """Figures 6 and 8: the last point of every line is the balance that the node's own tip code gives."""
    draws, pair = draw_swarm(5), run_fast(PAPER_SETTING, 5)

    for malicious, outcome in ((0, pair.honest), (10, pair.malicious)):
        lines = compute_progress(draws, malicious=malicious)
        assert [line[0] for line in lines] == [1000] * 100
        assert {len(line) for line in lines} == {51}
        assert tuple(line[-1] * CREDIT_WEI for line in lines) == outcome.tips


def test_progress__of_a_malicious_peer_never_falls() -> None:
    """7.2: "the balance of the malicious nodes is only increasing"; that of the others is not."""
    lines = compute_progress(draw_swarm(5), malicious=10)

    assert all(line == sorted(line) for line in lines[:10])
    assert not any(line == sorted(line) for line in lines[10:])


def test_malicious_peers__lose_by_the_consolidation_what_they_kept(section_7: Reproduction) -> None:
    """7.2: the fund eliminates the malicious effort: their payouts are those of the honest experiment, but for a few per cent."""
    pair = run_fast(PAPER_SETTING, section_7.shown[0])
    changes = compute_discrepancies(pair)[:10]

    assert sum(pair.malicious.tips[:10]) > 1.5 * sum(pair.malicious.consolidated[:10])
    assert all(change is not None and abs(change) < 30 for change in changes)


def test_discrepancies__are_per_cent_of_the_honest_balance() -> None:
    """Fig. 10."""
    nothing = Pair(Outcome(wei(0), wei(0)), Outcome(wei(0), wei(5)))

    assert compute_discrepancies(PAIR) == [0, 25, pytest.approx(-11.1111, abs=1e-4), -10]
    assert compute_discrepancies(nothing) == [None]
