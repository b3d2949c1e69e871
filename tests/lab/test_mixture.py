"""The adaptive attacker: what a mixture is, and that the search finds the best response."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from learnae.lab.attack import Situation
from learnae.lab.books import draw_truth
from learnae.lab.measure import ratio
from learnae.lab.mixture import HONEST, SEED_OFFSET, SearchJob, Stage, compute_gain, list_components, search
from learnae.lab.registry import find_rule, list_attacks
from learnae.lab.trial import Setting
from tests.lab.jobs import A_RULE

SETTING = Setting(share_permille=200, peers=30, cycles=20)
NAMES = list(list_components())


def only(name: str) -> tuple[float, ...]:
    return tuple(float(component == name) for component in NAMES)


def test_components__are_honesty_and_what_can_be_followed_cycle_by_cycle() -> None:
    attacks = list_attacks()

    assert NAMES[0] == HONEST
    assert "ring" in NAMES and "withhold" in NAMES
    assert "sybil-split" not in NAMES and "equivocation" not in NAMES
    assert all(attacks[name].in_catalogue for name in NAMES[1:])


@pytest.mark.parametrize("name", NAMES)
def test_mixture__of_one_component_is_that_component(name: str) -> None:
    """All weight on one attack reports exactly what it reports."""
    draws, truth = draw_truth(7, 30, 20)
    attack = list_components()[name]
    stage = Stage(SETTING, 7)
    expected = truth
    if attack is not None:
        situation = Situation(draws, truth, SETTING.ring, Random(f"7 {name}"))
        expected = tuple(attack.act(situation).receipts)

    assert Counter(stage.act(only(name)).receipts) == Counter(expected)


def test_mixture__of_two_follows_each_in_its_part_of_the_cycles() -> None:
    """Half honest, half silent: about half of the ring's receipts are there, and all of them are true."""
    stage = Stage(SETTING, 7)
    _, truth = draw_truth(7, 30, 20)
    weights = tuple(float(name in (HONEST, "withhold")) for name in NAMES)

    said = [receipt for receipt in stage.act(weights).receipts if receipt.reporter in SETTING.ring]
    honest = [receipt for receipt in truth if receipt.reporter in SETTING.ring]

    assert Counter(said) <= Counter(honest)
    assert 0.3 < len(said) / len(honest) < 0.7


def test_gain__of_honesty_is_one() -> None:
    assert compute_gain(find_rule("budgeted"), [Stage(SETTING, 1), Stage(SETTING, 2)], only(HONEST)) == 1.0


def test_search__finds_the_ring_that_the_rule_pays_most() -> None:
    """Under raw column sums the larger lie wins; whatever is found is at least as good as any single attack."""
    stages = [Stage(SETTING, SEED_OFFSET + number) for number in range(2)]
    for rule, best in (("raw", "ring-inflated"), ("budgeted", "ring")):
        found = compute_gain(find_rule(rule), stages, search(find_rule(rule), stages, 6))
        assert found >= compute_gain(find_rule(rule), stages, only(best)) > 1.3


def test_search__is_honest_where_lying_does_not_pay(tmp_path: Path) -> None:
    """Equal shares pay nobody for anything: the first of equals is honesty."""
    rule = tmp_path / "equal.py"
    rule.write_text(A_RULE)
    job = SearchJob(rule=str(rule), setting=SETTING, seed=0, seeds=3, steps=4)

    response = job.run()

    assert response.describe() == "100% honest"
    assert ratio([(trial.ring_wei, trial.ring_honest_wei) for trial in response.trials]) == (1.0, 0.0)


def test_search__measures_on_seeds_that_it_has_not_seen() -> None:
    job = SearchJob(rule="budgeted", setting=SETTING, seed=5, seeds=3, steps=2)

    assert [trial.seed for trial in job.run().trials] == [5, 6, 7]
    assert SEED_OFFSET > 5 + 3
    assert job.run() == job.run()
    assert job.command == (
        "learnae lab run adaptive --rule budgeted --share 0.2 --first-seed 5 --seeds 3 --peers 30 --cycles 20 --audits 0.1"
    )
