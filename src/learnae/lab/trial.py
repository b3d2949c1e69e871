"""One trial: an attack by a ring of one size against some rules, on one seed, beside the same session without it.

The honest session has the same draws, so the difference is the attack's and nothing else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.audits import AuditTerms
from learnae.lab.books import Books, draw_truth, open_books
from learnae.lab.rule import Rule, Settled
from learnae.lab.swarm import CYCLES, PEERS, name_peers

PERMILLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a trial is run with, beside attack, rule and seed."""

    share_permille: int = 100  # of all members that are in the ring
    peers: int = PEERS
    cycles: int = CYCLES
    audits: AuditTerms = field(default_factory=AuditTerms)

    @property
    def ring(self) -> tuple[int, ...]:
        """The first so many members; which ones plays no part, because the draws treat all alike."""
        return tuple(range(max(1, (self.peers * self.share_permille + PERMILLE // 2) // PERMILLE)))

    @property
    def words(self) -> str:
        """These arguments on the command line, share apart."""
        return f"--peers {self.peers} --cycles {self.cycles} --audits {self.audits.rate_permille / PERMILLE:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one seed came to under one rule; amounts in wei, of the ring less the deposits of whom it hired.

    `found` of `offenders` were detected; the mean time from the first offence to it is `found_after`, in cycles at the level of the
    ledger and in seconds of virtual time at the level of the protocol.
    """

    rule: str
    seed: int
    ring_wei: int
    ring_honest_wei: int
    others_wei: int
    others_honest_wei: int
    victims_wei: int = 0
    victims_honest_wei: int = 0
    others: int
    others_rejected: int  # honest members that were frozen, or whose honest claim was refused
    offenders: int = 0
    found: int = 0
    found_after: float | None = None
    fund_share: float = 0.0  # of the fund, to the ring


def run_ledger_trial(attack: LedgerAttack, rules: Mapping[str, Rule], setting: Setting, seed: int) -> list[Trial]:
    """Play one attack on the ledger of one run of section 7, and settle it under each rule."""
    draws, truth = draw_truth(seed, setting.peers, setting.cycles)
    situation = Situation(draws, truth, setting.ring, Random(f"{seed} {attack.name}"))
    return settle_conduct(attack.act(situation), rules, setting, seed)


def settle_conduct(conduct: Conduct, rules: Mapping[str, Rule], setting: Setting, seed: int) -> list[Trial]:
    """Pay by each rule for what was reported, and for what would have been reported honestly."""
    books = Books(
        names=name_peers(setting.peers),
        receipts=conduct.receipts,
        present=tuple(range(setting.peers)),
        ring=frozenset(setting.ring),
        accusers=conduct.accusers,
    )
    trials = []
    for rule in rules.values():
        before = _settle_honest(type(rule), seed, setting.peers, setting.cycles, setting.audits, conduct.hired)
        after = rule.settle(books, audits=setting.audits, rng=draw_beacon(seed))
        trials.append(compare(rule.name, seed, before, after, books, conduct))
    return trials


@lru_cache(maxsize=1024)
def _settle_honest(rule: type[Rule], seed: int, peers: int, cycles: int, audits: AuditTerms, hired: frozenset[int]) -> Settled:
    """What a rule pays if everybody is honest and `hired` did not join; the same for every attack."""
    _, truth = draw_truth(seed, peers, cycles)
    return rule().settle(open_books(truth, peers, without=hired), audits=audits, rng=draw_beacon(seed))


def draw_beacon(seed: int) -> Random:
    """The public beacon of a session: the same with and without the attack."""
    return Random(f"beacon {seed}")


def compare(rule: str, seed: int, before: Settled, after: Settled, books: Books, conduct: Conduct) -> Trial:
    """The measures of one trial: what the ring gained, what the others lost, who was found."""
    ring = sorted(books.ring)
    others = [member for member in books.present if member not in books.ring]
    hired_wei = len(conduct.hired) * books.deposit_wei
    offences = find_offences(books)
    found = sorted(after.frozen & offences.keys())
    end = 1 + max((receipt.cycle for receipt in books.receipts), default=0)
    return Trial(
        rule=rule,
        seed=seed,
        ring_wei=add(after, ring) - hired_wei,
        ring_honest_wei=add(before, ring),
        others_wei=add(after, others),
        others_honest_wei=add(before, others),
        victims_wei=add(after, conduct.victims),
        victims_honest_wei=add(before, conduct.victims),
        others=len(others),
        others_rejected=len(after.frozen & set(others)),
        offenders=len(offences),
        found=len(found),
        found_after=sum(end - offences[member] for member in found) / len(found) if found else None,
        fund_share=add(after, ring) / books.fund_wei,
    )


def find_offences(books: Books) -> dict[int, int]:
    """Who wrote a receipt for more than was true, and in which cycle first."""
    first: dict[int, int] = {}
    for receipt in books.receipts:
        if receipt.credits > receipt.proven:
            first[receipt.reporter] = min(receipt.cycle, first.get(receipt.reporter, receipt.cycle))
    return first


def add(settled: Settled, members: Iterable[int]) -> int:
    return sum(settled.payouts_wei[member] for member in members)


def mean_ratio(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Sum over sum: the ratio of the means, so that a seed in which little was paid does not count double."""
    below = sum(honest for _, honest in pairs)
    return sum(value for value, _ in pairs) / below if below else None
