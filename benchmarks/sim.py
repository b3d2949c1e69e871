"""The simulator: how long 100 peers take for 50 cycles with the synthetic learner, and what a peer costs in memory.

Bound of the first issue: 30 seconds on one core. The reference is that bound. The run is done once; `trace` must not depend on it.
"""

from __future__ import annotations

import gc
import time
import tracemalloc

from benchmarks import Result
from learnae.learning.synthetic import SyntheticLearner
from learnae.sim.scenario import find_scenario
from learnae.sim.world import World

PEERS, CYCLES = 100, 50
BOUND_S = 30.0
MEMORY_PEERS, MEMORY_CYCLES = 30, 20


def run() -> list[Result]:
    world = make_world(PEERS, CYCLES)
    began_s = time.perf_counter()
    world.run()
    took_s = time.perf_counter() - began_s
    world.checker.check_end()
    case = f"{PEERS} peers, {CYCLES} cycles"
    return [
        Result(case=case, value=took_s, unit="s", reference="promised at most", reference_value=BOUND_S),
        Result(case=f"{case}: events", value=world.events / took_s, unit="events/s"),
        Result(case=f"memory of a peer of {MEMORY_PEERS} after {MEMORY_CYCLES} cycles", value=measure_memory_kb(), unit="kB"),
    ]


def make_world(peers: int, cycles: int) -> World:
    learners = [SyntheticLearner(index) for index in range(peers)]
    return World(find_scenario("calm", peers=peers, cycles=cycles), seed=1, learners=learners, initial_model=learners[0].initial_model(1))


def measure_memory_kb() -> float:
    """Python objects that a run leaves, divided by its peers: its share of the common vertices, its own graph, ledger and market."""
    gc.collect()
    tracemalloc.start()
    try:
        world = make_world(MEMORY_PEERS, MEMORY_CYCLES)
        world.run()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / MEMORY_PEERS / 1000
    finally:
        tracemalloc.stop()
