"""Reads one session from a node: its terms, and its state at the newest block that counts.

Members, claims, ballots and payments come from the contract's events, each read once; approvals and dues from its views,
in pages, once when the session closes. What was read is thrown away when the chain replaced the block it stood on.
A session is believed only if its code is the shipped artefact and the transaction that created it ran the shipped init code
(other init code could have filled the storage beforehand).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import trio

from learnae.backends.ethereum.abi import STAGES, ContractAbi, checksum, poid_abi, session_abi
from learnae.backends.ethereum.poid import encode_own_creation, judge_late, judge_poid, read_created_block
from learnae.backends.ethereum.queries import call_view, make_view_call, read_logs, read_topics
from learnae.backends.ethereum.rpc import Endpoint, Fields, read_bytes
from learnae.errors import ChainAnswerError, NotASessionError
from learnae.ids import Address, Wei
from learnae.protocol.audits import compute_beacon_s
from learnae.protocol.calls import ChainView, Claim, Member, PoidRecord, SessionTerms, Stage

_PAGE: Final = 250  # Members in one view call: 3 to 4 million gas, below every node's limit for calls.
_ADDRESS_BYTES: Final = 20
_BLOCK_MAX: Final = 1 << 48  # A hostile record may name any block; nodes refuse numbers above 64 bits.
_TIME_OFF_MAX_S: Final = 120  # Nodes for development answer a view by the clock and not by the block's time.
_TERMS: Final = (
    "rulesDigest",
    "depositWei",
    "membersMin",
    "membersMax",
    "fundingEnds",
    "trainingEnds",
    "claimingEnds",
    "votingEnds",
    "rejectQuorumPermille",
    "extensionSecondsMax",
    "proposalDepositWei",
    "minQuorumDivisor",
    "debatingSecondsMin",
)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What never changes about a session."""

    terms: SessionTerms
    created_block: int
    tips: Address
    governance: Address


@dataclass(frozen=True, slots=True)
class _Seat:
    """One who joined."""

    wallet: Address
    poid: Address
    joined: tuple[int, int]  # block number and transaction index


@dataclass(slots=True)
class _Scan:
    """What the events up to `block` say."""

    block: int
    block_hash: bytes = b""
    members: list[_Seat] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)
    ballots: set[int] = field(default_factory=set)
    nays: Counter[int] = field(default_factory=Counter)
    paid: dict[Address, int] = field(default_factory=dict)


def unpack_nays(words: Sequence[int]) -> Iterator[int]:
    """The indices of the claims that a ballot's words of 256 claims reject."""
    for position, word in enumerate(words):
        while word:
            lowest = word & -word
            yield 256 * position + lowest.bit_length() - 1
            word ^= lowest


def _read_marks(words: Sequence[int], members: int) -> list[int]:
    """As `unpack_nays`, of an event that may be invented. Raises: ChainAnswerError: it marks who is no member."""
    if any(word >> max(0, members - 256 * position) for position, word in enumerate(words)):
        raise ChainAnswerError("eth_getLogs", f"a ballot in it names members beyond the {members} that there are")
    return list(unpack_nays(words))


def _check_time(stage: Stage, time_s: int, ends_s: Mapping[Stage, int]) -> None:
    """Raises: ChainAnswerError: a block is long after the end of the stage that the contract says it is in.

    A node goes by the time of the blocks: what it says under a time to come is not heard before, nor anything after it.
    """
    if time_s > ends_s.get(stage, time_s) + _TIME_OFF_MAX_S:
        raise ChainAnswerError("eth_getBlockByNumber", f"a block of time {time_s} in stage {stage.value}, which ends at {ends_s[stage]}")


def _compute_dues(wallets: Sequence[Address], rows: Sequence[tuple[Any, ...]], paid: Mapping[Address, int]) -> dict[Address, Wei]:
    return {wallet: Wei(0 if wallet in paid else row[6]) for wallet, row in zip(wallets, rows, strict=True)}


def _make_member(index: int, seat: _Seat, record: PoidRecord) -> Member:
    """A member as all readers see it at any time: what was deployed after it joined never counts, for nobody could see it then."""
    if record.position >= seat.joined:
        record = judge_late(seat.poid)
    elif not record.fault and record.wallet != seat.wallet:
        record = replace(record, fault=f"it belongs to wallet {record.wallet}, not to the member's")
    return Member(index=index, wallet=seat.wallet, poid=record)


def _terms_values(terms: SessionTerms) -> tuple[object, ...]:
    return (
        terms.rules_digest,
        terms.deposit_wei,
        terms.members_min,
        terms.members_max,
        terms.funding_ends_s,
        terms.training_ends_s,
        terms.claiming_ends_s,
        terms.voting_ends_s,
        terms.reject_quorum_permille,
        terms.extension_max_s,
        terms.proposal_deposit_wei,
        terms.min_quorum_divisor,
        terms.debating_min_s,
    )


def encode_session_creation(terms: SessionTerms) -> bytes:
    """Init code that deploys a session with these terms."""
    return session_abi().encode_creation(_terms_values(terms))


def _read_terms(fields: dict[str, bytes]) -> SessionTerms:
    digest, *numbers = (fields[name] for name in _TERMS)
    deposit, members_min, members_max, *rest = (int.from_bytes(number, "big") for number in numbers)
    funding, training, claiming, voting, quorum, extension, proposal_deposit, divisor, debating = rest
    return SessionTerms(
        rules_digest=digest,
        deposit_wei=Wei(deposit),
        members_min=members_min,
        members_max=members_max,
        funding_ends_s=funding,
        training_ends_s=training,
        claiming_ends_s=claiming,
        voting_ends_s=voting,
        reject_quorum_permille=quorum,
        extension_max_s=extension,
        proposal_deposit_wei=Wei(proposal_deposit),
        min_quorum_divisor=divisor,
        debating_min_s=debating,
    )


async def read_facts(endpoint: Endpoint, session: Address) -> SessionFacts:
    """Check that `session` is a genuine session and read what is fixed in it. Raises: NotASessionError."""
    code = read_bytes("eth_getCode", await endpoint.request("eth_getCode", session, "latest"))
    if not code:
        raise NotASessionError(session, "there is no contract")
    fields = session_abi().artefact.read_immutables(code)
    if fields is None:
        raise NotASessionError(session, "its code is not the session contract that this program knows")
    terms, created = _read_terms(fields), int.from_bytes(fields["createdBlock"], "big")
    log = await _find_log(endpoint, session, created, session_abi(), "SessionCreated")
    if log is None:
        raise NotASessionError(session, "its creation is not logged in the block that it names")
    digest = "0x" + log.data("transactionHash").hex()
    creation = Fields("eth_getTransactionByHash", await endpoint.request("eth_getTransactionByHash", digest))
    if creation.maybe_data("to") is not None or creation.data("input") != encode_session_creation(terms):
        raise NotASessionError(session, "it was not created by the session contract's own init code")
    tips, governance = (checksum(fields[name][-_ADDRESS_BYTES:]) for name in ("tips", "governance"))
    return SessionFacts(terms, created, tips, governance)


async def read_block_hash(endpoint: Endpoint, number: int) -> bytes | None:
    """The hash of a block; None if the node has none of that number."""
    found = await endpoint.request("eth_getBlockByNumber", hex(number), False)
    return None if found is None else Fields("eth_getBlockByNumber", found).data("hash")


async def _find_log(endpoint: Endpoint, contract: Address, block: int, abi: ContractAbi, event: str) -> Fields | None:
    asked = {"address": contract, "topics": ["0x" + abi.topics[event].hex()], "fromBlock": hex(block), "toBlock": hex(block)}
    found = await endpoint.request("eth_getLogs", asked)
    if not isinstance(found, list) or not found:
        return None
    log = Fields("eth_getLogs", found[0])
    return log if log.data("address") == bytes.fromhex(contract[2:]) else None


class SessionReader:
    """Follows one session. Not for two callers at once."""

    def __init__(self, endpoint: Endpoint, session: Address, facts: SessionFacts, chain_id: int) -> None:
        self._endpoint, self._session, self._facts, self._chain_id = endpoint, session, facts, chain_id
        self._poids: dict[Address, PoidRecord] = {}
        self._scan = _Scan(facts.created_block - 1)
        self._rows: list[tuple[Any, ...]] = []
        self._view: ChainView | None = None
        self._beacon: bytes | None = None

    async def read(self, confirmations: int) -> ChainView:
        """The session at the newest block that has so many confirmations, its own included.

        A node that is behind what was read already is not followed back. Raises: ChainAnswerError.
        """
        asked: list[tuple[str, tuple[object, ...]]] = [("eth_getBlockByNumber", ("latest", False))]
        if self._scan.block_hash:
            asked.append(("eth_getBlockByNumber", (hex(self._scan.block), False)))
        found = await self._endpoint.batch(asked)
        newest = Fields("eth_getBlockByNumber", found[0])
        number = max(newest.number("number") - confirmations + 1, self._facts.created_block)
        if self._scan.block_hash and (found[1] is None or Fields("eth_getBlockByNumber", found[1]).data("hash") == self._scan.block_hash):
            if self._view is not None and number <= self._scan.block:
                return self._view
        elif self._scan.block_hash:
            self._forget()
        header = newest if newest.number("number") == number else None
        self._view = replace(await self._read_block(number, header), newest_s=newest.time("timestamp"))
        return self._view

    async def read_at(self, number: int) -> ChainView:
        """The session at one block, not older than what was read before. Raises: ChainAnswerError."""
        if self._scan.block_hash and await read_block_hash(self._endpoint, self._scan.block) != self._scan.block_hash:
            self._forget()
        if self._view is not None and number == self._scan.block:
            return self._view
        return await self._read_block(number, None)

    def _forget(self) -> None:
        """The chain was reorganised: everything is read again, also where the proofs of identity stand."""
        self._scan, self._rows, self._poids, self._view = _Scan(self._facts.created_block - 1), [], {}, None
        self._beacon = None

    async def _read_block(self, number: int, header: Fields | None) -> ChainView:
        if header is None:
            header = Fields("eth_getBlockByNumber", await self._endpoint.request("eth_getBlockByNumber", hex(number), False))
        scan = replace(
            self._scan,
            members=list(self._scan.members),
            claims=dict(self._scan.claims),
            ballots=set(self._scan.ballots),
            nays=Counter(self._scan.nays),
            paid=dict(self._scan.paid),
        )
        await self._follow_events(scan, number)
        scan.block, scan.block_hash = number, header.data("hash")
        judged = await self._judge_poids(scan.members, number)
        view = await self._build_view(scan, number, header.time("timestamp"), judged)
        self._view, self._scan = view, scan
        return view

    # --- events -------------------------------------------------------------------------------------------------

    async def _follow_events(self, scan: _Scan, last: int) -> None:
        await read_logs(self._endpoint, self._session, (scan.block + 1, last), partial(self._apply, scan))

    def _apply(self, scan: _Scan, log: Fields) -> None:
        decoded = session_abi().decode_log(read_topics(log), log.data("data"))
        if decoded is None:
            return
        event, values = decoded
        index = values.get("index", 0)
        if event == "Joined":
            joined = log.number("blockNumber"), log.number("transactionIndex")
            scan.members.append(_Seat(checksum(values["wallet"]), checksum(values["poid"]), joined))
        elif "index" in values and index >= len(scan.members):
            raise ChainAnswerError("eth_getLogs", f"it names member {index} of {len(scan.members)}")
        elif event == "Left":
            last = scan.members.pop()
            if index < len(scan.members):
                scan.members[index] = last
        elif event == "Claimed":
            scan.claims[index] = Claim(index=index, points=values["points"], evidence=values["evidence"])
        elif event == "BallotCast":
            scan.ballots.add(index)
            scan.nays.update(_read_marks(values["nay"], len(scan.members)))
        elif event == "BallotsCast":
            voters = _read_marks(values["voters"], len(scan.members))
            scan.ballots.update(voters)
            for nay in _read_marks(values["nay"], len(scan.members)):
                scan.nays[nay] += len(voters)
        elif event == "Paid":
            wallet = checksum(values["member"])
            scan.paid[wallet] = scan.paid.get(wallet, 0) + values["amountWei"]

    # --- proofs of identity -------------------------------------------------------------------------------------

    async def _judge_poids(self, seats: Sequence[_Seat], number: int) -> Mapping[Address, PoidRecord]:
        """The records of all members at block `number`. Only one whose deployment was found is final: what is missing may be there in
        the next block, or on the other machines behind the same address, so it is asked for again."""
        new = sorted({seat.poid for seat in seats} - self._poids.keys())
        found = await self._endpoint.batch([("eth_getCode", (poid, hex(number))) for poid in new])
        codes = {poid: read_bytes("eth_getCode", code) for poid, code in zip(new, found, strict=True)}
        positions = await self._find_creations(codes)
        judged = {}
        for poid, code in codes.items():
            judged[poid] = judge_poid(poid, code, self._chain_id, positions.get(poid))
            await trio.lowlevel.checkpoint()  # A thousand signatures take a while.
        self._poids.update({poid: judged[poid] for poid in positions})
        return self._poids | judged

    async def _find_creations(self, codes: Mapping[Address, bytes]) -> dict[Address, tuple[int, int]]:
        """Block number and transaction index of each deployment that was a transaction of exactly the init code that belongs to the code.

        Such a contract never changes. Other init code could log a creation, destroy itself, and put the proof there after others looked.
        """
        topic = "0x" + poid_abi().topics["PoidCreated"].hex()
        asked: dict[Address, dict[str, object]] = {}
        for poid, code in codes.items():
            block = read_created_block(code)
            if block is not None and block < _BLOCK_MAX:
                asked[poid] = {"address": poid, "topics": [topic], "fromBlock": hex(block), "toBlock": hex(block)}
        found = await self._endpoint.batch([("eth_getLogs", (one,)) for one in asked.values()])
        logs = {poid: Fields("eth_getLogs", log[0]) for poid, log in zip(asked, found, strict=True) if isinstance(log, list) and log}
        digests = ["0x" + log.data("transactionHash").hex() for log in logs.values()]
        sent = await self._endpoint.batch([("eth_getTransactionByHash", (digest,)) for digest in digests])
        positions = {}
        for (poid, log), one in zip(logs.items(), sent, strict=True):
            creation = None if one is None else Fields("eth_getTransactionByHash", one)
            if creation and creation.maybe_data("to") is None and creation.data("input") == encode_own_creation(codes[poid]):
                positions[poid] = log.number("blockNumber"), log.number("transactionIndex")
        return positions

    # --- views --------------------------------------------------------------------------------------------------

    async def _build_view(self, scan: _Scan, number: int, time_s: int, judged: Mapping[Address, PoidRecord]) -> ChainView:
        stage_number, counts = await self._read_summary(number, scan.block_hash)
        stage = STAGES[min(stage_number, len(STAGES) - 1)]
        members, claims, ballots, _tallied, training_ends_s, claiming_ends_s, voting_ends_s, _points = counts
        if (members, claims, ballots) != (len(scan.members), len(scan.claims), len(scan.ballots)):
            raise ChainAnswerError("eth_getLogs", "events are missing: they do not add up to the contract's counters")
        ends_s = (self._facts.terms.funding_ends_s, training_ends_s, claiming_ends_s, voting_ends_s)
        _check_time(stage, time_s, dict(zip(STAGES, ends_s, strict=False)))
        if self._beacon is None and stage in (Stage.CLAIMING, Stage.VOTING):
            self._beacon = await self._find_beacon(number, time_s, compute_beacon_s(self._facts.terms, training_ends_s))
        closed = stage in (Stage.RELEASED, Stage.REFUNDED)
        wallets = [seat.wallet for seat in scan.members]
        if not closed:
            self._rows = []
        elif len(self._rows) != members:
            self._rows = await self._read_rows(wallets, number)  # Once: what changes from now on is who was paid.
        counting = closed or stage in (Stage.VOTING, Stage.SETTLING)
        return ChainView(
            block_number=number,
            time_s=time_s,
            stage=stage,
            members=tuple(_make_member(index, seat, judged[seat.poid]) for index, seat in enumerate(scan.members)),
            claims=tuple(scan.claims[index] for index in sorted(scan.claims)),
            ballots=frozenset(scan.ballots),
            nay_counts={index: scan.nays.get(index, 0) for index in sorted(scan.claims)} if counting else None,
            approved=frozenset(index for index, row in enumerate(self._rows) if row[5]),
            fund_wei=Wei(self._facts.terms.deposit_wei * members),
            paid_wei={wallet: Wei(scan.paid.get(wallet, 0)) for wallet in wallets},
            due_wei=_compute_dues(wallets, self._rows, scan.paid) if closed else None,
            beacon=self._beacon,
            training_ends_s=training_ends_s,
            claiming_ends_s=claiming_ends_s,
            voting_ends_s=voting_ends_s,
        )

    async def _find_beacon(self, number: int, time_s: int, beacon_s: int) -> bytes | None:
        """The hash of the first block of a time from `beacon_s` on, by halving; None if block `number` is before that."""
        if time_s < beacon_s:
            return None
        first, last = self._facts.created_block, number
        while first < last:
            middle = (first + last) // 2
            found = await self._endpoint.request("eth_getBlockByNumber", hex(middle), False)
            if Fields("eth_getBlockByNumber", found).time("timestamp") >= beacon_s:
                last = middle
            else:
                first = middle + 1
        return await read_block_hash(self._endpoint, first)

    async def _read_summary(self, number: int, block_hash: bytes) -> tuple[Any, ...]:
        """The contract's counters at a block, which must still be the block that the events were read up to."""
        message = make_view_call(session_abi(), self._session, "summary")
        asked = [("eth_call", (message, hex(number))), ("eth_getBlockByNumber", (hex(number), False))]
        output, header = await self._endpoint.batch(asked)
        if header is None or Fields("eth_getBlockByNumber", header).data("hash") != block_hash:
            raise ChainAnswerError("eth_getBlockByNumber", f"block {number} was replaced while it was read")
        return session_abi().decode("summary", read_bytes("eth_call", output))

    async def _read_rows(self, wallets: Sequence[Address], number: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for first in range(0, len(wallets), _PAGE):
            asked = wallets[first : first + _PAGE]
            (page,) = await call_view(self._endpoint, session_abi(), self._session, number, "readMembers", asked)
            if len(page) != len(asked):
                raise ChainAnswerError("eth_call", "members are missing")
            rows += page
        return rows
