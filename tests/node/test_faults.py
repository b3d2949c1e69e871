"""What a node does when something under it breaks, or somebody on the other side lies."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import trio
from safetensors.numpy import load, save

from learnae.backends.disk_journal import DiskJournal
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_journal import MemoryJournal
from learnae.errors import ChainAnswerError, DiskFullError, TaskDataError
from learnae.ids import Address, Cid, PeerId, Topic, compute_cid
from learnae.learning.immediate import PlainLearner
from learnae.learning.inline import InlineLearner
from learnae.learning.synthetic import SyntheticLearner
from learnae.node import Node, NodeParts, work
from learnae.ports import BlockStore, Chain, Network, Receipt
from learnae.protocol import events as ev
from learnae.protocol.calls import Call, ChainView, Join
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import Departed, parse_message
from tests.learning.tasks import make_config
from tests.node.bed import Bed, run_fast, select_vertices
from tests.processes import HANGS_S

CODEC_DAG_CBOR = 0x71


class WatchedJournal(MemoryJournal):
    """Remembers what was written, and is full after `appends_max` writes."""

    def __init__(self, *, appends_max: int = 1_000_000) -> None:
        super().__init__()
        self.written: set[Cid] = set()
        self.left = appends_max

    def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
        self.left -= 1
        if self.left < 0:
            raise DiskFullError("the journal", 100, "database or disk is full")
        super().append(vertices, records)
        self.written.update(cid for cid, _ in vertices)


class WatchedNetwork:
    """Passes everything on; asserts that what leaves was written before. Direct messages carry vertices too: their number is enough."""

    def __init__(self, network: Network, journal: WatchedJournal) -> None:
        self._network, self._journal = network, journal
        self.published: list[Cid] = []

    async def publish(self, topic: Topic, content: bytes) -> None:
        cid = compute_cid(content, CODEC_DAG_CBOR)
        assert cid in self._journal.written, "on disk before it is published"
        self.published.append(cid)
        await self._network.publish(topic, content)

    def __getattr__(self, name: str) -> object:
        return getattr(self._network, name)


class WatchedChain:
    """Asserts that what a call relies on was written before."""

    def __init__(self, chain: object, journal: WatchedJournal) -> None:
        self._chain, self._journal = chain, journal
        self.calls: list[str] = []

    async def submit(self, session: Address, call: Call) -> Receipt:
        assert self._journal.left >= 0
        self.calls.append(type(call).__name__)
        receipt: Receipt = await self._chain.submit(session, call)  # type: ignore[attr-defined]
        return receipt

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)


def watch(parts: NodeParts, journal: WatchedJournal) -> tuple[NodeParts, WatchedNetwork, WatchedChain]:
    network, chain = WatchedNetwork(parts.network, journal), WatchedChain(parts.chain, journal)
    return replace(parts, journal=journal, network=network, chain=chain), network, chain  # type: ignore[arg-type]


async def run_to_fault(node: Node) -> Exception:
    """The one error that ends a node, out of whatever groups it comes in."""
    try:
        await node.run()
    except* DiskFullError as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            assert len(found.exceptions) == 1, "one sentence for the user"
            found = found.exceptions[0]
    assert isinstance(found, DiskFullError)
    return found


def test_node__writes_before_it_publishes(tmp_path: Path) -> None:
    """Architecture, Persistence: a vertex is on disk before it leaves, over a whole session."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts, network, _ = watch(await bed.parts("ada", learner=SyntheticLearner(0)), WatchedJournal())
            await bed.node(parts).run()
        assert len(network.published) > 10
        await bed.check_settled()

    run_fast(main)


@pytest.mark.parametrize("appends_max", [0, 3, 6, 12, 25])
def test_node__full_journal_ends_it_with_a_sentence_and_nothing_unwritten_gets_out(tmp_path: Path, appends_max: int) -> None:
    """Issue, bad input: a full disk in any stage. The others go on and settle without it."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            journal = WatchedJournal(appends_max=appends_max)
            parts, _, _ = watch(await bed.parts("ada", learner=SyntheticLearner(0)), journal)
            error = await run_to_fault(bed.node(parts))
            assert "no room in the journal" in str(error) and "start again" in str(error)
            heard = select_vertices(bed.machines["ben"].journal.vertices(), issuer=parts.peer.me)
            assert {vertex.cid for vertex in heard} <= journal.written
            assert json.loads((parts.folder / "status.json").read_text())["state"] == "stopped"
        await bed.check_settled()

    run_fast(main)


def test_node__full_journal_while_gossip_is_judged_ends_it_too(tmp_path: Path) -> None:
    """The network survives a fault of its judge; the node must not go on with vertices that it cannot keep."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()

        class FullOfOthers(WatchedJournal):
            def append(self, vertices: Sequence[tuple[Cid, bytes]], records: Iterable[tuple[str, bytes | None]] = ()) -> None:
                if select_vertices((encoded for _, encoded in vertices), issuer=bed.machine("ben").peer_id):
                    self.left = 0
                super().append(vertices, records)

        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts, network, _ = watch(await bed.parts("ada", learner=SyntheticLearner(0)), FullOfOthers())
            error = await run_to_fault(bed.node(parts))
            assert "no room in the journal" in str(error)
            published = len(network.published)
            await trio.sleep(1.0)
            assert len(network.published) == published
        await bed.check_settled()

    run_fast(main)


def test_node__bug_in_the_core_ends_it_with_its_traceback(tmp_path: Path) -> None:
    """A broken invariant must not be swallowed by whoever called the node."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        parts = await bed.parts("ada", learner=SyntheticLearner(0))
        node = bed.node(parts)

        def stumble(event: ev.Event, now_s: float) -> list[ev.Effect]:
            raise AssertionError("an invariant")

        async with trio.open_nursery() as nursery:

            async def judge_later() -> None:
                await bed.wait_for(lambda: bool(bed.machines["ada"].told))
                object.__setattr__(parts.peer, "handle", stumble)

            nursery.start_soon(judge_later)
            with pytest.raises(AssertionError, match="an invariant"):
                await node.run()

    run_fast(main)


def test_node__stop_says_goodbye_and_ends_within_a_second(tmp_path: Path) -> None:
    """Issue, Ctrl+C: it ends at once, the others need not wait for it, and it comes back."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=8)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts = await bed.parts("ada", learner=SyntheticLearner(0))
            node, ada = bed.node(parts), bed.machines["ada"]

            async def stop() -> None:
                await bed.wait_for(lambda: bool(ada.events("trained")))
                node.stop("stopped by its user")
                asked_s.append(trio.current_time())

            asked_s: list[float] = []
            nursery.start_soon(stop)
            assert await node.run() == ""
            assert trio.current_time() - asked_s[0] <= 1.0
            last = select_vertices(bed.machines["ben"].journal.vertices(), issuer=ada.peer_id)[-1]
            assert parse_message(last.kind, last.body) == Departed(reason="stopped by its user")
            await bed.start("ada", nursery, learner=SyntheticLearner(0))
        await bed.check_settled()

    run_fast(main)


def test_node__stop_while_the_task_is_opening_ends_at_once(tmp_path: Path) -> None:
    """Ctrl+C at any time: also in the seconds in which torch loads."""

    class Opening:
        def __init__(self) -> None:
            self.began = trio.Event()

        async def open(self) -> TaskFacts:
            self.began.set()
            await trio.sleep_forever()
            raise AssertionError

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        opening = Opening()
        parts = replace(await bed.parts("ada", learner=None), learner=opening)  # type: ignore[arg-type]
        node = bed.node(parts)
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await opening.began.wait()
                node.stop("stopped by its user")

            nursery.start_soon(stop)
            with trio.fail_after(HANGS_S):
                assert await node.run() == ""
        assert not (await bed.view()).members, "nothing was paid"

    run_fast(main)


def test_node__data_that_do_not_fit_end_it_before_anything_is_paid(tmp_path: Path) -> None:
    """Issue, bad input: data that does not fit the task."""

    class Misfit(SyntheticLearner):
        def open(self) -> TaskFacts:
            raise TaskDataError("my.csv", "x has shape [3], expected [4]; give other data")

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        node = bed.node(await bed.parts("ada", learner=Misfit(0)))
        with pytest.RaisesGroup(pytest.RaisesExc(TaskDataError, match="expected \\[4\\]"), flatten_subgroups=True):
            await node.run()
        assert not (await bed.view()).members
        assert not list(bed.machines["ada"].journal.vertices())

    run_fast(main)


def test_node__alone_for_long_says_so_in_words_and_tries_on(tmp_path: Path) -> None:
    """Issue, bad input: unreachable peers are told, not only waited for."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=20)
        await bed.open()
        address = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWGzBKNHEh1u9VsWmvjBYxuR4ZJtPSxB4H5c2uF8Hj1Y1T"
        parts = replace(await bed.parts("ada", learner=SyntheticLearner(0)), bootstrap=(address,))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bed.node(parts).run)
            ada = bed.machines["ada"]
            await bed.wait_for(lambda: bool(ada.troubles()))
            assert f"no peer answers at {address}; trying on" in ada.troubles()[0]
            visitor = bed.hub.join(PeerId(b"v" * 32), MemoryBlocks())
            await visitor.connect(parts.network.addresses[0])
            await trio.sleep(15.0)
            assert len(ada.troubles()) == 1, "told once, then somebody was there"
            nursery.cancel_scope.cancel()

    run_fast(main)


# --- hostile models ---------------------------------------------------------------------------------------------


def make_nan(model: bytes) -> bytes:
    tensors = load(model)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == np.float32)
    tensors[name] = np.full_like(tensors[name], np.nan)
    return save(tensors)


def make_shapes(model: bytes) -> bytes:
    tensors = load(model)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    return save(tensors)


class _Exploit:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (open, ("/dev/null",))


def make_pickle(model: bytes) -> bytes:
    buffer = io.BytesIO()
    pickle.dump(_Exploit(), buffer)
    return buffer.getvalue().ljust(len(model), b"\0")


class Poisoner:
    """A member whose models are poison and who claims the best accuracy for them."""

    def __init__(self, learner: PlainLearner, spoil: Callable[[bytes], bytes]) -> None:
        self._learner, self._spoil = learner, spoil
        self.model = b""

    def initial_model(self, seed: int) -> bytes:
        self.model = self._learner.initial_model(seed)
        return self.model

    def train(self, model: bytes, **options: object) -> tuple[bytes, Evaluation]:
        return self._spoil(self.model), Evaluation(correct=20, total=20, gained=10, lost=0)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        good = Evaluation(correct=20, total=20, gained=10, lost=0)
        return self._spoil(self.model), good, good

    def __getattr__(self, name: str) -> object:
        return getattr(self._learner, name)


@pytest.mark.parametrize("spoil", [make_nan, make_shapes, make_pickle], ids=["NaN", "wrong shapes", "a pickle"])
def test_node__hostile_models_are_refused_counted_and_survived(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Issue, bad input: a model file with wrong shapes, NaN or a pickle inside. Never used, never retried, the node trains on."""

    async def main() -> None:
        config = make_config(tmp_path)
        learner = InlineLearner(config)
        learner.open()
        bed = Bed(tmp_path, learner=learner, training_s=24)  # Three seconds by a real clock: torch needs some on a busy machine.
        await bed.open()
        poisoner = Poisoner(InlineLearner(config), spoil)
        poisoner.open()  # type: ignore[operator]
        poisoner.initial_model(1)
        async with trio.open_nursery() as nursery:
            node, _ = await bed.start("ada", nursery, learner=learner)
            await bed.start("mallory", nursery, learner=poisoner)  # type: ignore[arg-type]
            await bed.wait_for(lambda: any("cannot" in text for text in bed.machines["ada"].troubles()))
            refused = len(bed.machines["ada"].events("trained"))
            await bed.wait_for(lambda: len(bed.machines["ada"].events("trained")) > refused + 1)
        issuer = bed.machines["mallory"].peer_id
        candidates = node._peer.cycle.market.of(PeerId(issuer))
        assert any(candidate.failures for candidate in candidates)
        assert not any(candidate.tried_with for candidate in candidates)
        assert not bed.machines["ada"].events("adopted")
        await bed.check_settled()

    run_fast(main)


# --- disk -------------------------------------------------------------------------------------------------------


def test_node__journal_on_disk_holds_what_the_others_heard(tmp_path: Path) -> None:
    """The same order with the real journal: read back after a kill, it has every vertex that another peer got."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=8)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts = await bed.parts("ada", learner=SyntheticLearner(0))
            journal = DiskJournal(parts.folder)
            scope = trio.CancelScope()

            async def run() -> None:
                with scope:
                    await bed.node(replace(parts, journal=journal)).run()

            nursery.start_soon(run)
            await bed.wait_for(lambda: len(bed.machines["ada"].events("trained")) >= 3)
            scope.cancel()
            journal.close()
            heard = select_vertices(bed.machines["ben"].journal.vertices(), issuer=parts.peer.me)
            again = DiskJournal(parts.folder)
            kept = select_vertices(again.vertices(), issuer=parts.peer.me)
            assert {vertex.cid for vertex in heard} <= {vertex.cid for vertex in kept}
            resumed = bed.node(replace(await bed.parts("ada", learner=SyntheticLearner(0)), journal=again))
            assert await resumed.run() == ""
            log = select_vertices(again.vertices(), issuer=parts.peer.me)
            assert [vertex.sequence for vertex in log] == list(range(1, len(log) + 1))
            again.close()
        await bed.check_settled()

    run_fast(main)


def test_node__full_block_store_is_told_and_the_session_still_settles(tmp_path: Path) -> None:
    """No room for models: nothing can be trained any more, but claims and votes need none of it, and the money comes back."""

    class FullBlocks:
        def __init__(self, blocks: BlockStore) -> None:
            self._blocks = blocks

        def put_file(self, content: bytes, *, public: bool = True) -> Cid:
            raise DiskFullError("the block store", len(content), "its quota is 10 bytes")

        def __getattr__(self, name: str) -> object:
            return getattr(self._blocks, name)

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts = await bed.parts("ada", learner=SyntheticLearner(0))
            assert await bed.node(replace(parts, blocks=FullBlocks(parts.blocks))).run() == ""  # type: ignore[arg-type]
        assert any("no room in the block store" in text for text in bed.machines["ada"].troubles())
        await bed.check_settled()

    run_fast(main)


def test_node__outlives_a_chain_that_answers_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/testnet.md: it waits, says so, and goes on where it was; also when the backend's own patience is over."""

    class TroubledChain:
        def __init__(self, chain: Chain) -> None:
            self._chain = chain
            self.reads, self.submits = 3, 3  # that fail

        async def read(self, session: Address) -> ChainView:
            self.reads -= 1
            if self.reads >= 0:
                raise ChainAnswerError("eth_getBlockByNumber", "it is not JSON (HTTP 403)")
            return await self._chain.read(session)

        async def submit(self, session: Address, call: Call) -> Receipt:
            self.submits -= 1
            if self.submits >= 0:
                raise ChainAnswerError("eth_getTransactionReceipt", "it is not JSON (HTTP 200)")
            return await self._chain.submit(session, call)

        def __getattr__(self, name: str) -> object:
            return getattr(self._chain, name)

    monkeypatch.setattr(work, "CHAIN_RETRY_S", 0.05)

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=SyntheticLearner(1))
            parts = await bed.parts("ada", learner=SyntheticLearner(0))
            chain = TroubledChain(parts.chain)
            assert await bed.node(replace(parts, chain=chain)).run() == ""  # type: ignore[arg-type]
        troubles = bed.machines["ada"].troubles()
        assert chain.reads < 0 and chain.submits < 0
        assert any("HTTP 403" in text and "reading the session again" in text for text in troubles)
        assert any("HTTP 200" in text and "asking for the same again" in text for text in troubles)
        await bed.check_settled()

    run_fast(main)


class SlowView:
    """A chain whose answer to the first read after a `Join` was sent is older than its block."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._sent, self._mined = trio.Event(), trio.Event()
        self.joins = 0

    async def read(self, session: Address) -> ChainView:
        view = await self._chain.read(session)
        if self._sent.is_set():
            await self._mined.wait()
        return view

    async def submit(self, session: Address, call: Call) -> Receipt:
        if not isinstance(call, Join):
            return await self._chain.submit(session, call)
        self.joins += 1
        self._sent.set()
        await trio.sleep(0.5)  # By then the next look has begun.
        receipt = await self._chain.submit(session, call)
        self._mined.set()
        return receipt

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)


def test_node__view_from_before_its_transaction_is_not_acted_on(tmp_path: Path) -> None:
    """What was read before an own transaction came into its block knows nothing of it: the same call is not sent a second time."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        parts = await bed.parts("ada", learner=SyntheticLearner(1))
        chain = SlowView(parts.chain)
        node = bed.node(replace(parts, chain=cast("Chain", chain)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await bed.wait_for(lambda: bed.machine("ada").events("opened") != [])
            node.stop("seen enough")
        assert chain.joins == 1
        assert bed.machine("ada").troubles() == []

    run_fast(main)
