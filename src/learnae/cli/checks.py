"""What is compared before anybody deposits: the ticket's rules and the contract's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learnae.errors import ForeignRulesError
from learnae.protocol.rules import Ticket

if TYPE_CHECKING:
    from learnae.backends.ethereum import EthereumChain


async def check_contract(chain: EthereumChain, ticket: Ticket) -> None:
    """Compare what the ticket says with what the contract holds, before anybody deposits.

    Raises: NotASessionError, ForeignRulesError.
    """
    terms, expected = await chain.read_terms(ticket.contract), ticket.rules.compute_terms()
    for name in expected.__dataclass_fields__:
        mine, theirs = getattr(expected, name), getattr(terms, name)
        if mine != theirs:
            texts = [value.hex()[:16] if isinstance(value, bytes) else value for value in (mine, theirs)]
            raise ForeignRulesError(name, *texts)
