"""Puts a node together from its folder: which backend stands behind which port. The composition root."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import trio

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.cli.checks import check_contract
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.cli.spending import check_spending, compute_spending
from learnae.errors import ForeignTaskError, LearnaeError, SessionLostError
from learnae.ids import Address, PeerId, peer_text
from learnae.imports import loading_modules
from learnae.learning.config import LearnerConfig, compute_task_digest
from learnae.learning.process import ProcessLearner
from learnae.node import Node, NodeParts
from learnae.node.runtime import RECORD_TRANSACTION
from learnae.ports import BlockStore, Learner, Network
from learnae.protocol.calls import DeployPoid, Stage
from learnae.protocol.dao import RECORD_SETTLEMENT
from learnae.protocol.events import Tell, Topic
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules, Ticket
from learnae.protocol.settlement import TURN_S, keep_poid
from learnae.protocol.store import ControlStore

if TYPE_CHECKING:
    from learnae.backends.disk_sensors import SensorJournal
    from learnae.backends.ethereum import ChainOptions, EthereumChain
    from learnae.backends.keystore import Keys
    from learnae.backends.kubo_rpc import KuboRpc
    from learnae.backends.libp2p_wide import WideArea
    from learnae.node.station import SensorParts

DEV_POLL_S: Final = 0.5  # A node that looks at its chain more often than this also looks for receipts so often.
PASSES_EVERY_S: Final = 5.0  # A user who sees nothing for longer wonders.

OnTell = Callable[[Tell], None]
OnPasses = Callable[[int, int], None]
MakeLearner = Callable[[Ticket, NodeSettings, OnPasses], Learner | None]


def check_task(task: str, rules: SessionRules) -> None:
    """Raises: ForeignTaskError: it is another task than the session's. TaskError: there is no such file."""
    digest = compute_task_digest(task)
    if digest != rules.task_digest:
        raise ForeignTaskError(task, digest, rules.task_digest)


async def check_money(chain: EthereumChain, ticket: Ticket, peer_id: PeerId) -> None:
    """Whether the wallet can pay the deposit and its fees, if it has not paid yet. Raises: NotEnoughMoneyError."""
    view = await chain.read(ticket.contract)
    if view.stage is not Stage.FUNDING or any(member.poid.peer_id == peer_id for member in view.members):
        return
    await check_spending(chain, await compute_spending(chain, ticket.rules.deposit_wei))


def make_chain_options(
    settings: NodeSettings,
    *,
    save_pending: Callable[[bytes | None], None] | None = None,
    on_progress: Callable[[str], None] = lambda sentence: None,
) -> ChainOptions:
    """How this node's wallet pays and waits."""
    from learnae.backends.ethereum import ChainOptions

    return ChainOptions(
        fee_cap_wei=settings.fee_cap_wei,
        confirmations=settings.confirmations or None,
        poll_s=settings.poll_s if settings.poll_s < DEV_POLL_S else None,
        witness_url=settings.rpc_second,
        save_pending=save_pending,
        on_progress=on_progress,
    )


def make_peer(ticket: Ticket, settings: NodeSettings, keys: Keys, journal: DiskJournal) -> Peer:
    """The peer of a folder. On a public network it waits longer for what other members send: a block takes longer there."""
    from learnae.backends.ethereum.options import DEV_CHAIN_IDS, PUBLIC_TURN_S

    return Peer(
        rules=ticket.rules,
        me=keys.identity.peer_id,
        sign=keys.identity.sign,
        rng=SystemRandom(),
        settings=PeerSettings(
            reports_help=settings.reports_help,
            tips_budget_wei=settings.tips_budget_wei,
            pace_s=settings.pace_s,
            policy=settings.policy,
            turn_s=TURN_S if ticket.rules.chain_id in DEV_CHAIN_IDS else PUBLIC_TURN_S,
            relay_gas_max=settings.relay_gas_max if settings.relay else 0,
        ),
        store=ControlStore(archive=journal),
    )


def make_worker(ticket: Ticket, settings: NodeSettings, on_progress: OnPasses) -> Learner | None:
    """The learner of a folder, in a process of its own; None for a member who only votes."""
    if not settings.task:
        return None
    config = LearnerConfig(
        task=settings.task,
        source=settings.data,
        slice_bytes=ticket.rules.slice_bytes,
        share_permille=settings.share_permille,
        reducer=ticket.rules.reducer,
        codec=ticket.rules.model_codec,
        device=settings.device,
        threads=settings.threads,
    )
    return ProcessLearner(config, on_progress=on_progress, on_output=_log_output)


def open_blocks(folder: NodeFolder, settings: NodeSettings) -> tuple[BlockStore, KuboRpc | None]:
    """The node's blocks, and the IPFS daemon that keeps the public ones, if there is one. Raises: KuboError."""
    from learnae.backends.kubo_blocks import KuboBlocks
    from learnae.backends.kubo_rpc import KuboRpc

    blocks = DiskBlocks(folder.blocks)
    if not settings.daemon_url:
        return blocks, None
    rpc = KuboRpc(settings.daemon_url)
    rpc.read_version()
    return KuboBlocks(rpc, folder.blocks, private=blocks), rpc


class NodeStarter:
    """Runs the node of a folder until its session is over or its user stops it. `make_learner`: what trains in it."""

    def __init__(self, folder: NodeFolder, password: str, *, on_tell: OnTell, make_learner: MakeLearner = make_worker) -> None:
        self._folder, self._password, self._on_tell = folder, password, on_tell
        self._make_learner = make_learner
        self._node: Node | None = None
        self._passes_told_s = 0.0

    def stop(self) -> bool:
        """Let the node say goodbye and end `run` within two seconds; False if there is no node yet, so that nothing is lost at once."""
        if self._node is None:
            return False
        self._node.stop("stopped by its user")
        return True

    async def run(self) -> None:
        """Raises: LearnaeError: whatever keeps the node from starting or going on, in a sentence."""
        ticket, settings = self._folder.read_ticket(), self._folder.read_settings()
        if settings.task:
            check_task(settings.task, ticket.rules)
        journal = DiskJournal(self._folder.path)  # Holds the folder: a second start ends here.
        learner = self._make_learner(ticket, settings, self._tell_passes)
        try:
            async with trio.open_nursery() as nursery:
                try:
                    if learner is not None:
                        nursery.start_soon(learner.open)  # It takes the longest: torch and the data load while the rest does.
                    await trio.to_thread.run_sync(_load_backends)
                    fault = await self._run_with(ticket, settings, journal, learner)
                finally:
                    nursery.cancel_scope.cancel()  # First, or the worker's end would be told as a fault of its opening.
                    if learner is not None:
                        await learner.close()
        finally:
            journal.close()
        if fault:
            raise SessionLostError(fault)

    async def _run_with(self, ticket: Ticket, settings: NodeSettings, journal: DiskJournal, learner: Learner | None) -> str:
        from learnae.backends.ethereum import open_ethereum_chain
        from learnae.backends.keystore import open_keystore
        from learnae.backends.libp2p import open_libp2p_network

        keys = await trio.to_thread.run_sync(open_keystore, self._folder.keystore, self._password)
        blocks, rpc = await trio.to_thread.run_sync(open_blocks, self._folder, settings)

        def keep_transaction(raw: bytes | None) -> None:
            journal.append([], [(RECORD_TRANSACTION, raw)])

        chain_opened = open_ethereum_chain(
            settings.rpc,
            wallet=keys.wallet,
            peer_id=keys.identity.peer_id,
            sign_identity=keys.identity.sign,
            chain_id=ticket.rules.chain_id,
            on_trouble=self._tell_trouble,
            options=make_chain_options(settings, save_pending=keep_transaction),
        )
        bootstrap = tuple(address for address in ticket.addresses if not address.endswith(peer_text(keys.identity.peer_id)))
        network_opened = open_libp2p_network(
            seed=keys.identity.export_seed(),
            listen=settings.listen,
            blocks=blocks,
            bootstrap=bootstrap,
            lan_digest=ticket.rules.digest if settings.mdns else None,
            wide=_make_wide_area(ticket, settings, keys.identity.peer_id),
        )
        sensors, sensor_journal, only_streams = self._open_sensors(ticket.rules, keys)
        async with AsyncExitStack() as stack:
            if sensor_journal is not None:
                stack.callback(sensor_journal.close)
            if rpc is not None:
                stack.callback(rpc.close)
            chain = await stack.enter_async_context(chain_opened)
            network: Network = await stack.enter_async_context(network_opened)
            if rpc is not None:
                network = await stack.enter_async_context(self._put_daemon_beside(network, blocks, rpc, ticket.rules))
            await check_contract(chain, ticket)
            await check_money(chain, ticket, keys.identity.peer_id)
            await _resume(chain, ticket.contract, journal, self._tell_trouble)
            parts = NodeParts(
                peer=make_peer(ticket, settings, keys, journal),
                network=network,
                blocks=blocks,
                journal=journal,
                chain=chain,
                learner=learner,
                session=ticket.contract,
                folder=self._folder.path,
                addresses=_compute_addresses(settings, network.addresses, keys.identity.peer_id),
                bootstrap=bootstrap,
                poll_s=max(settings.poll_s, chain.poll_s),
                sensors=sensors,
                only_streams=only_streams,
                wall_s=time.time,
            )
            self._node = Node(parts, on_tell=self._on_tell)
            return await self._node.run()

    def _open_sensors(self, rules: SessionRules, keys: Keys) -> tuple[SensorParts | None, SensorJournal | None, bool]:
        """What follows sensors, if the folder says so, its journal, and whether training takes only what they say."""
        if not self._folder.sensors.is_file():
            return None, None, False  # Most nodes: nothing is loaded for it.
        from learnae.backends.sensor_settings import read_sensor_settings
        from learnae.cli.sensor_config import make_sensor_parts

        chosen = read_sensor_settings(self._folder.path)
        assert chosen is not None, "the file is there"
        return *make_sensor_parts(rules, keys, self._folder.path, chosen), chosen.only_streams

    def _put_daemon_beside(
        self, inner: Network, blocks: BlockStore, rpc: KuboRpc, rules: SessionRules
    ) -> AbstractAsyncContextManager[Network]:
        from learnae.backends.kubo_session import open_kubo_network

        return open_kubo_network(inner, blocks, rpc, meeting=(rules.cid, rules.encoded), tell=self._tell_trouble)

    def _tell_passes(self, done: int, total: int) -> None:
        """Progress inside one long training cycle; short ones are told by their result."""
        now_s = trio.current_time()
        if done == 1:
            self._passes_told_s = now_s
        if now_s - self._passes_told_s >= PASSES_EVERY_S:
            self._passes_told_s = now_s
            self._on_tell(Tell(Topic.TRAINING, f"training: pass {done} of {total}", {"event": "pass", "done": done, "total": total}))

    def _tell_trouble(self, sentence: str) -> None:
        self._on_tell(Tell(Topic.TROUBLE, sentence))


def _load_backends() -> None:
    """Import what the network and the chain need: a second of work, done in a thread while the worker loads its own."""
    with loading_modules():
        import learnae.backends.keystore
        import learnae.backends.libp2p  # noqa: F401


async def _resume(chain: EthereumChain, session: Address, journal: DiskJournal, tell_trouble: Callable[[str], None]) -> None:
    """Finish the transaction that was under way when the node was killed: it is sent again as it is, never signed anew."""
    records = journal.records()
    raw = records.get(RECORD_TRANSACTION)
    if raw is None:
        return
    try:
        intent, receipt = await chain.resume(raw)
    except LearnaeError as error:
        tell_trouble(f"a transaction from before the restart: {error}")
        return
    if receipt.address is not None and intent.is_same(await chain.make_intent(session, DeployPoid())):
        kept = keep_poid(records.get(RECORD_SETTLEMENT), receipt.address)
        journal.append([], [(RECORD_SETTLEMENT, kept)])  # Or it would be paid for again.


def _make_wide_area(ticket: Ticket, settings: NodeSettings, peer_id: PeerId) -> WideArea:
    from learnae.backends.libp2p_wide import WideArea

    announce = _compute_addresses(settings, (), peer_id)
    return WideArea(session=ticket.rules.cid, bootstrap=settings.bootstrap, announce=announce, upnp=settings.upnp)


def _compute_addresses(settings: NodeSettings, listening: tuple[str, ...], peer_id: PeerId) -> tuple[str, ...]:
    if not settings.announce:
        return listening
    return tuple(f"{address}/p2p/{peer_text(peer_id)}" for address in settings.announce)


def _log_output(text: str) -> None:
    logging.getLogger("learnae.task").info("%s", text.rstrip())


def open_log(path: Path) -> None:
    """Send the libraries' logs to the node's own file, warnings and worse; never keys, which no library is given."""
    logging.raiseExceptions = False  # A full disk: the journal is what says so.
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("learnae").setLevel(logging.INFO)
