"""The `Chain` port in memory: wallets of one process share a `MemoryLedger` of balances, proofs and `SessionFund`s.

For tests and for trying things out: transactions succeed at once, cost no gas, and time is what the given clock says. Wallets sign with a
keyed hash that only the ledger can make and check (`ModelWallets`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from learnae.errors import NotASessionError, NotEnoughMoneyError, TransactionError
from learnae.ids import Address, PeerId, Wei
from learnae.ports import Receipt
from learnae.protocol.audits import compute_beacon_s
from learnae.protocol.calls import (
    Call,
    CastBallot,
    CastGrouped,
    ChainView,
    ClaimBatch,
    DeployPoid,
    Join,
    Leave,
    Member,
    PayTip,
    PoidRecord,
    Release,
    SessionTerms,
    Signable,
    Stage,
    SubmitClaim,
    Tally,
    Withdraw,
    WithdrawTo,
)
from learnae.protocol.fund import FundError, SessionFund, validate_terms
from learnae.protocol.model_wallets import ModelWallets

_TALLY_WORDS: Final = 16
MEMORY_CHAIN_ID: Final = 1

Item = TypeVar("Item")


@dataclass(slots=True)
class MemoryLedger:
    """What all wallets share. `now_s` is the block time."""

    now_s: Callable[[], int]
    balances: dict[Address, int] = field(default_factory=dict)
    funds: dict[Address, SessionFund] = field(default_factory=dict)
    poids: dict[Address, PoidRecord] = field(default_factory=dict)
    paid: dict[tuple[Address, Address], int] = field(default_factory=dict)  # session, wallet -> wei
    block: int = 0
    beacons: dict[Address, bytes] = field(default_factory=dict)
    signatures: ModelWallets = field(default_factory=lambda: ModelWallets(secrets.token_bytes(32)))

    def read_beacon(self, session: Address) -> bytes | None:
        """A hash as of the first block after the rows were closed; drawn when it is first asked for."""
        fund = self.funds[session]
        if self.now_s() < compute_beacon_s(fund.terms, fund.training_ends_s):
            return None
        return self.beacons.setdefault(session, secrets.token_bytes(32))

    def new_address(self) -> Address:
        """An address for the next contract."""
        self.block += 1
        return Address(f"0x{self.block:040d}")

    def move(self, wallet: Address, amount_wei: int) -> None:
        self.balances[wallet] = self.balances.get(wallet, 0) + amount_wei


class MemoryChain:
    """One wallet's view of a `MemoryLedger`."""

    def __init__(self, ledger: MemoryLedger, wallet: Address, peer_id: PeerId) -> None:
        self._ledger, self._wallet, self._peer_id = ledger, wallet, peer_id

    @property
    def wallet(self) -> Address:
        return self._wallet

    @property
    def chain_id(self) -> int:
        return MEMORY_CHAIN_ID

    async def read_terms(self, session: Address) -> SessionTerms:
        """Raises: NotASessionError."""
        return self._find(session).terms

    async def balance_wei(self, wallet: Address) -> Wei:
        return Wei(self._ledger.balances.get(wallet, 0))

    async def deploy_session(self, terms: SessionTerms) -> Address:
        """Raises: TransactionError."""
        try:
            validate_terms(terms, self._ledger.now_s())
        except FundError as error:
            raise TransactionError("creating the session", "its terms are not acceptable", error.reason) from error
        session = self._ledger.new_address()
        self._ledger.funds[session] = SessionFund(terms)
        return session

    async def read(self, session: Address) -> ChainView:
        """The session now. Raises: NotASessionError."""
        fund, ledger = self._find(session), self._ledger
        now_s = ledger.now_s()
        stage = fund.compute_stage(now_s)
        closed = stage in (Stage.RELEASED, Stage.REFUNDED)
        counting = closed or stage in (Stage.VOTING, Stage.SETTLING)
        claimed = [seat for seat in fund.seats if seat.claim is not None]
        released = stage is Stage.RELEASED
        return ChainView(
            block_number=ledger.block,
            time_s=now_s,
            stage=stage,
            members=tuple(Member(index=index, wallet=seat.wallet, poid=ledger.poids[seat.poid]) for index, seat in enumerate(fund.seats)),
            claims=tuple(seat.claim for seat in claimed if seat.claim is not None),
            ballots=frozenset(index for index, seat in enumerate(fund.seats) if seat.voted),
            nay_counts={fund.index_of[seat.wallet]: seat.nays for seat in claimed} if counting else None,
            approved=frozenset(fund.index_of[seat.wallet] for seat in claimed if released and not seat.rejected),
            fund_wei=fund.fund_wei,
            paid_wei={seat.wallet: Wei(ledger.paid.get((session, seat.wallet), 0)) for seat in fund.seats},
            due_wei={seat.wallet: fund.compute_due(seat.wallet, now_s) for seat in fund.seats} if closed else None,
            beacon=self._ledger.read_beacon(session),
            training_ends_s=fund.training_ends_s,
            claiming_ends_s=fund.claiming_ends_s,
            voting_ends_s=fund.voting_ends_s,
        )

    async def sign(self, session: Address, call: Signable) -> bytes:
        return self._ledger.signatures.sign(session, self._wallet, call)

    async def submit(self, session: Address, call: Call) -> Receipt:
        """Raises: TransactionError, NotEnoughMoneyError."""
        self._ledger.block += 1
        try:
            address = self._apply(session, call)
        except FundError as error:
            raise TransactionError(type(call).__name__, f"the contract answers {error.reason}", error.reason) from error
        block = self._ledger.block
        return Receipt(transaction=f"0x{block:064x}", block_number=block, gas_used=0, fee_wei=Wei(0), address=address)

    def _apply(self, session: Address, call: Call) -> Address | None:
        match call:
            case DeployPoid():
                return self._deploy_poid()
            case PayTip(helper, amount_wei):
                if not amount_wei:
                    raise FundError("NoTip")
                self._spend("the tip", amount_wei)
                self._ledger.move(helper, amount_wei)
                return None
        fund, now_s = self._find(session), self._ledger.now_s()
        match call:
            case Join(poid):
                if fund.compute_stage(now_s) is Stage.FUNDING and poid not in self._ledger.poids:
                    raise FundError("NotAContract")
                self._spend("joining the session", fund.terms.deposit_wei, dry=True)
                fund.join(self._wallet, poid, fund.terms.deposit_wei, now_s)
                self._spend("joining the session", fund.terms.deposit_wei)
            case Leave():
                self._ledger.move(self._wallet, fund.leave(self._wallet, now_s))
            case SubmitClaim(points, evidence):
                fund.claim(self._wallet, points, evidence, now_s)
            case CastBallot(nays):
                fund.cast(self._wallet, nays, now_s)
            case ClaimBatch(claims):
                known = [c for c in claims if self._is_signed(session, c.member, SubmitClaim(c.points, c.evidence), c.signature)]
                fund.claim_batch(self._require_any(known), partial(self._is_signed, session), now_s)
            case CastGrouped(nays, ballots):
                signed = [b for b in ballots if self._is_signed(session, b.member, CastBallot(nays), b.signature)]
                fund.cast_grouped(nays, self._require_any(signed), partial(self._is_signed, session), now_s)
            case Tally():
                fund.tally(_TALLY_WORDS, now_s)
            case Release(wallets):
                if not any(fund.compute_due(wallet, now_s) for wallet in wallets):
                    raise FundError("NothingDue")
                for wallet, amount in fund.release(wallets, now_s).items():
                    self._pay(session, wallet, wallet, amount)
            case Withdraw():
                self._pay(session, self._wallet, self._wallet, fund.withdraw(self._wallet, now_s))
            case WithdrawTo(wallet):
                self._pay(session, self._wallet, wallet, fund.withdraw(self._wallet, now_s))
        return None

    def _is_signed(self, session: Address, wallet: Address, call: Signable, signature: bytes) -> bool:
        return self._ledger.signatures.is_signed(session, wallet, call, signature)

    @staticmethod
    def _require_any(items: list[Item]) -> list[Item]:
        if not items:
            raise FundError("NothingSigned")
        return items

    def _deploy_poid(self) -> Address:
        contract = self._ledger.new_address()
        self._ledger.poids[contract] = PoidRecord(
            contract=contract,
            peer_id=self._peer_id,
            wallet=self._wallet,
            public_key=bytes(64),
            timestamp_s=self._ledger.now_s(),
            position=(self._ledger.block, 0),
        )
        return contract

    def _pay(self, session: Address, member: Address, to: Address, amount: Wei) -> None:
        self._ledger.move(to, amount)
        self._ledger.paid[session, member] = self._ledger.paid.get((session, member), 0) + amount

    def _spend(self, what: str, amount_wei: int, *, dry: bool = False) -> None:
        got = self._ledger.balances.get(self._wallet, 0)
        if got < amount_wei:
            raise NotEnoughMoneyError(what, self._wallet, got, amount_wei)
        if not dry:
            self._ledger.move(self._wallet, -amount_wei)

    def _find(self, session: Address) -> SessionFund:
        if session not in self._ledger.funds:
            raise NotASessionError(session, "there is no contract")
        return self._ledger.funds[session]
