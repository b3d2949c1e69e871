"""Jobs give the same results in this process, in several, and on a Dask cluster; what fails says how to repeat it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from distributed import LocalCluster

from learnae.errors import MissingExtraError
from learnae.lab.errors import ClusterError, LabTrialError
from learnae.lab.measure import Measure
from learnae.lab.sweep import run_jobs
from learnae.lab.table import ADAPTIVE, Plan, TrialJob, run_plan
from learnae.lab.trial import Setting
from tests.lab.jobs import Halving

SMALL = Setting(peers=12, cycles=8)
PLAN = Plan(
    attacks=("ring", "withhold", "replay", ADAPTIVE),
    rules=("raw", "budgeted", "audited"),
    shares_permille=(250,),
    setting=SMALL,
    protocol_setting=Setting(peers=6, cycles=4),
    seeds=6,
    protocol_seeds=2,
)


@pytest.fixture(scope="module")
def alone() -> list[Measure]:
    return run_plan(PLAN)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as started:
        yield started


def test_plan__measures_every_attack_against_every_rule(alone: list[Measure]) -> None:
    assert [(cell.attack, cell.rule) for cell in alone] == [(attack, rule) for attack in PLAN.attacks for rule in PLAN.rules]
    assert {cell.attack: cell.seeds for cell in alone} == {"ring": 6, "withhold": 6, "replay": 2, ADAPTIVE: 6}


def test_processes__give_the_same_table(alone: list[Measure]) -> None:
    """Issue: sweeps use all cores, with the same results."""
    assert run_plan(PLAN, processes=2) == alone


def test_cluster__gives_the_same_table(alone: list[Measure], cluster: LocalCluster) -> None:
    """Issue: and a cluster that exists already when one is named, with the same results."""
    assert run_plan(PLAN, cluster=cluster.scheduler_address) == alone


def test_progress__counts_every_job() -> None:
    told: list[tuple[int, int]] = []

    run_jobs([Halving(1), Halving(2), Halving(4)], progress=lambda done, count: told.append((done, count)))

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_results__are_in_the_order_of_the_jobs() -> None:
    assert run_jobs([Halving(number) for number in range(1, 9)], processes=2) == [1 / number for number in range(1, 9)]


@pytest.mark.parametrize("processes", [1, 2])
def test_job_that_fails__prints_the_command_that_repeats_it(processes: int) -> None:
    """Issue: a failing random run prints the command that repeats it; also from another process."""
    with pytest.raises(LabTrialError, match=r"a trial failed: ZeroDivisionError in jobs.py, line \d+: .*; repeat it with: halve 0$"):
        run_jobs([Halving(1), Halving(0), Halving(2)], processes=processes)


def test_job_that_fails__on_a_cluster_says_so_as_well(cluster: LocalCluster) -> None:
    with pytest.raises(LabTrialError, match=r"UsageError .* less than nothing; repeat it with: halve -1"):
        run_jobs([Halving(-1)], cluster=cluster.scheduler_address)


def test_trial_job__command_names_all_that_it_depends_on() -> None:
    job = TrialJob(attack="ring", rules=("raw", "budgeted"), setting=Setting(share_permille=300, peers=50), seed=7, seeds=2)

    assert job.command == (
        "learnae lab run ring --rule raw --rule budgeted --share 0.3 --first-seed 7 --seeds 2 --peers 50 --cycles 50 --audits 0.1"
    )


# --- clusters that cannot be used -----------------------------------------------------------------------------------


def test_cluster__that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learnae.lab.cluster.CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            ClusterError, match=r"cannot be used: no answer within 0\.2 s; start `dask scheduler` and `dask worker`"
        ):
            run_jobs([Halving(1)], cluster=address)


def test_cluster__with_a_senseless_address_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match="the Dask cluster at nowhere at all cannot be used"):
        run_jobs([Halving(1)], cluster="nowhere at all")


def test_cluster__of_another_version_is_refused(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learnae.lab.cluster.__version__", "9.9.9")
    with pytest.raises(ClusterError, match=r"worker tcp://.* has learnae .*, this is 9\.9\.9"):
        run_jobs([Halving(1)], cluster=cluster.scheduler_address)


def test_cluster__without_workers_is_refused() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty,
        pytest.raises(ClusterError, match="it has no workers"),
    ):
        run_jobs([Halving(1)], cluster=empty.scheduler_address)


def test_missing_dask__is_told_with_its_extra() -> None:
    assert str(MissingExtraError("distributed")).endswith("install learnae[cluster]")
