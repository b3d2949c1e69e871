"""What the trials of one attack against one rule come to, and which promises it breaks.

Malicious gain is payout with the attack over payout if honest, honest loss what all others together lose of theirs; both are ratios
of sums over the seeds. The promises (docs/lab.md) are about the audited rules, up to 30 % attackers, and about the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final

from learnae.lab.trial import PERMILLE, Trial

GAIN_MAX: Final = 1.005  # "No attack is profitable": 1.00 after rounding to two digits.
HONEST_LOSS_MAX: Final = 0.01
FALSE_REJECTION_MAX: Final = 0.001
PROMISED_SHARE_PERMILLE: Final = 300
PROMISED_RULES: Final = ("audited", "audited-void", "audited-filled")
SYBIL_GAIN_RULES: Final = ("budgeted",)
RING_FUND_SHARE: Final = 2.0  # A ring takes at most twice its share of the fund under the row-normalised rule.


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One cell of the table. Shares and losses are parts of 1; None: nothing to measure."""

    attack: str
    rule: str
    level: str
    in_catalogue: bool
    share: float
    seeds: int
    gain: float
    gain_error: float  # one standard error of `gain`
    honest_loss: float
    victim_loss: float | None
    false_rejection: float
    detected: float | None
    time_to_detect: float | None
    time_unit: str
    fund_share: float
    broken: tuple[str, ...]  # which promises, in words
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "broken": list(self.broken)}


def measure(attack: str, trials: Sequence[Trial], *, level: str, in_catalogue: bool, share_permille: int, note: str = "") -> Measure:
    """One cell from all its trials. Pure; the order of the trials does not matter."""
    assert trials
    trials = sorted(trials, key=lambda trial: trial.seed)
    gain, error = ratio([(trial.ring_wei, trial.ring_honest_wei) for trial in trials])
    kept, _ = ratio([(trial.others_wei, trial.others_honest_wei) for trial in trials])
    victims = [(trial.victims_wei, trial.victims_honest_wei) for trial in trials]
    offenders, found = sum(trial.offenders for trial in trials), sum(trial.found for trial in trials)
    waited = sum(trial.found_after * trial.found for trial in trials if trial.found_after is not None)
    cell = Measure(
        attack=attack,
        rule=trials[0].rule,
        level=level,
        in_catalogue=in_catalogue,
        share=share_permille / PERMILLE,
        seeds=len(trials),
        gain=gain,
        gain_error=error,
        honest_loss=1 - kept,
        victim_loss=1 - ratio(victims)[0] if any(honest for _, honest in victims) else None,
        false_rejection=sum(trial.others_rejected for trial in trials) / sum(trial.others for trial in trials),
        detected=found / offenders if offenders else None,
        time_to_detect=waited / found if found else None,
        time_unit="cycles" if level == "ledger" else "s",
        fund_share=sum(trial.fund_share for trial in trials) / len(trials),
        broken=(),
        note=note,
    )
    return _judge(cell)


def ratio(pairs: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Sum over sum, and its standard error by the spread of the residuals; 1 and 0 if there is nothing to divide by."""
    above, below = sum(value for value, _ in pairs), sum(honest for _, honest in pairs)
    if not below:
        return 1.0, 0.0
    quotient, count = above / below, len(pairs)
    if count < 2:
        return quotient, 0.0
    squares = sum((value - quotient * honest) ** 2 for value, honest in pairs)
    return quotient, sqrt(squares * count / (count - 1)) / below


def _judge(cell: Measure) -> Measure:
    broken = []
    promised = cell.in_catalogue and cell.share * PERMILLE <= PROMISED_SHARE_PERMILLE + 0.5
    is_profitable = cell.gain > GAIN_MAX and cell.gain - 2 * cell.gain_error > 1
    if cell.rule in PROMISED_RULES and promised:
        if is_profitable:
            broken.append("profitable")
        if cell.honest_loss > HONEST_LOSS_MAX:
            broken.append("honest loss above 1 %")
        if cell.false_rejection > FALSE_REJECTION_MAX:
            broken.append("honest members frozen")
    if cell.rule in SYBIL_GAIN_RULES and promised and cell.attack == "sybil-split" and is_profitable:
        broken.append("a sybil nets something")
    if cell.rule in SYBIL_GAIN_RULES and promised and "ring" in cell.attack and cell.fund_share > RING_FUND_SHARE * cell.share:
        broken.append("a ring takes more than twice its share")
    return Measure(**{**asdict(cell), "broken": tuple(broken)})
