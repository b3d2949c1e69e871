"""Everything that can happen to a peer, and everything that it can ask for: small frozen values, nothing else.

An effect that needs an answer carries a `number`; its event brings the number back. Models, dataslices and hashlists pass
as CIDs; their bytes stay in the node's block store. Whatever was under way at a kill is asked again after the restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from learnae.ids import Address, Cid, PeerId
from learnae.protocol.calls import Call, ChainView, Signable
from learnae.protocol.measures import Evaluation, Recount, TaskFacts
from learnae.tangle.verdict import Ruling


class Timer(Enum):
    CYCLE = "cycle"  # the next work cycle may begin
    SYNC = "sync"  # exchange have-vectors with some peer


# --- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The node is up. `vertices` and `records` are what its journal kept, `facts` what its learner found (None: votes only).
    The vertices are read once, one after the other, so a long journal need not fit into memory."""

    facts: TaskFacts | None
    addresses: tuple[str, ...] = ()
    vertices: Iterable[bytes] = ()
    records: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    addresses: tuple[str, ...]  # where others can reach this node from now on


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: Timer


@dataclass(frozen=True, slots=True)
class VertexReceived:
    """Gossip brought a vertex; the answer is a `PassVerdict` among the effects."""

    sender: PeerId
    encoded: bytes


@dataclass(frozen=True, slots=True)
class VerticesReceived:
    """Gossip brought several vertices within a moment, each with its sender; only rejections are answered by a `PassVerdict`."""

    page: Sequence[tuple[PeerId, bytes]]


@dataclass(frozen=True, slots=True)
class SyncReceived:
    sender: PeerId
    content: bytes


@dataclass(frozen=True, slots=True)
class PeerConnected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class FileFetched:
    number: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    number: int
    reason: str
    is_away: bool = False  # whoever was to give it, the first provider, could not be reached


@dataclass(frozen=True, slots=True)
class SlicesShared:
    """Own dataslices that the user opened to others are in the block store, and so is their hashlist (4.1)."""

    number: int
    hashlist: Cid
    slices: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class StreamSliceStored:
    """A dataslice that a sensor's stream filled is in the block store (4.2)."""

    dataslice: Cid


@dataclass(frozen=True, slots=True)
class HashlistRead:
    number: int
    slices: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class ModelTrained:
    """The evaluation's reference is the model that training started from."""

    number: int
    model: Cid
    size_bytes: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class ModelsAveraged:
    """`evaluation` is the average's, with the local model as reference; `remote` is the remote model's own."""

    number: int
    model: Cid
    size_bytes: int
    evaluation: Evaluation
    remote: Evaluation


@dataclass(frozen=True, slots=True)
class ModelEvaluated:
    number: int
    size_bytes: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class LearningFailed:
    """`blames_remote`: a stranger's model or slice was not acceptable; otherwise our own worker had trouble."""

    number: int
    reason: str
    blames_remote: bool


@dataclass(frozen=True, slots=True)
class FileLost:
    """The learner's work needs a file that is no longer in the block store, or whose bytes had rotted and were dropped."""

    number: int
    cid: Cid


@dataclass(frozen=True, slots=True)
class ValidationStored:
    """The own validation examples are in the block store, not public; receipts on them have this `total` (docs/audits.md)."""

    number: int
    slice: Cid
    total: int


@dataclass(frozen=True, slots=True)
class ReceiptRecounted:
    number: int
    recount: Recount


@dataclass(frozen=True, slots=True)
class ChainRead:
    """The session's contract as it stands; comes every second or when something changed."""

    view: ChainView


@dataclass(frozen=True, slots=True)
class CallSigned:
    """The wallet's signature of a claim or a ballot, 64 bytes, for others to send."""

    number: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class TransactionConfirmed:
    number: int
    address: Address | None  # of the contract that it deployed
    gas_used: int = 0


@dataclass(frozen=True, slots=True)
class TransactionFailed:
    """`final`: asking again cannot help (too little money, the stage is over). It cost gas if it is in a block but reverted."""

    number: int
    reason: str
    final: bool
    gas_used: int = 0


@dataclass(frozen=True, slots=True)
class StopAsked:
    reason: str


Event = (
    Started | AddressesChanged | TimerFired | VertexReceived | VerticesReceived | SyncReceived | PeerConnected | PeerDisconnected |
    FileFetched | FetchFailed | SlicesShared | StreamSliceStored | HashlistRead | ModelTrained | ModelsAveraged | ModelEvaluated |
    LearningFailed | FileLost | ValidationStored | ReceiptRecounted | ChainRead | CallSigned | TransactionConfirmed | TransactionFailed |
    StopAsked
)  # fmt: skip

# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PassVerdict:
    """What gossip may do with the vertex that was just received."""

    sender: PeerId
    ruling: Ruling


@dataclass(frozen=True, slots=True)
class PublishVertex:
    """Write to the journal, then gossip: in this order, so that a number is never used twice."""

    cid: Cid
    encoded: bytes


@dataclass(frozen=True, slots=True)
class SaveVertices:
    vertices: tuple[tuple[Cid, bytes], ...]


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Write a named record before any effect after it is carried out; None deletes it."""

    name: str
    content: bytes | None


@dataclass(frozen=True, slots=True)
class SendSync:
    peer: PeerId
    content: bytes


@dataclass(frozen=True, slots=True)
class LearnAddresses:
    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchFile:
    number: int
    cid: Cid
    providers: tuple[PeerId, ...]
    bytes_max: int
    public: bool = True  # False: it was opened to this peer alone


@dataclass(frozen=True, slots=True)
class PinFile:
    cid: Cid


@dataclass(frozen=True, slots=True)
class UnpinFile:
    cid: Cid


@dataclass(frozen=True, slots=True)
class ShareSlices:
    """Store the slices that the user opened to others, and their hashlist."""

    number: int


@dataclass(frozen=True, slots=True)
class ReadHashlist:
    """Read a fetched hashlist of at most `slices_max` CIDs."""

    number: int
    hashlist: Cid
    slices_max: int


@dataclass(frozen=True, slots=True)
class TrainModel:
    number: int
    model: Cid
    private_slices: tuple[int, ...]
    slices: tuple[Cid, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class AverageModels:
    number: int
    local: Cid
    remote: Cid
    remote_share: float


@dataclass(frozen=True, slots=True)
class EvaluateModel:
    number: int
    model: Cid
    reference: Cid | None


@dataclass(frozen=True, slots=True)
class StoreValidation:
    """Store the own validation examples for audits, not public. `salt` (16 bytes) keeps their CID from confirming a guess."""

    number: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Give a file that is not public to these peers, when they ask for it; to more peers when it comes again."""

    cid: Cid
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecountReceipt:
    """Repeat the measurement of a receipt: all four files were fetched."""

    number: int
    before: Cid
    after: Cid
    remote: Cid
    validation: Cid


@dataclass(frozen=True, slots=True)
class SignCall:
    """Ask the wallet, whose key never leaves the chain's backend, to sign a claim or a ballot for others to send."""

    number: int
    call: Signable


@dataclass(frozen=True, slots=True)
class SubmitTransaction:
    number: int
    call: Call


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Ask for `TimerFired` at that time; a timer that is set again moves."""

    timer: Timer
    at_s: float


class Topic(Enum):
    """What a line of progress is about."""

    SESSION = "session"
    TRAINING = "training"
    HELP = "help"
    DAO = "dao"
    SENSORS = "sensors"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Tell:
    """Progress for people: one sentence, and the plain values behind it for a live view or a report."""

    topic: Topic
    text: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over for this peer; `fault` is empty if it went well."""

    fault: str = ""


Effect = (
    PassVerdict | PublishVertex | SaveVertices | SaveRecord | SendSync | LearnAddresses | FetchFile | PinFile | UnpinFile | ShareSlices
    | ReadHashlist | TrainModel | AverageModels | EvaluateModel | StoreValidation | OpenFile | RecountReceipt | SignCall
    | SubmitTransaction | SetTimer | Tell | Finish
)  # fmt: skip
