"""`learnae session new`, `learnae session show` and `learnae join`: everything before a node runs."""

from __future__ import annotations

import argparse
import re
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.ethereum import EthereumChain, open_ethereum_chain
from learnae.backends.keystore import Keys, create_keystore, open_keystore
from learnae.cli import compose
from learnae.cli.checks import check_contract
from learnae.cli.consent import tell
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.cli.spending import compute_spending, format_spending
from learnae.errors import TransactionError, UsageError
from learnae.ids import Address, Cid, Wei, cid_text, compute_cid, parse_peer, peer_text
from learnae.learning.config import LearnerConfig, compute_task_digest
from learnae.learning.process import ProcessLearner
from learnae.node.runtime import RECORD_TRANSACTION
from learnae.protocol.rules import SessionRules, Ticket, decode_rules

MARGIN_S: Final = 5  # Between now and the first second of a session, so that clocks may differ a little.
STARTED_S: Final = 60  # So long before its founding a session started, for members whose clocks are behind.
RECORD_FOUNDING: Final = "rules of the session that is founded"
_DEBATING_S: Final = 3 * 86400  # Least time to vote on a proposal; a tenth of the training if that is shorter.


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """What the founder of a session decides; durations in seconds, `deposit_wei` per member."""

    name: str
    deposit_wei: Wei
    funding_s: int
    training_s: int
    final_s: int
    claiming_s: int
    voting_s: int
    members_min: int = 2
    members_max: int = 100
    slice_bytes: int = 64 * 1024
    overuse_threshold: int = 1000
    reward_rule: str = "budgeted"
    reward_mode: str = "dao"
    policy: str = "paired"
    audit_permille: int = 0  # of a thousand receipts
    model_codec: str = "raw"
    seed: int = 0  # of the initial model


def compute_rules(plan: SessionPlan, *, task_digest: bytes, initial: tuple[Cid, int], chain_id: int, now_s: int) -> SessionRules:
    """The rules of a new session. `initial`: CID and size in bytes of the initial model. Raises: RulesError."""
    funding_ends_s = now_s + MARGIN_S + plan.funding_s
    training_ends_s = funding_ends_s + plan.training_s
    claiming_ends_s = training_ends_s + plan.claiming_s
    cid, size = initial
    return SessionRules(
        name=plan.name,
        codename=re.sub(r"[^a-z0-9]+", "-", plan.name.lower()).strip("-")[:64] or "session",
        task_digest=task_digest,
        initial_model=cid,
        model_bytes=size,
        slice_bytes=plan.slice_bytes,
        overuse_threshold=plan.overuse_threshold,
        train_permille=333,
        slices_per_cycle=64,
        policy=plan.policy,
        reducer="mean",
        reward_mode=plan.reward_mode,
        reward_rule=plan.reward_rule,
        reward_factor=1_000_000,
        tip_wei_per_credit=max(1, plan.deposit_wei // 1_000_000),
        chain_id=chain_id,
        deposit_wei=plan.deposit_wei,
        members_min=plan.members_min,
        members_max=plan.members_max,
        starts_s=now_s - STARTED_S,
        funding_ends_s=funding_ends_s,
        training_ends_s=training_ends_s,
        claiming_ends_s=claiming_ends_s,
        voting_ends_s=claiming_ends_s + plan.voting_s,
        final_s=plan.final_s,
        reject_quorum_permille=200,
        extension_max_s=plan.training_s,
        proposal_deposit_wei=Wei(plan.deposit_wei // 100),
        min_quorum_divisor=5,
        debating_min_s=max(1, min(plan.training_s // 10, _DEBATING_S)),
        audit_permille=plan.audit_permille,
        model_codec=plan.model_codec,
    )


def check_plan(plan: SessionPlan, settings: NodeSettings) -> None:
    """What can be known of a plan before keys, chain and model: rules in range, a task file. Raises: RulesError, TaskError."""
    digest = compute_task_digest(settings.task)
    compute_rules(plan, task_digest=digest, initial=(compute_cid(b""), 1), chain_id=1, now_s=int(time.time()))


async def make_session(plan: SessionPlan, folder: NodeFolder, settings: NodeSettings, keys: Keys) -> Ticket:
    """Make the initial model, the rules and the contract; the folder is then the founder's node.

    The same plan again after an interruption goes on with the contract that was under way.

    Raises: LearnaeError: the task, its data, the chain, the money or the plan are not good.
    """
    task_digest = compute_task_digest(settings.task)
    config = LearnerConfig(
        task=settings.task, source=settings.data, slice_bytes=plan.slice_bytes, device=settings.device, codec=plan.model_codec
    )
    learner = ProcessLearner(config)
    async with AsyncExitStack() as stack:
        journal = DiskJournal(folder.path)
        stack.callback(journal.close)

        def save(record: bytes | None) -> None:
            journal.append([], [(RECORD_TRANSACTION, record)])

        opened = open_ethereum_chain(
            settings.rpc,
            wallet=keys.wallet,
            peer_id=keys.identity.peer_id,
            sign_identity=keys.identity.sign,
            on_trouble=tell,
            options=compose.make_chain_options(settings, save_pending=save, on_progress=tell),
        )
        chain = await stack.enter_async_context(opened)
        made = await _finish_founding(chain, journal, plan, task_digest)
        if made is not None:
            return _write_ticket(folder, settings, keys, *made)
        try:
            await learner.open()
            model = await learner.initial_model(plan.seed)
        finally:
            await learner.close()
        blocks = DiskBlocks(folder.blocks)
        cid = blocks.put_file(model)
        blocks.pin(cid)
        rules = compute_rules(
            plan, task_digest=task_digest, initial=(cid, len(model)), chain_id=chain.chain_id, now_s=int(time.time())
        )
        journal.append([], [(RECORD_FOUNDING, rules.encoded)])  # Before anything is sent: the contract alone does not tell them.
        contract = await chain.deploy_session(rules.compute_terms())
        return _write_ticket(folder, settings, keys, rules, contract)


async def _finish_founding(
    chain: EthereumChain, journal: DiskJournal, plan: SessionPlan, task_digest: bytes
) -> tuple[SessionRules, Address] | None:
    """Finish what an interrupted `session new` had sent; its rules and contract, if it is the session of this plan and not too late."""
    records = journal.records()
    if RECORD_TRANSACTION not in records:
        return None
    tell("a transaction from before is still under way; finishing it first")
    try:
        _, receipt = await chain.resume(records[RECORD_TRANSACTION])
    except TransactionError as error:
        tell(f"a transaction from before: {error}")
        return None
    tell(f"the transaction from before is done in block {receipt.block_number}")
    if receipt.address is None or RECORD_FOUNDING not in records:
        return None
    rules = decode_rules(records[RECORD_FOUNDING])
    model = (rules.initial_model, rules.model_bytes)
    planned = compute_rules(plan, task_digest=task_digest, initial=model, chain_id=chain.chain_id, now_s=rules.starts_s + STARTED_S)
    if planned != rules or rules.funding_ends_s <= time.time():
        tell(f"it created the session {receipt.address}, which is not what you ask for now; another one is made")
        return None
    tell(f"it created the session {receipt.address}, the one you ask for; no other one is made")
    return rules, receipt.address


def _write_ticket(folder: NodeFolder, settings: NodeSettings, keys: Keys, rules: SessionRules, contract: Address) -> Ticket:
    addresses = tuple(f"{address}/p2p/{peer_text(keys.identity.peer_id)}" for address in settings.announce or settings.listen)
    ticket = Ticket(rules=rules, contract=contract, addresses=addresses[:8])
    folder.write(ticket, settings)
    return ticket


async def check_before_joining(ticket: Ticket, settings: NodeSettings, keys: Keys, *, show: Callable[[str], None]) -> None:
    """Everything that can be known before a deposit: task, rules, contract, money.

    Args: show: hears what it will cost, in words, before the money is looked at.
    Raises: LearnaeError.
    """
    if settings.task:
        compose.check_task(settings.task, ticket.rules)
    opened = open_ethereum_chain(
        settings.rpc,
        wallet=keys.wallet,
        peer_id=keys.identity.peer_id,
        sign_identity=keys.identity.sign,
        chain_id=ticket.rules.chain_id,
        on_trouble=tell,
        options=compose.make_chain_options(settings),
    )
    async with opened as chain:
        await check_contract(chain, ticket)
        show(format_spending(await compute_spending(chain, ticket.rules.deposit_wei)))
        await compose.check_money(chain, ticket, keys.identity.peer_id)


def open_or_create_keys(path: Path, password: str) -> Keys:
    """The keys of a node's folder; new ones the first time. Raises: KeystoreError."""
    return open_keystore(path, password) if path.exists() else create_keystore(path, password)


def choose_listen(arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where to listen, and what to tell others: by default a free port, fixed now, on all interfaces."""
    for address in (*(arguments.listen or ()), *(arguments.announce or ())):
        if not re.fullmatch(r"/(ip4|ip6|dns|dns4|dns6)/[^/\s]{1,100}/tcp/[0-9]{1,5}", address):
            raise UsageError(f"{address[:80]!r} is not an address; write a multiaddr such as /ip4/0.0.0.0/tcp/4001")
    listen = tuple(arguments.listen or ())
    if listen:
        return listen, tuple(arguments.announce or ())
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    announce = tuple(arguments.announce or (f"/ip4/{address}/tcp/{port}" for address in _find_own_addresses()))
    return (f"/ip4/0.0.0.0/tcp/{port}",), announce


def read_bootstrap(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The DHT servers that the user named. Raises: UsageError: one of them is no address of a peer that can be asked."""
    addresses = tuple(arguments.bootstrap or ())
    wanted = "write a multiaddr such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo..."
    for address in addresses:
        found = re.fullmatch(r"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]{1,100}/tcp/[0-9]{1,5}/p2p/([1-9A-HJ-NP-Za-km-z]{46,60})", address)
        if found is None:
            why = "; names of /dnsaddr and other transports than TCP are not read" if "/p2p/" in address else ""
            raise UsageError(f"{address[:80]!r} names no DHT server{why}; {wanted}")
        try:
            parse_peer(found[1])
        except ValueError as error:
            raise UsageError(f"{address[:120]!r} names no DHT server that can be asked: its key is not Ed25519; {wanted}") from error
    return addresses


def _find_own_addresses() -> list[str]:
    """This machine's address towards the network, if it has one, and the loopback address. Sends nothing."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # A documentation address: connecting a datagram socket only chooses a route.
            found.append(probe.getsockname()[0])
        except OSError:
            pass  # No route at all: only this machine can reach the node.
    return [*dict.fromkeys([*found, "127.0.0.1"])]


def describe_ticket(ticket: Ticket) -> str:
    """The rules of a ticket in words, for somebody who decides whether to deposit."""
    rules = ticket.rules

    def when(time_s: int) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))

    lines = [
        ("session", rules.name),
        ("rules", cid_text(rules.cid)),
        ("contract", f"{ticket.contract} on chain {rules.chain_id}"),
        ("deposit", f"{rules.deposit_wei / 10**18:g} ETH ({rules.deposit_wei} wei) from each member"),
        ("members", f"{rules.members_min} to {rules.members_max}; with fewer everybody is refunded"),
        ("join until", when(rules.funding_ends_s)),
        ("training until", f"{when(rules.training_ends_s)}, the last {rules.final_s} s averaging only"),
        ("claims until", when(rules.claiming_ends_s)),
        ("votes until", when(rules.voting_ends_s)),
        ("rewards", f"mode {rules.reward_mode}, rule {rules.reward_rule}, {rules.reward_factor} credits for accuracy from 0 to 1"),
        ("task", f"SHA-256 {rules.task_digest.hex()}"),
        ("model", f"{rules.model_bytes} bytes, starts as {cid_text(rules.initial_model)}"),
        ("exchange", f"policy {rules.policy}, reduce step {rules.reducer}, models travel {_CODECS[rules.model_codec]}"),
        ("data", f"slices of {rules.slice_bytes} bytes, each used at most {rules.overuse_threshold} times by all"),
        ("audits", _describe_audits(rules)),
        ("peers", ", ".join(ticket.addresses) or "none given"),
    ]
    return "\n".join(f"{label:>14}  {text}" for label, text in lines)


_CODECS: Final = {
    "raw": "in full precision (raw)",
    "float16": "as float16, half the bytes of float32",
    "int8": "in 8 bits (int8), about a quarter of the bytes of float32",
    "delta8": "as differences from the initial model in 8 bits (delta8), about a quarter of the bytes of float32 or less",
    "delta4": "as differences from the initial model in 4 bits (delta4), an eighth of the bytes of float32 or less",
    "delta2": "as differences from the initial model in 3 values (delta2), a twentieth of the bytes of float32 or less",
}


def _describe_audits(rules: SessionRules) -> str:
    if not rules.audit_permille:
        return "none"
    return f"{rules.audit_permille / 10:g} % of all receipts; your validation examples are opened to the members who look at yours"
