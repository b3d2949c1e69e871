"""Everything that can go wrong for a caller or a machine, as one family of exceptions.

A `LearnaeError` is the caller's or the machine's fault and its text is shown to the user as it is: it says what was
got, what was expected and what to do next. Bytes from the network never raise one: they get a verdict (`Verdict`).
Our own bugs are `AssertionError`s.
"""

from __future__ import annotations


class LearnaeError(Exception):
    """Base of all errors that a user may read; `exit_code` is what the command ends with."""

    exit_code = 1


# --- session rules and tickets ----------------------------------------------------------------------------------


class RulesError(LearnaeError):
    """A rules document, or a value that somebody wants to put into one, is not acceptable."""

    def __init__(self, why: str) -> None:
        super().__init__(f"these session rules cannot be used: {why}")


class TicketError(LearnaeError):
    """A ticket cannot be read."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this is not a valid ticket: {why}; ask the one who invited you to send it again")


class ForeignRulesError(LearnaeError):
    """The contract of a ticket holds other rules than the ticket."""

    def __init__(self, what: str, ticket: object, contract: object) -> None:
        super().__init__(
            f"the ticket's rules do not match its contract: {what} is {ticket} in the ticket and {contract} in the contract; "
            "do not deposit, and ask the one who invited you for the right ticket"
        )


# --- chain, contracts, keys ---------------------------------------------------------------------------------------


class ContractBuildError(LearnaeError):
    """The contracts cannot be compiled here."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the contracts cannot be built: {why}")


class ChainError(LearnaeError):
    """Base of what the Ethereum side can answer."""


class NotASessionError(ChainError):
    """An address does not hold a session that this program knows."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address} is not a session contract: {why}; check the ticket, the chain and --rpc, and do not deposit")


class WrongChainError(ChainError):
    """The endpoint serves another chain than the session is on."""

    def __init__(self, got: int, expected: int) -> None:
        super().__init__(f"the endpoint serves chain {got}, but the session is on chain {expected}; give another --rpc")


class ChainUnreachableError(ChainError):
    """An endpoint does not answer; callers that wait retry instead."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the Ethereum endpoint {url} does not answer: {why}; check that it runs and that --rpc is right")


class ChainAnswerError(ChainError):
    """An endpoint answers, but not what Ethereum's JSON-RPC asks for."""

    def __init__(self, method: str, why: str) -> None:
        super().__init__(f"the Ethereum endpoint gave no usable answer to {method}: {why}; try another --rpc")


class TransactionError(ChainError):
    """A transaction was refused or reverted; `reason` is the contract's error name, or empty. `gas_used`: what it cost all the same."""

    def __init__(self, what: str, why: str, reason: str = "", gas_used: int = 0) -> None:
        super().__init__(f"{what} was refused: {why}")
        self.reason, self.gas_used = reason, gas_used


class NotEnoughMoneyError(TransactionError):
    """The wallet cannot pay for a call."""

    def __init__(self, what: str, wallet: str, got_wei: int, needed_wei: int) -> None:
        super().__init__(
            what,
            f"wallet {wallet} holds {got_wei / 10**18:.6f} ETH and {needed_wei / 10**18:.6f} ETH are needed with the fee; "
            "send it some and try again",
        )
        self.got_wei, self.needed_wei = got_wei, needed_wei


class EndpointsDisagreeError(TransactionError):
    """Two endpoints show different chains; nothing is sent while they do."""

    def __init__(self, first: str, second: str, block: int, what: str) -> None:
        super().__init__(
            "sending a transaction",
            f"the endpoints {first} and {second} disagree about block {block} ({what}); nothing was sent; "
            "look the block up in an explorer and give the --rpc that is right, or wait if a node is catching up",
            "EndpointsDisagree",
        )


class ChainServerError(LearnaeError):
    """The embedded chain cannot be served."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the embedded chain cannot start: {why}")


class KeystoreError(LearnaeError):
    """A keystore file cannot be used."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(f"the keystore {path} cannot be used: {why}")


# --- disk -------------------------------------------------------------------------------------------------------


class DiskFullError(LearnaeError):
    """Quota or disk has no room; what was to be written was not, and what was there is unchanged."""

    def __init__(self, what: str, needed_bytes: int, reason: str) -> None:
        super().__init__(f"no room in {what} for {needed_bytes} more bytes: {reason}; free some space or raise the quota, then start again")
        self.needed_bytes = needed_bytes


class FolderInUseError(LearnaeError):
    """A second start on one folder."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"the folder {folder} is in use by another learnae process; stop that one first, or choose another folder")


class JournalDamagedError(LearnaeError):
    """The journal file is not a journal, or cannot be read or written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the journal {path} cannot be used ({reason}); restore it from a backup, or move it away to start as a new peer")


class BlockMismatchError(LearnaeError):
    """A caller named bytes wrongly; nothing was stored."""

    def __init__(self, cid: str, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes were given as block {cid}, but do not hash to it or exceed 262144 bytes; nothing was kept")


# --- network ----------------------------------------------------------------------------------------------------


class ListenError(LearnaeError):
    """The node cannot listen where it was told to."""

    def __init__(self, address: str, *, is_taken: bool, reason: str = "") -> None:
        if is_taken:
            reason = "the port is in use; stop the program that uses it, or choose another port (0: any free one)"
        else:
            reason = f"{reason}; choose an address of this machine and a port that you may open"
        super().__init__(f"cannot listen on {address}: {reason}")


class BadAddressError(LearnaeError):
    """An address from the user is no multiaddr that this node can use."""

    def __init__(self, address: str, expected: str) -> None:
        super().__init__(f"{address!r} is not an address that can be used here; expected {expected}")


class UnreachableError(LearnaeError):
    """A peer did not answer at its address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no peer answered at {address}: {reason}; check that it runs and that its port is open, or use another address")


class FetchError(LearnaeError):
    """No provider gave the file; blocks that did arrive are kept for the next try."""

    def __init__(self, cid: str, reason: str) -> None:
        super().__init__(f"could not fetch {cid}: {reason}")
        self.reason = reason


# --- simulator --------------------------------------------------------------------------------------------------


class UnknownScenarioError(LearnaeError):
    """No simulated scenario has that name."""

    exit_code = 2

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no scenario {name!r}; choose one of {', '.join(known)}")
        self.name, self.known = name, known


# --- learning ---------------------------------------------------------------------------------------------------


class LearningError(LearnaeError):
    """Base of what a learner can answer. Its text is all that it holds, so it can cross from the worker process as text."""

    @classmethod
    def from_text(cls, text: str) -> LearningError:
        """The same error again, on this side of the process border."""
        error = cls.__new__(cls)
        Exception.__init__(error, text)
        return error


class TaskError(LearningError):
    """A task file is wrong or fails."""

    def __init__(self, task: object, why: str) -> None:
        super().__init__(f"the task {task} cannot be used: {why}")


class TaskDataError(LearningError):
    """The user's data do not fit the task."""

    def __init__(self, source: object, why: str) -> None:
        super().__init__(f"the data {str(source)!r} do not fit the task: {why}")


class DeviceError(LearningError):
    """The device that the user asked for is not there."""

    def __init__(self, device: str, why: str) -> None:
        super().__init__(f"cannot train on device {device!r}: {why}; choose cpu, cuda, or auto")


class TrainingDivergedError(LearningError):
    """Own training gave a model with NaN or infinity in it; the model before it is unchanged."""

    def __init__(self, name: str, learning_rate: float) -> None:
        super().__init__(
            f"training diverged: parameter {name!r} became NaN or infinite at LEARNING_RATE {learning_rate:g}; "
            "the model from before is kept; lower LEARNING_RATE in the task if it happens again"
        )


class ValidationSizeError(LearningError):
    """The own validation examples are too many to be opened to auditors."""

    def __init__(self, found_bytes: int, bytes_max: int) -> None:
        super().__init__(
            f"the validation examples have {found_bytes} bytes, at most {bytes_max} can be audited; this peer's receipts will not count; "
            "lower VALIDATION_SHARE in the task"
        )


class ModelRejectedError(LearningError):
    """The bytes of a model are not a model of this session. Nothing was allocated or changed."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this model cannot be used: {why}")


class ModelMismatchError(ModelRejectedError):
    """A remote model cannot be averaged with the local one."""

    def __init__(self, name: str, local: object, remote: object | None) -> None:
        found = "lacks it" if remote is None else f"has {remote}"
        Exception.__init__(self, f"cannot average parameter {name!r}: local has {local}, remote {found}; the architectures differ")


class SliceRejectedError(LearningError):
    """The bytes of a stranger's dataslice are not data of this task. Nothing was trained."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this dataslice cannot be used: {why}")


class LearnerDiedError(LearningError):
    """The worker process ended in the middle of its work; the next request starts a new one."""

    def __init__(self, ended: str, last_words: str) -> None:
        super().__init__(f"the learning worker {ended}; a new one starts with the next request; its last words: {last_words or '(none)'}")


class InvariantBrokenError(LearnaeError):
    """A promise did not hold in a simulated run: our bug, with the command that repeats it."""

    def __init__(self, what: str, command: str) -> None:
        super().__init__(f"broken promise: {what}; repeat it with: {command}")
        self.what, self.command = what, command

    def __reduce__(self) -> tuple[type[InvariantBrokenError], tuple[str, str]]:
        """The same error again in another process of the same run."""
        return type(self), (self.what, self.command)


# --- command line -----------------------------------------------------------------------------------------------


class FolderError(LearnaeError):
    """A node's folder cannot be used."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(f"the folder {folder} cannot be used: {why}")
        self.folder = folder


class UsageError(LearnaeError):
    """Arguments of a command that do not fit together."""

    exit_code = 2


class ForeignTaskError(LearnaeError):
    """The user's task file is not the one that the session's rules name."""

    def __init__(self, task: str, got: bytes, expected: bytes) -> None:
        super().__init__(
            f"the task {task} is not this session's: its SHA-256 begins with {got.hex()[:16]}, the rules say {expected.hex()[:16]}; "
            "ask the one who invited you for the task file, and read it before you run it"
        )


class SessionLostError(LearnaeError):
    """A node ended without having reached the end of its session."""


class MachineError(LearnaeError):
    """The operating system refused something, such as a file, a folder or a port."""

    def __init__(self, error: OSError) -> None:
        where = f" ({error.filename})" if error.filename else ""
        why = (error.strerror or str(error) or type(error).__name__).lower()
        super().__init__(f"this machine says: {why}{where}; nothing was lost, so put that right and start again")


class MissingExtraError(LearnaeError):
    """A part of learnae that was not installed is needed."""

    def __init__(self, module: str) -> None:
        root = module.partition(".")[0]
        extras = {"dask": "cluster", "distributed": "cluster", "paho": "gateway", "cbor2": "gateway"}
        extra = f"learnae[{extras[root]}]" if root in extras else "learnae[demo] to have everything"
        super().__init__(f"the Python package {module!r} is not installed, but this command needs it; install {extra}")


class DemoError(LearnaeError):
    """The demo could not be carried out."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the demo stopped: {why}")
