"""The work cycle of a peer: train or average, at random, one thing at a time, waiting for nobody (4.1, Fig. 1).

Holds the local model, the market of remote models and the dataslices. Returns effects, and messages for the peer to sign.
The phases come from the session's deadlines: before training nothing is done; in the last `final_s` seconds models are only
averaged, and when no averaging is left to try the best claimed model is tested and adopted as it is if it is better.
Pure. Source: paper 4.1, Fig. 1; 4.3 and 6 for what is reported after an adoption.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

from learnae.ids import Cid, Credits, PeerId, short_name
from learnae.protocol import events as ev
from learnae.protocol.contribution import ContributionLedger
from learnae.protocol.dataslices import DatasliceShelf
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import COUNT_MAX, DatasliceConsumed, HelpReported, Message, ModelAnnounced, Origin
from learnae.protocol.models import FAILURES_MAX, Candidate, ExchangePolicy, LocalModel, ModelMarket
from learnae.protocol.rewards import compute_credits
from learnae.protocol.rules import SessionRules
from learnae.protocol.validation import compute_model_bytes_max
from learnae.tangle import cbor

ANNOUNCED_PINNED: Final = 4  # Own models kept for others to fetch: the newest announcements.
RECORD_LOCAL: Final = "local model"

Said = ev.Effect | Message
"""What a subsystem answers with: effects, and messages that the peer signs and publishes."""


class Phase(Enum):
    WAITING = "waiting"  # the training stage has not begun
    TRAINING = "training"
    FINAL = "final"  # averaging only, then the final optimisation
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class _Task:
    """What is under way: its number, and what its answer needs."""

    number: int
    name: str  # "open", "recover", "train", "fetch", "average", "test"
    model: Cid | None = None  # to open
    slices: tuple[Cid, ...] = ()
    candidate: Candidate | None = None
    as_is: bool = False  # the final optimisation: adopt the remote model itself


def read_local(record: bytes) -> LocalModel:
    """The local model in the record that a work cycle saves under `RECORD_LOCAL`."""
    cid, size, correct, total, maturity, *_ = cbor.decode(record)
    return LocalModel(cid=cid, size_bytes=size, correct=correct, total=total, maturity_cycles=maturity)


class WorkCycle:
    """The learning side of one peer."""

    def __init__(
        self,
        *,
        rules: SessionRules,
        rng: Random,
        policy: ExchangePolicy,
        market: ModelMarket,
        ledger: ContributionLedger,
        next_number: Callable[[], int],
        reports_help: bool = True,
    ) -> None:
        self._rules = rules
        self._me = market.me
        self._rng = rng
        self.policy = policy  # how remote models are chosen and judged
        self._ledger = ledger
        self._next_number = next_number
        self._reports_help = reports_help
        self.market = market
        self.shelf = DatasliceShelf(rules.overuse_threshold)
        self.local: LocalModel | None = None
        self.cycles = 0
        self._best_correct = 0  # the most that any local model of this peer gave
        self._facts: TaskFacts | None = None
        self._task: _Task | None = None
        self._connected: frozenset[PeerId] = frozenset()
        self._pinned: deque[Cid] = deque()
        self.kept: set[Cid] = set()  # models that stay pinned until the session ends: receipts of this peer name them
        self._tested_as_is: set[Cid] = set()
        self._fallbacks: list[Cid] = []  # earlier own models, the newest last, should the local one be lost

    # --- starting -------------------------------------------------------------------------------------------

    def start(self, facts: TaskFacts | None, record: bytes | None) -> list[Said]:
        """Take what the learner found and, after a restart, the local model as it was recorded.

        It and the announced ones before it are pinned again: a kill may have come between the record and the pin.
        """
        self._facts = facts
        self.shelf.private_count = facts.private_slices if facts else 0
        if record is not None:
            self.local = read_local(record)
            self.cycles, self._best_correct, *pinned = cbor.decode(record)[5:]
            self._pinned.extend(pinned)
        return [ev.PinFile(model) for model in dict.fromkeys(self._pinned)]

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    # --- one turn -------------------------------------------------------------------------------------------

    def begin(self, phase: Phase, *, connected: frozenset[PeerId]) -> list[Said]:
        """Begin the next thing to do; an empty list if there is nothing now."""
        self._connected = connected
        if self._task is not None or self._facts is None or phase is Phase.CLOSED:
            return []
        if self.local is None:
            return self._open(connected)
        if phase is Phase.TRAINING:
            trains = self._rng.randrange(1000) < self._rules.train_permille
            trains = trains and self.local.maturity_cycles > 0  # A newcomer takes what the others have before it adds to it.
            order = (self._train, self._average) if trains else (self._average, self._train)
            return order[0](connected) or order[1](connected)
        if phase is Phase.FINAL:
            return self._average(connected) or self._test_best(connected)
        return []

    def _open(self, connected: frozenset[PeerId]) -> list[Said]:
        """Get the session's initial model, from which all its models descend; or an earlier own one, if the local one was lost."""
        model = self._fallbacks.pop() if self._fallbacks else self._rules.initial_model
        self._task = _Task(self._next_number(), "open", model=model)
        return [ev.FetchFile(self._task.number, model, tuple(sorted(connected)), compute_model_bytes_max(self._rules))]

    def _train(self, connected: frozenset[PeerId]) -> list[Said]:
        assert self.local is not None
        private, slices = self.shelf.take(self._rules.slices_per_cycle, self._rng)
        if not private and not slices:
            return []
        self._task = _Task(self._next_number(), "train", slices=slices)
        return [ev.TrainModel(self._task.number, self.local.cid, private, slices, self._rng.getrandbits(32))]

    def _average(self, connected: frozenset[PeerId]) -> list[Said]:
        assert self.local is not None
        candidate = self.policy.choose(self.local, self.market, self._rng)
        return [] if candidate is None else self._fetch(candidate, connected, as_is=False)

    def _test_best(self, connected: frozenset[PeerId]) -> list[Said]:
        """The final optimisation (4.1): fetch the best claimed model and test it here."""
        assert self.local is not None
        better = [
            candidate
            for candidate in self.market.all()
            if candidate.message.accuracy_claimed > self.local.accuracy
            and candidate.message.model not in self._tested_as_is
            and candidate.failures < FAILURES_MAX
        ]
        if not better:
            return []
        best = max(better, key=lambda c: (self.market.discount(c), c.announcement))  # Who exaggerated before comes last.
        self._tested_as_is.add(best.message.model)
        return self._fetch(best, connected, as_is=True)

    def _fetch(self, candidate: Candidate, connected: frozenset[PeerId], *, as_is: bool) -> list[Said]:
        self.market.keep(candidate)
        self._task = _Task(self._next_number(), "fetch", candidate=candidate, as_is=as_is)
        others = sorted(connected - {candidate.issuer})
        self._rng.shuffle(others)
        providers = (candidate.issuer, *others)
        return [ev.FetchFile(self._task.number, candidate.message.model, providers, candidate.message.size_bytes)]

    # --- answers --------------------------------------------------------------------------------------------

    def handle(self, event: ev.Event) -> list[Said] | None:
        """Take the answer to what is under way; None if the event is about something else."""
        task = self._task
        if task is None or getattr(event, "number", None) != task.number:
            return None
        self._task = None
        match event:
            case ev.FileFetched():
                return self._fetched(task)
            case ev.FetchFailed():
                return self._failed(task, event)
            case ev.LearningFailed(reason=reason, blames_remote=blames_remote):
                return self._learning_failed(task, reason, blames_remote=blames_remote)
            case ev.FileLost(cid=cid):
                return self._lost(task, cid)
            case ev.ModelTrained():
                return self._trained(task, event)
            case ev.ModelsAveraged():
                return self._averaged(task, event)
            case ev.ModelEvaluated():
                return self._evaluated(task, event)
        raise AssertionError(f"{type(event).__name__} answers nothing that a work cycle asks for")

    def abandon(self) -> None:
        """Forget what is under way: its answer comes too late to count."""
        self._task = None

    def _fetched(self, task: _Task) -> list[Said]:
        number = self._next_number()
        if task.name == "recover":
            what = "local" if self.local is not None and task.model == self.local.cid else "session's initial"
            told = ev.Tell(ev.Topic.TROUBLE, f"the {what} model was damaged on disk; it came back from another peer")
            return [told] if task.model is None else [ev.PinFile(task.model), told]
        if task.model is not None:
            self._task = _Task(number, "open", model=task.model)
            return [ev.PinFile(task.model), ev.EvaluateModel(number, task.model, None)]
        assert task.candidate is not None and self.local is not None
        remote = task.candidate.message.model
        if task.as_is:
            self._task = _Task(number, "test", candidate=task.candidate, as_is=True)
            return [ev.EvaluateModel(number, remote, self.local.cid)]
        self._task = _Task(number, "average", candidate=task.candidate)
        share = self.policy.compute_remote_share(self.local, task.candidate)
        return [ev.AverageModels(number, self.local.cid, remote, share)]

    def _failed(self, task: _Task, event: ev.FetchFailed) -> list[Said]:
        if task.candidate is not None:
            issuer = task.candidate.issuer
            task.candidate.failures += 1
            told = ev.Tell(ev.Topic.TROUBLE, f"no model from {short_name(issuer)}: {event.reason}")
            is_news = event.is_away and not self.market.is_away(issuer)
            if is_news:
                self.market.note_away(issuer)
            return [told, *self._average(self._connected)] if is_news and not task.as_is else [told]
        if task.name == "recover" and self.local is not None and task.model == self.local.cid:
            return self._fall_back()
        return [ev.Tell(ev.Topic.TROUBLE, f"waiting for the session's initial model: {event.reason}")]

    def _lost(self, task: _Task, cid: Cid) -> list[Said]:
        """A file that was here is not any more: bit rot, or a disk that was cleaned. What others have is fetched again."""
        sizes = {self._rules.initial_model: compute_model_bytes_max(self._rules)}  # Compressed models cannot be read without it.
        if self.local is not None:
            sizes[self.local.cid] = self.local.size_bytes
        if cid in sizes:
            self._task = _Task(self._next_number(), "recover", model=cid)
            return [ev.FetchFile(self._task.number, cid, tuple(sorted(self._connected)), sizes[cid])]
        if cid in task.slices:
            self.shelf.forget(cid)
        elif task.candidate is not None:
            task.candidate.failures += 1
        return []

    def _fall_back(self) -> list[Said]:
        """Nobody else has the local model: go on from an earlier own one, at last from the session's initial one."""
        assert self.local is not None
        self._fallbacks = [model for model in self._pinned if model != self.local.cid]
        self.local, self._best_correct = None, 0
        return [ev.Tell(ev.Topic.TROUBLE, "the local model was damaged on disk and nobody else has it; going on from an earlier one")]

    def _learning_failed(self, task: _Task, reason: str, *, blames_remote: bool) -> list[Said]:
        if task.name == "train" and blames_remote:
            for cid in task.slices:
                self.shelf.forget(cid)
        if task.candidate is not None and blames_remote:
            task.candidate.failures = FAILURES_MAX
        if task.name == "open" and blames_remote:
            return [ev.Finish(f"the session's initial model does not fit this task: {reason}")]
        return [ev.Tell(ev.Topic.TROUBLE, reason)]

    def _trained(self, task: _Task, event: ev.ModelTrained) -> list[Said]:
        """Every trained model becomes the local one and is announced (4.1, green area)."""
        assert self.local is not None
        said: list[Said] = []
        if task.slices:
            said.append(DatasliceConsumed(slices=task.slices))
        self.cycles += 1
        parents = (self.local.cid,)
        said += self._set_local(event.model, event.size_bytes, event.evaluation, self.local.maturity_cycles + 1)
        said += self._announce(Origin.TRAINED, parents)
        values = {"event": "trained", "slices": len(task.slices)}
        return [*said, self._tell("trained", event.evaluation, values)]

    def _averaged(self, task: _Task, event: ev.ModelsAveraged) -> list[Said]:
        """Adopt an average if the policy accepts it (4.1, blue area), and report the help if the accuracy improved."""
        assert self.local is not None and task.candidate is not None
        candidate = task.candidate
        self.cycles += 1
        candidate.tried_with.add(self.local.cid)
        self.market.measured(candidate, event.remote)
        if not self.policy.accepts(event.evaluation, best_correct=self._best_correct):
            values = {"event": "dropped", "from": candidate.issuer}
            return [self._tell(f"dropped an average with {short_name(candidate.issuer)}", event.evaluation, values)]
        return self._adopt(candidate, event.model, event.size_bytes, event.evaluation, Origin.AVERAGED)

    def _evaluated(self, task: _Task, event: ev.ModelEvaluated) -> list[Said]:
        if task.candidate is None:
            assert task.model is not None
            self._fallbacks = []
            opened = self._set_local(task.model, event.size_bytes, event.evaluation, 0)
            what = "has the initial model" if task.model == self._rules.initial_model else "has an earlier model"
            return [*opened, self._tell(what, event.evaluation, {"event": "opened"})]
        self.cycles += 1
        self.market.measured(task.candidate, event.evaluation)
        if event.evaluation.gained <= event.evaluation.lost:
            return []
        model = task.candidate.message.model
        return self._adopt(task.candidate, model, event.size_bytes, event.evaluation, Origin.ADOPTED)

    def _adopt(self, candidate: Candidate, model: Cid, size_bytes: int, evaluation: Evaluation, origin: Origin) -> list[Said]:
        assert self.local is not None
        before = self.local
        remote = candidate.message
        maturity = max(before.maturity_cycles, remote.maturity_cycles) + (origin is Origin.AVERAGED)
        said = self._set_local(model, size_bytes, evaluation, maturity)
        said += self._announce(origin, (before.cid, remote.model) if origin is Origin.AVERAGED else remote.parents)
        said += self._report_help(candidate, before, evaluation)
        values = {"event": "adopted", "from": candidate.issuer, "gain": evaluation.correct - before.correct}
        verb = "averaged with" if origin is Origin.AVERAGED else "took over the model of"
        return [*said, self._tell(f"{verb} {short_name(candidate.issuer)}", evaluation, values)]

    def _report_help(self, candidate: Candidate, before: LocalModel, after: Evaluation) -> list[Said]:
        """A receipt for the helper, by Eq. 1 from the counts; one per announcement, and only for a real improvement."""
        row = self._ledger.row(self._me)
        credits = compute_credits(
            reward_factor=self._rules.reward_factor, correct_before=before.correct, correct_after=after.correct, total=after.total
        )
        owed = Credits(row.credits.get(candidate.issuer, 0) + credits)
        comparable = before.total == after.total  # The own validation set may have changed over a restart.
        if not self._reports_help or credits == 0 or not comparable or owed > COUNT_MAX:
            return []
        if self._ledger.has_credited(self._me, candidate.announcement) or row.closed:
            return []
        assert self.local is not None
        return [
            HelpReported(
                helper=candidate.issuer,
                announcement=candidate.announcement,
                before=before.cid,
                after=self.local.cid,
                correct_before=before.correct,
                correct_after=after.correct,
                total=after.total,
                credits=credits,
                owed=owed,
            )
        ]

    # --- the local model ------------------------------------------------------------------------------------

    def _set_local(self, model: Cid, size_bytes: int, evaluation: Evaluation, maturity: int) -> list[Said]:
        maturity = min(maturity, COUNT_MAX)  # A remote's is only claimed, and goes on in what descends from it.
        self.local = LocalModel(
            cid=model, size_bytes=size_bytes, correct=evaluation.correct, total=evaluation.total, maturity_cycles=maturity
        )
        said: list[Said] = [ev.PinFile(model)]
        self._pinned.append(model)
        while len(self._pinned) > ANNOUNCED_PINNED:
            old = self._pinned.popleft()
            if old not in self._pinned and old not in self.kept and old != self._rules.initial_model:
                said.append(ev.UnpinFile(old))
        local = self.local
        self._best_correct = max(self._best_correct, local.correct)
        counts = [local.size_bytes, local.correct, local.total, local.maturity_cycles, self.cycles, self._best_correct]
        return [*said, ev.SaveRecord(RECORD_LOCAL, cbor.encode([local.cid, *counts, *self._pinned]))]

    def _announce(self, origin: Origin, parents: tuple[Cid, ...]) -> list[Said]:
        local = self.local
        assert local is not None and self._facts is not None
        return [
            ModelAnnounced(
                model=local.cid,
                size_bytes=local.size_bytes,
                correct=local.correct,
                total=local.total,
                maturity_cycles=local.maturity_cycles,
                examples=self._facts.train_examples,
                origin=origin,
                parents=parents,
            )
        ]

    def _tell(self, what: str, evaluation: Evaluation, values: Mapping[str, object]) -> ev.Tell:
        accuracy = self.local.accuracy if self.local else evaluation.accuracy
        shown = {**values, "accuracy": accuracy, "measured": evaluation.accuracy, "cycles": self.cycles}
        return ev.Tell(ev.Topic.TRAINING, f"{what}; accuracy {accuracy:.3f}", shown)
