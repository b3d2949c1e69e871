"""Which session, which wallet, which endpoints a `learnae dao` command means, and the desk where it sends its transactions."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from learnae.backends.disk_journal import DiskJournal
from learnae.backends.ethereum import ChainOptions, Cost, EthereumChain, WalletKey, open_ethereum_chain
from learnae.backends.ethereum.intents import Intent
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.keystore import Keys, describe_keystore
from learnae.cli.amounts import GWEI, parse_address, parse_gwei
from learnae.cli.consent import agree, tell
from learnae.cli.dao.endpoints import check_confirmations, choose_endpoints
from learnae.cli.folder import NodeFolder, read_ticket_text
from learnae.errors import TransactionError, UsageError
from learnae.ids import Address, PeerId, wei_text
from learnae.node.runtime import RECORD_TRANSACTION
from learnae.ports import Receipt
from learnae.protocol.calls import Call
from learnae.protocol.rules import Ticket, decode_ticket

DEFAULT_FOLDER: Final = "learnae-node"
RECORD_POID: Final = "own proof of identity"
"""Name of the journal's record of a proof of identity that was deployed and not used yet."""


@dataclass(frozen=True, slots=True)
class SessionName:
    """What SESSION on the command line stands for."""

    contract: Address
    ticket: Ticket | None = None
    folder: Path | None = None  # the node's folder that it was found in
    endpoints: tuple[str, ...] = ()  # that folder's

    @property
    def chain_id(self) -> int | None:
        return None if self.ticket is None else self.ticket.rules.chain_id


def find_session(text: str) -> SessionName:
    """A contract's address, a node's folder, a ticket, or a file that holds it. Raises: UsageError, FolderError, TicketError."""
    if text.startswith("0x"):
        return SessionName(parse_address(text))
    path = Path(text)
    if len(text) < 256 and path.is_dir():
        folder = NodeFolder(path)
        ticket, settings = folder.read_ticket(), folder.read_settings()
        return SessionName(ticket.contract, ticket, path, tuple(url for url in (settings.rpc, settings.rpc_second) if url))
    ticket = decode_ticket(read_ticket_text(text))
    return SessionName(ticket.contract, ticket)


def read_chain_options(options: argparse.Namespace, *, journal: DiskJournal | None, witness_url: str) -> ChainOptions:
    """Raises: UsageError."""
    confirmations = check_confirmations(options.confirmations)

    def save(record: bytes | None) -> None:
        assert journal is not None
        journal.append([], [(RECORD_TRANSACTION, record)])

    return ChainOptions(
        fee_cap_wei=parse_gwei(options.fee_cap),
        confirmations=confirmations or None,
        witness_url=witness_url,
        save_pending=None if journal is None else save,
        on_progress=tell,
    )


def find_folder(options: argparse.Namespace, name: SessionName | None) -> Path:
    """Where the keystore is."""
    if options.folder:
        return Path(options.folder)
    return name.folder if name is not None and name.folder is not None else Path(DEFAULT_FOLDER)


# --- reading --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_reading(options: argparse.Namespace, name: SessionName) -> AsyncIterator[tuple[EthereumChain, Address | None]]:
    """A chain to read from, and the address that is the user's, if it can be known without a password."""
    me = parse_address(options.wallet) if options.wallet else None
    keystore = find_folder(options, name) / "keystore.json"
    if me is None and keystore.exists():
        me = Address(describe_keystore(keystore)["wallet_address"])
    url, second = choose_endpoints(options.rpc, name.endpoints)
    opened = open_ethereum_chain(
        url,
        wallet=WalletKey.create(),  # It only reads; nobody ever pays this one.
        peer_id=PeerId(bytes(32)),
        sign_identity=bytes,
        chain_id=name.chain_id,
        on_trouble=tell,
        options=read_chain_options(options, journal=None, witness_url=second),
    )
    async with opened as chain:
        yield chain, me


# --- sending --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Desk:
    """One wallet at one session, for one command."""

    chain: EthereumChain
    contract: Address | None  # None while there is no session yet
    ticket: Ticket | None
    journal: DiskJournal | None  # None: nothing is sent
    asks: bool  # whether the user is asked before money is sent
    finished: tuple[Intent, Receipt] | None = None  # what an interrupted command had sent, finished by this one

    @property
    def session(self) -> Address:
        assert self.contract is not None
        return self.contract

    @property
    def sends(self) -> bool:
        return self.journal is not None

    async def read_facts(self) -> SessionFacts:
        return await self.chain.read_facts(self.session)

    async def send_call(self, call: Call) -> Receipt | None:
        """As `send`, for a call of the protocol."""
        return await self.send(await self.chain.make_intent(self.session, call))

    async def send(self, intent: Intent) -> Receipt | None:
        """Tell what a transaction costs, ask if it sends money, send it. None: it was not sent. Raises: TransactionError.

        The same that an interrupted command had sent is not sent again, once.
        """
        if self.finished is not None and self.finished[0].is_same(intent):
            (_, done), self.finished = self.finished, None
            print(f"{intent.what}: the interrupted command had sent it, and it is done now; it is not sent again", flush=True)
            return done
        cost = await self.chain.estimate(intent)
        print(f"{intent.what}: {await self._describe(cost)}", flush=True)
        if not self.sends:
            return None
        if cost.value_wei and self.asks:
            await self.consent(f"Send {wei_text(cost.value_wei)} and the fee? [y/N] ")
        receipt = await self.chain.submit_intent(self.contract, intent)
        print(f"  done in block {receipt.block_number}: {receipt.transaction}, fee {wei_text(receipt.fee_wei)}", flush=True)
        return receipt

    async def _describe(self, cost: Cost) -> str:
        price = await self.chain.read_price()
        sent = f"sends {wei_text(cost.value_wei)}, and " if cost.value_wei else ""
        return f"{sent}costs at most {cost.gas} gas: {wei_text(cost.fee_wei)} at {price.wei / GWEI:.2f} gwei"

    async def consent(self, question: str) -> None:
        """Raises: UsageError: the user does not agree, or there is nobody to ask."""

        def ask() -> bool:
            return agree(question, otherwise="--yes to send money without being asked")

        # In a thread, so that Ctrl+C need not wait for an answer. (trio-stubs, which libp2p brings, describe an older trio.)
        if not await trio.to_thread.run_sync(ask, abandon_on_cancel=True):  # type: ignore[call-arg]
            raise UsageError("nothing was sent, because you did not agree")

    def load(self, record: str) -> bytes | None:
        return None if self.journal is None else self.journal.records().get(record)

    def keep(self, record: str, content: bytes | None) -> None:
        if self.journal is not None:
            self.journal.append([], [(record, content)])


@asynccontextmanager
async def open_desk(options: argparse.Namespace, name: SessionName | None, keys: Keys) -> AsyncIterator[Desk]:
    """Open the chain for the user's wallet; what an earlier command left under way is finished first.

    Raises: FolderInUseError: the node of this folder is running. ChainError leaves.
    """
    url, second = choose_endpoints(options.rpc, () if name is None else name.endpoints)
    async with AsyncExitStack() as stack:
        journal = None
        if not options.dry_run:
            journal = DiskJournal(find_folder(options, name))
            stack.callback(journal.close)
        opened = open_ethereum_chain(
            url,
            wallet=keys.wallet,
            peer_id=keys.identity.peer_id,
            sign_identity=keys.identity.sign,
            chain_id=None if name is None else name.chain_id,
            on_trouble=tell,
            options=read_chain_options(options, journal=journal, witness_url=second),
        )
        chain = await stack.enter_async_context(opened)
        desk = Desk(chain, None if name is None else name.contract, None if name is None else name.ticket, journal, not options.yes)
        await _finish_earlier(desk)
        yield desk


async def _finish_earlier(desk: Desk) -> None:
    record = desk.load(RECORD_TRANSACTION)
    if record is None:
        return
    tell("a transaction from before is still under way; finishing it first")
    try:
        desk.finished = await desk.chain.resume(record)
    except TransactionError as error:
        tell(f"a transaction from before: {error}")
    else:
        receipt = desk.finished[1]
        tell(f"the transaction from before is done in block {receipt.block_number}")
        if receipt.address is not None:
            tell(f"it created the contract {receipt.address}")
            if not (await desk.chain.read_poid(receipt.address)).fault:
                desk.keep(RECORD_POID, receipt.address.encode())
