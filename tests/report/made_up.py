"""A made-up session for the report's tests: figures that look like a real one, from a seed."""

from __future__ import annotations

import math
from random import Random

from learnae.report.model import Adoption, Curve, PeerReport, Role, SessionReport, StageMark

ETHER = 10**18
NAMES = (
    "ada",
    "blaise",
    "carl",
    "dora",
    "emmy",
    "fermat",
    "grace",
    "hilbert",
    "ivan",
    "joan",
    "kepler",
    "lise",
    "maria",
    "noether",
    "olga",
)


def make_curve(rng: Random, final: float, *, start_s: float, end_s: float, steps: int, speed: float) -> Curve:
    points = []
    for step in range(steps):
        at = start_s + (end_s - start_s) * step / (steps - 1)
        value = final - (final - 0.12) * math.exp(-speed * (at - start_s)) + rng.gauss(0, 0.003)
        points.append((at, min(0.999, max(0.05, value))))
    return (*points[:-1], (end_s, final))


def make_name(index: int) -> str:
    return NAMES[index % len(NAMES)] + ("" if index < len(NAMES) else f"-{index // len(NAMES) + 1}")


def make_report(count: int = 6, seed: int = 7) -> SessionReport:
    """Peer 1 is silent, peer 3 is restarted at half time; the fund is `count` deposits of 0.1 ether, divided to the wei."""
    rng = Random(seed)
    deposit = ETHER // 10
    roles: list[Role] = ["silent" if index == 1 else "restarted" if index == 3 else "honest" for index in range(count)]
    ledger = [[0 if i == j or roles[i] == "silent" else int(rng.random() ** 2 * 900) for j in range(count)] for i in range(count)]
    given = [sum(row[j] for row in ledger) for j in range(count)]
    received = [sum(row) for row in ledger]
    fund = deposit * count
    tips = [deposit + (given[i] - received[i]) * deposit // 4000 for i in range(count)]
    peers = []
    for index in range(count):
        alone, swarm = rng.uniform(0.83, 0.92), rng.uniform(0.938, 0.95)
        peers.append(
            PeerReport(
                name=make_name(index),
                peer_id="12D3KooW" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789", k=44)),
                role=roles[index],
                accuracy_alone=alone,
                accuracy=swarm,
                curve=make_curve(rng, swarm, start_s=22, end_s=140, steps=70, speed=rng.uniform(0.05, 0.12)),
                alone_curve=make_curve(rng, alone, start_s=22, end_s=120, steps=50, speed=rng.uniform(0.06, 0.15)),
                help_given=given[index],
                help_received=received[index],
                deposit_wei=deposit,
                payout_wei=fund * given[index] // max(1, sum(given)),
                tips_balance_wei=tips[index],
                adoptions=sum(value > 0 for value in ledger[index]),
                restarted_at_s=80.0 if roles[index] == "restarted" else None,
            )
        )
    adoptions = tuple(
        Adoption(rng.uniform(25, 135), peers[j].name, peers[i].name, ledger[i][j] / 300)
        for i in range(count)
        for j in range(count)
        if ledger[i][j] and rng.random() < 0.8
    )
    return SessionReport(
        session="digits-demo",
        seconds=172.4,
        seed=seed,
        accuracy_pooled=0.9512,
        pooled_curve=make_curve(rng, 0.9512, start_s=22, end_s=110, steps=60, speed=0.12),
        fund_wei=fund,
        paid_wei=sum(peer.payout_wei for peer in peers),
        ledgers_equal=True,
        peers=tuple(peers),
        adoptions=adoptions,
        ledger=tuple(tuple(row) for row in ledger),
        stages=(
            StageMark("Funding", 0),
            StageMark("Training", 22),
            StageMark("Claiming", 142),
            StageMark("Voting", 154),
            StageMark("Released", 165),
        ),
        ticket_digest="9f2b6c51d0e47a83",
        version="0.1.0",
        machine="2 cores, 4 GiB, Linux",
    )
