"""The contracts equal their reference models step by step (dao.md): random sessions with governance, refused calls included."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from learnae.backends.ethereum.abi import pack_nays
from learnae.protocol.calls import Stage
from learnae.protocol.governance import Action, ExtendDeadlines, SetMinQuorumDivisor, SetProposalDeposit
from tests.contracts.bed import EVIDENCE, make_wallet
from tests.contracts.governed import GovernedBed, make_governed_terms

MEMBERS = 7  # So that 9 wallets hold strangers too.
WALLETS = st.integers(0, 8)
POINTS = st.sampled_from((0, 1, 10, 20, 31, 10**6, 2**64 - 1, 2**64))
NAYS = st.sets(st.integers(0, MEMBERS), max_size=2).map(lambda nays: tuple(sorted(nays)))
ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.sampled_from((0, 7, 1_000_003, 1_000_004)).map(SetProposalDeposit),
    st.integers(1, 11).map(SetMinQuorumDivisor),
    st.sampled_from((0, 1, 700, 2_500, 5_001)).map(ExtendDeadlines),
)
MONEY = (Stage.RELEASED, Stage.REFUNDED)


class SessionMachine(RuleBasedStateMachine):
    """One session from its creation until everything is paid; `bed` compares contract and model after every step."""

    bed: GovernedBed

    @initialize(
        members_min=st.sampled_from((1, 1, 2, 5)),
        members_max=st.sampled_from((5, MEMBERS)),
        quorum=st.sampled_from((0, 1, 200, 500, 667, 1000)),
        deposit=st.sampled_from((1_000_003, 1_000_003, 1_001, 10**18, 2**112 - 1)),
        joins=st.sampled_from((5, 4, 3, 2, 1, 0)),
        start=st.sampled_from((Stage.FUNDING, Stage.TRAINING, Stage.CLAIMING, Stage.VOTING, Stage.VOTING, Stage.VOTING)),
    )
    def create(self, members_min: int, members_max: int, quorum: int, deposit: int, joins: int, start: Stage) -> None:
        """Later stages begin with what honest members do before them, so that short runs get there too."""
        terms = make_governed_terms(
            members_min=members_min, members_max=members_max, reject_quorum_permille=quorum, deposit_wei=deposit
        )
        self.bed = GovernedBed(terms)
        self.bed.join(*range(joins))
        self.stages = [Stage.FUNDING]
        while self.stage is not start and self.stage in (Stage.FUNDING, Stage.TRAINING, Stage.CLAIMING):
            if self.stage is Stage.CLAIMING:
                self.bed.claim_batch(*(self.bed.sign_claim(index, 10 + index) for index in range(joins)))
            self.advance(0)

    @property
    def stage(self) -> Stage:
        return self.bed.model.compute_stage(self.bed.now_s)

    def call(self, index: int, function: str, *values: Any, value: int = 0) -> None:
        self.bed.call(make_wallet(index), function, *values, value=value)

    # --- time -------------------------------------------------------------------------------------------------------

    @rule(early=st.sampled_from((0, 0, 0, 2)))
    def advance(self, early: int) -> None:
        """To the end of the running stage, or just before it."""
        model = self.bed.model
        ends = (self.bed.terms.funding_ends_s, model.training_ends_s, model.claiming_ends_s, model.voting_ends_s)
        left = [end - early for end in ends if end - early > self.bed.now_s]
        if left:
            self.bed.travel(left[0])

    def wait_for(self, time_s: int) -> None:
        if time_s > self.bed.now_s:
            self.bed.travel(time_s)

    # --- members ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.stage is Stage.FUNDING)
    @rule(index=WALLETS, more=st.sampled_from((0, 0, 0, 1, -1)))
    def join(self, index: int, more: int) -> None:
        self.call(index, "join", self.bed.session, value=self.bed.terms.deposit_wei + more)

    @precondition(lambda self: self.stage is Stage.FUNDING)
    @rule(index=WALLETS, wrong=st.booleans(), other=WALLETS)
    def leave(self, index: int, wrong: bool, other: int) -> None:
        seats = self.bed.model.seats
        self.call(index, "leave", make_wallet(other).address if wrong or not seats else seats[-1].wallet)

    @precondition(lambda self: self.stage is Stage.CLAIMING)
    @rule(index=WALLETS, points=POINTS)
    def claim(self, index: int, points: int) -> None:
        self.call(index, "claim", points, EVIDENCE)

    @precondition(lambda self: self.stage is Stage.CLAIMING)
    @rule(claims=st.lists(st.tuples(WALLETS, WALLETS, POINTS), min_size=2, max_size=8))
    def claim_batch(self, claims: list[tuple[int, int, int]]) -> None:
        """One in nine is signed by somebody else."""
        items = []
        for index, signer, points in claims:
            honest = self.bed.sign_claim(index, points)
            items.append(honest if signer else (*honest[:3], *self.bed.sign_claim(signer, points)[3:]))
        self.call(8, "claimBatch", items)

    @precondition(lambda self: self.stage is Stage.VOTING)
    @rule(index=WALLETS, nays=NAYS, words=st.sampled_from((None, None, None, None, None, [0], [0, 1], [1 << 255], [2**256 - 1])))
    def cast(self, index: int, nays: tuple[int, ...], words: list[int] | None) -> None:
        self.call(index, "cast", pack_nays(nays) if words is None else words)

    @precondition(lambda self: self.stage is Stage.VOTING)
    @rule(nays=NAYS, voters=st.lists(st.tuples(WALLETS, WALLETS), min_size=3, max_size=8))
    def cast_grouped(self, nays: tuple[int, ...], voters: list[tuple[int, int]]) -> None:
        items = []
        for index, signer in voters:
            honest = self.bed.sign_ballot(index, *nays)
            items.append(honest if signer else (honest[0], *self.bed.sign_ballot(signer, *nays)[1:]))
        self.call(8, "castGrouped", pack_nays(nays), items)

    # --- what anybody may do ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.stage is Stage.SETTLING)
    @rule(words=st.sampled_from((0, 1, 2**256 - 1)))
    def tally(self, words: int) -> None:
        self.call(8, "tally", words)

    @precondition(lambda self: self.stage in MONEY)
    @rule(index=WALLETS, member=WALLETS)
    def withdraw(self, index: int, member: int) -> None:
        self.call(index, "withdraw", make_wallet(member).address)

    @precondition(lambda self: self.stage in MONEY)
    @rule(index=WALLETS)
    def withdraw_to(self, index: int) -> None:
        self.call(index, "withdrawTo", make_wallet(200).address)

    @precondition(lambda self: self.stage in MONEY)
    @rule(members=st.lists(WALLETS, max_size=5))
    def release(self, members: list[int]) -> None:
        self.call(8, "releaseBatch", [make_wallet(member).address for member in members])

    # --- governance -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.stage is not Stage.FUNDING and len(self.bed.council.proposals) < 3)
    @rule(index=WALLETS, amount=st.sampled_from((0, 1, 400, 10**6)), action=st.none() | ACTIONS, debating_s=st.sampled_from((99, 100, 900)))
    def propose(self, index: int, amount: int, action: Action | None, debating_s: int) -> None:
        payment = None if action else (make_wallet(150).address, amount)
        self.bed.propose(index, payment, action, debating_s=debating_s)

    @precondition(lambda self: self.stage is not Stage.FUNDING and len(self.bed.council.proposals) < 3 and self.bed.model.seats)
    @rule(amount=st.sampled_from((0, 400)), action=st.none() | ACTIONS, no=st.sampled_from((0, 0, 0, 2)))
    def decide(self, amount: int, action: Action | None, no: int) -> None:
        """A proposal from its deposit to its execution."""
        bed, number = self.bed, len(self.bed.council.proposals)
        bed.donate(amount)
        self.propose(0, amount, action, 100)
        for index in range(len(bed.model.seats)):
            bed.govern(make_wallet(index), "vote", number, index >= no)
        if len(bed.council.proposals) > number:
            self.wait_for(bed.council.proposals[number].voting_deadline)
            bed.execute(number, action)

    @precondition(lambda self: self.bed.council.proposals)
    @rule(
        function=st.sampled_from(("vote", "vote", "wait", "execute", "execute", "close", "withdraw")),
        number=st.sampled_from((0, 0, 1, 2, 3)),
        voters=st.dictionaries(WALLETS, st.sampled_from((True, True, False)), min_size=3),
    )
    def govern(self, function: str, number: int, voters: dict[int, bool]) -> None:
        bed, proposals = self.bed, self.bed.council.proposals
        known = proposals[min(number, len(proposals) - 1)]
        if function == "vote":
            for index, yes in voters.items():
                bed.govern(make_wallet(index), "vote", number, yes)
        elif function == "wait":
            late_s = 14 * 86400 if self.stage in MONEY else 0
            self.wait_for(known.voting_deadline + late_s)
        elif function == "execute":
            bed.execute(number, known.action if len(voters) < 8 else None)
        elif function == "close":
            bed.close(number)
        else:
            bed.govern(make_wallet(8), "withdraw", known.creator)

    # --- what belongs to another stage ----------------------------------------------------------------------------------

    @rule(index=WALLETS, function=st.sampled_from(("join", "leave", "claim", "cast", "tally", "withdraw", "withdrawTo", "propose")))
    def misfit(self, index: int, function: str) -> None:
        wallet = make_wallet(index).address
        values: dict[str, tuple[object, ...]] = {
            "claim": (5, EVIDENCE), "cast": ([],), "tally": (1,), "join": (wallet,), "leave": (wallet,), "withdraw": (wallet,),
            "withdrawTo": (wallet,),
        }  # fmt: skip
        if function == "propose":
            self.bed.propose(index)
        elif function == "join":
            self.call(index, "join", wallet, value=self.bed.terms.deposit_wei)
        else:
            self.call(index, function, *values[function])

    # --- always -----------------------------------------------------------------------------------------------------

    @invariant()
    def equals_its_model(self) -> None:
        """Equal stages, dues, nay counters, approvals, proposals and balances; stages only move forward."""
        if not hasattr(self, "bed"):
            return
        self.bed.check()
        self.stages.append(self.stage)
        order = list(Stage)
        assert order.index(self.stages[-1]) >= order.index(self.stages[-2]), "stages only move forward"

    def teardown(self) -> None:
        """Liveness: time and calls that anybody may make empty both contracts up to dust and the members' common money."""
        if not hasattr(self, "bed"):
            return
        bed, council = self.bed, self.bed.council
        bed.travel(max([bed.now_s + 1, bed.model.voting_ends_s, *(p.voting_deadline + 14 * 86400 for p in council.proposals)]))
        dust = bed.drain()
        approved = [seat for seat in bed.model.seats if seat.claim is not None and not seat.rejected]
        assert dust < max(1, len(approved))
        for number, proposal in enumerate(council.proposals):
            assert not proposal.open or bed.close(number) == ""
        for creator in list(council.credit):
            assert bed.govern(make_wallet(8), "withdraw", creator) == ""
        assert council.held_wei == 0
        bed.check()


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=100 if settings.default.max_examples > 100 else 12, stateful_step_count=30, deadline=None)
