"""The simulator: how long 100 and 300 peers take for 50 cycles with the synthetic learner, what a peer costs in memory, how both grow.

`sim:1000` goes on to a thousand peers: minutes. Each size runs in a process of its own. Times are processor time of one core, which is
the time that it takes where nothing else runs; memory is what the process holds at its most beyond what it held before, divided by
the peers. The exponents say how time and memory grow with the number of peers: deliveries grow with its square, so does the time of a
perfect simulator. References are the bounds of the issues.
"""

from __future__ import annotations

import gc
import math
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context

import psutil

from benchmarks import Result
from learnae.learning.synthetic import make_learners
from learnae.sim.scenario import find_scenario
from learnae.sim.world import World

CASES = ("100", "300", "1000")
CYCLES = 50
BOUNDS_S = {100: 10.0, 1000: 1200.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run."""

    peers: int
    took_s: float
    deliveries: int
    memory_kb: float  # of a peer


def run(largest: str = "300") -> list[Result]:
    sizes = [int(case) for case in CASES if int(case) <= int(largest)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        runs = list(processes.map(measure, sizes))
    results = []
    for done in runs:
        case, bound_s = f"{done.peers} peers, {CYCLES} cycles", BOUNDS_S.get(done.peers)
        reference = None if bound_s is None else "promised at most"
        results += [
            Result(case=case, value=done.took_s, unit="s", reference=reference, reference_value=bound_s),
            Result(case=f"{case}: deliveries", value=done.deliveries / done.took_s, unit="1/s"),
            Result(case=f"{case}: memory of a peer", value=done.memory_kb, unit="kB"),
        ]
    for few, many in pairwise(runs):
        case, factor = f"{few.peers} to {many.peers} peers", math.log(many.peers / few.peers)
        memory = many.memory_kb * many.peers / (few.memory_kb * few.peers)
        results += [
            Result(case=f"{case}: time grows with the power", value=math.log(many.took_s / few.took_s) / factor, unit=""),
            Result(case=f"{case}: memory grows with the power", value=math.log(memory) / factor, unit=""),
        ]
    return results


def measure(peers: int) -> Measured:
    gc.collect()
    before_kb = psutil.Process().memory_info().rss / 1000
    learners = make_learners(1, peers)
    scenario = find_scenario("calm", peers=peers, cycles=CYCLES)
    world = World(scenario, seed=1, learners=learners, initial_model=learners[0].initial_model(1))
    began_s = time.process_time()
    world.run()
    took_s = time.process_time() - began_s
    world.checker.check_end()
    most_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1000
    return Measured(peers=peers, took_s=took_s, deliveries=world.deliveries, memory_kb=(most_kb - before_kb) / peers)
