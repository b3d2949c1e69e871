"""The table of the laboratory: attacks by rules, one measure in each cell, from jobs that can run anywhere.

The same jobs give the same table on one process, on many, and on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from learnae.lab.attack import LedgerAttack
from learnae.lab.bed import ProtocolAttack
from learnae.lab.measure import Measure, measure
from learnae.lab.mixture import Response, SearchJob
from learnae.lab.registry import find_attack, find_rule
from learnae.lab.staged import run_protocol_trial
from learnae.lab.sweep import run_jobs
from learnae.lab.trial import PERMILLE, Setting, Trial, run_ledger_trial

ADAPTIVE: Final = "adaptive"
"""The name of the attacker that searches for the best mixture; it stands beside the names of attacks."""

SEEDS_PER_JOB: Final = 5  # About a second: short enough to share out evenly, long enough to be worth sending.


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """Some seeds of one attack, settled under some rules."""

    attack: str
    rules: tuple[str, ...]
    setting: Setting
    seed: int
    seeds: int

    @property
    def command(self) -> str:
        share = self.setting.share_permille / PERMILLE
        rules = " ".join(f"--rule {rule}" for rule in self.rules)
        return f"learnae lab run {self.attack} {rules} --share {share:g} --first-seed {self.seed} --seeds {self.seeds} {self.setting.words}"

    def run(self) -> list[Trial]:
        attack, rules = find_attack(self.attack), {name: find_rule(name) for name in self.rules}
        trials: list[Trial] = []
        for seed in range(self.seed, self.seed + self.seeds):
            if isinstance(attack, LedgerAttack):
                trials += run_ledger_trial(attack, rules, self.setting, seed)
            elif isinstance(attack, ProtocolAttack):
                trials += run_protocol_trial(attack, rules, self.setting, seed)
        return trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run: every attack against every rule at every share. `attacks` may hold `ADAPTIVE`."""

    attacks: tuple[str, ...]
    rules: tuple[str, ...]
    shares_permille: tuple[int, ...]
    setting: Setting
    protocol_setting: Setting  # a smaller swarm: real peers take about a hundred times longer than a ledger
    seed: int = 0
    seeds: int = 40
    protocol_seeds: int = 8

    def list_jobs(self) -> list[TrialJob | SearchJob]:
        return [job for share in self.shares_permille for attack in self.attacks for job in self._list_jobs_of(attack, share)]

    def _list_jobs_of(self, attack: str, share: int) -> Iterator[TrialJob | SearchJob]:
        setting = replace(self.setting, share_permille=share)
        if attack == ADAPTIVE:
            for rule in self.rules:
                yield SearchJob(rule=rule, setting=setting, seed=self.seed, seeds=self.seeds)
            return
        seeds, at_once = self.seeds, SEEDS_PER_JOB
        if isinstance(find_attack(attack), ProtocolAttack):
            setting = replace(self.protocol_setting, share_permille=share)
            seeds, at_once = self.protocol_seeds, 1
        for first in range(0, seeds, at_once):
            yield TrialJob(attack=attack, rules=self.rules, setting=setting, seed=self.seed + first, seeds=min(at_once, seeds - first))


def run_plan(
    plan: Plan, *, processes: int = 1, cluster: str = "", progress: Callable[[int, int], None] = lambda done, count: None
) -> list[Measure]:
    """Run everything and measure it; cells in the order of shares, attacks, rules.

    Raises: UnknownLabNameError, LabFileError: a name leads nowhere. LabTrialError: a trial failed; the message repeats it.
        ClusterError: the cluster cannot be used.
    """
    for rule in plan.rules:
        find_rule(rule)
    jobs = plan.list_jobs()
    results: Sequence[list[Trial] | Response] = run_jobs(jobs, processes=processes, cluster=cluster, progress=progress)
    cells: dict[tuple[int, str, str], list[Trial]] = {}
    notes: dict[tuple[int, str, str], str] = {}
    for job, result in zip(jobs, results, strict=True):
        share = job.setting.share_permille
        if isinstance(result, Response):
            assert isinstance(job, SearchJob)
            cells[share, ADAPTIVE, job.rule] = list(result.trials)
            notes[share, ADAPTIVE, job.rule] = result.describe()
            continue
        assert isinstance(job, TrialJob)
        for trial in result:
            cells.setdefault((share, job.attack, trial.rule), []).append(trial)
    return [_measure_cell(name, trials, share, notes.get((share, name, rule), "")) for (share, name, rule), trials in cells.items()]


def _measure_cell(name: str, trials: list[Trial], share: int, note: str) -> Measure:
    if name == ADAPTIVE:
        return measure(ADAPTIVE, trials, level="ledger", in_catalogue=True, share_permille=share, note=note)
    attack = find_attack(name)
    return measure(attack.name, trials, level=attack.level, in_catalogue=attack.in_catalogue, share_permille=share, note=note)
