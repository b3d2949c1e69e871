"""Bytes per exchanged model and final accuracy, for every codec in which models can travel. Medians over seeds.

The setting of the `accuracy` benchmark: six real `Peer`s with the real learner on 5,000 MNIST digits in the simulator, policy `paired`.
Every codec gets the same deals, initial models and network. Bytes are what peers asked one another for, with the sizes that were
announced. Set BYTES_SEEDS to change the number of seeds (3), BYTES_CODECS to measure only some, e.g. "raw,delta4".
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from statistics import median

from benchmarks import Result
from benchmarks.accuracy import CYCLE_S, CYCLES, PEERS, SLICE_BYTES
from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner
from learnae.protocol import events as ev
from learnae.protocol.rules import MODEL_CODECS
from learnae.sim.host import Host
from learnae.sim.scenario import Scenario
from learnae.sim.world import World


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated session: sizes of all models that were fetched, and every peer's final accuracy on the test data."""

    sizes: list[int]
    accuracies: list[float]
    raw_bytes: int


def run() -> list[Result]:
    chosen = os.environ.get("BYTES_CODECS", ",".join(MODEL_CODECS)).split(",")
    seeds = range(int(os.environ.get("BYTES_SEEDS", "3")))
    runs = {codec: [measure(seed, codec) for seed in seeds] for codec in dict.fromkeys(["raw", *chosen])}
    accuracy = {codec: median(median(run.accuracies) for run in found) for codec, found in runs.items()}
    results = []
    for codec, found in runs.items():
        bytes_each = median(median(run.sizes) for run in found)
        full = found[0].raw_bytes
        below = median(
            100 * (median(raw.accuracies) - median(run.accuracies)) for raw, run in zip(runs["raw"], found, strict=True)
        )
        worst = median(min(run.accuracies) for run in found)
        fetched = median(sum(run.sizes) for run in found)
        points = 100 * (accuracy[codec] - 0.1)
        results += [
            Result(case=f"{codec}: bytes per model", value=bytes_each, unit="bytes", reference="float32", reference_value=full),
            Result(case=f"{codec}: times fewer bytes", value=full / bytes_each, unit="times"),
            Result(case=f"{codec}: median peer", value=accuracy[codec], unit="accuracy", reference="raw", reference_value=accuracy["raw"]),
            Result(case=f"{codec}: worst peer", value=worst, unit="accuracy"),
            Result(case=f"{codec}: below raw, seed by seed", value=below, unit="points"),
            Result(case=f"{codec}: fetched by all peers", value=fetched / 1e6, unit="MB"),
            Result(case=f"{codec}: accuracy above chance per MB", value=points / (fetched / 1e6), unit="points per MB"),
        ]
        results += time_codec(codec)
    return results


def measure(seed: int, codec: str) -> Run:
    """One session with one codec."""
    learners = []
    for part in range(1, PEERS + 1):
        config = LearnerConfig(task="digits", source=f"{part}/{PEERS}@{seed}", slice_bytes=SLICE_BYTES, device="cpu", codec=codec)
        learners.append(InlineLearner(config))
        learners[-1].open()
    initial = learners[0].initial_model(seed)
    for learner in learners:
        learner.set_initial(initial)
    sizes: list[int] = []

    def observe(world: World, host: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        sizes.extend(e.bytes_max for e in effects if isinstance(e, ev.FetchFile) and e.cid != world.initial)

    scenario = Scenario(name="bytes", about="the demo's data and model", peers=PEERS, cycles=CYCLES, cycle_s=CYCLE_S, final_s=15)
    world = World(scenario, seed=seed, learners=learners, initial_model=initial, observe=observe)
    world.run()
    world.checker.check_end()
    finals = []
    for host in world.hosts:
        assert host.peer is not None and host.peer.cycle.local is not None
        finals.append(host.files[host.peer.cycle.local.cid])
    accuracies = [learners[0].test(final).accuracy for final in finals]
    print(f"seed {seed} {codec}: {median(sizes):,.0f} bytes, accuracy {median(accuracies):.3f}", file=sys.stderr, flush=True)
    return Run(sizes, accuracies, len(initial))


def time_codec(codec: str) -> list[Result]:
    """How long a model takes into its file and back, in milliseconds; medians of 9."""
    learner = InlineLearner(LearnerConfig(task="digits", source=f"1/{PEERS}", slice_bytes=SLICE_BYTES, device="cpu", codec=codec))
    learner.open()
    initial = learner.initial_model(0)
    learner.set_initial(initial)
    model, _ = learner.train(initial, private_slices=range(learner.private_slices), slices=(), seed=1)
    files = learner.files
    state = files.read(model)
    write, read = [], []
    for _ in range(9):
        begin = time.perf_counter()
        content = files.write(state)
        middle = time.perf_counter()
        files.read(content)
        write.append(1000 * (middle - begin))
        read.append(1000 * (time.perf_counter() - middle))
    return [
        Result(case=f"{codec}: writing a model of {len(initial):,} bytes", value=median(write), unit="ms"),
        Result(case=f"{codec}: checking and reading it", value=median(read), unit="ms"),
    ]
