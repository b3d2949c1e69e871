"""Small simulated worlds for tests: the synthetic learner, a few peers, a short session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learnae.learning.synthetic import make_learners
from learnae.sim.conditions import RANDOM, draw_conditions
from learnae.sim.scenario import Scenario, find_scenario
from learnae.sim.world import Observe, PeerType, World


def make_world(
    name: str | Scenario,
    *,
    seed: int = 1,
    observe: Observe | None = None,
    peer_types: Mapping[int, PeerType] | None = None,
    **changes: Any,
) -> World:
    """As `learnae sim run` makes it, so that the command which a broken promise prints repeats a test; 6 peers, 15 cycles."""
    scenario = find_scenario(name, **{"peers": 6, "cycles": 15, **changes}) if isinstance(name, str) else name
    if scenario.name == RANDOM:
        scenario = draw_conditions(scenario, seed)
    learners = make_learners(seed, scenario.peers, shared_slices=scenario.shared_slices)
    initial = learners[0].initial_model(seed)
    return World(scenario, seed=seed, learners=learners, initial_model=initial, observe=observe, peer_types=peer_types)


def run_world(name: str | Scenario, **options: Any) -> World:
    """Run to the end; every promise is checked after every event and at the end."""
    world = make_world(name, **options)
    world.run()
    world.checker.check_end()
    return world
