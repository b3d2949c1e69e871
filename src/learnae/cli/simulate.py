"""`learnae sim run`: a scenario with the synthetic learner."""

from __future__ import annotations

import argparse
import json
import sys

from learnae.errors import UsageError
from learnae.learning.synthetic import LEARNERS_MAX, make_learners
from learnae.sim.conditions import RANDOM, change_scenario, draw_conditions
from learnae.sim.scenario import find_scenario
from learnae.sim.summary import format_summary, summarise
from learnae.sim.world import World

PEERS_MAX = LEARNERS_MAX


def simulate(options: argparse.Namespace) -> int:
    """Run, check the invariants, print the summary. Raises: InvariantBrokenError, UnknownScenarioError, UsageError."""
    if options.peers is not None and not 1 <= options.peers <= PEERS_MAX:
        raise UsageError(f"--peers is {options.peers}, expected 1 to {PEERS_MAX}")
    if options.cycles is not None and not 1 <= options.cycles <= PEERS_MAX:
        raise UsageError(f"--cycles is {options.cycles}, expected 1 to {PEERS_MAX}")
    chosen = {"peers": options.peers, "cycles": options.cycles, "policy": options.policy}
    scenario = find_scenario(options.scenario, **{name: value for name, value in chosen.items() if value is not None})
    if scenario.name == RANDOM:
        scenario = draw_conditions(scenario, options.seed)
    try:
        scenario = change_scenario(scenario, options.set)
    except ValueError as error:
        raise UsageError(f"--set is {error}") from error
    learners = make_learners(options.seed, scenario.peers, shared_slices=scenario.shared_slices)
    world = World(scenario, seed=options.seed, learners=learners, initial_model=learners[0].initial_model(options.seed))
    world.run(progress=_show if sys.stderr.isatty() else None)
    world.checker.check_end()
    summary = summarise(world)
    print(json.dumps(summary, indent=1) if options.json else format_summary(summary))
    return 0


def _show(part: float) -> None:
    print(f"\r{min(part, 1.0):4.0%} of the session's time", end="" if part < 1 else "\r\x1b[K", file=sys.stderr, flush=True)
