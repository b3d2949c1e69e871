"""Transactions of the contract `Tips` beyond a single tip (4.3, Eq. 1): a payer's budget, tips out of it, and what helpers collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from learnae.backends.ethereum.abi import tips_abi
from learnae.backends.ethereum.intents import Intent, encode_withdrawal
from learnae.backends.ethereum.queries import call_view
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.ethereum.rpc import Endpoint
from learnae.ids import Address, Wei

TIPS_MAX: Final = 300  # In a transaction: at most 25 thousand gas each, 7.5 million together.


@dataclass(frozen=True, slots=True)
class Tip:
    """What one receipt is worth to the payer. `receipt`: 32 bytes, the digest of the help receipt."""

    helper: Address
    amount_wei: Wei
    receipt: bytes


async def read_budget(endpoint: Endpoint, facts: SessionFacts, payer: Address, block: int) -> Wei:
    """What is left in a payer's budget at a block. Raises: ChainAnswerError."""
    (budget,) = await call_view(endpoint, tips_abi(), facts.tips, block, "budget", payer)
    return Wei(budget)


def fill_budget(facts: SessionFacts, amount_wei: Wei) -> Intent:
    """Raise the sender's budget."""
    return Intent("filling the budget for tips", facts.tips, tips_abi().encode("fill"), amount_wei)


def reclaim_budget(facts: SessionFacts, amount_wei: Wei) -> Intent:
    """Take back so much of the sender's budget."""
    return Intent("taking back the budget for tips", facts.tips, tips_abi().encode("reclaim", amount_wei))


def give_tips(facts: SessionFacts, tips: Sequence[Tip]) -> Intent:
    """Up to `TIPS_MAX` tips out of the sender's budget, all or none; they are collected for their helpers."""
    assert 0 < len(tips) <= TIPS_MAX
    what = "the tip out of the budget" if len(tips) == 1 else f"{len(tips)} tips out of the budget"
    return Intent(what, facts.tips, tips_abi().encode("tip", [(tip.helper, tip.amount_wei, tip.receipt) for tip in tips]))


def take_tips(facts: SessionFacts, wallet: Address, to: Address | None = None) -> Intent:
    """Withdraw the tips that were collected for a helper, who may send them to another address."""
    return Intent("taking out the tips", facts.tips, encode_withdrawal(tips_abi(), wallet, to))
