"""What a member will spend in a session, told before anything is sent: deposit and gas of every call, with the fees of now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from learnae.cli.amounts import GWEI
from learnae.errors import NotEnoughMoneyError
from learnae.ids import Wei, wei_text

if TYPE_CHECKING:
    from learnae.backends.ethereum import EthereumChain

_REMARKS = {
    "proof of identity": "unless this wallet has one for this peer",
    "claim": "nothing if another member sends your signed claim",
    "ballot": "nothing if another member sends your signed ballot",
    "tally": "one member does it for all",
    "withdrawal": "nothing if another member releases the fund",
}


@dataclass(frozen=True, slots=True)
class Spending:
    """A member's deposit and the gas of its calls, at a price of gas."""

    deposit_wei: Wei
    gas: dict[str, int]
    price_wei: int

    @property
    def fees_wei(self) -> Wei:
        return Wei(sum(self.gas.values()) * self.price_wei)

    @property
    def total_wei(self) -> Wei:
        return Wei(self.deposit_wei + self.fees_wei)


async def compute_spending(chain: EthereumChain, deposit_wei: Wei) -> Spending:
    """What a member spends at most with the fees of now; the gas is measured, because a call can be estimated only in its stage."""
    from learnae.backends.ethereum.costs import MEASURED_GAS, MEMBER_CALLS

    price = await chain.read_price()
    return Spending(deposit_wei, {name: MEASURED_GAS[name] for name in MEMBER_CALLS}, price.wei)


async def check_spending(chain: EthereumChain, spending: Spending) -> None:
    """Whether the chain's wallet can pay all of it, also if gas becomes twice as dear. Raises: NotEnoughMoneyError."""
    balance, needed = await chain.balance_wei(chain.wallet), spending.deposit_wei + 2 * spending.fees_wei
    if balance < needed:
        raise NotEnoughMoneyError("joining the session", chain.wallet, balance, needed)


def format_spending(spending: Spending) -> str:
    """One line for each part, and the total."""
    lines = [f"what a member spends at most, with gas at {spending.price_wei / GWEI:.2f} gwei:"]
    lines.append(f"{'deposit':>18}  {wei_text(spending.deposit_wei)}; the session decides what comes back")
    for name, gas in spending.gas.items():
        remark = f"; {_REMARKS[name]}" if name in _REMARKS else ""
        lines.append(f"{name:>18}  {gas} gas, {wei_text(gas * spending.price_wei)}{remark}")
    lines.append(f"{'all fees':>18}  {wei_text(spending.fees_wei)}")
    lines.append(f"{'total':>18}  {wei_text(spending.total_wei)}")
    return "\n".join(lines)
