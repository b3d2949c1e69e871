"""An adaptive attacker: in every cycle each member of the ring draws which attack to follow, and a search finds the best weights.

The search knows the rule and measures with common random numbers: the same seeds and the same draws for every mixture, so that a
difference between two mixtures is no accident. It begins with honesty, every attack alone and random mixtures, then changes the
weights of the best in ever smaller steps. What it found is measured again on seeds that it has not seen; only that is reported.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Final

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.books import Receipt, draw_truth
from learnae.lab.measure import ratio
from learnae.lab.registry import find_rule, list_attacks
from learnae.lab.rule import Rule
from learnae.lab.trial import PERMILLE, Setting, Trial, settle_conduct

SEARCH_SEEDS: Final = 6
RANDOM_MIXTURES: Final = 8
STEPS: Final = 24
FIRST_STEP: Final = 0.5  # Largest change of one weight in the first step of the search; the last has a tenth of it.
SEED_OFFSET: Final = 1_000_000  # Seeds of the search; those of the measurement begin at the user's, far below.
HONEST: Final = "honest"

Weights = tuple[float, ...]
_ByCycle = Mapping[tuple[int, int], Sequence[Receipt]]


def list_components() -> dict[str, LedgerAttack | None]:
    """What a mixture is made of: honesty (None) and the attacks of the catalogue that can be followed cycle by cycle."""
    attacks = list_attacks().values()
    mixable = {a.name: a for a in attacks if isinstance(a, LedgerAttack) and a.is_mixable and a.in_catalogue}
    return {HONEST: None, **mixable}


@dataclass(frozen=True)
class Stage:
    """One seed, prepared: what each component would report for each member of the ring in each cycle."""

    setting: Setting
    seed: int

    @cached_property
    def _parts(self) -> tuple[list[Receipt], list[_ByCycle], list[Conduct]]:
        draws, truth = draw_truth(self.seed, self.setting.peers, self.setting.cycles)
        ring = frozenset(self.setting.ring)
        conducts = []
        for name, attack in list_components().items():
            situation = Situation(draws, truth, self.setting.ring, Random(f"{self.seed} {name}"))
            conducts.append(Conduct(truth) if attack is None else attack.act(situation))
        base = [receipt for receipt in truth if receipt.reporter not in ring and receipt.helper not in ring]
        return base, [_sort_by_cycle(conduct.receipts, ring) for conduct in conducts], conducts

    @cached_property
    def _draws(self) -> dict[tuple[int, int], float]:
        """One number from 0 to 1 for each member and cycle; the same for all mixtures."""
        rng = Random(f"{self.seed} mixture")
        return {(member, cycle): rng.random() for member in self.setting.ring for cycle in range(self.setting.cycles)}

    def act(self, weights: Weights) -> Conduct:
        """What is reported under one mixture."""
        base, parts, conducts = self._parts
        bounds = list(accumulate(weights))
        receipts, accusers = list(base), set()
        for (member, cycle), draw in self._draws.items():
            chosen = min(bisect_right(bounds, draw * bounds[-1]), len(weights) - 1)
            receipts += parts[chosen].get((member, cycle), ())
            if member in conducts[chosen].accusers:
                accusers.add(member)
        return Conduct(receipts, accusers=frozenset(accusers))


def _sort_by_cycle(receipts: Sequence[Receipt], ring: frozenset[int]) -> _ByCycle:
    """The receipts that a member of the ring decides about: those it wrote, and of the others' those that name it."""
    found: dict[tuple[int, int], list[Receipt]] = {}
    for receipt in receipts:
        owner = receipt.reporter if receipt.reporter in ring else receipt.helper
        if owner in ring:
            found.setdefault((owner, receipt.cycle), []).append(receipt)
    return found


@dataclass(frozen=True, slots=True)
class Response:
    """The best mixture that was found against one rule, and what it came to on seeds that the search did not see."""

    weights: Mapping[str, float]
    trials: tuple[Trial, ...]

    def describe(self) -> str:
        """The mixture in words: its parts from a hundredth on, the largest first."""
        parts = sorted(self.weights.items(), key=lambda part: -part[1])
        return " + ".join(f"{weight:.0%} {name}" for name, weight in parts if weight >= 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchJob:
    """Find the best response to one rule and measure it."""

    rule: str
    setting: Setting
    seed: int  # the first seed of the measurement
    seeds: int
    steps: int = STEPS

    @property
    def command(self) -> str:
        share = self.setting.share_permille / PERMILLE
        seeds = f"--first-seed {self.seed} --seeds {self.seeds}"
        return f"learnae lab run adaptive --rule {self.rule} --share {share:g} {seeds} {self.setting.words}"

    def run(self) -> Response:
        rule = find_rule(self.rule)
        stages = [Stage(self.setting, SEED_OFFSET + number) for number in range(SEARCH_SEEDS)]
        weights = search(rule, stages, self.steps)
        trials = []
        for seed in range(self.seed, self.seed + self.seeds):
            trials += settle_conduct(Stage(self.setting, seed).act(weights), {rule.name: rule}, self.setting, seed)
        total = sum(weights)
        shares = {name: weight / total for name, weight in zip(list_components(), weights, strict=True)}
        return Response(shares, tuple(trials))


def search(rule: Rule, stages: Sequence[Stage], steps: int) -> Weights:
    """The weights with the largest gain on the stages. Honesty is tried first, so an attack is chosen only if it gains."""
    count, rng = len(list_components()), Random("adaptive attacker")
    starts: list[Weights] = [tuple(float(index == one) for index in range(count)) for one in range(count)]
    starts += [tuple(rng.random() ** 3 for _ in range(count)) for _ in range(RANDOM_MIXTURES)]
    best, best_gain = starts[0], compute_gain(rule, stages, starts[0])
    for weights in starts[1:]:
        best, best_gain = _better(rule, stages, weights, (best, best_gain))
    for step in range(steps):
        size = FIRST_STEP * (1 - 0.9 * step / steps)
        changed = [weight / sum(best) for weight in best]
        one = rng.randrange(count)
        changed[one] = max(0.0, changed[one] + rng.uniform(-size, size))
        if sum(changed) > 0:
            best, best_gain = _better(rule, stages, tuple(changed), (best, best_gain))
    return best


def _better(rule: Rule, stages: Sequence[Stage], weights: Weights, best: tuple[Weights, float]) -> tuple[Weights, float]:
    gain = compute_gain(rule, stages, weights)
    return (weights, gain) if gain > best[1] else best


def compute_gain(rule: Rule, stages: Sequence[Stage], weights: Weights) -> float:
    """Malicious gain of one mixture over all stages."""
    trials = [trial for stage in stages for trial in settle_conduct(stage.act(weights), {rule.name: rule}, stage.setting, stage.seed)]
    return ratio([(trial.ring_wei, trial.ring_honest_wei) for trial in trials])[0]
