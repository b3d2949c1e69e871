"""The commands of `learnae dao`. What they are told is checked first, then the password is asked for, then the chain is."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from learnae.backends.ethereum import EthereumChain, governance
from learnae.backends.ethereum.tips import take_tips
from learnae.backends.keystore import Keys, create_keys, create_keystore, open_keystore
from learnae.backends.private_files import read_password
from learnae.cli.amounts import parse_address, parse_digest, parse_duration, parse_ether, parse_indices
from learnae.cli.consent import tell
from learnae.cli.dao import tipping
from learnae.cli.dao.joining import join
from learnae.cli.dao.opening import Desk, SessionName, find_folder, find_session, open_desk, open_reading
from learnae.cli.dao.text import describe_governance, describe_session, format_governance, format_session
from learnae.cli.signals import run_interruptible
from learnae.errors import MachineError, NotASessionError, TransactionError, UsageError
from learnae.ids import Address, Wei, wei_text
from learnae.protocol.calls import CastBallot, Leave, Release, SessionTerms, Stage, SubmitClaim, Tally, Withdraw, WithdrawTo
from learnae.protocol.fund import POINTS_MAX
from learnae.protocol.settlement import RELEASE_WALLETS_MAX

RULES_BYTES_MAX: Final = 16 << 20
MARGIN_S: Final = 30  # Until the contract is in a block; its first stage begins then.
NEW_KEYS: Final = ("deploy", "join")  # Commands that make a wallet where there is none.

Action = Callable[[Desk], Awaitable[None]]


def run_dao(options: argparse.Namespace) -> int:
    """Run one command; returns the exit status. Raises: LearnaeError."""
    if options.subcommand in READING:
        run_interruptible(partial(READING[options.subcommand], options, find_session(options.session)))
        return 0
    name = None if options.subcommand == "deploy" else find_session(options.session)
    action = SENDING[options.subcommand](options)
    keys = _open_keys(options, find_folder(options, name) / "keystore.json")

    async def run() -> None:
        async with open_desk(options, name, keys) as desk:
            await action(desk)
            if not desk.sends:
                print("nothing was sent")

    run_interruptible(run)
    return 0


def _open_keys(options: argparse.Namespace, path: Path) -> Keys:
    file = Path(options.password_file) if options.password_file else None
    if path.exists() or options.subcommand not in NEW_KEYS:
        return open_keystore(path, read_password(file))
    if options.dry_run:
        tell(f"there is no keystore {path} yet; without --dry-run a new wallet is made there")
        return create_keys()
    keys = create_keystore(path, read_password(file, confirm=True))
    tell(f"a new wallet {keys.wallet.address} was made in {path}; keep a copy of that file and its password")
    return keys


# --- reading --------------------------------------------------------------------------------------------------------


async def _status(options: argparse.Namespace, name: SessionName) -> None:
    async with open_reading(options, name) as (chain, me):
        terms, view = await chain.read_terms(name.contract), await chain.read(name.contract)
        values = describe_session(name.contract, chain.chain_id, terms, view, me=me, now_s=max(view.time_s, time.time()))
        facts = await chain.read_facts(name.contract)
        reader = governance.GovernanceReader(chain.endpoint, facts, me or name.contract)
        money = await chain.endpoint.surely(partial(reader.read, view.block_number))
        values |= {"governance": money.contract, "tips_contract": facts.tips, "proposals": money.count}
        if me is not None:
            values |= {"tips_wei": str(money.tips_wei), "tips_budget_wei": str(money.tips_budget_wei)}
            values |= {"proposal_deposits_back_wei": str(money.back_wei)}
        print(json.dumps(values, indent=1) if options.json else format_session(values, chain.confirmations))


async def _proposals(options: argparse.Namespace, name: SessionName) -> None:
    async with open_reading(options, name) as (chain, me):
        view, facts = await chain.read(name.contract), await chain.read_facts(name.contract)
        reader = governance.GovernanceReader(chain.endpoint, facts, me or name.contract)
        found = await chain.endpoint.surely(partial(reader.read, view.block_number))
        calls = {}
        for proposal in found.proposals:
            call = await chain.endpoint.surely(partial(reader.read_call, view.block_number, proposal))
            calls[proposal.number] = governance.describe_call(facts, name.contract, proposal.recipient, call)
        values = describe_governance(found, calls, now_s=max(view.time_s, time.time()))
        print(json.dumps(values, indent=1) if options.json else format_governance(values))


# --- the session ----------------------------------------------------------------------------------------------------


def _deploy(options: argparse.Namespace) -> Action:
    terms_of = _read_terms(options)

    async def act(desk: Desk) -> None:
        from learnae.backends.ethereum.chain import make_creation

        if await _is_deployed(desk, terms_of):
            return
        newest_s = await desk.chain.read_time()
        terms = terms_of(max(newest_s, int(time.time())) + MARGIN_S)
        receipt = await desk.send(make_creation(terms))
        if receipt is not None and receipt.address is not None:
            await _tell_deployed(desk, receipt.address)

    return act


async def _is_deployed(desk: Desk, terms_of: Callable[[int], SessionTerms]) -> bool:
    """Whether the interrupted command had sent the same session, which only began earlier; if so, tells where it is."""
    if desk.finished is None or desk.finished[1].address is None:
        return False
    contract = desk.finished[1].address
    try:
        found = await desk.chain.read_terms(contract)
    except NotASessionError:
        return False  # A proof of identity.
    if found != terms_of(found.funding_ends_s - terms_of(0).funding_ends_s) or found.funding_ends_s <= await desk.chain.read_time():
        return False
    print("the interrupted command had sent this session, and it is done now; no other one is sent")
    await _tell_deployed(desk, contract)
    return True


async def _tell_deployed(desk: Desk, contract: Address) -> None:
    facts = await desk.chain.read_facts(contract)
    print(f"the session's contract is {contract}\n  governance {facts.governance}, tips {facts.tips}")
    print(f"others join with:  learnae dao join {contract}")


def _read_terms(options: argparse.Namespace) -> Callable[[int], SessionTerms]:
    """The terms, once the first second of the session is known. Raises: UsageError, MachineError."""
    try:
        with Path(options.rules).open("rb") as file:
            rules = file.read(RULES_BYTES_MAX + 1)
    except OSError as error:
        raise MachineError(error) from error
    if len(rules) > RULES_BYTES_MAX:
        raise UsageError(f"{options.rules} is larger than {RULES_BYTES_MAX} bytes; give the document that the members read")
    if not 0 < options.reject_quorum <= 100:
        raise UsageError(f"--reject-quorum is {options.reject_quorum}, expected more than 0 and at most 100 percent")
    deposit, proposal_deposit = parse_ether(options.deposit), parse_ether(options.proposal_deposit)
    stages = [parse_duration(getattr(options, stage)) for stage in ("funding", "training", "claiming", "voting")]
    extension, debating = parse_duration(options.extension), parse_duration(options.debating)

    def make(starts_s: int) -> SessionTerms:
        ends = [starts_s + sum(stages[: count + 1]) for count in range(len(stages))]
        return SessionTerms(
            rules_digest=hashlib.sha256(rules).digest(),
            deposit_wei=deposit,
            members_min=options.members_min,
            members_max=options.members_max,
            funding_ends_s=ends[0],
            training_ends_s=ends[1],
            claiming_ends_s=ends[2],
            voting_ends_s=ends[3],
            reject_quorum_permille=round(options.reject_quorum * 10),
            extension_max_s=extension,
            proposal_deposit_wei=proposal_deposit,
            min_quorum_divisor=options.quorum_divisor,
            debating_min_s=debating,
        )

    return make


def _join(_options: argparse.Namespace) -> Action:
    return join


def _leave(_options: argparse.Namespace) -> Action:
    async def act(desk: Desk) -> None:
        await desk.send_call(Leave())

    return act


def _claim(options: argparse.Namespace) -> Action:
    if not 0 <= options.points <= POINTS_MAX:
        raise UsageError(f"--points is {options.points}, expected 0 to {POINTS_MAX}")
    call = SubmitClaim(options.points, parse_digest(options.evidence, "--evidence"))

    async def act(desk: Desk) -> None:
        await desk.send_call(call)

    return act


def _vote(options: argparse.Namespace) -> Action:
    if options.proposal is not None:
        if options.in_favour == options.against:
            raise UsageError("a vote on a proposal is --for or --against")
        return _vote_on_proposal(options.proposal, yes=options.in_favour)
    if options.in_favour or options.against:
        raise UsageError("--for and --against belong to --proposal; claims are voted on with --reject or --approve-all")
    text = options.reject

    async def act(desk: Desk) -> None:
        view = await desk.chain.read(desk.session)
        nays = parse_indices(text, len(view.members)) if text else ()
        for claim in view.claims:
            verdict = "against" if claim.index in nays else "for"
            print(f"  {verdict:>7} the claim of member {claim.index}, {view.members[claim.index].wallet}: {claim.points} points")
        await desk.send_call(CastBallot(nays))

    return act


def _release(_options: argparse.Namespace) -> Action:
    async def act(desk: Desk) -> None:
        view = await desk.chain.read(desk.session)
        if view.stage is Stage.SETTLING:
            if await desk.send_call(Tally()) is None:
                return
            view = await desk.chain.read(desk.session)
        due = [wallet for wallet, amount in (view.due_wei or {}).items() if amount]
        if not due:
            raise _nothing_due("the release", "anybody", view.stage)
        for first in range(0, len(due), RELEASE_WALLETS_MAX):
            await desk.send_call(Release(tuple(due[first : first + RELEASE_WALLETS_MAX])))
        if desk.sends:
            view = await desk.chain.read(desk.session)
            left = [wallet for wallet, amount in (view.due_wei or {}).items() if amount]
            if left:
                tell(f"these wallets did not take their money, which stays theirs (`learnae dao withdraw --to`): {', '.join(left)}")

    return act


def _withdraw(options: argparse.Namespace) -> Action:
    to = parse_address(options.to) if options.to else None

    async def act(desk: Desk) -> None:
        wallet = desk.chain.wallet
        view, facts = await desk.chain.read(desk.session), await desk.read_facts()
        credits = await _read_governance(desk.chain, desk.session, view.block_number)
        share = (view.due_wei or {}).get(wallet, Wei(0))
        if not (share or credits.back_wei or credits.tips_wei):
            raise _nothing_due("the withdrawal", wallet, view.stage)
        if share:
            await desk.send_call(Withdraw() if to is None else WithdrawTo(to))
        if credits.back_wei:
            await desk.send(governance.take_back(facts, wallet, to))
        if credits.tips_wei:
            await desk.send(take_tips(facts, wallet, to))

    return act


def _nothing_due(what: str, whom: str, stage: Stage) -> TransactionError:
    return TransactionError(what, f"nothing is due to {whom} now; the session is {stage.value}", "NothingDue")


# --- governance -----------------------------------------------------------------------------------------------------


async def _read_governance(chain: EthereumChain, session: Address, block: int) -> governance.GovernanceView:
    reader = governance.GovernanceReader(chain.endpoint, await chain.read_facts(session), chain.wallet)
    return await chain.endpoint.surely(partial(reader.read, block))


def _propose(options: argparse.Namespace) -> Action:
    debating_s = parse_duration(options.debate) if options.debate else 0
    pay = (parse_address(options.pay[0]), parse_ether(options.pay[1])) if options.pay else None
    change = _read_change(*options.change) if options.change else None

    async def act(desk: Desk) -> None:
        view, facts = await desk.chain.read(desk.session), await desk.read_facts()
        state = await _read_governance(desk.chain, desk.session, view.block_number)
        if pay is not None:
            (recipient, amount), call = pay, b""
        else:
            assert change is not None
            recipient, call = governance.make_change(facts, desk.session, *change)
            amount = Wei(0)
        print(f"proposed: {governance.describe_call(facts, desk.session, recipient, call)}")
        length_s = debating_s or facts.terms.debating_min_s
        intent = governance.propose(state, recipient, amount, options.text, call, debating_s=length_s)
        if await desk.send(intent) is not None:
            view = await desk.chain.read(desk.session)
            state = await _read_governance(desk.chain, desk.session, view.block_number)
            number = max((proposal.number for proposal in state.proposals if proposal.creator == desk.chain.wallet), default=None)
            if number is None:
                print("it is made, but the endpoint does not show it yet; `learnae dao proposals` will list it with its number")
                return
            print(f"it is proposal {number}; others vote with:  learnae dao vote {desk.session} --proposal {number} --for")

    return act


def _read_change(what: str, value: str) -> tuple[str, int]:
    if what == "proposal-deposit":
        return what, parse_ether(value)
    if what == "extend":
        return what, parse_duration(value)
    if what == "quorum-divisor":
        if not value.isdecimal() or len(value) > 6:
            raise UsageError(f"the quorum's divisor {value[:40]!r} is not a whole number")
        return what, int(value)
    raise UsageError(f"--change {what[:40]!r} is unknown; expected one of {', '.join(governance.OWN_CALLS)}")


def _vote_on_proposal(number: int, *, yes: bool) -> Action:
    async def act(desk: Desk) -> None:
        await _show_proposal(desk, number)
        await desk.send(governance.vote(await desk.read_facts(), number, yes=yes))

    return act


def _execute(options: argparse.Namespace) -> Action:
    async def act(desk: Desk) -> None:
        call = await _show_proposal(desk, options.proposal)
        await desk.send(governance.execute(await desk.read_facts(), options.proposal, call))

    return act


def _close(options: argparse.Namespace) -> Action:
    async def act(desk: Desk) -> None:
        await _show_proposal(desk, options.proposal)
        await desk.send(governance.close(await desk.read_facts(), options.proposal))

    return act


async def _show_proposal(desk: Desk, number: int) -> bytes:
    """Print what a proposal does; returns its call. Raises: TransactionError: there is none of that number."""
    view, facts = await desk.chain.read(desk.session), await desk.read_facts()
    reader = governance.GovernanceReader(desk.chain.endpoint, facts, desk.chain.wallet)
    state = await _read_governance(desk.chain, desk.session, view.block_number)
    if not 0 <= number < state.count:
        raise TransactionError("this", f"there is no proposal {number}; `learnae dao proposals` lists them", "NoSuchProposal")
    proposal = await desk.chain.endpoint.surely(partial(reader.read_proposal, view.block_number, number))
    call = await desk.chain.endpoint.surely(partial(reader.read_call, view.block_number, proposal))
    print(f"proposal {number}: {governance.describe_call(facts, desk.session, proposal.recipient, call)}")
    print(f"  sends {wei_text(proposal.amount_wei)} to {proposal.recipient}; \"{proposal.description}\"")
    return call


READING: Final = {"status": _status, "proposals": _proposals}
SENDING: Final[dict[str, Callable[[argparse.Namespace], Action]]] = {
    "deploy": _deploy,
    "join": _join,
    "leave": _leave,
    "claim": _claim,
    "vote": _vote,
    "release": _release,
    "withdraw": _withdraw,
    "propose": _propose,
    "execute": _execute,
    "close": _close,
    "tip": tipping.tip,
    "budget": tipping.budget,
}
