"""The two experiments of section 7 and the figures that the paper publishes about them, over many seeds.

One seed gives two experiments with equal draws: in the first everybody reports, in the second the first `malicious` peers never
do. Each is settled twice, by direct tips (4.3) and by the fund (6); the *correction* of a peer is what the fund gives it less what
tips would have left it with (Figures 7 and 9). `Outcome` is how an experiment ended, whatever carried it out: this module's fast
path, a thousand seeds in seconds, or the whole protocol (`lab.through`).
Source: paper, section 7. Deviation D12. The paper does not say how it measures the discrepancy of 7.3; both usual ways are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles
from typing import Final, NamedTuple

from learnae.ids import PeerId, Wei
from learnae.lab.swarm import (
    CREDIT_WEI,
    CYCLES,
    DEPOSIT_CREDITS,
    MALICIOUS,
    PEERS,
    SwarmDraws,
    compute_rows,
    draw_swarm,
    name_peers,
    settle_fund,
    settle_tips,
)
from learnae.protocol.rewards import Rows

HONEST, SILENT, BOTH = "honest", "malicious", "discrepancy"
"""The experiment of 7.1, that of 7.2, and what 7.3 compares."""


class Figure(NamedTuple):
    """One published number: where it stands, what the paper says, and how people read it."""

    experiment: str
    name: str
    paper: float
    section: str
    words: str
    decimals: int = 2
    sign: bool = True
    unit: str = ""


PUBLISHED: Final = (
    Figure(HONEST, "peers_up", 47, "7.1", "peers with more than under tips", 0, False),
    Figure(HONEST, "mean_gain", 241.84, "7.1", "mean gain of these peers"),
    Figure(HONEST, "mean_loss", -214.46, "7.1", "mean loss of the others"),
    Figure(SILENT, "peers_up", 51, "7.2", "peers with more than under tips", 0, False),
    Figure(SILENT, "mean_gain", 272.59, "7.2", "mean gain of these peers"),
    Figure(SILENT, "mean_loss", -283.71, "7.2", "mean loss of the others"),
    Figure(SILENT, "malicious_change", -608.56, "7.2", "mean change of the malicious peers"),
    Figure(SILENT, "other_loss", -200.42, "7.2", "mean loss of all other losers"),
    Figure(BOTH, "discrepancy_relative", 3.2, "7.3", "mean of |a − b| / a", 1, False, " %"),
    Figure(BOTH, "discrepancy_symmetric", 3.2, "7.3", "mean of |a − b| / (a + b)", 1, False, " %"),
)
"""All figures of section 7. The discrepancy is published once, without its definition: it is compared with both."""


SEEDS_MIN: Final = 40  # A band of fewer seeds has no seed outside of it and says nothing.


@dataclass(frozen=True, slots=True)
class Setting:
    """What a user may change; the published figures belong to the defaults."""

    peers: int = PEERS
    cycles: int = CYCLES
    malicious: int = MALICIOUS


PAPER_SETTING: Final = Setting()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one experiment ended: wei of every peer, in the order of peers."""

    tips: tuple[Wei, ...]  # the deposit after direct tips; may be below 0
    consolidated: tuple[Wei, ...]  # what the fund paid

    def compute_corrections(self) -> list[float]:
        """Figures 7 and 9: credits that each peer has more (or less) after the consolidation than under tips."""
        return [(paid - tips) / CREDIT_WEI for paid, tips in zip(self.consolidated, self.tips, strict=True)]


class Pair(NamedTuple):
    """Both experiments of one seed."""

    honest: Outcome
    malicious: Outcome


Values = Mapping[Figure, float | None]
"""What one seed gives for each figure; None where there is nothing to take a mean of, such as nobody who lost."""

Experiment = Callable[[Setting, int], Pair]
"""Carries out both experiments of one seed."""


def run_fast(setting: Setting, seed: int) -> Pair:
    """Both experiments of one seed on the ledger alone; a few milliseconds."""
    names = name_peers(setting.peers)
    rows = compute_rows(draw_swarm(seed, peers=setting.peers, cycles=setting.cycles))
    quiet = {**rows, **{name: {} for name in names[: setting.malicious]}}  # They never report; all else is equal.
    return Pair(_settle(rows, names), _settle(quiet, names))


def _settle(rows: Rows, names: Sequence[PeerId]) -> Outcome:
    tips, paid = settle_tips(rows, names), settle_fund(rows, names)
    return Outcome(tuple(tips[name] for name in names), tuple(paid[name] for name in names))


def compute_progress(draws: SwarmDraws, *, malicious: int = 0) -> list[list[int]]:
    """Figures 6 and 8: for every peer its balance in credits under tips, at the start and after each cycle."""
    balances = [DEPOSIT_CREDITS] * draws.peers
    progress = [[balance] for balance in balances]
    for cycle in range(draws.cycles):
        for peer in range(malicious, draws.peers):
            attempt = cycle * draws.peers + peer
            given = max(0, draws.changes[attempt])
            balances[peer] -= given
            balances[draws.helpers[attempt]] += given
        for line, balance in zip(progress, balances, strict=True):
            line.append(balance)
    return progress


def compute_discrepancies(pair: Pair) -> list[float | None]:
    """Figure 10: for every peer, by how many per cent its final balance differs between the experiments; None where both are 0."""
    both = zip(pair.honest.consolidated, pair.malicious.consolidated, strict=True)
    return [100 * (other - before) / before if before else None for before, other in both]


def compute_values(pair: Pair, *, malicious: int) -> Values:
    """Every figure of section 7 for one seed."""
    corrections = {HONEST: pair.honest.compute_corrections(), SILENT: pair.malicious.compute_corrections()}
    quiet, others = corrections[SILENT][:malicious], corrections[SILENT][malicious:]
    found: dict[tuple[str, str], float | None] = {}
    for experiment, changes in corrections.items():
        found[experiment, "peers_up"] = sum(change > 0 for change in changes)
        found[experiment, "mean_gain"] = _mean([change for change in changes if change > 0])
        found[experiment, "mean_loss"] = _mean([change for change in changes if change < 0])
    found[SILENT, "malicious_change"] = _mean(quiet)
    found[SILENT, "other_loss"] = _mean([change for change in others if change < 0])
    finals = list(zip(pair.honest.consolidated, pair.malicious.consolidated, strict=True))
    found[BOTH, "discrepancy_relative"] = _mean([100 * abs(a - b) / a for a, b in finals if a])
    found[BOTH, "discrepancy_symmetric"] = _mean([100 * abs(a - b) / (a + b) for a, b in finals if a + b])
    return {figure: found[figure.experiment, figure.name] for figure in PUBLISHED}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


@dataclass(frozen=True, slots=True)
class Band:
    """One figure over all seeds: the middle, and where 95 % of the seeds lie; None if no seed had it."""

    median: float | None
    low: float | None
    high: float | None

    def contains(self, value: float) -> bool:
        return self.low is not None and self.high is not None and self.low <= value <= self.high


def compute_band(values: Sequence[float | None]) -> Band:
    """Median, 2.5 and 97.5 percentile of those that are numbers."""
    known = [value for value in values if value is not None]
    if not known:
        return Band(None, None, None)
    cuts = quantiles(known, n=40, method="inclusive") if len(known) > 1 else known
    return Band(median(known), cuts[0], cuts[-1])


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Section 7 done again: what every seed gave, and what they give together."""

    setting: Setting
    seeds: tuple[int, ...]
    values: tuple[Values, ...]  # of every seed
    bands: Mapping[Figure, Band]
    representative: int  # place in `seeds` of the one whose figures are nearest to the medians

    @property
    def shown(self) -> tuple[int, Values]:
        """The representative seed and its figures."""
        return self.seeds[self.representative], self.values[self.representative]

    @property
    def is_the_papers(self) -> bool:
        """Whether the published figures are about this setting."""
        return self.setting == PAPER_SETTING

    @property
    def is_comparable(self) -> bool:
        """Whether the bands can be held against the published figures: the setting is the paper's, and a tail of 2.5 % has a seed in it."""
        return self.is_the_papers and len(self.seeds) >= SEEDS_MIN


def reproduce(setting: Setting, seeds: Sequence[int], values: Sequence[Values]) -> Reproduction:
    """Put the figures of all seeds together. `seeds` is not empty and in the order of `values`."""
    assert seeds and len(seeds) == len(values)
    bands = {figure: compute_band([value[figure] for value in values]) for figure in PUBLISHED}
    distances = [_compute_distance(value, bands) for value in values]
    return Reproduction(setting, tuple(seeds), tuple(values), bands, distances.index(min(distances)))


def _compute_distance(values: Values, bands: Mapping[Figure, Band]) -> float:
    """How far a seed's figures are from the medians, each counted in widths of its band."""
    total = 0.0
    for figure, band in bands.items():
        value = values[figure]
        if value is None or band.median is None or band.low is None or band.high is None:
            continue
        total += ((value - band.median) / ((band.high - band.low) or 1.0)) ** 2
    return total
