"""`learnae dao join`: a proof of identity, the deposit, and nothing twice."""

from __future__ import annotations

from learnae.cli.checks import check_contract
from learnae.cli.consent import tell
from learnae.cli.dao.opening import RECORD_POID, Desk
from learnae.cli.spending import check_spending, compute_spending, format_spending
from learnae.errors import TransactionError
from learnae.ids import Address, peer_text, wei_text
from learnae.protocol.calls import ChainView, DeployPoid, Join, SessionTerms, Stage


async def join(desk: Desk) -> None:
    """Become a member. Raises: TransactionError: too late, full; NotEnoughMoneyError; ForeignRulesError."""
    chain = desk.chain
    terms, view = await chain.read_terms(desk.session), await chain.read(desk.session)
    if desk.ticket is not None:
        await check_contract(chain, desk.ticket)
    mine = next((member for member in view.members if member.wallet == chain.wallet), None)
    if mine is not None:
        print(f"{chain.wallet} is member {mine.index} already; nothing was paid")
        return
    _check_open(terms, view)
    spending = await compute_spending(chain, terms.deposit_wei)
    print(format_spending(spending))
    if not desk.sends:
        return
    await check_spending(chain, spending)
    if desk.asks:
        await desk.consent(f"Pay the deposit of {wei_text(terms.deposit_wei)} and join? [y/N] ")
        desk.asks = False
    poid = await _find_poid(desk)
    if poid is None:
        receipt = await desk.send_call(DeployPoid())
        assert receipt is not None and receipt.address is not None
        poid = receipt.address
        desk.keep(RECORD_POID, poid.encode())
    await desk.send_call(Join(poid))
    view = await chain.read(desk.session)
    number = next((member.index for member in view.members if member.wallet == chain.wallet), None)
    if number is None:
        print("the deposit is paid, but the endpoint does not show it yet; `learnae dao status` will list you as a member")
        return
    print(f"{chain.wallet} is member {number} of {len(view.members)}")


def _check_open(terms: SessionTerms, view: ChainView) -> None:
    """Before a proof of identity is paid for. Raises: TransactionError."""
    if view.stage is not Stage.FUNDING:
        why = f"the session is {view.stage.value} and joining belongs to funding"
        raise TransactionError("joining the session", why, "WrongStage")
    if len(view.members) >= terms.members_max:
        raise TransactionError("joining the session", f"the session has {terms.members_max} members, as many as it takes", "SessionFull")


async def _find_poid(desk: Desk) -> Address | None:
    """The proof of identity that an earlier, interrupted `join` deployed."""
    kept = desk.load(RECORD_POID)
    if kept is None:
        return None
    poid = Address(kept.decode())
    record = await desk.chain.read_poid(poid)
    if record.fault or record.wallet != desk.chain.wallet:
        return None
    tell(f"using the proof of identity {poid} of peer {peer_text(record.peer_id)}")
    return poid
