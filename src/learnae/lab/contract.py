"""The real contract under a simulated session: Solidity code on the embedded chain, beside the reference model.

Each call of a simulated peer becomes a transaction that its own wallet signs and the Ethereum backend sends, over the same JSON-RPC
as in a node, but without a socket. The reference model takes the same call; if one of them refuses what the other one accepts, or
they disagree about stage, claims, ballots or dues, the run stops. What peers see is read from the contract, and `read_balance` is
money on the chain.

A block takes at least a second of block time and a simulated second may bring hundreds of calls, so the contract's clock runs `STRETCH`
times as fast: the terms that it is created with are stretched alike, and its stages change in the same simulated second.
Needs the extras `chain` and `chain-embedded`. Source: paper, section 6, Fig. 5; docs/contracts.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import trio

from learnae.backends.chain_server.engine import LocalChain
from learnae.backends.chain_server.rpc import ChainService
from learnae.backends.ethereum.chain import EthereumChain
from learnae.backends.ethereum.intents import Author
from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.rpc import Endpoint
from learnae.backends.ethereum.signed_calls import is_signed, sign_call
from learnae.backends.ethereum.wallet import WalletKey
from learnae.errors import InvariantBrokenError, TransactionError
from learnae.ids import Address, PeerId, Wei
from learnae.protocol.calls import Call, ChainView, SessionTerms, Signable
from learnae.protocol.fund import FundError
from learnae.protocol.rules import SessionRules
from learnae.sim.chain import SimulatedChain
from learnae.sim.scenario import EPOCH_S
from learnae.sim.world import derive_key

STRETCH: Final = 5000  # Seconds of block time in a simulated one: above the most members that a session can have.
PREFUND_WEI: Final = 10**24


class InsideEndpoint(Endpoint):
    """An endpoint in this process: requests pass through JSON as they would over HTTP, and nothing is sent anywhere."""

    def __init__(self, service: ChainService) -> None:
        super().__init__("http://127.0.0.1", lambda sentence: None)
        self._service = service

    async def _post(self, asked: object, what: str) -> Any:
        request = json.loads(json.dumps(asked))
        if isinstance(request, list):
            return [await self._service.answer(one) for one in request]
        return await self._service.answer(request)


class ContractChain(SimulatedChain):
    """The session's contract on the embedded chain, and one wallet for every peer."""

    def __init__(self, rules: SessionRules, peers: Sequence[PeerId], *, seed: int, command: str) -> None:
        """Create the contract. `seed` gives the wallets and is that of the simulated world; `command` is what repeats the run."""
        super().__init__(rules, peers)
        self._rules, self._command = rules, command
        self._keys = {peer: WalletKey(hashlib.sha256(f"learnae wallet {seed} {i}".encode()).digest()) for i, peer in enumerate(peers)}
        self.wallets = {peer: key.address for peer, key in self._keys.items()}
        self.tipped_wei = dict.fromkeys(self.wallets.values(), 0)
        founder = WalletKey(hashlib.sha256(b"learnae founder").digest())
        prefund = {bytes.fromhex(wallet[2:]): PREFUND_WEI for wallet in (*self.wallets.values(), founder.address)}
        self._clock_s = EPOCH_S
        self._chain = LocalChain(rules.chain_id, prefund, lambda: self._clock_s)
        endpoint = InsideEndpoint(ChainService(self._chain, instant=True))

        def connect(key: WalletKey, peer: PeerId, sign: Callable[[bytes], bytes]) -> EthereumChain:
            return EthereumChain(endpoint, Author(key, peer, sign, rules.chain_id), lambda sentence: None, ChainOptions(fee_cap_wei=10**18))

        self._senders = {peer: connect(key, peer, _make_signer(seed, i)) for i, (peer, key) in enumerate(self._keys.items())}
        self._founder = connect(founder, peers[0], _make_signer(seed, 0))  # It only creates the session, and reads it for all.
        self.session: Address = trio.run(self._founder.deploy_session, _stretch(rules.compute_terms()))
        self._fees_wei = dict.fromkeys(peers, 0)
        self.transactions = 0
        self._seen: tuple[int, int] | None = None

    # --- calls --------------------------------------------------------------------------------------------------

    def execute(self, peer: PeerId, call: Call, now_s: int) -> Address | None:
        """Send one peer's call and wait for its block.

        Raises: FundError: the contract refuses; InvariantBrokenError: it does, and its reference model does not, or the reverse.
        """
        self._set_clock(now_s)
        address, refusal = None, ""
        try:
            receipt = trio.run(self._senders[peer].submit, self.session, call)
        except TransactionError as error:
            refusal = error.reason or str(error)
        else:
            address = receipt.address
            self._fees_wei[peer] += receipt.fee_wei
            self.transactions += 1
        expected = ""
        try:
            super().execute(peer, call, now_s)
        except FundError as error:
            expected = error.reason
        if refusal != expected:
            self._fail(f"{type(call).__name__}: {refusal or 'done'} and {expected or 'done'}")
        if refusal:
            raise FundError(refusal)
        return address

    def sign(self, peer: PeerId, call: Signable) -> bytes:
        return sign_call(self._keys[peer], chain_id=self._rules.chain_id, session=self.session, call=call)

    def _is_signed(self, wallet: Address, call: Signable, signature: bytes) -> bool:
        return is_signed(wallet, call, signature, chain_id=self._rules.chain_id, session=self.session)

    # --- what peers see -----------------------------------------------------------------------------------------

    def read(self, now_s: int) -> ChainView:
        """The session as the contract's events and views show it at `now_s`. Raises: InvariantBrokenError."""
        seen = (self.transactions, now_s)
        if self._view is None or self._seen != seen:
            self._set_clock(now_s)
            self._chain.make_block()
            view = trio.run(self._founder.read, self.session)
            view = replace(
                view,
                time_s=now_s,
                newest_s=now_s,
                training_ends_s=_shrink(view.training_ends_s),
                claiming_ends_s=_shrink(view.claiming_ends_s),
                voting_ends_s=_shrink(view.voting_ends_s),
            )
            self._compare(view, now_s)
            self._view, self._seen = ((seen,), view), seen
        return self._view[1]

    def read_balance(self, peer: PeerId) -> Wei:
        """What the peer's wallet holds now beside what it brought, fees left out: its deposit and all that it gained or lost."""
        state = self._chain.state_at(self._chain.head)
        held = int(state.get_balance(bytes.fromhex(self.wallets[peer][2:])))
        return Wei(held - PREFUND_WEI + self._fees_wei[peer] + self._rules.deposit_wei)

    def _compare(self, view: ChainView, now_s: int) -> None:
        fund = self.fund
        stage = fund.compute_stage(now_s)
        if view.stage is not stage:
            self._fail(f"stage {view.stage.value} and {stage.value}")
        if [member.wallet for member in view.members] != [seat.wallet for seat in fund.seats]:
            self._fail("about the members")
        if list(view.claims) != [seat.claim for seat in fund.seats if seat.claim is not None]:
            self._fail("about the claims")
        if view.ballots != {index for index, seat in enumerate(fund.seats) if seat.voted}:
            self._fail("about the ballots")
        if view.due_wei is not None and view.due_wei != {seat.wallet: fund.compute_due(seat.wallet, now_s) for seat in fund.seats}:
            self._fail("about what is due")

    def _set_clock(self, now_s: int) -> None:
        self._clock_s = max(self._clock_s, EPOCH_S + (now_s - EPOCH_S) * STRETCH)

    def _fail(self, how: str) -> None:
        raise InvariantBrokenError(f"the contract and its reference model disagree, {how}", self._command)


def _make_signer(seed: int, index: int) -> Callable[[bytes], bytes]:
    """What signs with a simulated peer's own key, for its proof of identity (4.4)."""
    key = derive_key(seed, index)
    return lambda message: bytes(key.sign(message).signature)


def _stretch(terms: SessionTerms) -> SessionTerms:
    """The same terms on a clock that runs `STRETCH` times as fast from the start of all simulated sessions."""
    names = ("funding_ends_s", "training_ends_s", "claiming_ends_s", "voting_ends_s")
    return replace(terms, **{name: EPOCH_S + (getattr(terms, name) - EPOCH_S) * STRETCH for name in names})


def _shrink(time_s: int) -> int:
    """A time of the contract's clock on the simulator's, rounded up."""
    return EPOCH_S - (EPOCH_S - time_s) // STRETCH
