"""A chain in the test's own process with a session on it, and the reference model beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from learnae.backends.chain_server.engine import LocalChain, RefusedError
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import STAGES, ContractAbi, checksum, pack_nays, session_abi
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.backends.ethereum.signed_calls import is_signed, sign_call
from learnae.contracts import parse_artefact
from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, SessionTerms, Signable, SignedBallot, SignedClaim, Stage, SubmitClaim
from learnae.protocol.fund import FundError, SessionFund

START_S = 1_800_000_000
DEPOSIT = Wei(1_000_003)  # Prime: every share is rounded.
GAS_MAX = 1 << 24  # EIP-7825
CHAIN_ID = 1337
EVIDENCE = b"\x05" * 32
FAULTS = ("NotAMember", "AlreadyClaimed", "AlreadyVoted", "TooManyPoints", "NayOnOwnClaim", "BadSignature")  # as Session.Fault


@cache
def make_wallet(index: int) -> WalletKey:
    return WalletKey(hashlib.sha256(f"voter {index}".encode()).digest())


@cache
def member_abi() -> ContractAbi:
    return _read_attacker("Member")


@cache
def raider_abi() -> ContractAbi:
    return _read_attacker("Raider")


def _read_attacker(name: str) -> ContractAbi:
    return ContractAbi(parse_artefact((Path(__file__).parent / "artefacts" / f"{name}.json").read_text(encoding="utf-8")))


def make_terms(**changes: Any) -> SessionTerms:
    """Stages of 10,000 s each, so that every transaction of a test can have its own second."""
    terms = SessionTerms(
        rules_digest=b"\x11" * 32,
        deposit_wei=DEPOSIT,
        members_min=1,
        members_max=4095,
        funding_ends_s=START_S + 10_000,
        training_ends_s=START_S + 20_000,
        claiming_ends_s=START_S + 30_000,
        voting_ends_s=START_S + 40_000,
        reject_quorum_permille=200,
    )
    return replace(terms, **changes)


@dataclass(slots=True)
class Bed:
    """One session. Every call goes to the contract and to the model, and both must say the same."""

    terms: SessionTerms = field(default_factory=make_terms)
    wallets: int = 10  # that hold money at the start, besides 299 and 300
    clock_s: int = START_S
    chain: LocalChain = field(init=False)
    session: Address = field(init=False)
    model: SessionFund = field(init=False)
    nonces: dict[Address, int] = field(default_factory=dict)
    paid: dict[Address, int] = field(default_factory=dict)
    forced_wei: int = 0
    gas: dict[str, int] = field(default_factory=dict)  # most gas that each function used
    faults: list[str] = field(default_factory=list)  # why items of the last group were skipped

    def __post_init__(self) -> None:
        rich = {bytes.fromhex(make_wallet(index).address[2:]): 10**36 for index in (*range(self.wallets), 299, 300)}
        self.chain = LocalChain(CHAIN_ID, rich, lambda: self.clock_s)
        self.session = self.deploy(encode_session_creation(self.terms))
        self.model = SessionFund(self.terms)

    # --- the chain ----------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> int:
        return int(self.chain.head.timestamp)

    def travel(self, time_s: int) -> None:
        """The newest block carries this time."""
        self.clock_s = time_s
        self.chain.make_block()
        assert self.now_s == time_s

    def transact(self, wallet: WalletKey, to: Address | None, data: bytes, value: int = 0, gas: int = 16_000_000) -> Any:
        """Run a transaction in the next second and return how it was mined. Raises: RefusedError: it reverted."""
        nonce = self.nonces.get(wallet.address, 0)
        fields = {"type": 2, "chainId": CHAIN_ID, "nonce": nonce, "gas": gas, "value": value, "data": data}
        fields |= {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0}
        raw, digest = wallet.sign_transaction(fields if to is None else {**fields, "to": to})
        self.clock_s = self.now_s + 1
        (refusal,) = self.chain.make_block([(self.chain.decode(raw), raw)])
        assert refusal is None, refusal
        self.nonces[wallet.address] = nonce + 1
        mined = self.chain.mined[digest]
        if not int.from_bytes(mined.receipt.state_root, "big"):
            message = {"sender": bytes.fromhex(wallet.address[2:]), "to": _raw(to), "value": value, "gas": gas, "data": data}
            self.chain.call(self.chain.head, message)  # Raises with the reason.
            raise AssertionError("reverted, but not again")
        return mined

    def deploy(self, creation: bytes, value: int = 0) -> Address:
        return checksum(self.transact(make_wallet(300), None, creation, value).contract)

    def view(self, function: str, *values: object) -> tuple[Any, ...]:
        return self.ask(session_abi(), self.session, function, *values)

    def ask(self, abi: ContractAbi, contract: Address, function: str, *values: object) -> tuple[Any, ...]:
        """A view of any contract."""
        data = abi.encode(function, *values)
        message = {"sender": bytes(20), "to": _raw(contract), "value": 0, "gas": 30_000_000, "data": data}
        return abi.decode(function, self.chain.call(self.chain.head, message))

    # --- a contract that attacks ----------------------------------------------------------------------------------

    def deploy_raider(self, value: int = 0) -> Address:
        return self.deploy(raider_abi().encode_creation(), value)

    def arm(self, raider: Address, target: Address, data: bytes) -> None:
        """What it tries whenever it is paid."""
        self.transact(make_wallet(299), raider, raider_abi().encode("arm", target, data))

    def run(self, raider: Address, to: Address, data: bytes, value: int = 0) -> Any:
        """A call by it. Raises: RefusedError."""
        return self.transact(make_wallet(299), raider, raider_abi().encode("run", to, value, data))

    def count_raids(self, raider: Address) -> int:
        """How many of its armed calls succeeded."""
        return int(self.ask(raider_abi(), raider, "succeeded")[0])

    def balance(self, wallet: Address) -> int:
        return int(self.chain.state_at(self.chain.head).get_balance(_raw(wallet)))

    # --- contract and model side by side ------------------------------------------------------------------------

    def call(self, wallet: WalletKey, function: str, *values: object, value: int = 0) -> str:
        """One call on both; returns the error's name, or nothing."""
        abi = session_abi()
        self.faults = []
        places: tuple[int, ...] = ()
        try:
            mined = self.transact(wallet, self.session, abi.encode(function, *values), value)
        except RefusedError as error:
            contract = abi.explain(error.revert)[0] or str(error)
        else:
            contract = ""
            self.gas[function] = max(self.gas.get(function, 0), mined.gas_used)
            skipped = [fields for name, fields in self.read_events(mined) if name == "Skipped"]
            self.faults = [FAULTS[fields["fault"]] for fields in skipped]
            places = tuple(fields["item"] for fields in skipped)
        try:
            skipped_by_model = self._apply(wallet.address, function, values, value)
            model = ""
        except FundError as error:
            model = error.reason
        assert contract == model, (function, values, contract, model)
        assert model or places == skipped_by_model, (function, values, places, skipped_by_model)
        return contract

    def read_events(self, mined: Any) -> list[tuple[str, dict[str, Any]]]:
        """The session's events in a transaction: names and fields."""
        found = [
            session_abi().decode_log([topic.to_bytes(32, "big") for topic in log.topics], log.data)
            for log in mined.receipt.logs
            if log.address == _raw(self.session)
        ]
        return [event for event in found if event is not None]

    def _apply(self, wallet: Address, function: str, values: Sequence[Any], value: int) -> tuple[int, ...]:
        """The same call on the model; returns the places of the items that it skips."""
        now_s, model = self.now_s, self.model
        match function:
            case "join":
                model.join(wallet, values[0], value, now_s)
            case "leave":
                model.leave(wallet, now_s, last=values[0])
            case "claim":
                model.claim(wallet, values[0], values[1], now_s)
            case "cast":
                model.cast(wallet, unpack(values[0]), now_s)
            case "claimBatch":
                claims = [SignedClaim(member, points, evidence, r + vs) for member, points, evidence, r, vs in values[0]]
                return model.claim_batch(claims, self.is_signed, now_s)
            case "castGrouped":
                ballots = [SignedBallot(member, r + vs) for member, r, vs in values[1]]
                return model.cast_grouped(unpack(values[0]), ballots, self.is_signed, now_s)
            case "tally":
                model.tally(values[0], now_s)
            case "withdraw":
                self.note_paid(values[0], model.withdraw(values[0], now_s))
            case "withdrawTo":
                self.note_paid(wallet, model.withdraw(wallet, now_s))
            case "releaseBatch":
                for member, amount in model.release(values[0], now_s).items():
                    self.note_paid(member, amount)
            case _:
                raise AssertionError(function)
        return ()

    def is_signed(self, wallet: Address, call: Signable, signature: bytes) -> bool:
        return is_signed(wallet, call, signature, chain_id=CHAIN_ID, session=self.session)

    def note_paid(self, member: Address, amount: int) -> None:
        assert member not in self.paid, "paid twice"
        self.paid[member] = amount

    def check(self) -> None:
        """Everything that can be read is equal, and the money adds up."""
        stage, (members, claims, ballots, tallied, *ends, points) = self.view("summary")
        model, now_s = self.model, self.now_s
        assert STAGES[stage] is model.compute_stage(now_s)
        assert (members, claims, ballots, tallied) == (len(model.seats), model.claims, model.ballots, model.tallied_words)
        assert ends == [model.training_ends_s, model.claiming_ends_s, model.voting_ends_s] and points == model.points
        (rows,) = self.view("readMembers", [seat.wallet for seat in model.seats])
        released = model.compute_stage(now_s) is Stage.RELEASED
        assert len(rows) == members
        for number, (row, seat) in enumerate(zip(rows, model.seats, strict=True)):
            wallet, poid, row_points, marks, nays, approved, due, index = row
            assert index == number
            assert (checksum(wallet), checksum(poid)) == (seat.wallet, seat.poid)
            assert row_points == (seat.claim.points if seat.claim else 0)
            assert marks == (seat.claim is not None) | seat.voted << 1 | seat.paid << 2
            assert nays == seat.nays
            assert approved == (released and seat.claim is not None and not seat.rejected)
            assert due == model.compute_due(seat.wallet, now_s)
        self.check_money(rows)

    def check_money(self, rows: Sequence[Sequence[Any]]) -> None:
        """balance = fund + forced - paid, and never more due than there is."""
        due, paid, fund = sum(row[6] for row in rows), sum(self.paid.values()), self.model.fund_wei
        assert self.balance(self.session) == fund + self.forced_wei - paid
        assert due + paid <= fund

    # --- shortcuts ----------------------------------------------------------------------------------------------

    def join(self, *indices: int) -> None:
        for index in indices:
            assert self.call(make_wallet(index), "join", self.session, value=self.terms.deposit_wei) == ""

    def leave(self, index: int) -> str:
        last = self.model.seats[-1].wallet if self.model.seats else make_wallet(index).address
        return self.call(make_wallet(index), "leave", last)

    def start_claims(self) -> None:
        self.travel(self.terms.training_ends_s)

    def start_votes(self) -> None:
        self.travel(self.terms.claiming_ends_s)

    def end_votes(self) -> None:
        self.travel(self.model.voting_ends_s)

    def claim(self, index: int, points: int) -> str:
        return self.call(make_wallet(index), "claim", points, EVIDENCE)

    def cast(self, index: int, *nays: int) -> str:
        return self.call(make_wallet(index), "cast", pack_nays(nays))

    def sign_claim(self, index: int, points: int) -> tuple[Address, int, bytes, bytes, bytes]:
        """An item of claimBatch."""
        return make_wallet(index).address, points, EVIDENCE, *self.sign(index, SubmitClaim(points, EVIDENCE))

    def sign_ballot(self, index: int, *nays: int) -> tuple[Address, bytes, bytes]:
        """An item of castGrouped."""
        return make_wallet(index).address, *self.sign(index, CastBallot(nays))

    def sign(self, index: int, call: Signable, *, session: Address | None = None, chain_id: int = CHAIN_ID) -> tuple[bytes, bytes]:
        """r and vs of a member's signature."""
        signature = sign_call(make_wallet(index), chain_id=chain_id, session=session or self.session, call=call)
        return signature[:32], signature[32:]

    def claim_batch(self, *items: tuple[Address, int, bytes, bytes, bytes]) -> str:
        return self.call(make_wallet(299), "claimBatch", list(items))

    def cast_grouped(self, nays: Sequence[int], *voters: tuple[Address, bytes, bytes]) -> str:
        return self.call(make_wallet(299), "castGrouped", pack_nays(tuple(nays)), list(voters))

    def drain(self) -> int:
        """What anybody can do at the end: tally and pay everybody. Returns what stays behind."""
        anybody = make_wallet(299)
        while self.model.compute_stage(self.now_s) is Stage.SETTLING:
            assert self.call(anybody, "tally", 1) == ""
        for seat in list(self.model.seats):
            if self.model.compute_due(seat.wallet, self.now_s):
                assert self.call(anybody, "withdraw", seat.wallet) == ""
        self.check()
        return self.balance(self.session) - self.forced_wei


def unpack(words: Sequence[int]) -> list[int]:
    return [256 * position + bit for position, word in enumerate(words) for bit in range(256) if word >> bit & 1]


def _raw(address: Address | None) -> bytes:
    return bytes.fromhex(address[2:]) if address else b""
