"""The swarm of section 7 as numbers: who tries whose model in which cycle, what comes of it, what is reported and paid.

An experiment is three pure steps: `draw_swarm` decides what happens, `compute_rows` folds what is reported into a ledger,
`settle_tips` and `settle_fund` turn a ledger into balances with the reward code of the node (`protocol.rewards`). Whoever wants to
study a misbehaviour changes the rows between the second step and the third.

Integers throughout: credits in the ledger, wei in the balances. The same seed gives the same draws on every machine.
Source: paper, section 7. Deviation D12: the formula of ModelChange is lost in the text; the product of the random level and the
helper's Contribution Factor is the one that fits the published figures. Both are drawn from the whole numbers of their ranges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

from learnae.ids import PEER_ID_BYTES, Credits, PeerId, Wei
from learnae.protocol.rewards import REWARD_RULES, Rows, compute_payouts, compute_tip

PEERS: Final = 100
CYCLES: Final = 50
MALICIOUS: Final = 10
LEVEL_MAX: Final = 10
"""The level of change of one attempt is uniform on -10 to 10; what is not above 0 is an attempt without success."""

FACTOR_MIN: Final = 1
FACTOR_MAX: Final = 9
DEPOSIT_CREDITS: Final = 1000
CREDIT_WEI: Final = 10**12
"""What a credit is worth in these experiments; shares of the fund are rounded down to the wei."""

DEPOSIT_WEI: Final = Wei(DEPOSIT_CREDITS * CREDIT_WEI)

LedgerRows = dict[PeerId, dict[PeerId, Credits]]
"""A ledger that may be changed: reporter -> helper -> credits owed in total. `Rows` for whoever only reads it."""


@dataclass(frozen=True, slots=True)
class SwarmDraws:
    """What happens in one run, before anybody reports anything.

    Attempt `cycle * peers + peer` is the one of `peer` in `cycle`: it tries to average with a model of `helpers[...]`, which changes its
    accuracy by `changes[...]` credits; above 0 the average is adopted and the helper is owed that amount.
    """

    seed: int
    peers: int
    cycles: int
    factors: tuple[int, ...]  # Contribution Factor of every peer
    helpers: tuple[int, ...]
    changes: tuple[int, ...]


def draw_swarm(seed: int, *, peers: int = PEERS, cycles: int = CYCLES) -> SwarmDraws:
    """Draw one run of section 7: every peer tries once in each cycle, with another peer chosen uniformly.

    `peers` is at least 2. Which peers are malicious plays no part: honest and malicious experiments share their draws (7.3).
    """
    assert peers >= 2 and cycles >= 1
    random = Random(seed).random
    factors = tuple([FACTOR_MIN + int((FACTOR_MAX - FACTOR_MIN + 1) * random()) for _ in range(peers)])
    attempts, others = peers * cycles, peers - 1
    drawn = [int(others * random()) for _ in range(attempts)]
    helpers = tuple([helper + (helper >= attempt % peers) for attempt, helper in enumerate(drawn)])
    levels = 2 * LEVEL_MAX + 1
    changes = tuple([(int(levels * random()) - LEVEL_MAX) * factors[helper] for helper in helpers])
    return SwarmDraws(seed, peers, cycles, factors, helpers, changes)


@lru_cache(maxsize=64)
def name_peers(count: int) -> tuple[PeerId, ...]:
    """Names of peers 0 to count - 1; their order as names is their order as numbers."""
    return tuple(PeerId(index.to_bytes(PEER_ID_BYTES, "big")) for index in range(count))


def compute_rows(draws: SwarmDraws, *, silent: Collection[int] = ()) -> LedgerRows:
    """The ledger after the last cycle (Fig. 4). `silent` peers never report: their rows are empty (section 7.2)."""
    names, peers = name_peers(draws.peers), draws.peers
    rows: LedgerRows = {name: {} for name in names}
    by_index = [rows[name] for name in names]
    quiet = frozenset(silent)
    for attempt, (helper, change) in enumerate(zip(draws.helpers, draws.changes, strict=True)):
        reporter = attempt % peers
        if change > 0 and reporter not in quiet:
            row, name = by_index[reporter], names[helper]
            row[name] = Credits(row.get(name, 0) + change)
    return rows


def settle_tips(rows: Rows, members: Sequence[PeerId]) -> dict[PeerId, Wei]:
    """Balances after direct micropayments (4.3, Eq. 1): the deposit, less what was given, plus what was received.

    Nobody's budget ends: the paper lets balances fall below 0. The sum of all balances is the sum of all deposits; who is no member has
    no wallet and is not tipped.
    """
    given = dict.fromkeys(members, 0)
    received = dict.fromkeys(members, 0)
    for reporter in members:
        for helper, credits in rows.get(reporter, {}).items():
            if helper in received:
                given[reporter] += credits
                received[helper] += credits
    return {name: Wei(DEPOSIT_WEI - _pay(given[name]) + _pay(received[name])) for name in members}


def _pay(credits: int) -> Wei:
    """What many tips come to: Eq. 1 is linear where no budget ends, so they are paid as one."""
    amount = Credits(credits)
    return compute_tip(amount, wei_per_credit=CREDIT_WEI, budget_wei=Wei(amount * CREDIT_WEI), spent_wei=Wei(0))


def settle_fund(rows: Rows, members: Sequence[PeerId], *, rule: str = "raw") -> dict[PeerId, Wei]:
    """What each member gets out of the Contribution Fund when all claims follow from these rows (section 6).

    `rule` is a name in `REWARD_RULES`; the paper's is `raw`. If nobody reported anything, everybody is refunded.
    """
    points = REWARD_RULES[rule](rows, members)
    payouts = compute_payouts(Wei(DEPOSIT_WEI * len(members)), points)
    return payouts or dict.fromkeys(members, DEPOSIT_WEI)


def to_credits(balances: Mapping[PeerId, Wei], members: Sequence[PeerId]) -> list[float]:
    """Balances in credits, in the order of `members`; for statistics and plots, not for paying."""
    return [balances[name] / CREDIT_WEI for name in members]
