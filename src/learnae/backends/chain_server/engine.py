"""A small Ethereum chain inside this process: py-evm's virtual machine, blocks made on demand, block time that follows the clock.

It validates and executes exactly as py-evm does (Shanghai rules), keeps every block in memory and forgets all at its end.
It does no I/O. It is for demonstrations and tests: one block maker, no peers, no reorganisations, time that may be moved.
Only this module knows py-evm.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.db.atomic import AtomicDB
from eth.exceptions import VMError
from eth.vm.forks.shanghai import ShanghaiVM
from eth.vm.spoof import SpoofTransaction
from eth_keys.datatypes import PrivateKey
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

GAS_LIMIT: Final = 30_000_000  # Of a block, as on the real chains when the contracts were written.
CALL_STIPEND_GAS: Final = 2300  # Ethereum yellow paper, appendix G.
FAUCET_WEI: Final = 10**27
TRANSACTIONS_MAX: Final = 256  # In one block; a caller with more waits for the next.
TRANSACTION_BYTES_MAX: Final = 1 << 17  # As geth; a deployment has 12 kB.
_BLANK_ROOT: Final = bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")


class RefusedError(Exception):
    """A request that a real node would answer with this JSON-RPC error."""

    def __init__(self, message: str, *, code: int = -32000, revert: bytes | None = None) -> None:
        super().__init__(message)
        self.code, self.revert = code, revert


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A transaction in a block, with what happened."""

    transaction: Any
    raw: bytes
    block: Any
    index: int
    receipt: Any
    gas_used: int
    contract: bytes | None
    first_log: int


@dataclass(slots=True)
class LocalChain:
    """The chain's state. `clock` gives Unix seconds; `travel` moves this chain's time ahead of it."""

    chain_id: int
    prefund: Mapping[bytes, int]
    clock: Callable[[], float]
    mined: dict[bytes, MinedTransaction] = field(default_factory=dict)
    blocks: list[Any] = field(default_factory=list)
    by_hash: dict[bytes, Any] = field(default_factory=dict)
    in_block: list[tuple[MinedTransaction, ...]] = field(default_factory=list)
    _offset_s: int = 0
    _faucet: PrivateKey = field(default_factory=lambda: PrivateKey(secrets.token_bytes(32)), repr=False)
    _chain: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rules = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, ShanghaiVM),))
        chain_class: Any = MiningChain.configure("LocalMiningChain", vm_configuration=rules, chain_id=self.chain_id)
        funds = {self._faucet.public_key.to_canonical_address(): FAUCET_WEI, **self.prefund}
        state = {wallet: {"balance": wei, "nonce": 0, "code": b"", "storage": {}} for wallet, wei in funds.items()}
        genesis = {
            "coinbase": bytes(20),
            "difficulty": 0,
            "extra_data": b"",
            "gas_limit": GAS_LIMIT,
            "mix_hash": bytes(32),
            "nonce": bytes(8),
            "receipt_root": _BLANK_ROOT,
            "transaction_root": _BLANK_ROOT,
            "timestamp": self.now_s() - 1,
        }
        self._chain = chain_class.from_genesis(AtomicDB(), genesis, state)
        self._keep(self._chain.get_canonical_block_by_number(0), ())

    # --- time ---------------------------------------------------------------------------------------------------

    def now_s(self) -> int:
        """The second that a block made now would carry, if that is later than the newest block's."""
        return int(self.clock()) + self._offset_s

    def travel(self, seconds: int) -> int:
        """Move this chain's time ahead of the clock; returns by how much in total."""
        self._offset_s += seconds
        return self._offset_s

    @property
    def head(self) -> Any:
        return self.blocks[-1].header

    # --- blocks -------------------------------------------------------------------------------------------------

    def make_block(self, transactions: Sequence[tuple[Any, bytes]] = ()) -> list[RefusedError | None]:
        """Make the next block of those transactions that are valid, in their order; the answer says why the others are not.

        Its time is the clock's, but at least a second after its parent's, as Ethereum demands.
        """
        refusals: list[RefusedError | None] = [None] * len(transactions)
        while True:
            header = self._next_header()
            vm = self._chain.get_vm(header)
            applied: list[tuple[Any, bytes, Any, Any]] = []
            for position, (transaction, raw) in enumerate(transactions):
                if refusals[position] is not None:
                    continue
                refusals[position] = _find_refusal(vm, header, transaction)
                if refusals[position] is not None:
                    continue
                try:
                    receipt, computation = vm.apply_transaction(header, transaction)
                except (ValidationError, VMError) as error:
                    refusals[position] = RefusedError(f"invalid transaction: {error}")
                    break  # It may have left traces in this state: build the block anew without it.
                header = vm.add_receipt_to_header(header, receipt)
                applied.append((transaction, raw, receipt, computation))
            else:
                break
        filled = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), header, [item[0] for item in applied], [item[2] for item in applied]
        )
        block = vm.mine_block(filled, coinbase=bytes(20), mix_hash=os.urandom(32)).block
        self._chain.chaindb.persist_block(block)
        self._keep(block, tuple(self._index(block, applied)))
        return refusals

    def _next_header(self) -> Any:
        timestamp = max(self.now_s(), self.head.timestamp + 1)
        return self._chain.create_header_from_parent(self.head, timestamp=timestamp, gas_limit=GAS_LIMIT)

    def _index(self, block: Any, applied: Iterable[tuple[Any, bytes, Any, Any]]) -> Iterator[MinedTransaction]:
        gas_before = logs_before = 0
        for index, (transaction, raw, receipt, computation) in enumerate(applied):
            contract = computation.msg.storage_address if not transaction.to else None
            yield MinedTransaction(transaction, raw, block, index, receipt, receipt.gas_used - gas_before, contract, logs_before)
            gas_before = receipt.gas_used
            logs_before += len(receipt.logs)

    def _keep(self, block: Any, mined: tuple[MinedTransaction, ...]) -> None:
        self.blocks.append(block)
        self.in_block.append(mined)
        self.by_hash[block.hash] = block
        self.mined.update({item.transaction.hash: item for item in mined})

    # --- transactions -------------------------------------------------------------------------------------------

    def decode(self, raw: bytes) -> Any:
        """Read a signed transaction and check what can be checked before its block. Raises: RefusedError."""
        if len(raw) > TRANSACTION_BYTES_MAX:
            raise RefusedError(f"oversized data: {len(raw)} bytes, limit {TRANSACTION_BYTES_MAX}")
        try:
            transaction = self._chain.get_vm(self.head).get_transaction_builder().decode(raw)
            transaction.validate()
            sender = transaction.sender
        except (RLPException, ValidationError, VMError, ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise RefusedError(f"not a signed transaction: {error}", code=-32602) from error
        if transaction.hash in self.mined:
            raise RefusedError("already known")
        if transaction.chain_id not in (None, self.chain_id):
            raise RefusedError(f"invalid chain id: have {transaction.chain_id} want {self.chain_id}")
        state = self._chain.get_vm(self.head).state
        if transaction.nonce < state.get_nonce(sender):
            raise RefusedError(f"nonce too low: next nonce {state.get_nonce(sender)}, tx nonce {transaction.nonce}")
        needed = transaction.value + transaction.gas * transaction.max_fee_per_gas
        if state.get_balance(sender) < needed:
            raise RefusedError(f"insufficient funds for gas * price + value: have {state.get_balance(sender)} want {needed}")
        if transaction.gas > GAS_LIMIT:
            raise RefusedError("exceeds block gas limit")
        return transaction

    @property
    def faucet(self) -> bytes:
        return bytes(self._faucet.public_key.to_canonical_address())

    def fund(self, wallet: bytes, amount_wei: int, waiting: int = 0) -> tuple[Any, bytes]:
        """A transaction of the faucet, ready for a block that also takes the `waiting` ones before it."""
        vm = self._chain.get_vm(self.head)
        nonce = vm.state.get_nonce(self.faucet) + waiting
        unsigned = vm.get_transaction_builder().create_unsigned_transaction(
            nonce=nonce, gas_price=self.head.base_fee_per_gas * 2, gas=60_000, to=wallet, value=amount_wei, data=b""
        )
        signed = unsigned.as_signed_transaction(self._faucet, chain_id=self.chain_id)
        return signed, rlp.encode(signed)

    # --- state --------------------------------------------------------------------------------------------------

    def state_at(self, header: Any) -> Any:
        """Balances, nonces, code and storage after the block with this header."""
        return self._chain.get_vm(header).state

    def call(self, header: Any, message: Mapping[str, Any]) -> bytes:
        """Execute without keeping anything, in the block with this header; no fee is taken.

        Args: message: `sender`, `to`, `value`, `gas`, `data`.
        Raises: RefusedError with the revert bytes.
        """
        output, _ = self._execute(header.copy(base_fee_per_gas=0), message, message["gas"])
        return output

    def estimate_gas(self, message: Mapping[str, Any]) -> int:
        """Gas that suffices for this call in the next block: found by trying, within 2 %. Raises: RefusedError."""
        header = self._next_header().copy(base_fee_per_gas=0)
        _, used = self._execute(header, message, GAS_LIMIT)
        low, high = used - 1, GAS_LIMIT
        # As geth: a call passes on 63 of 64 parts of what is left, and one that sends money needs its stipend on top.
        attempt = (used + CALL_STIPEND_GAS) * 64 // 63 + 1
        while high - low > max(low // 50, 100):
            if self._suffices(header, message, min(attempt, GAS_LIMIT)):
                high = min(attempt, GAS_LIMIT)
            else:
                low = attempt
            attempt = (low + high) // 2
        return high

    def _suffices(self, header: Any, message: Mapping[str, Any], gas: int) -> bool:
        try:
            self._execute(header, message, gas)
        except RefusedError:
            return False
        return True

    def _execute(self, header: Any, message: Mapping[str, Any], gas: int) -> tuple[bytes, int]:
        vm = self._chain.get_vm(header)
        state = vm.state
        unsigned = vm.get_transaction_builder().create_unsigned_transaction(
            nonce=state.get_nonce(message["sender"]),
            gas_price=0,
            gas=min(gas, GAS_LIMIT),
            to=message["to"],
            value=message["value"],
            data=message["data"],
        )
        snapshot = state.snapshot()
        try:
            computation = state.apply_transaction(SpoofTransaction(unsigned, from_=message["sender"]))
        except (ValidationError, VMError) as error:
            raise RefusedError(str(error)) from error
        finally:
            state.revert(snapshot)
        if computation.is_error:
            reverted = type(computation.error).__name__ == "Revert"
            message_text = "execution reverted" if reverted else f"execution failed: {computation.error!r}"
            raise RefusedError(message_text, code=3 if reverted else -32000, revert=bytes(computation.output) if reverted else None)
        return bytes(computation.output), computation.get_gas_used() + unsigned.intrinsic_gas


def _find_refusal(vm: Any, header: Any, transaction: Any) -> RefusedError | None:
    """Why a transaction cannot be in this block; checked before anything is changed."""
    try:
        vm.validate_transaction_against_header(header, transaction)
        vm.state.validate_transaction(transaction)
    except (ValidationError, VMError) as error:
        return RefusedError(f"invalid transaction: {error}")
    return None if transaction.gas >= transaction.intrinsic_gas else RefusedError("intrinsic gas too low")
