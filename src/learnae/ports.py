"""What a node needs from the outside world, as Protocols. Every backend passes its port's conformance suite.

Async methods run under trio and may be cancelled at any await. Bytes that come from other peers are checked by the
backend only as far as a docstring says; the rest is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import trio

from learnae.errors import LearnaeError
from learnae.ids import Address, Cid, Content, PeerId, Pieces, Topic, Wei, cid_text
from learnae.protocol.calls import Call, ChainView, SessionTerms, Signable
from learnae.protocol.measures import Evaluation, Recount, TaskFacts
from learnae.tangle.verdict import Verdict


class FileLostError(LearnaeError):
    """A file that was in the block store is not any more, or was damaged."""

    def __init__(self, cid: Cid) -> None:
        super().__init__(f"{cid_text(cid)} is no longer in the block store; it has to be fetched again")
        self.cid = cid


class BlockStore(Protocol):
    """This node's own blocks, named by CID; a *file* is a UnixFS tree with raw leaves of 256 KiB, laid out as Kubo does.

    Synchronous: a call costs one disk access. Conformance: `check_block_store`.
    """

    def put_file(self, content: Content, *, public: bool = True) -> Cid:
        """Store `content` durably and return its root CID: equal to `ipfs add --cid-version=1 --raw-leaves`.

        A file that is not public is kept like any other and never given to the network; putting it again as public opens it.
        Raises: DiskFullError (the quota or the disk is full; nothing was kept).
        """

    def get_file(self, cid: Cid, *, bytes_max: int) -> bytes | None:
        """The whole file, each block verified; None if it is larger, or a block is absent or was corrupt (and so dropped)."""

    def view_file(self, cid: Cid, *, bytes_max: int) -> Pieces | None:
        """The same, read as it is used: no more than a block is in memory at a time."""

    def put_block(self, cid: Cid, block: bytes) -> None:
        """Store one verified block durably. Raises: BlockMismatchError, DiskFullError."""

    def put_blocks(
        self, blocks: Iterable[tuple[Cid, bytes]], *, public: bool = True, hashed: bool = False, synced: bool = True
    ) -> None:
        """Several blocks at the price of one sync; all or none. May be called from a worker thread.

        `hashed`: the caller has compared each block with its CID just now; it is not done again. Not `synced`: they are safe from a kill
        at once, from a power cut when their file is pinned; for what can be fetched again.
        """

    def get_block(self, cid: Cid) -> bytes | None:
        """One block, verified on read; None if absent or corrupt."""

    def get_public_block(self, cid: Cid) -> bytes | None:
        """A block that the network may have; None if absent, corrupt, or not public."""

    def has_public_block(self, cid: Cid) -> bool:
        """Whether a block that the network may have is here, without reading it."""

    def has_block(self, cid: Cid) -> bool:
        """Whether the block is here, without reading it."""

    def has_file(self, cid: Cid) -> bool:
        """Whether every block of the file is here."""

    def pin(self, cid: Cid) -> None:
        """Keep this file through garbage collection, and through a power cut. Pins survive restarts; pinning twice is pinning once."""

    def unpin(self, cid: Cid) -> None: ...

    def hold(self) -> AbstractContextManager[Callable[[Cid], int | None]]:
        """While the `with` runs: a function to call with CIDs. It tells how many bytes that block has, None if it is not here.

        From then on it is not removed to make room, also if it comes later. A fetch calls it for every block of its file: what it found
        here is here when it ends.
        """

    @property
    def used_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Connected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Disconnected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """A message that `sender` sent on `/learnae/sync/1`; at most `DIRECT_BYTES_MAX`; the sender is authenticated."""

    sender: PeerId
    content: bytes


NetworkEvent = Connected | Disconnected | DirectMessage


@dataclass(frozen=True, slots=True)
class Ways:
    """How the connected peers are reached, each counted once, the best way it has.

    `keeps_port`: whether this machine's router shows one port to all, so that holes can be punched; None: it is not known.
    """

    direct: int
    punched: int = 0  # through a hole in two routers
    relayed: int = 0
    keeps_port: bool | None = None


class Network(Protocol):
    """Connections, gossip, direct messages and block exchange of one peer. Conformance: `check_network`."""

    @property
    def peer_id(self) -> PeerId: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs with `/p2p/...` under which others may try to reach this peer."""

    @property
    def extra_addresses(self) -> tuple[str, ...]:
        """More of them, which come and go: a router's port that leads here, relays that pass on to this peer."""

    @property
    def is_reachable(self) -> bool | None:
        """Whether others can dial this peer without a relay, as those say who tried; None: nobody could be asked."""

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        """Bounded: a node that does not read slows its network down, it does not grow."""

    def connected(self) -> frozenset[PeerId]: ...

    def count_ways(self) -> Ways: ...

    def learn_addresses(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Remember where a peer says it can be reached (bounded; malformed ones are ignored)."""

    def keep_places(self, members: frozenset[PeerId]) -> None:
        """These are the session's members: when connections run out, strangers lose theirs first."""

    def blame(self, peer: PeerId, why: str) -> None:
        """A direct message of this peer was not acceptable: it loses score, and is left when it has none."""

    async def connect(self, address: str) -> PeerId:
        """Dial a multiaddr with `/p2p/...`. Raises: BadAddressError; UnreachableError within 10 s."""

    async def subscribe(self, topic: Topic, judge: Callable[[PeerId, bytes], Verdict]) -> None:
        """Join a gossip topic. `judge(sender, content)` decides before a message is forwarded; it must not block.

        REJECT lowers the score of the sender. An accepted message was thereby delivered: there is no other delivery.
        """

    async def publish(self, topic: Topic, content: bytes) -> None:
        """Gossip to the topic. No delivery promise (sync repairs); never raises because nobody listens."""

    async def send(self, peer: PeerId, content: bytes) -> bool:
        """Send one direct message; False if the peer cannot be reached within a few seconds."""

    async def fetch_file(self, cid: Cid, *, providers: Sequence[PeerId], bytes_max: int, public: bool = True) -> None:
        """Bring a file into this node's BlockStore from the providers, each block verified before it is kept.

        Only blocks that were asked for are kept; stops at `bytes_max`; switches provider when one stalls or lies.
        A file that was opened to this peer alone is fetched as not public, so that it goes no further.
        Raises: FetchError (nobody had it, all stalled or lied, or it is larger than `bytes_max`). Cancellable.
        """

    def open_file(self, cid: Cid, peers: Iterable[PeerId]) -> None:
        """Give a file that is not public to these peers; more peers may follow. Forgotten with the node."""


DIRECT_BYTES_MAX = 1 << 20  # A page of 256 vertices of 4 KiB; larger pages are split by the sender.


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A transaction that is in a block. `address` is the deployed contract, if it deployed one."""

    transaction: str
    block_number: int
    gas_used: int
    fee_wei: Wei
    address: Address | None = None


class Chain(Protocol):
    """One wallet's view of one session on an Ethereum chain. Conformance: `check_chain`.

    Methods retry a node that is down until they are cancelled, telling `on_trouble`; they never pay twice.
    Raises (all): ChainError leaves with a sentence for the user.
    """

    @property
    def wallet(self) -> Address: ...

    @property
    def chain_id(self) -> int: ...

    async def read_terms(self, session: Address) -> SessionTerms:
        """Raises: NotASessionError: no code there, or code that is not the shipped Session artefact."""

    async def read(self, session: Address) -> ChainView:
        """The whole session at the newest block. PoIDs are judged (both signatures, runtime code) and carry a fault."""

    async def balance_wei(self, wallet: Address) -> Wei: ...

    async def sign(self, session: Address, call: Signable) -> bytes:
        """This wallet's signature of a claim or a ballot, for others to send: 64 bytes (EIP-712 in the form of EIP-2098). Sends nothing."""

    async def submit(self, session: Address, call: Call) -> Receipt:
        """Send a call as a transaction and wait until it is in a block.

        Of a `ClaimBatch` or `CastGrouped` only what its members really signed is sent, so that nobody's junk costs gas; of a `Release`
        only wallets that are still due something, so that nobody pays for what another member did a moment ago.
        Raises: TransactionError (reverted: the contract's own reason; `NothingSigned`, `NothingDue`: no item of a group holds;
            NotEnoughMoneyError with got and needed).
        """

    async def deploy_session(self, terms: SessionTerms) -> Address: ...


class Learner(Protocol):
    """Trains and measures models in a worker process; model bytes are safetensors. Conformance: `check_learner`.

    Raises (all): TaskError (the user's code or data), LearnerDiedError (the worker ended; a new one is started).
    A stranger's model or slice that is not acceptable raises ModelRejectedError or SliceRejectedError with the reason.
    """

    async def open(self) -> TaskFacts: ...

    async def initial_model(self, seed: int) -> Content: ...

    async def set_initial(self, model: Content | Pieces) -> None:
        """Give it the session's initial model, without which compressed models cannot be read; before any of them."""

    @property
    def has_initial(self) -> bool:
        """Whether it was given the initial model; it remembers it when its worker is started again."""

    async def read_shared_slice(self, index: int) -> Content: ...

    async def evaluate(self, model: Content | Pieces, *, reference: Content | Pieces | None) -> Evaluation: ...

    async def train(
        self, model: Content | Pieces, *, private_slices: Sequence[int], slices: Sequence[Content | Pieces], seed: int
    ) -> tuple[Content, Evaluation]:
        """Train a copy of `model` on all the slices together, shuffled by `seed`; the evaluation's reference is `model`."""

    async def average(
        self, local: Content | Pieces, remote: Content | Pieces, *, remote_share: float
    ) -> tuple[Content, Evaluation, Evaluation]:
        """The session's reduce step on two models (4.1), its evaluation, and that of `remote`; `local` is the reference of both."""

    async def read_validation(self, salt: bytes) -> tuple[Content, int]:
        """The private validation examples as a file for auditors, and the `total` that receipts on them have.

        `salt` (16 bytes) is written into it, so that who only sees its CID cannot confirm a guess. The same salt gives the same bytes.
        """

    async def recount(
        self, before: Content | Pieces, after: Content | Pieces, remote: Content | Pieces, validation: Content | Pieces
    ) -> Recount:
        """Repeat another member's measurement on the validation file that it opened (docs/audits.md)."""

    async def close(self) -> None: ...


class Journal(Protocol):
    """What this node must not forget: every accepted vertex, and small named records. Conformance: `check_journal`.

    Durable before the call returns (SQLite WAL, synchronous FULL). Raises: DiskFullError: nothing was written.
    """

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
        """Write vertices and records in one transaction; a record of None deletes its name. Known vertices are kept once."""

    def vertices(self) -> Iterable[bytes]:
        """All vertices in the order in which they were appended."""

    @property
    def vertices_count(self) -> int: ...

    def read_vertex(self, number: int) -> bytes:
        """One vertex by its place in that order, from 0. Raises: IndexError: there are not so many."""

    def find_vertex(self, cid: Cid) -> tuple[int, bytes] | None:
        """One vertex by its CID, with its place; None if it was never appended."""

    def records(self) -> dict[str, bytes]: ...

    def close(self) -> None: ...


class SensorStore(Protocol):
    """The journal of the sensors lane: as `Journal`, but vertices are read one by one, and may be forgotten."""

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None: ...

    def append_heard(self, vertices: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep what others said: safe from a kill at once, from a power cut after the next `append` or `sync`."""

    def sync(self) -> None:
        """Let all that was kept survive a power cut. Raises: DiskFullError."""

    def vertices(self) -> Iterable[bytes]: ...

    def records(self) -> dict[str, bytes]: ...

    def read(self, cid: Cid) -> bytes | None:
        """The bytes of one vertex; None if it is not here any more."""

    def drop(self, cids: Iterable[Cid]) -> None:
        """Forget vertices; losing this on a kill does no harm."""
