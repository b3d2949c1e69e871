"""Tips mode: the paper's direct micropayments (4.3), with a budget that is never passed.

Each receipt that this peer reports is paid by Eq. 1 to the helper's wallet. Small amounts to one helper that come up while a
payment is under way are collected into one. What was spent is on disk before a payment is sent: a kill in between may leave a
tip unpaid, never paid twice.
Pure. Source: paper 4.3, Eq. 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from learnae.ids import Address, Cid, PeerId, Wei
from learnae.protocol import events as ev
from learnae.protocol.calls import PayTip
from learnae.protocol.cycle import Said
from learnae.protocol.messages import HelpReported
from learnae.protocol.rewards import compute_tip
from learnae.protocol.rules import SessionRules

RECORD_TIPS = "tips spent"


class TipJar:
    """Pays what this peer owes, one transaction at a time."""

    def __init__(
        self,
        *,
        rules: SessionRules,
        budget_wei: Wei,
        next_number: Callable[[], int],
        wallet_of: Callable[[PeerId], Address | None],
    ) -> None:
        self._rules = rules
        self._budget_wei = budget_wei
        self._next_number = next_number
        self._wallet_of = wallet_of
        self.spent_wei = Wei(0)  # paid or being paid
        self._owed: dict[PeerId, tuple[Wei, Cid]] = {}  # helper -> amount and newest receipt, not sent yet
        self._sent: tuple[int, PayTip] | None = None

    def restore(self, records: Mapping[str, bytes]) -> None:
        self.spent_wei = Wei(int(records.get(RECORD_TIPS, b"0")))

    def on_reported(self, help: HelpReported, receipt: Cid) -> list[Said]:
        """Owe the tip for one receipt; pay it at once unless another payment is under way."""
        if self._rules.reward_mode != "tips":
            return []
        owed = sum(amount for amount, _ in self._owed.values())
        amount = compute_tip(
            help.credits,
            wei_per_credit=self._rules.tip_wei_per_credit,
            budget_wei=self._budget_wei,
            spent_wei=Wei(self.spent_wei + owed),
        )
        if amount == 0:
            return [ev.Tell(ev.Topic.HELP, f"the budget for tips is used up: {self._budget_wei} wei")]
        before, _ = self._owed.get(help.helper, (Wei(0), receipt))
        self._owed[help.helper] = (Wei(before + amount), receipt)
        return self._pay()

    def owns(self, number: int) -> bool:
        return self._sent is not None and self._sent[0] == number

    def handle(self, event: ev.TransactionConfirmed | ev.TransactionFailed) -> list[Said]:
        """Take the answer to the payment under way and send the next."""
        assert self._sent is not None
        _, tip = self._sent
        self._sent = None
        if isinstance(event, ev.TransactionFailed):
            self.spent_wei = Wei(self.spent_wei - tip.amount_wei)
            told = ev.Tell(ev.Topic.TROUBLE, f"a tip of {tip.amount_wei} wei was not paid: {event.reason}")
            return [self._save(), told, *self._pay()]
        values = {"event": "tipped", "wallet": tip.helper, "wei": str(tip.amount_wei)}
        return [ev.Tell(ev.Topic.HELP, f"tipped {tip.helper}: {tip.amount_wei} wei", values), *self._pay()]

    def _pay(self) -> list[Said]:
        if self._sent is not None:
            return []
        for helper, (amount, receipt) in self._owed.items():
            wallet = self._wallet_of(helper)
            if wallet is not None:
                del self._owed[helper]
                tip = PayTip(wallet, amount, receipt[4:])
                self._sent = (self._next_number(), tip)
                self.spent_wei = Wei(self.spent_wei + amount)
                return [self._save(), ev.SubmitTransaction(self._sent[0], tip)]
        return []

    def _save(self) -> ev.SaveRecord:
        return ev.SaveRecord(RECORD_TIPS, str(self.spent_wei).encode())
