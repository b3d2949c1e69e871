"""A simulated session: how many peers, what network, who misbehaves, what breaks when. Its only randomness is a seed.

Times are seconds of virtual time from the start of the training stage unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from learnae.errors import UnknownScenarioError
from learnae.ids import Cid, Wei
from learnae.protocol.rules import SessionRules

EPOCH_S: Final = 1_700_000_000  # When a simulated session starts; any constant keeps traces equal.
FUNDING_S: Final = 20
CLAIMING_S: Final = 30
VOTING_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The network between any two peers. Gossip loses messages; direct messages and fetches are TCP and do not."""

    delay_min_s: float = 0.01
    delay_max_s: float = 0.15
    loss: float = 0.0  # chance that one gossip message does not reach one peer
    bandwidth_bytes_s: float = 2_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Between these times peers of different groups do not reach each other; peer i is in group i % groups."""

    from_s: float
    to_s: float
    groups: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """One peer loses everything that is not in its journal; `back_s` None: it never returns."""

    peer: int
    at_s: float
    back_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    about: str
    peers: int = 10
    cycles: int = 50  # work cycles of an average peer: sets the length of the training stage
    cycle_s: float = 1.0  # mean duration of a training step
    final_s: int = 10
    link: Link = field(default_factory=Link)
    partitions: tuple[Partition, ...] = ()
    crashes: tuple[Crash, ...] = ()
    churn: float = 0.0  # share of the peers that crash once at a random time and come back within 10 s
    silent: int = 0  # the first so many peers never report help (section 7)
    relay_gas_max: int = 20_000_000  # what each peer spends on sending others' claims and ballots; 0: everybody sends its own
    shared_slices: int = 0  # dataslices that each peer opens to the others
    degree: int = 8  # connections of a peer, over which it syncs
    policy: str = "paired"
    reward_rule: str = "budgeted"
    reward_mode: str = "dao"
    audit_permille: int = 0  # of a thousand receipts (docs/audits.md)

    @property
    def training_s(self) -> int:
        return max(20, int(self.cycles * self.cycle_s)) + self.final_s

    def compute_rules(self, *, initial_model: Cid, model_bytes: int) -> SessionRules:
        """The rules of the simulated session."""
        training_ends_s = EPOCH_S + FUNDING_S + self.training_s
        return SessionRules(
            name=f"simulated {self.name}",
            codename="simulation",
            task_digest=bytes(32),
            initial_model=initial_model,
            model_bytes=model_bytes,
            slice_bytes=65_536,
            overuse_threshold=50,
            train_permille=333,
            slices_per_cycle=64,
            policy=self.policy,
            reducer="mean",
            reward_mode=self.reward_mode,
            reward_rule=self.reward_rule,
            reward_factor=1_000_000,
            tip_wei_per_credit=10**9,
            chain_id=1337,
            deposit_wei=Wei(10**18),
            members_min=1,
            members_max=max(self.peers, 1),
            starts_s=EPOCH_S,
            funding_ends_s=EPOCH_S + FUNDING_S,
            training_ends_s=training_ends_s,
            claiming_ends_s=training_ends_s + CLAIMING_S,
            voting_ends_s=training_ends_s + CLAIMING_S + VOTING_S,
            final_s=self.final_s,
            reject_quorum_permille=200,
            audit_permille=self.audit_permille,
        )


_ALL = (
    Scenario(name="calm", about="a good network, everybody honest"),
    Scenario(name="silent", about="one in ten never reports help (section 7)", silent=1),
    Scenario(name="lossy", about="30 % of gossip is lost", link=Link(loss=0.3)),
    Scenario(name="partition", about="the network splits in two for 15 s and heals", partitions=(Partition(from_s=10, to_s=25),)),
    Scenario(name="crash", about="one peer is killed and returns, one is gone for good",
             crashes=(Crash(peer=1, at_s=15, back_s=20), Crash(peer=2, at_s=25, back_s=None))),
    Scenario(name="churn", about="half of the peers crash once and come back", churn=0.5),
    Scenario(name="storm", about="loss, a partition, churn and a silent peer at once",
             link=Link(loss=0.3, delay_max_s=0.6), partitions=(Partition(from_s=12, to_s=22),), churn=0.3, silent=1),
    Scenario(name="audited", about="one receipt in ten is measured again by others", audit_permille=100, link=Link(loss=0.1)),
    Scenario(name="random", about="loss, partitions, churn, slow links and a silent peer, as the seed draws them"),
    Scenario(name="tips", about="direct micropayments instead of the DAO (4.3)", reward_mode="tips", silent=1),
)  # fmt: skip

SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}


def find_scenario(name: str, **changes: object) -> Scenario:
    """A scenario by its name, with some of its fields changed.

    Raises: UnknownScenarioError: no scenario has that name; the message lists those that there are.
    """
    if name not in SCENARIOS:
        raise UnknownScenarioError(name, tuple(SCENARIOS))
    return replace(SCENARIOS[name], **changes)  # type: ignore[arg-type]
