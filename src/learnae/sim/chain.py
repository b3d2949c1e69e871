"""The session's contract for simulated peers: the reference model of the contract behind the calls of a peer.

A call is in a block `BLOCK_S` after it was submitted. Tips move money between wallets directly (4.3). Wallets sign with a keyed hash that
only this chain can make and check (`ModelWallets`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from learnae.ids import Address, PeerId, Wei
from learnae.protocol import calls
from learnae.protocol.audits import compute_beacon_s
from learnae.protocol.calls import ChainView, Claim, Member, PoidRecord
from learnae.protocol.fund import FundError, SessionFund
from learnae.protocol.model_wallets import ModelWallets
from learnae.protocol.rules import SessionRules

BLOCK_S: Final = 1.0
SESSION: Final = Address("0x" + "5e" * 20)  # The only contract here.


class SimulatedChain:
    """One contract, all wallets."""

    def __init__(self, rules: SessionRules, peers: Sequence[PeerId]) -> None:
        self.fund = SessionFund(rules.compute_terms())
        self.wallets = {peer: Address("0x" + peer[:20].hex()) for peer in peers}
        self.paid_wei: dict[Address, Wei] = {}
        self.tipped_wei: dict[Address, int] = dict.fromkeys(self.wallets.values(), 0)  # received less paid, may be negative
        self.sent: Counter[PeerId] = Counter()  # transactions of each peer, refused ones included
        self._signatures = ModelWallets(rules.cid)
        self._poids: dict[Address, PoidRecord] = {}
        self._seed = rules.cid
        self._changes = 0
        self._view: tuple[tuple[object, ...], ChainView] | None = None

    def sign(self, peer: PeerId, call: calls.Signable) -> bytes:
        """One peer's wallet signs a claim or a ballot for others to send."""
        return self._signatures.sign(SESSION, self.wallets[peer], call)

    def _is_signed(self, wallet: Address, call: calls.Signable, signature: bytes) -> bool:
        return self._signatures.is_signed(SESSION, wallet, call, signature)

    def execute(self, peer: PeerId, call: calls.Call, now_s: int) -> Address | None:
        """Carry out one peer's call in a block of time `now_s`; the address of a contract that it deployed.

        Raises: FundError: the contract refuses.
        """
        wallet = self.wallets[peer]
        self._changes += 1
        self.sent[peer] += 1
        match call:
            case calls.DeployPoid():
                return self._deploy(peer, wallet, now_s)
            case calls.Join(poid=poid):
                self.fund.join(wallet, poid, self.fund.terms.deposit_wei, now_s)
            case calls.SubmitClaim(points=points, evidence=evidence):
                self.fund.claim(wallet, points, evidence, now_s)
            case calls.CastBallot(nays=nays):
                self.fund.cast(wallet, nays, now_s)
            case calls.ClaimBatch(claims=claims):
                self.fund.claim_batch(claims, self._is_signed, now_s)
            case calls.CastGrouped(nays=nays, ballots=ballots):
                self.fund.cast_grouped(nays, ballots, self._is_signed, now_s)
            case calls.Tally():
                self.fund.tally(64, now_s)
            case calls.Release(wallets=wallets):
                if not any(self.fund.compute_due(wallet, now_s) for wallet in wallets):
                    raise FundError("NothingDue")  # The contract would do nothing; a wallet asks first and does not pay for that.
                self._count(self.fund.release(wallets, now_s))
            case calls.Withdraw():
                self._count({wallet: self.fund.withdraw(wallet, now_s)})
            case calls.PayTip(helper=helper, amount_wei=amount):
                if helper not in self.tipped_wei:
                    raise FundError("unknown wallet")
                self.tipped_wei[wallet] -= amount
                self.tipped_wei[helper] += amount
        return None

    def read(self, now_s: int) -> ChainView:
        """The session at a block of time `now_s`; the same object while nothing changed."""
        fund = self.fund
        stage = fund.compute_stage(now_s)
        key = (self._changes, now_s)
        if self._view is None or self._view[0] != key:
            members = tuple(Member(index=index, wallet=seat.wallet, poid=self._poids[seat.poid]) for index, seat in enumerate(fund.seats))
            if self._view is not None and self._view[1].members == members:
                members = self._view[1].members
            view = ChainView(
                block_number=int(now_s),
                time_s=now_s,
                stage=stage,
                members=members,
                claims=tuple(seat.claim for seat in fund.seats if isinstance(seat.claim, Claim)),
                ballots=frozenset(index for index, seat in enumerate(fund.seats) if seat.voted),
                fund_wei=fund.fund_wei,
                paid_wei=dict(self.paid_wei),
                beacon=self._compute_beacon(now_s),
                training_ends_s=fund.training_ends_s,
                claiming_ends_s=fund.claiming_ends_s,
                voting_ends_s=fund.voting_ends_s,
                due_wei={seat.wallet: fund.compute_due(seat.wallet, now_s) for seat in fund.seats},
            )
            self._view = (key, view)
        return self._view[1]

    def read_balance(self, peer: PeerId) -> Wei:
        """What became of a member's deposit: what the contract paid it, with the tips it got and less those it gave."""
        wallet = self.wallets[peer]
        return Wei(self.paid_wei.get(wallet, 0) + self.tipped_wei[wallet])

    def _compute_beacon(self, now_s: int) -> bytes | None:
        """Random as long as nobody knows the session's CID before; here everybody does, and nobody looks."""
        beacon_s = compute_beacon_s(self.fund.terms, self.fund.training_ends_s)
        return hashlib.sha256(b"block %d of " % beacon_s + self._seed).digest() if now_s >= beacon_s else None

    def _deploy(self, peer: PeerId, wallet: Address, now_s: int) -> Address:
        contract = Address(f"0x{self._changes:040x}")
        self._poids[contract] = PoidRecord(
            contract=contract,
            peer_id=peer,
            wallet=wallet,
            public_key=bytes(64),
            timestamp_s=now_s,
            position=(now_s, self._changes),
        )
        return contract

    def _count(self, paid: Mapping[Address, Wei]) -> None:
        for wallet, amount in paid.items():
            self.paid_wei[wallet] = Wei(self.paid_wei.get(wallet, 0) + amount)
