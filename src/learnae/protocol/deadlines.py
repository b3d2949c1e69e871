"""When the stages end: as the rules say, or later where the members put them off by a proposal (5.2) or a late ballot did (6).

Pure. Source: paper 5.2, Table 1; 6, Fig. 5; docs/contracts.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from learnae.protocol.calls import ChainView, Stage
from learnae.protocol.rules import SessionRules


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Ends of the stages as they stand now, Unix seconds of the chain's clock."""

    training_ends_s: int
    claiming_ends_s: int
    voting_ends_s: int

    def compute_span(self, stage: Stage) -> tuple[int, int]:
        """From when to when CLAIMING or VOTING lasts."""
        if stage is Stage.CLAIMING:
            return self.training_ends_s, self.claiming_ends_s
        assert stage is Stage.VOTING, stage
        return self.claiming_ends_s, self.voting_ends_s

    def compute_part_s(self, stage: Stage, permille: int) -> float:
        """The time when so much of CLAIMING or VOTING is over."""
        from_s, to_s = self.compute_span(stage)
        return from_s + (to_s - from_s) * permille / 1000


def compute_deadlines(rules: SessionRules, view: ChainView | None) -> Deadlines:
    """As the chain says; as the rules say until it was read."""
    agreed = Deadlines(rules.training_ends_s, rules.claiming_ends_s, rules.voting_ends_s)
    if view is None:
        return agreed
    return Deadlines(
        view.training_ends_s or agreed.training_ends_s,
        view.claiming_ends_s or agreed.claiming_ends_s,
        view.voting_ends_s or agreed.voting_ends_s,
    )
