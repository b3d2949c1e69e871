"""Section 7 done again: how long a thousand seeds take on all cores, and what the node's reward code costs beside bare sums.

Bound of the issue: 1,000 seeds of both experiments in less than 10 seconds. The reference of one seed is the same draws added up in
plain lists, without names, tips, points or wei. A small session through real peers in the simulator stands beside its fast path.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

from benchmarks import Result
from learnae.lab.paper import PAPER_SETTING, Setting, Values, compute_values, reproduce, run_fast
from learnae.lab.parallel import count_cores, map_parallel
from learnae.lab.swarm import CREDIT_WEI, DEPOSIT_CREDITS, SwarmDraws, draw_swarm
from learnae.lab.through import join_sessions, list_sessions, run_session

SEEDS = 1000
BOUND_S = 10.0
TIMED_SEEDS = 60
SMALL = Setting(peers=20, cycles=20, malicious=2)


def run() -> list[Result]:
    began_s = time.perf_counter()
    seeds = range(SEEDS)
    values = list(map_parallel(compute_one, seeds, processes=count_cores()))
    reproduce(PAPER_SETTING, seeds, values)
    took_s = time.perf_counter() - began_s
    cores = count_cores()
    return [
        Result(case=f"{SEEDS:,} seeds, {cores} cores", value=took_s, unit="s", reference="promised at most", reference_value=BOUND_S),
        *measure_seed(),
        *measure_protocol(),
    ]


def compute_one(seed: int) -> Values:
    return compute_values(run_fast(PAPER_SETTING, seed), malicious=PAPER_SETTING.malicious)


def measure_seed() -> list[Result]:
    """One seed on one core: drawing it, and both experiments by the node's reward code against bare sums."""
    draws, rewards, sums = [], [], []
    for seed in range(TIMED_SEEDS):
        began_s = time.perf_counter()
        drawn = draw_swarm(seed)
        draws.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        pair = run_fast(PAPER_SETTING, seed)
        rewards.append(time.perf_counter() - began_s - draws[-1])
        began_s = time.perf_counter()
        balances = [add_up(drawn, malicious) for malicious in (0, PAPER_SETTING.malicious)]
        sums.append(time.perf_counter() - began_s)
        assert [[balance * CREDIT_WEI for balance in tips] for tips in balances] == [list(pair.honest.tips), list(pair.malicious.tips)]
    drawing_ms, rewards_ms, plain_ms = (1000 * statistics.median(times) for times in (draws, rewards, sums))
    return [
        Result(case="draws of one seed", value=drawing_ms, unit="ms"),
        Result(case="rewards of one seed", value=rewards_ms, unit="ms", reference="bare sums", reference_value=plain_ms),
    ]


def add_up(draws: SwarmDraws, malicious: int) -> list[int]:
    """Balances under tips, in credits."""
    balances = [DEPOSIT_CREDITS] * draws.peers
    for attempt, change in enumerate(draws.changes):
        peer = attempt % draws.peers
        if change > 0 and peer >= malicious:
            balances[peer] -= change
            balances[draws.helpers[attempt]] += change
    return balances


def measure_protocol() -> list[Result]:
    """Both experiments of one small seed through real peers, and the same on the ledger alone."""
    began_s = time.perf_counter()
    sessions = list_sessions(SMALL, 1, is_contract=False)
    join_sessions(sessions, [run_session(session) for session in sessions])
    through_ms = 1000 * (time.perf_counter() - began_s)
    fast = partial(run_fast, SMALL, 1)
    began_s = time.perf_counter()
    for _ in range(TIMED_SEEDS):
        fast()
    fast_ms = 1000 * (time.perf_counter() - began_s) / TIMED_SEEDS
    case = f"{SMALL.peers} peers, {SMALL.cycles} cycles through the protocol"
    return [Result(case=case, value=through_ms, unit="ms", reference="ledger alone", reference_value=fast_ms)]
