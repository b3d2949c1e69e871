"""Small simulated worlds for tests: the synthetic learner, a few peers, a short session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learnae.learning.synthetic import SyntheticLearner
from learnae.sim.scenario import Scenario, find_scenario
from learnae.sim.world import Observe, PeerType, World


def make_world(
    name: str | Scenario,
    *,
    seed: int = 1,
    peers: int = 6,
    cycles: int = 15,
    shared_slices: int = 0,
    observe: Observe | None = None,
    peer_types: Mapping[int, PeerType] | None = None,
    **changes: Any,
) -> World:
    scenario = find_scenario(name, peers=peers, cycles=cycles, **changes) if isinstance(name, str) else name
    learners = [SyntheticLearner(seed * 1000 + index, shared_slices=shared_slices) for index in range(scenario.peers)]
    initial = learners[0].initial_model(seed)
    return World(scenario, seed=seed, learners=learners, initial_model=initial, observe=observe, peer_types=peer_types)


def run_world(name: str | Scenario, **options: Any) -> World:
    """Run to the end; every promise is checked after every event and at the end."""
    world = make_world(name, **options)
    world.run()
    world.checker.check_end()
    return world
