"""`learnae paper`: section 7 done again, on the ledger alone or through the whole protocol."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from learnae.errors import UsageError
from learnae.lab.paper import Setting, Values, compute_values, reproduce, run_fast
from learnae.lab.paper_page import write_paper_report
from learnae.lab.paper_summary import format_table, summarise
from learnae.lab.parallel import count_cores, map_parallel

PEERS_MAX = 4095  # As many members as a session can have.
CYCLES_MAX = 10_000
SEEDS_MAX = 1_000_000
FAST_SEEDS, THROUGH_SEEDS = 1000, 1
SHOWN_EVERY = 20
FAST_ATTEMPTS, THROUGH_ATTEMPTS = 200_000, 500  # Work of about a second.


def run_paper(options: argparse.Namespace) -> int:
    """Run the experiments, print the figures, write the report. Raises: UsageError, InvariantBrokenError."""
    setting = _read_setting(options)
    count = options.seeds if options.seeds is not None else FAST_SEEDS if options.through == "fast" else THROUGH_SEEDS
    _check("--seeds", count, 1, SEEDS_MAX)
    _check("--first-seed", options.first_seed, 0, 2**63)
    seeds = range(options.first_seed, options.first_seed + count)
    out = None if options.out is None and options.json else Path(options.out or "learnae-paper")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # A folder that cannot be made is found before the work, not after it.
    began_s = time.monotonic()
    is_contract = options.through == "contract"
    values = _run_fast(setting, seeds) if options.through == "fast" else _run_through(setting, seeds, is_contract=is_contract)
    result = reproduce(setting, seeds, list(_count(values, count)))
    seconds = time.monotonic() - began_s
    page = None if out is None else write_paper_report(result, out, through=options.through, seconds=seconds)
    if options.json:
        print(json.dumps(summarise(result, through=options.through, seconds=seconds), indent=1))
        return 0
    print(format_table(result, through=options.through, seconds=seconds))
    print(f"Figures 6 to 10: {page}")
    return 0


def _read_setting(options: argparse.Namespace) -> Setting:
    _check("--peers", options.peers, 2, PEERS_MAX)
    _check("--cycles", options.cycles, 1, CYCLES_MAX)
    if not 0 <= options.malicious < options.peers:
        raise UsageError(f"--malicious is {options.malicious}, expected 0 to {options.peers - 1}: fewer than --peers")
    return Setting(options.peers, options.cycles, options.malicious)


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name} is {value}, expected {least} to {most}")


def _run_fast(setting: Setting, seeds: range) -> Iterator[Values]:
    processes = _choose_processes(len(seeds) * setting.peers * setting.cycles, FAST_ATTEMPTS)
    return map_parallel(partial(_compute_fast, setting), seeds, processes=processes)


def _choose_processes(attempts: int, least: int) -> int:
    """All cores, unless another process would take longer to start than it saves."""
    return count_cores() if attempts > least else 1


def _compute_fast(setting: Setting, seed: int) -> Values:
    return compute_values(run_fast(setting, seed), malicious=setting.malicious)


def _run_through(setting: Setting, seeds: range, *, is_contract: bool) -> Iterator[Values]:
    """Four sessions for each seed, on all cores; each seed is compared with the ledger alone."""
    from learnae.lab.through import join_sessions, list_sessions, run_session

    sessions = [session for seed in seeds for session in list_sessions(setting, seed, is_contract=is_contract)]
    processes = _choose_processes(len(sessions) * setting.peers * setting.cycles, THROUGH_ATTEMPTS)
    balances = []
    done = f"of {len(sessions)} sessions of {setting.peers} peers are over"
    _show(f"0 {done}")
    for number, balance in enumerate(map_parallel(run_session, sessions, processes=processes, chunk=1), 1):
        balances.append(balance)
        _show(f"{number} {done}")
        if len(balances) == 4:
            pair = join_sessions(sessions[number - 4 : number], balances)
            balances = []
            yield compute_values(pair, malicious=setting.malicious)


def _count(values: Iterator[Values], count: int) -> Iterator[Values]:
    """Pass on what comes, and show how much of it came."""
    for number, value in enumerate(values, 1):
        if number % SHOWN_EVERY == 0:
            _show(f"seed {number:,} of {count:,}")
        yield value
    _show("")


def _show(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
