"""Carrying out the effects that take time and have an answer: fetching, learning, sharing slices, transactions.

Each function does one effect against the ports and returns the event that answers it. Errors of the outside world become
the event that says so; errors that no retry helps (the user's own task) go up and end the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from learnae.errors import (
    ChainAnswerError,
    DiskFullError,
    FetchError,
    LearnerDiedError,
    ModelRejectedError,
    NotEnoughMoneyError,
    SliceRejectedError,
    TrainingDivergedError,
    TransactionError,
    ValidationSizeError,
)
from learnae.ids import CID_BYTES, Address, Cid, Content, Pieces
from learnae.ports import BlockStore, Chain, FileLostError, Learner, Network
from learnae.protocol import events as ev
from learnae.protocol.audits import VALIDATION_BYTES_MAX
from learnae.protocol.sharing import SLICE_HEADER_BYTES, decode_hashlist, encode_hashlist

FETCH_S_MIN: Final = 20.0  # Time given to a fetch, and more for large files:
FETCH_BYTES_S: Final = 100_000  # a line slower than this is of no use to a session.
CHAIN_RETRY_S: Final = 5.0  # After answers of no use from the chain; the backend itself asked for minutes by then.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The ports that answers are made with."""

    network: Network
    blocks: BlockStore
    chain: Chain
    learner: Learner | None
    session: Address
    model_bytes_max: int
    slice_bytes: int
    initial_model: Cid | None = None  # what compressed models descend from; None: models travel raw
    on_trouble: Callable[[str], None] = lambda sentence: None


async def fetch(tools: Tools, effect: ev.FetchFile) -> ev.Event:
    """Bring a file into the block store."""
    if tools.blocks.has_file(effect.cid):
        return ev.FileFetched(effect.number)
    with trio.move_on_after(FETCH_S_MIN + effect.bytes_max / FETCH_BYTES_S) as scope:
        try:
            await tools.network.fetch_file(effect.cid, providers=effect.providers, bytes_max=effect.bytes_max, public=effect.public)
        except FetchError as error:
            return ev.FetchFailed(effect.number, str(error), is_away=_is_away(tools, effect))
        except DiskFullError as error:
            return ev.FetchFailed(effect.number, str(error))
    if scope.cancelled_caught:
        return ev.FetchFailed(effect.number, "it took too long", is_away=_is_away(tools, effect))
    return ev.FileFetched(effect.number)


def _is_away(tools: Tools, effect: ev.FetchFile) -> bool:
    """Whether who announced the file could not be reached: a fetch leaves a connection behind where it could have one."""
    return bool(effect.providers) and effect.providers[0] not in tools.network.connected()


async def learn(tools: Tools, effect: ev.TrainModel | ev.AverageModels | ev.EvaluateModel | ev.RecountReceipt) -> ev.Event:
    """Train, average, evaluate or recount in the worker, and store what came out."""
    assert tools.learner is not None
    try:
        if tools.initial_model is not None and not tools.learner.has_initial:
            await tools.learner.set_initial(await _load(tools, tools.initial_model))
        match effect:
            case ev.TrainModel():
                return await _train(tools, tools.learner, effect)
            case ev.AverageModels():
                return await _average(tools, tools.learner, effect)
            case ev.EvaluateModel():
                return await _evaluate(tools, tools.learner, effect)
            case ev.RecountReceipt():
                return await _recount(tools, tools.learner, effect)
    except (ModelRejectedError, SliceRejectedError) as error:
        return ev.LearningFailed(effect.number, str(error), blames_remote=True)
    except (TrainingDivergedError, LearnerDiedError, DiskFullError) as error:
        return ev.LearningFailed(effect.number, str(error), blames_remote=False)
    except FileLostError as error:
        return ev.FileLost(effect.number, error.cid)


async def share(tools: Tools, effect: ev.ShareSlices, count: int) -> ev.Event:
    """Store the slices that the user opened, and their list; pinned, because others rely on them."""
    assert tools.learner is not None
    slices = []
    for index in range(count):
        slices.append(await _store(tools, await tools.learner.read_shared_slice(index)))
        tools.blocks.pin(slices[-1])
    hashlist = await _store(tools, encode_hashlist(slices))
    tools.blocks.pin(hashlist)
    return ev.SlicesShared(effect.number, hashlist, tuple(slices))


async def store_validation(tools: Tools, effect: ev.StoreValidation) -> ev.Event:
    """Store the own validation examples for audits; pinned, and not public."""
    assert tools.learner is not None
    content, total = await tools.learner.read_validation(effect.salt)
    if len(content) > VALIDATION_BYTES_MAX:
        return ev.LearningFailed(effect.number, str(ValidationSizeError(len(content), VALIDATION_BYTES_MAX)), blames_remote=False)

    def store() -> Cid:
        cid = tools.blocks.put_file(content, public=False)
        tools.blocks.pin(cid)
        return cid

    return ev.ValidationStored(effect.number, await trio.to_thread.run_sync(store), total)


async def read_hashlist(tools: Tools, effect: ev.ReadHashlist) -> ev.Event:
    """Read a fetched list; one that is not a list of CIDs is an empty list."""
    content = tools.blocks.get_file(effect.hashlist, bytes_max=effect.slices_max * CID_BYTES)
    await trio.lowlevel.checkpoint()
    return ev.HashlistRead(effect.number, decode_hashlist(content or b"", slices_max=effect.slices_max) or ())


async def sign(tools: Tools, effect: ev.SignCall) -> ev.Event:
    """Let the wallet sign a claim or a ballot for others to send."""
    return ev.CallSigned(effect.number, await tools.chain.sign(tools.session, effect.call))


async def submit(tools: Tools, effect: ev.SubmitTransaction) -> ev.Event:
    """Send a transaction and wait for its block, however long the chain gives answers of no use."""
    while True:
        try:
            receipt = await tools.chain.submit(tools.session, effect.call)
        except TransactionError as error:
            final = isinstance(error, NotEnoughMoneyError)
            return ev.TransactionFailed(effect.number, str(error), final=final, gas_used=error.gas_used)
        except ChainAnswerError as error:
            tools.on_trouble(f"{error}; asking for the same again")
            await trio.sleep(CHAIN_RETRY_S)  # The chain knows what it has under way: the same call is not paid twice.
        else:
            break
    return ev.TransactionConfirmed(effect.number, receipt.address, receipt.gas_used)


async def _train(tools: Tools, learner: Learner, effect: ev.TrainModel) -> ev.Event:
    model = await _load(tools, effect.model)
    slices = [await _load(tools, cid, bytes_max=tools.slice_bytes + SLICE_HEADER_BYTES) for cid in effect.slices]
    trained, evaluation = await learner.train(model, private_slices=effect.private_slices, slices=slices, seed=effect.seed)
    return ev.ModelTrained(effect.number, await _store(tools, trained), len(trained), evaluation)


async def _average(tools: Tools, learner: Learner, effect: ev.AverageModels) -> ev.Event:
    local, remote = await _load(tools, effect.local), await _load(tools, effect.remote)
    average, evaluation, theirs = await learner.average(local, remote, remote_share=effect.remote_share)
    return ev.ModelsAveraged(effect.number, await _store(tools, average), len(average), evaluation, theirs)


async def _evaluate(tools: Tools, learner: Learner, effect: ev.EvaluateModel) -> ev.Event:
    model = await _load(tools, effect.model)
    reference = None if effect.reference is None else await _load(tools, effect.reference)
    return ev.ModelEvaluated(effect.number, len(model), await learner.evaluate(model, reference=reference))


async def _recount(tools: Tools, learner: Learner, effect: ev.RecountReceipt) -> ev.Event:
    before, after, remote = [await _load(tools, cid) for cid in (effect.before, effect.after, effect.remote)]
    validation = await _load(tools, effect.validation, bytes_max=VALIDATION_BYTES_MAX)
    return ev.ReceiptRecounted(effect.number, await learner.recount(before, after, remote, validation))


async def _load(tools: Tools, cid: Cid, *, bytes_max: int = 0) -> Pieces:
    """A file, to be read when it is used. Raises: FileLostError: its begin is not here; while it is read: some of it is not."""
    limit = bytes_max or tools.model_bytes_max

    def view() -> Pieces | None:
        return tools.blocks.view_file(cid, bytes_max=limit)

    content = await trio.to_thread.run_sync(view)
    if content is None:
        raise FileLostError(cid)
    return content


async def _store(tools: Tools, content: Content) -> Cid:
    return await trio.to_thread.run_sync(tools.blocks.put_file, content)
