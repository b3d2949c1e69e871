"""The models that this peer has heard of, and the choice of one to average with (4.1).

Choice and acceptance are replaceable (`ExchangePolicy`), because the paper itself calls them its most open question (7.3):
`paper` is the rule exactly as written, `paired` is what measured better (docs/accuracy.md).
Pure. Source: paper 4.1, Fig. 1 (blue area), 7.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Final, Protocol

from learnae.ids import Cid, PeerId
from learnae.protocol.measures import SCORE_TOTAL, Evaluation
from learnae.protocol.messages import ModelAnnounced
from learnae.tangle.dag import TangleDag
from learnae.tangle.store import Entry, IssuerLog

ANNOUNCEMENTS_PER_ISSUER_MAX: Final = 8  # Older models of a peer are behind its newer ones; eight serve the paper's rule.
FAILURES_MAX: Final = 2  # Tries of a remote model that could not be fetched or was not acceptable.
EXAGGERATION_WEIGHT: Final = 0.5  # Weight of the newest measurement in the running mean of claim minus measured.
DRAWS_MAX: Final = 16  # Draws of an issuer before all are looked at: with a thousand peers nearly every draw will do.
LIAR_EXAGGERATION: Final = 0.2  # Mean excess of claims over measurements that unequal data do not explain: chosen last.


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """This peer's own model, and what it measured of it on its private validation set."""

    cid: Cid
    size_bytes: int
    correct: int
    total: int
    maturity_cycles: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


@dataclass(slots=True)
class Candidate:
    """A remote model that was announced; `tried_with` are the local models that it was averaged with already.

    The market makes one when somebody looks, and keeps those that were tried (`ModelMarket.keep`).
    """

    announcement: Cid
    issuer: PeerId
    message: ModelAnnounced
    tried_with: set[Cid] = field(default_factory=set)
    failures: int = 0  # fetches that failed, or bytes that were no model of this session


class AnnouncementBook:
    """The models announced in every log, in its order. Peers that share the store share it, each reads as far as it knows the log."""

    def __init__(self, *, kept_max: int | None = ANNOUNCEMENTS_PER_ISSUER_MAX) -> None:
        self._kept_max = kept_max  # of a log; None: all, for peers that may be far behind another one of this process
        self._heard: dict[IssuerLog, deque[Entry]] = {}

    def add(self, log: IssuerLog, announcement: Entry) -> None:
        if log not in self._heard:
            self._heard[log] = deque(reversed(self.newest(log, announcement.sequence, self._kept_max)), self._kept_max)
        self._heard[log].append(announcement)

    def newest(self, log: IssuerLog, length: int, count: int | None) -> list[Entry]:
        """The last `count` announcements among the first `length` vertices of a log, newest first."""
        known = self._heard.get(log)
        if known is None:
            return [] if log.origin is None else self.newest(log.origin, min(length, log.parted), count)
        return list(islice((entry for entry in reversed(known) if entry.sequence <= length), count))


class ModelMarket:
    """Announcements heard from members that did not fork, and how far their claims were from what was measured here.

    What was announced is read from the logs (`AnnouncementBook`), so hearing of a model costs nothing before one is chosen.
    """

    def __init__(self, dag: TangleDag, book: AnnouncementBook, me: PeerId, read_members: Callable[[], frozenset[PeerId]]) -> None:
        self.me = me
        self._dag = dag
        self._book = book
        self._read_members = read_members
        self._members: frozenset[PeerId] = frozenset()
        self._sorted: list[PeerId] = []
        self._tried: dict[PeerId, dict[Cid, Candidate]] = {}
        self._exaggeration: dict[PeerId, float] = {}
        self._away: dict[PeerId, int] = {}  # who could not be reached, and how much of its log was here then

    def keep(self, candidate: Candidate) -> None:
        """Remember what becomes of a candidate for as long as its announcement is among the newest of its issuer."""
        newest = {known.announcement: known for known in self.of(candidate.issuer)} | {candidate.announcement: candidate}
        tried = self._tried.get(candidate.issuer, {})
        self._tried[candidate.issuer] = {cid: known for cid, known in newest.items() if cid in tried or known is candidate}

    @property
    def issuers(self) -> list[PeerId]:
        """Who announced a model that this peer could take."""
        return [issuer for issuer in self._list_members() if self._find(issuer, 1)]

    def of(self, issuer: PeerId) -> list[Candidate]:
        """The announcements of one issuer that still count, newest last."""
        return self._find(issuer, ANNOUNCEMENTS_PER_ISSUER_MAX)[::-1]

    def newest_of(self, issuer: PeerId) -> Candidate | None:
        return next(iter(self._find(issuer, 1)), None)

    def all(self) -> Iterable[Candidate]:
        for issuer in self._list_members():
            yield from self.of(issuer)

    def newest(self) -> Iterable[Candidate]:
        """The newest announcement of every issuer."""
        for issuer in self._list_members():
            yield from self._find(issuer, 1)

    def draw(self, rng: Random) -> Candidate | None:
        """The newest announcement of a member drawn uniformly; None if that one has none."""
        members = self._list_members()
        return self.newest_of(rng.choice(members)) if members else None

    def _list_members(self) -> list[PeerId]:
        """The members in an order that does not depend on what was heard first."""
        members = self._read_members()
        if members is not self._members:
            self._members, self._sorted = members, sorted(members)
        return self._sorted

    def _find(self, issuer: PeerId, count: int) -> list[Candidate]:
        log = self._dag.log(issuer)
        if log is None or issuer == self.me or issuer in self._dag.forks:
            return []
        tried = self._tried.get(issuer, {})
        return [
            tried.get(entry.vertex.cid) or Candidate(entry.vertex.cid, issuer, entry.message)
            for entry in self._book.newest(log, self._dag.length(issuer), count)
        ]

    def note_away(self, issuer: PeerId) -> None:
        """`issuer` could not be reached: its models wait until it is heard again."""
        self._away[issuer] = self._dag.length(issuer)

    def note_back(self, issuer: PeerId) -> None:
        """`issuer` is connected."""
        self._away.pop(issuer, None)

    def is_away(self, issuer: PeerId) -> bool:
        return self._away.get(issuer) == self._dag.length(issuer)

    def measured(self, candidate: Candidate, remote: Evaluation) -> None:
        """Remember how far the claim was above what the model showed here; other data differ, so only the mean tells."""
        excess = candidate.message.accuracy_claimed - remote.accuracy
        before = self._exaggeration.get(candidate.issuer, 0.0)
        self._exaggeration[candidate.issuer] = before + EXAGGERATION_WEIGHT * (excess - before)

    def exaggeration(self, issuer: PeerId) -> float:
        """Mean of claim minus measured, in accuracy; 0 for an issuer of whom nothing was measured."""
        return self._exaggeration.get(issuer, 0.0)

    def is_liar(self, issuer: PeerId) -> bool:
        return self.exaggeration(issuer) > LIAR_EXAGGERATION

    def discount(self, candidate: Candidate) -> float:
        """The claimed accuracy, less what its issuer exaggerated so far."""
        return candidate.message.accuracy_claimed - max(0.0, self.exaggeration(candidate.issuer))


class ExchangePolicy(Protocol):
    """Which remote model to average with, how much of it to take, and whether to keep the result."""

    def choose(self, local: LocalModel, market: ModelMarket, rng: Random) -> Candidate | None:
        """The next candidate, None if nothing is worth trying with this local model."""

    def compute_remote_share(self, local: LocalModel, candidate: Candidate) -> float:
        """Weight of the remote model in the mean, 0 to 1; the paper uses 0.5."""

    def accepts(self, average: Evaluation, *, best_correct: int) -> bool:
        """Whether to adopt an average.

        Args:
            average: its evaluation, with the local model as reference.
            best_correct: the most correct answers that any local model of this peer ever gave.
        """


class PaperPolicy:
    """Section 4.1 as written: among the models that claim more than the local accuracy, the best claim; adopt only what improves.

    No adoption ever lowers this peer's own validation accuracy. Models already tried with the same local model are not tried
    again; claims are discounted by what their issuer exaggerated so far.
    """

    def choose(self, local: LocalModel, market: ModelMarket, rng: Random) -> Candidate | None:
        better = [
            candidate
            for candidate in market.all()
            if candidate.message.accuracy_claimed > local.accuracy and _is_open(candidate, local)
        ]
        better = [candidate for candidate in better if not market.is_away(candidate.issuer)] or better
        if not better:
            return None
        return max(better, key=lambda c: (market.discount(c), c.message.maturity_cycles, c.announcement))

    def compute_remote_share(self, local: LocalModel, candidate: Candidate) -> float:
        return 0.5

    def accepts(self, average: Evaluation, *, best_correct: int) -> bool:
        return average.gained > average.lost


class PairedPolicy:
    """Any peer's newest model, chosen uniformly; adopt an average that is not shown to be worse on the same examples.

    Most help comes from models that claim less: a claim above mine only says that somebody's validation set is easier. And on a
    hundred examples a difference of one or two is chance, so refusing all that is not strictly better throws most of the mixing away.
    What is no worse is adopted. For what is worse there are two bounds, each one standard deviation of chance: against the local
    model example by example (McNemar's paired test), and against the best that this peer ever had, so that a sequence of slightly
    poisoned models cannot walk it down. The best of many measurements is partly luck: it must not keep out what improves.
    Deviation D6 from 4.1; measured in docs/accuracy.md.
    """

    def choose(self, local: LocalModel, market: ModelMarket, rng: Random) -> Candidate | None:
        for _ in range(DRAWS_MAX):  # As uniform as a choice among all that will do, without looking at all.
            drawn = market.draw(rng)
            if drawn is None or drawn.tried_with or not _is_open(drawn, local):
                continue
            if not market.is_liar(drawn.issuer) and not market.is_away(drawn.issuer):
                return drawn
        untried = [c for c in market.newest() if not c.tried_with and _is_open(c, local)]
        untried = [c for c in untried if not market.is_away(c.issuer)] or untried
        honest = [c for c in untried if not market.is_liar(c.issuer)]
        choices = honest or untried
        return rng.choice(choices) if choices else None

    def compute_remote_share(self, local: LocalModel, candidate: Candidate) -> float:
        return 0.5

    def accepts(self, average: Evaluation, *, best_correct: int) -> bool:
        worse = average.lost - average.gained
        if worse <= 0:
            return True
        below_best = max(0, best_correct - average.correct)
        if average.total == SCORE_TOTAL:  # A score is no count: one hundredth takes the place of the deviations.
            return max(worse, below_best) <= SCORE_TOTAL // 100
        wrong = 2 * average.total - best_correct - average.correct
        return worse**2 <= average.gained + average.lost and below_best**2 <= wrong


def _is_open(candidate: Candidate, local: LocalModel) -> bool:
    """Whether averaging with this candidate can give anything that was not tried before."""
    return local.cid not in candidate.tried_with and candidate.failures < FAILURES_MAX and candidate.message.model != local.cid


POLICIES: Final[Mapping[str, Callable[[], ExchangePolicy]]] = {"paired": PairedPolicy, "paper": PaperPolicy}
