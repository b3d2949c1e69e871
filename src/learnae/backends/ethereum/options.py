"""How a wallet pays and waits: the settings of an `EthereumChain`, and what they are by default on the chain it is on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DEV_CHAIN_IDS: Final = frozenset({1337, 31337, 5777})
"""Chains on one machine: the embedded one and ganache, anvil and hardhat, ganache's window. Nobody else makes blocks there."""
PUBLIC_CONFIRMATIONS: Final = 5  # A minute of Ethereum. Proof of stake has replaced one or two blocks at a time, rarely more.
PUBLIC_POLL_S: Final = 2.0  # A block comes every 12 s; free endpoints count requests.
PUBLIC_TURN_S: Final = 24.0  # Two blocks: so long one member waits whether another's transaction does what its own would do.
FEE_CAP_WEI: Final = 200 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """How a wallet pays and waits. None means: what fits the chain."""

    fee_cap_wei: int = FEE_CAP_WEI  # Most that is paid for a unit of gas; above it a call waits.
    confirmations: int | None = None  # Blocks that must hold an event, its own included, before it counts.
    poll_s: float | None = None  # Between looks for a receipt.
    fee_poll_s: float = 12.0  # Between looks at the price while it is above the cap: a block of the main network.
    bump_after_s: float = 90.0  # A transaction that is in no block after so long is replaced by one that pays more.
    witness_url: str = ""  # A second endpoint; what the two do not agree on stops every transaction.
    patient: bool = False  # Whether opening waits for an endpoint that is down, instead of raising.
    save_pending: Callable[[bytes | None], None] | None = None  # The signed transaction before its broadcast; None when it is done.
    on_progress: Callable[[str], None] = lambda sentence: None  # Hears how a transaction gets on.

    def choose_confirmations(self, chain_id: int) -> int:
        if self.confirmations is not None:
            return self.confirmations
        return 1 if chain_id in DEV_CHAIN_IDS else PUBLIC_CONFIRMATIONS

    def choose_poll_s(self, chain_id: int) -> float:
        if self.poll_s is not None:
            return self.poll_s
        return 0.5 if chain_id in DEV_CHAIN_IDS else PUBLIC_POLL_S
