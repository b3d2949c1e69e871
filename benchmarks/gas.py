"""Gas of a whole session with 10 % false claims, per member: a transaction per vote, direct ballots, grouped ballots; and how long
1,000 members take on anvil and on the embedded chain.

Honest members reject the false claims; those who made one cast an empty ballot, and in one case each a ballot of its own. The
false claims are rejected and everybody is paid in every case, else the benchmark fails. All gas is counted, whoever pays it, but for
the deployment, which has its own line. Needs Node for anvil and for the compiler of the naive contract.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import Result
from benchmarks._beds import CHAIN_ID, TRANSACTION_GAS_MAX, Bed, EmbeddedBed, Sent, open_anvil
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import ContractAbi, pack_nays, session_abi
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.backends.ethereum.signed_calls import encode_group, sign_call
from learnae.contracts import parse_artefact
from learnae.contracts.build import compile_sources, prepare_compiler
from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, CastGrouped, ClaimBatch, SessionTerms, SignedBallot, SignedClaim, SubmitClaim
from learnae.protocol.relay import BALLOTS_PER_GROUP_MAX, CLAIMS_PER_GROUP_MAX

MEMBERS = (10, 100, 1000)
MEMBERS_MAX = 4095
FALSE_EACH = 10  # every tenth claim is false
PAID_PER_GROUP = 500
SAMPLED_CLAIMS = 10  # of the naive way, one of them false: a million votes differ in nothing but their claim
DEPOSIT = Wei(10**15)
STAGE_S = 1_000_000
POINTS = 10
EVIDENCE = b"\x05" * 32


@dataclass(slots=True)
class Played:
    """What a session took."""

    members: int
    deployment: int = 0
    gas: int = 0
    largest: int = 0
    own: int = 0  # transactions of the member that sent most of its own
    parts: dict[str, int] = field(default_factory=dict)

    def note(self, part: str, used: Sequence[int], times: int = 1) -> None:
        """Transactions of one part; `times` if only a sample of them was sent."""
        self.parts[part] = self.parts.get(part, 0) + sum(used) * times
        self.gas += sum(used) * times
        self.largest = max(self.largest, *used)


@dataclass(slots=True)
class Session:
    """Members on one chain, and what they do."""

    bed: Bed
    wallets: list[WalletKey]
    relayer: WalletKey
    played: Played
    contract: Address = field(default=Address(""))

    @property
    def false(self) -> tuple[int, ...]:
        return tuple(range(FALSE_EACH - 1, len(self.wallets), FALSE_EACH))

    def ballot_of(self, index: int, *, own_ballots: bool) -> tuple[int, ...]:
        if index % FALSE_EACH != FALSE_EACH - 1:
            return self.false
        return tuple(other for other in self.false if other != index) if own_ballots else ()

    def send(self, part: str, transactions: Sequence[Sent]) -> None:
        self.played.note(part, [mined.gas for mined in self.bed.send(transactions)])

    def open(self) -> None:
        """Deploy the contract; everybody joins; the members claim next."""
        now_s = self.bed.now_s()
        terms = SessionTerms(
            rules_digest=b"\x11" * 32,
            deposit_wei=DEPOSIT,
            members_min=1,
            members_max=MEMBERS_MAX,
            funding_ends_s=now_s + STAGE_S,
            training_ends_s=now_s + 2 * STAGE_S,
            claiming_ends_s=now_s + 3 * STAGE_S,
            voting_ends_s=now_s + 4 * STAGE_S,
            reject_quorum_permille=200,
        )
        (mined,) = self.bed.send([Sent(self.relayer, None, encode_session_creation(terms))])
        assert mined.contract is not None
        self.contract, self.played.deployment = mined.contract, mined.gas
        call = session_abi().encode("join", self.contract)
        self.send("join", [Sent(wallet, self.contract, call, DEPOSIT, gas=150_000) for wallet in self.wallets])
        self.wallets = self._order_by_index()
        self.bed.travel(terms.training_ends_s)

    def _order_by_index(self) -> list[WalletKey]:
        """A chain takes what is sent at the same time in any order."""
        abi, indices = session_abi(), dict[int, WalletKey]()
        for start in range(0, len(self.wallets), PAID_PER_GROUP):
            chosen = self.wallets[start : start + PAID_PER_GROUP]
            call = abi.encode("readMembers", [key.address for key in chosen])
            (rows,) = abi.decode("readMembers", self.bed.view(self.contract, call))
            indices |= {row[-1]: key for row, key in zip(rows, chosen, strict=True)}
        return [indices[index] for index in range(len(self.wallets))]

    def start_votes(self) -> None:
        self.bed.travel(self.bed.now_s() + STAGE_S)

    def claim_directly(self) -> None:
        call = session_abi().encode("claim", 10, EVIDENCE)
        self.send("claim", [Sent(wallet, self.contract, call, gas=150_000) for wallet in self.wallets])

    def claim_in_groups(self) -> None:
        claim = SubmitClaim(points=POINTS, evidence=EVIDENCE)
        for start in range(0, len(self.wallets), CLAIMS_PER_GROUP_MAX):
            group = ClaimBatch(
                tuple(
                    SignedClaim(key.address, claim.points, claim.evidence, self._sign(key, claim))
                    for key in self.wallets[start : start + CLAIMS_PER_GROUP_MAX]
                )
            )
            self._relay("claim", group)

    def vote_directly(self, indices: Sequence[int]) -> None:
        ballots = [(self.wallets[index], self.ballot_of(index, own_ballots=False)) for index in indices]
        abi = session_abi()
        self.send("vote", [Sent(key, self.contract, abi.encode("cast", pack_nays(nays)), gas=4_000_000) for key, nays in ballots])

    def vote_in_groups(self, indices: Sequence[int], *, own_ballots: bool = False) -> None:
        groups: dict[tuple[int, ...], list[WalletKey]] = {}
        for index in indices:
            groups.setdefault(self.ballot_of(index, own_ballots=own_ballots), []).append(self.wallets[index])
        for nays, keys in groups.items():
            ballot = CastBallot(nays)
            for start in range(0, len(keys), BALLOTS_PER_GROUP_MAX):
                chosen = keys[start : start + BALLOTS_PER_GROUP_MAX]
                self._relay("vote", CastGrouped(nays, tuple(SignedBallot(key.address, self._sign(key, ballot)) for key in chosen)))

    def settle(self) -> None:
        """The tally, the payout by anybody; and everything was as it must be."""
        abi = session_abi()
        self.bed.travel(self.bed.now_s() + 2 * STAGE_S)
        self.send("tally", [Sent(self.relayer, self.contract, abi.encode("tally", 1 << 16))])
        for start in range(0, len(self.wallets), PAID_PER_GROUP):
            members = [key.address for key in self.wallets[start : start + PAID_PER_GROUP]]
            self.send("release", [Sent(self.relayer, self.contract, abi.encode("releaseBatch", members))])
        left = self.bed.balance(self.contract)
        (_, counts) = abi.decode("summary", self.bed.view(self.contract, abi.encode("summary")))
        honest = len(self.wallets) - len(self.false)
        if not 0 <= left < len(self.wallets) or counts[-1] != honest * POINTS or counts[2] != len(self.wallets):
            raise RuntimeError(f"the session kept {left} wei, counted {counts[2]} ballots and approved {counts[-1]} points")

    def _sign(self, key: WalletKey, call: SubmitClaim | CastBallot) -> bytes:
        return sign_call(key, chain_id=CHAIN_ID, session=self.contract, call=call)

    def _relay(self, part: str, group: ClaimBatch | CastGrouped) -> None:
        _, call = encode_group(group, chain_id=CHAIN_ID, session=self.contract)
        self.send(part, [Sent(self.relayer, self.contract, call)])


def play_direct(session: Session) -> None:
    """Each member claims and votes with a transaction of its own."""
    session.played.own = 3
    session.open()
    session.claim_directly()
    session.start_votes()
    session.vote_directly(range(len(session.wallets)))
    session.settle()


def play_grouped(session: Session) -> None:
    """Each member joins; what it signs is relayed."""
    session.played.own = 1
    session.open()
    session.claim_in_groups()
    session.start_votes()
    session.vote_in_groups(range(len(session.wallets)))
    session.settle()


def play_own_ballots(session: Session) -> None:
    """Grouped, but whoever made a false claim casts a ballot that nobody else casts."""
    session.played.own = 1
    session.open()
    session.claim_in_groups()
    session.start_votes()
    session.vote_in_groups(range(len(session.wallets)), own_ballots=True)
    session.settle()


def play_mixed(session: Session) -> None:
    """Grouped, but the first claim and the last ballots are sent directly: every kind of transaction, to find the largest."""
    session.played.own = 2
    session.open()
    session.claim_in_groups()
    session.start_votes()
    last = len(session.wallets) - 20
    session.vote_in_groups(range(last))
    session.vote_directly(range(last, len(session.wallets)))
    session.settle()


def play_naive(session: Session) -> None:
    """A transaction per vote: join, claim, a vote on each other claim, withdraw."""
    abi, bed, played, wallets = compile_naive(), session.bed, session.played, session.wallets
    (mined,) = bed.send([Sent(session.relayer, None, abi.encode_creation())])
    assert mined.contract is not None
    contract, played.deployment = mined.contract, mined.gas
    join, claim, withdraw = abi.encode("join"), abi.encode("claim", 10), abi.encode("withdraw")
    session.send("join", [Sent(key, contract, join, DEPOSIT, gas=200_000) for key in wallets])
    session.send("claim", [Sent(key, contract, claim, gas=200_000) for key in wallets])
    count = len(wallets)
    sampled = range(min(count, SAMPLED_CLAIMS))
    for index in sampled:
        call = abi.encode("vote", wallets[index].address, index in session.false)
        votes = bed.send([Sent(key, contract, call, gas=200_000) for key in wallets if key is not wallets[index]])
        played.note("vote", [mined.gas for mined in votes], times=count // len(sampled))
    for start in range(0, count, 500):
        session.send("tally", [Sent(session.relayer, contract, abi.encode("settle", start, min(500, count - start)))])
    session.send("release", [Sent(key, contract, withdraw, gas=200_000) for key in wallets])
    played.own = count + 2


def compile_naive() -> ContractAbi:
    folder = Path.cwd() / "build" / "contracts"
    prepare_compiler(folder)
    source = Path(__file__).with_name("naive.sol").read_text(encoding="utf-8")
    return ContractAbi(parse_artefact(compile_sources({"naive.sol": source}, {"NaiveVotes": "naive.sol"}, folder)["NaiveVotes"]))


def play(bed: Bed, members: int, way: Callable[[Session], None]) -> Played:
    """One session on a fresh chain. Its wallets have money and their keys before it begins."""
    keys = [WalletKey(hashlib.sha256(f"member {index}".encode()).digest()) for index in range(members + 1)]
    bed.give_money([key.address for key in keys])
    session = Session(bed, keys[:-1], keys[-1], Played(members))
    way(session)
    if session.played.largest >= TRANSACTION_GAS_MAX:
        raise RuntimeError(f"a transaction took {session.played.largest} gas; blocks take at most {TRANSACTION_GAS_MAX} for one")
    return session.played


def play_on_anvil(members: int, way: Callable[[Session], None]) -> Played:
    with open_anvil() as bed:
        return play(bed, members, way)


def run() -> list[Result]:
    results: list[Result] = []
    ways = (("naive votes", play_naive), ("direct ballots", play_direct), ("grouped ballots", play_grouped))
    for members in MEMBERS:
        played = {name: play_on_anvil(members, way) for name, way in ways}
        for name, one in played.items():
            results += report(f"{members} members, {name}", one, played["direct ballots"])
    results += report("1000 members, grouped, each liar its own ballot", play_on_anvil(1000, play_own_ballots))
    results += report(f"{MEMBERS_MAX} members, grouped, 20 ballots direct", play_on_anvil(MEMBERS_MAX, play_mixed))
    with open_anvil() as anvil:
        results.append(Result(case="1000 members, whole session on anvil", value=time_session(anvil), unit="s"))
    results.append(Result(case="1000 members, whole session on the embedded chain", value=time_session(EmbeddedBed()), unit="s"))
    return results


def report(case: str, played: Played, reference: Played | None = None) -> list[Result]:
    """The figures of one session, the gas of each part among them."""
    members = played.members
    known = {"reference": "direct ballots", "reference_value": reference.gas / members / 1000} if reference else {}
    return [
        Result(case=f"{case}: gas a member", value=played.gas / members / 1000, unit="thousand", **known),  # type: ignore[arg-type]
        Result(case=f"{case}: own transactions a member", value=played.own, unit=""),
        Result(case=f"{case}: largest transaction", value=played.largest / 1e6, unit="million"),
        Result(case=f"{case}: total", value=(played.gas + played.deployment) / 1e6, unit="million"),
        *(Result(case=f"{case}: {part}, a member", value=gas / members / 1000, unit="thousand") for part, gas in played.parts.items()),
    ]


def time_session(bed: Bed) -> float:
    began_s = time.perf_counter()
    play(bed, 1000, play_grouped)
    return time.perf_counter() - began_s
