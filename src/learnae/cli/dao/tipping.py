"""`learnae dao tip` and `learnae dao budget`: pay helpers at once, or many of them together out of a budget that is never passed."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from learnae.backends.ethereum.tips import TIPS_MAX, Tip, fill_budget, give_tips, read_budget, reclaim_budget
from learnae.cli.amounts import parse_address, parse_digest, parse_ether
from learnae.cli.consent import tell
from learnae.cli.dao.opening import Desk
from learnae.errors import MachineError, TransactionError, UsageError
from learnae.ids import Wei, wei_text
from learnae.protocol.calls import ChainView, PayTip
from learnae.tangle import cbor

LINES_MAX: Final = 10_000
NO_RECEIPT: Final = "00" * 32
RECORD_LIST: Final = "tips given of a list"
"""Name of the journal's record of a list whose tips take several transactions, while not all are given."""


def tip(options: argparse.Namespace) -> Callable[[Desk], Awaitable[None]]:
    """Pay one helper at once or out of the budget, or all of a list out of the budget. Raises: UsageError, MachineError."""
    if options.list is not None:
        if options.helper is not None or options.receipt is not None:
            raise UsageError("with --list helpers, amounts and receipts stand in the file; give the list alone, or HELPER AMOUNT")
        return partial(_give, tips=read_list(Path(options.list)))
    if options.helper is None or options.amount is None:
        raise UsageError("whom to tip is missing: give HELPER AMOUNT, or --list FILE")
    one = Tip(parse_address(options.helper), parse_ether(options.amount), parse_digest(options.receipt or NO_RECEIPT, "--receipt"))
    if options.budget:
        return partial(_give, tips=[one])

    async def pay(desk: Desk) -> None:
        _point_out_strangers(await desk.chain.read(desk.session), [one])
        await desk.send_call(PayTip(one.helper, one.amount_wei, one.receipt))

    return pay


def budget(options: argparse.Namespace) -> Callable[[Desk], Awaitable[None]]:
    """Raise the budget, or take back what is left of it or a part. Raises: UsageError."""
    everything = options.reclaim == "all"
    amount = Wei(0) if everything else parse_ether(options.reclaim if options.fill is None else options.fill)
    if not amount and not everything:
        raise UsageError("the budget changes by an amount above zero; write ether such as 0.01, or wei such as 10000wei")

    async def change(desk: Desk) -> None:
        facts, left = await desk.read_facts(), await _read_budget(desk)
        if options.fill is not None:
            await desk.send(fill_budget(facts, amount))
        elif not left:
            raise TransactionError("taking back the budget", "there is nothing in it; `--fill` fills it", "NothingDue")
        else:
            await desk.send(reclaim_budget(facts, left if everything else amount))
        if desk.sends:
            print(f"the budget for tips is {wei_text(await _read_budget(desk))}")

    return change


def read_list(path: Path) -> list[Tip]:
    """Tips of a text file, one a line: HELPER AMOUNT [RECEIPT]; empty lines and what follows # are passed over.

    Raises: UsageError: a line is something else, or there is none; MachineError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(islice(file, LINES_MAX + 1))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file; expected lines of HELPER AMOUNT [RECEIPT]") from error
    except OSError as error:
        raise MachineError(error) from error
    if len(lines) > LINES_MAX:
        raise UsageError(f"{path} has more than {LINES_MAX} lines; give it in parts")
    tips = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not 2 <= len(words) <= 3:
            raise UsageError(f"line {number} of {path} has {len(words)} words; expected HELPER AMOUNT [RECEIPT]")
        helper, amount, receipt = *words[:2], words[2] if len(words) == 3 else NO_RECEIPT
        try:
            found = Tip(parse_address(helper), parse_ether(amount), parse_digest(receipt, "the receipt"))
        except UsageError as error:
            raise UsageError(f"line {number} of {path}: {error}") from error
        if not found.amount_wei:
            raise UsageError(f"line {number} of {path}: a tip of nothing")
        tips.append(found)
    if not tips:
        raise UsageError(f"{path} lists no tip; expected lines of HELPER AMOUNT [RECEIPT]")
    return tips


async def _give(desk: Desk, *, tips: Sequence[Tip]) -> None:
    """All tips out of the budget, which must reach for all before the first is given; those that an interrupted command gave are not
    given again."""
    facts = await desk.read_facts()
    digest = _digest(desk, tips)
    given = _load_given(desk, digest)
    if given:
        tell(f"an interrupted command gave the first {given} tips of this list; going on after them")
    upto = min(given + TIPS_MAX, len(tips))
    if desk.finished is not None and desk.finished[0].is_same(give_tips(facts, tips[given:upto])):
        await desk.send(give_tips(facts, tips[given:upto]))  # Only said: it was under way, and is done.
        given = _keep_given(desk, digest, upto, len(tips))
    left, total = await _read_budget(desk), sum(one.amount_wei for one in tips[given:])
    if total > left:
        missing = f"{wei_text(total)} are asked for and {wei_text(left)} are in the budget"
        raise TransactionError("the tip", f"{missing}; `learnae dao budget --fill` raises it", "OverBudget")
    _point_out_strangers(await desk.chain.read(desk.session), tips)
    for first in range(given, len(tips), TIPS_MAX):
        upto = min(first + TIPS_MAX, len(tips))
        await desk.send(give_tips(facts, tips[first:upto]))
        _keep_given(desk, digest, upto, len(tips))
    if desk.sends:
        print(f"{wei_text(await _read_budget(desk))} are left in the budget; helpers take theirs out with `learnae dao withdraw`")


def _digest(desk: Desk, tips: Sequence[Tip]) -> bytes:
    """What tells this list of this wallet in this session from another one."""
    whose = f"{desk.chain.chain_id} {desk.session} {desk.chain.wallet}"
    return hashlib.sha256(cbor.encode([whose, [[one.helper, str(one.amount_wei), one.receipt] for one in tips]])).digest()


def _load_given(desk: Desk, digest: bytes) -> int:
    """How many tips of a list were given by a command that did not come to its end."""
    record = desk.load(RECORD_LIST)
    kept, given = (b"", 0) if record is None else cbor.decode(record)
    return int(given) if kept == digest else 0


def _keep_given(desk: Desk, digest: bytes, given: int, total: int) -> int:
    """So many are given now: on disk before the next are sent. A list that was given as a whole may be given once more."""
    desk.keep(RECORD_LIST, cbor.encode([digest, given]) if given < total else None)
    return given


def _point_out_strangers(view: ChainView, tips: Sequence[Tip]) -> None:
    members = {member.wallet for member in view.members}
    for helper in dict.fromkeys(one.helper for one in tips if one.helper not in members):
        tell(f"{helper} is not the wallet of a member of this session")


async def _read_budget(desk: Desk) -> Wei:
    view = await desk.chain.read(desk.session)
    endpoint, facts = desk.chain.endpoint, await desk.read_facts()
    return await endpoint.surely(partial(read_budget, endpoint, facts, desk.chain.wallet, view.block_number))
