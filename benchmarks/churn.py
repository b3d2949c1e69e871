"""Sixteen real nodes of which somebody is killed or comes every two seconds: nothing hangs, nothing is damaged, all end alike.

Real processes over libp2p on loopback, with journals and block stores on disk and an embedded chain; only the learner is synthetic.
First nobody is disturbed, then for ten minutes (`churn:short`: two) a node is killed with SIGKILL or started every two seconds: half
of the members are never killed, the others are killed in turn and come back from their journals, and some start for the first time.
At last all who are away come back at once, which is counted by itself, the session ends and is paid out. The benchmark fails, with
what it saw, if a node ends by itself or goes without a work cycle for a while, if ledgers differ, if a model is damaged, or if the
fund is not paid out to the last wei.

The reference of the rate is the undisturbed one of the same nodes in the same run, of the times what the project allows itself.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import Result
from benchmarks._remains import read_remains
from benchmarks._swarm import Member, Swarm, open_swarm
from learnae.cli.sessions import SessionPlan
from learnae.ids import Wei
from learnae.protocol.calls import Stage

EVENT_S = 2.0  # Between two events, a kill or a start.
AWAY_MIN_S = 4.0  # A killed node stays away so long at least.
UP_MIN_S = 12.0  # Nobody is killed sooner after its start.
PACE_S = 2.0  # Between two work cycles of a node: so sixteen of them leave room on two cores.
ADOPT_MAX_S = 5.0
QUIET_MAX_S = 30.0  # A running node without a work cycle for so long hangs.
LATE_EVERY = 5  # One of so many starts is somebody's first.
LOOK_S = 0.2
FINAL_S = 5
END_MAX_S = 60.0  # After the vote.


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Durations in seconds."""

    nodes: int
    late: int  # members whose node starts for the first time during the churn
    funding_s: int
    warm_s: int
    calm_s: int
    churn_s: int
    settle_s: int = 30  # for the last to come back and to hear of everything, before training ends

    @property
    def training_s(self) -> int:
        return self.warm_s + self.calm_s + self.churn_s + self.settle_s


PLANS = {
    "ten": Plan(nodes=16, late=10, funding_s=75, warm_s=15, calm_s=90, churn_s=600),
    "short": Plan(nodes=16, late=4, funding_s=75, warm_s=15, calm_s=40, churn_s=120),
    "few": Plan(nodes=6, late=2, funding_s=30, warm_s=10, calm_s=30, churn_s=60),
}
CASES = tuple(PLANS)


def run(case: str = CASES[0]) -> list[Result]:
    plan = PLANS[case]
    session = SessionPlan(
        name="churn",
        deposit_wei=Wei(10**16),
        funding_s=plan.funding_s,
        training_s=plan.training_s,
        final_s=FINAL_S,
        claiming_s=30,
        voting_s=30,
        members_max=plan.nodes + plan.late,
    )
    with tempfile.TemporaryDirectory() as folder, open_swarm(Path(folder), plan.nodes + plan.late, session, pace_s=PACE_S) as swarm:
        return Churn(plan, swarm).run()


class Churn:
    """One run."""

    def __init__(self, plan: Plan, swarm: Swarm) -> None:
        self._plan, self._swarm = plan, swarm
        self._rng = Random(6)
        nodes, self._late = swarm.members[: plan.nodes], swarm.members[plan.nodes :]
        self._steady, self._restless = nodes[: plan.nodes // 2], nodes[plan.nodes // 2 :]
        self._came: list[Member] = []  # late joiners that were started
        self._kills = 0

    def run(self) -> list[Result]:
        """Raises: RuntimeError: a promise was broken; what and by whom."""
        plan, swarm, rules = self._plan, self._swarm, self._swarm.ticket.rules
        for member in [*self._steady, *self._restless]:
            swarm.start(member)
            self._wait_until(time.time() + 0.5)
        swarm.enroll(self._late)
        calm_s = rules.funding_ends_s + plan.warm_s
        self._wait_until(calm_s)
        cpu_s = self._sum_cpu_s()
        self._wait_until(calm_s + plan.calm_s)
        calm_cpu = (self._sum_cpu_s() - cpu_s) / plan.calm_s / len(self._steady)
        churn_s = time.time()
        self._disturb(churn_s + plan.churn_s)
        ended_s, load = time.time(), os.getloadavg()[0]
        for member in swarm.members:
            if not member.runs:
                swarm.start(member)
        self._wait_for_end(rules.voting_ends_s + END_MAX_S)
        vertices = self._check_remains()
        calm, churn = self._compute_rate(calm_s, calm_s + plan.calm_s), self._compute_rate(churn_s, ended_s)
        case = f"{plan.nodes} nodes, {self._kills} killed, {sum(len(member.starts) for member in swarm.members) - plan.nodes} started"
        return [
            Result(case=f"{case}: cycles of who stays", value=churn, unit="1/s", reference="calm", reference_value=calm),
            *self._judge_starts(ended_s),
            Result(case="a node's processor time while calm", value=100 * calm_cpu, unit="% of a core"),
            Result(case="vertices in each journal at the end", value=vertices, unit="vertices"),
            Result(case="load average at the end of the churn", value=load, unit="processes"),
        ]

    # --- what happens -----------------------------------------------------------------------------------------------

    def _disturb(self, until_s: float) -> None:
        """Kill and start in turn, an event every two seconds."""
        away: list[Member] = []
        turn_s, count = time.time(), 0
        while turn_s < until_s:
            now_s = time.time()
            count += 1
            ready = [member for member in away if now_s - (member.starts[-1].killed_s or 0.0) >= AWAY_MIN_S]
            if count % 2:
                victims = [member for member in self._restless + self._came if member.runs and now_s - member.starts[-1].at_s >= UP_MIN_S]
                if victims:
                    victim = self._rng.choice(victims)
                    victim.kill()
                    self._kills += 1
                    away.append(victim)
            elif self._late and count % (2 * LATE_EVERY) == 0:
                self._came.append(self._late.pop(0))
                self._swarm.start(self._came[-1])
            elif ready:
                away.remove(ready[0])
                self._swarm.start(ready[0])
            turn_s += EVENT_S
            self._wait_until(turn_s)

    def _wait_until(self, until_s: float) -> None:
        """Look after the nodes until then. Raises: RuntimeError: one ended by itself, or hangs."""
        while True:
            self._look()
            left_s = until_s - time.time()
            if left_s <= 0:
                return
            time.sleep(min(LOOK_S, left_s))

    def _look(self) -> None:
        now_s, rules = time.time(), self._swarm.ticket.rules
        for member in self._swarm.members:
            if not member.starts:
                continue
            member.read()
            if member.actor.status not in (None, 0, -signal.SIGKILL):
                raise RuntimeError(f"{member.actor.name}'s node ended by itself: {member.actor.read_last_words()}")
            since_s = max(member.starts[-1].at_s, member.find_last_work_s() or 0.0, float(rules.funding_ends_s))
            if member.runs and now_s - since_s > QUIET_MAX_S and now_s < rules.training_ends_s - rules.final_s:
                raise RuntimeError(f"{member.actor.name}'s node hangs: no work cycle for {now_s - since_s:.0f} s; {member.troubles()[-3:]}")

    def _wait_for_end(self, limit_s: float) -> None:
        """Until every node has ended by itself, because the session is over."""
        while any(member.runs for member in self._swarm.members):
            if time.time() > limit_s:
                waiting = [member.actor.name for member in self._swarm.members if member.runs]
                raise RuntimeError(f"the session is over and these nodes go on: {waiting}")
            self._wait_until(time.time() + LOOK_S)

    # --- what is left -----------------------------------------------------------------------------------------------

    def _check_remains(self) -> int:
        """Every journal tells the same, every model is what it is called, the fund is paid out. Returns the vertices in a journal."""
        view, rules = self._swarm.read_chain(), self._swarm.ticket.rules
        paid = sum((view.paid_wei or {}).values())
        if view.stage is not Stage.RELEASED or not paid == view.fund_wei == rules.deposit_wei * len(self._swarm.members):
            raise RuntimeError(f"the session is {view.stage.value}, {paid} of {view.fund_wei} wei are paid out")
        remains = {member.actor.name: read_remains(member, self._swarm.ticket) for member in self._swarm.members}
        first = remains[self._swarm.members[0].actor.name]
        for name, one in remains.items():
            if one.ledger != first.ledger or not one.ledger:
                raise RuntimeError(f"{name}'s ledger is another one than that of {self._swarm.members[0].actor.name}")
            if one.forks or one.corrupt:
                raise RuntimeError(f"{name}: {one.forks} forks; {'; '.join(one.corrupt) or 'no model is damaged'}")
        return first.vertices

    def _compute_rate(self, since_s: float, until_s: float) -> float:
        """Work cycles a second of a node that is never killed: the mean."""
        cycles = sum(member.count_cycles(since_s, until_s) for member in self._steady)
        return cycles / (until_s - since_s) / len(self._steady)

    def _sum_cpu_s(self) -> float:
        return sum(member.read_cpu_s() or 0.0 for member in self._steady)

    def _judge_starts(self, ended_s: float) -> list[Result]:
        """How soon who came late adopted something, and who came back worked: one by one, and all at once after `ended_s`."""
        first = [member.starts[0] for member in self._came]
        every = [start for member in self._restless + self._came for start in member.starts[1:] if start.worked_s is not None]
        again, at_once = [start for start in every if start.at_s < ended_s], [start for start in every if start.at_s >= ended_s]
        adopted_s = [start.adopted_s - start.at_s for start in first if start.adopted_s is not None]
        back_s = [start.worked_s - start.at_s for start in again if start.worked_s is not None]
        cpu_s = [start.cpu_s for start in [*first, *again] if start.cpu_s is not None]
        together_s = [start.worked_s - start.at_s for start in at_once if start.worked_s is not None]
        late = f"{len(first)} late joiners, start to first adoption"
        return [
            Result(case=f"{late}: median", value=statistics.median(adopted_s), unit="s", reference="limit", reference_value=ADOPT_MAX_S),
            Result(case=f"{late}: longest", value=max(adopted_s), unit="s", reference="limit", reference_value=ADOPT_MAX_S),
            Result(case="killed nodes, start to first work cycle: median", value=statistics.median(back_s), unit="s"),
            Result(case="killed nodes, start to first work cycle: longest", value=max(back_s), unit="s"),
            Result(case=f"{len(together_s)} that come back at once, to the first work cycle: longest", value=max(together_s), unit="s"),
            Result(case="processor time of a start, until the first cycle: median", value=statistics.median(cpu_s), unit="s"),
        ]
