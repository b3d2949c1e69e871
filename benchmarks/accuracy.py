"""Final accuracy on the held-out test set: the swarm, the same peers alone, and all data pooled. Medians over seeds.

The peers are the real `Peer`s with the real learner on 5,000 MNIST digits (MLP 784-128-10, SGD 0.1, momentum 0.9, batch 32), split
into six unequal shares, in the simulator: same code as a node, network delays included, about two minutes of session time.
Set ACCURACY_SEEDS to change the number of seeds (5).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from statistics import median

from benchmarks import Result
from learnae.learning.baselines import measure_models, train_alone, train_pooled
from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner
from learnae.sim.scenario import Scenario
from learnae.sim.world import World

PEERS = 6
CYCLES = 150
CYCLE_S = 0.4
ALONE_CYCLES = 40
POOLED_CYCLES = 12
SLICE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Run:
    """Final test accuracies of one seed."""

    swarm: list[float]
    helped: list[int]  # how many others owe each peer


@dataclass(frozen=True, slots=True)
class Seed:
    alone: list[float]
    pooled: float
    runs: dict[str, Run]  # by policy


def run() -> list[Result]:
    seeds = [measure_seed(seed) for seed in range(int(os.environ.get("ACCURACY_SEEDS", "5")))]
    alone = median(median(seed.alone) for seed in seeds)
    pooled = median(seed.pooled for seed in seeds)
    results = [
        Result(case="alone, median peer", value=alone, unit="accuracy"),
        Result(case="alone, worst peer", value=median(min(seed.alone) for seed in seeds), unit="accuracy"),
        Result(case="pooled", value=pooled, unit="accuracy"),
    ]
    for policy in ("paired", "paper"):
        runs = [seed.runs[policy] for seed in seeds]
        swarm = median(median(r.swarm) for r in runs)
        worst = median(min(r.swarm) for r in runs)
        below = median(100 * (seed.pooled - median(seed.runs[policy].swarm)) for seed in seeds)
        above = median(100 * (median(seed.runs[policy].swarm) - median(seed.alone)) for seed in seeds)
        results += [
            Result(case=f"{policy}: median peer", value=swarm, unit="accuracy", reference="pooled", reference_value=pooled),
            Result(case=f"{policy}: worst peer", value=worst, unit="accuracy", reference="pooled", reference_value=pooled),
            Result(case=f"{policy}: below pooled", value=below, unit="points"),
            Result(case=f"{policy}: above alone", value=above, unit="points"),
            Result(case=f"{policy}: helped by the least helpful peer", value=median(min(r.helped) for r in runs), unit="peers"),
        ]
    return results


def measure_seed(seed: int) -> Seed:
    """One deal of the data: both policies, and what the same data give without a swarm."""
    sources = [f"{part}/{PEERS}@{seed}" for part in range(1, PEERS + 1)]
    configs = [LearnerConfig(task="digits", source=source, slice_bytes=SLICE_BYTES, device="cpu") for source in sources]
    first = InlineLearner(configs[0])
    first.open()
    initial = first.initial_model(seed)
    alone = [train_alone(config, initial_model=initial, cycles=ALONE_CYCLES)[-1].test for config in configs]
    pooled = train_pooled(configs[0], sources, initial_model=initial, cycles=POOLED_CYCLES)[-1].test
    runs = {policy: measure_swarm(seed, configs, initial, policy) for policy in ("paired", "paper")}
    print(f"seed {seed}: alone {median(alone):.3f}, pooled {pooled:.3f}, " + ", ".join(
        f"{policy} {median(r.swarm):.3f}" for policy, r in runs.items()), file=sys.stderr, flush=True)  # fmt: skip
    return Seed(alone, pooled, runs)


def measure_swarm(seed: int, configs: list[LearnerConfig], initial: bytes, policy: str) -> Run:
    """One simulated session with the real learner."""
    learners = [InlineLearner(config) for config in configs]
    for learner in learners:
        learner.open()
    scenario = Scenario(
        name="accuracy", about="the demo's data and model", peers=PEERS, cycles=CYCLES, cycle_s=CYCLE_S, final_s=15, policy=policy
    )
    world = World(scenario, seed=seed, learners=learners, initial_model=initial)
    world.run()
    world.checker.check_end()
    finals, helped = [], []
    for host in world.hosts:
        assert host.peer is not None and host.peer.cycle.local is not None
        finals.append(host.files[host.peer.cycle.local.cid])
        helped.append(sum(vector.credits.get(host.name, 0) > 0 for vector in host.peer.lane.ledger.vectors().values()))
    return Run([evaluation.accuracy for evaluation in measure_models(configs[0], finals)], helped)
