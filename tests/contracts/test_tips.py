"""Direct tips (4.3, Eq. 1): paid at once, or out of a budget that is never passed, collected per helper."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from learnae.backends.chain_server.engine import RefusedError
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import checksum, explain_refusal, tips_abi
from learnae.ids import Address
from tests.contracts.bed import Bed, make_wallet, raider_abi

PAYER, OTHER = make_wallet(0), make_wallet(1)
HELPER, FRIEND = make_wallet(150).address, make_wallet(151).address
RECEIPT = b"\x33" * 32


class TipsBed(Bed):
    """A session's contract for tips; only what `ask` and `transact` give is used."""

    @property
    def tips(self) -> Address:
        return checksum(self.view("tips")[0])

    def send(self, wallet: WalletKey, function: str, *values: object, value: int = 0) -> str:
        """The error's name, or nothing."""
        try:
            self.transact(wallet, self.tips, tips_abi().encode(function, *values), value)
        except RefusedError as error:
            return explain_refusal(error.revert or b"")[0] or str(error)
        return ""

    def look(self, function: str, *values: object) -> Any:
        return self.ask(tips_abi(), self.tips, function, *values)[0]


def test_tip__at_once_reaches_the_helper_and_names_the_receipt() -> None:
    bed = TipsBed()
    mined = bed.transact(PAYER, bed.tips, tips_abi().encode("pay", HELPER, RECEIPT), 7)
    (log,) = mined.receipt.logs
    decoded = tips_abi().decode_log([topic.to_bytes(32, "big") for topic in log.topics], log.data)
    assert decoded is not None and decoded[0] == "Tipped"
    assert (checksum(decoded[1]["from"]), checksum(decoded[1]["helper"])) == (PAYER.address, HELPER)
    assert (decoded[1]["amountWei"], decoded[1]["receipt"]) == (7, RECEIPT)
    assert bed.balance(HELPER) == 7 and bed.balance(bed.tips) == 0
    assert bed.send(PAYER, "pay", HELPER, RECEIPT) == "NoTip"
    assert bed.send(PAYER, "pay", bed.session, RECEIPT, value=1) == "TipRefused"


def test_tips__out_of_a_budget_are_collected_and_taken_out_together() -> None:
    bed = TipsBed()
    assert bed.send(PAYER, "fill", value=100) == ""
    assert bed.send(PAYER, "tip", [(HELPER, 10, RECEIPT), (FRIEND, 5, RECEIPT), (HELPER, 20, RECEIPT)]) == ""
    assert [bed.look("credit", wallet) for wallet in (HELPER, FRIEND)] == [30, 5]
    assert bed.look("budget", PAYER.address) == 65 and bed.balance(HELPER) == 0
    assert bed.send(OTHER, "withdraw", HELPER) == "" and bed.balance(HELPER) == 30
    assert bed.send(OTHER, "withdraw", HELPER) == "NothingDue"
    assert bed.send(PAYER, "reclaim", 65) == "" and bed.balance(bed.tips) == 5


def test_budget__is_never_passed() -> None:
    """A batch that would pass it pays nobody; nobody spends the budget of another."""
    bed = TipsBed()
    bed.send(PAYER, "fill", value=100)
    assert bed.send(PAYER, "tip", [(HELPER, 60, RECEIPT), (FRIEND, 41, RECEIPT)]) == "OverBudget"
    assert bed.look("credit", HELPER) == 0 and bed.look("budget", PAYER.address) == 100
    assert bed.send(OTHER, "tip", [(HELPER, 1, RECEIPT)]) == "OverBudget"
    assert bed.send(OTHER, "reclaim", 1) == "OverBudget"
    assert bed.send(PAYER, "tip", [(HELPER, 2**256 - 1, RECEIPT)]) == "OverBudget"
    assert bed.send(PAYER, "tip", [(HELPER, 0, RECEIPT)]) == "NoTip"
    assert bed.send(PAYER, "tip", [(HELPER, 60, RECEIPT), (FRIEND, 40, RECEIPT)]) == ""
    assert bed.send(PAYER, "tip", [(HELPER, 1, RECEIPT)]) == "OverBudget"
    assert bed.send(PAYER, "reclaim", 1) == "OverBudget"


def test_helper__that_cannot_receive_takes_its_tips_elsewhere() -> None:
    bed = TipsBed()
    bed.send(PAYER, "fill", value=100)
    raider = bed.deploy_raider()
    bed.arm(raider, bed.tips, tips_abi().encode("withdraw", raider))
    assert bed.send(PAYER, "tip", [(bed.session, 10, RECEIPT), (OTHER.address, 20, RECEIPT), (raider, 30, RECEIPT)]) == ""
    assert bed.send(OTHER, "withdraw", bed.session) == "PaymentRefused" and bed.look("credit", bed.session) == 10
    assert bed.send(OTHER, "withdrawTo", FRIEND) == "" and bed.balance(FRIEND) == 20
    assert bed.send(OTHER, "withdraw", raider) == "", "it calls back while it is paid"
    assert bed.balance(raider) == 30 and bed.count_raids(raider) == 0


def test_payer__that_calls_back_reclaims_its_budget_once() -> None:
    bed = TipsBed()
    bed.send(PAYER, "fill", value=100)
    raider = bed.deploy_raider(50)
    bed.run(raider, bed.tips, tips_abi().encode("fill"), 50)
    bed.arm(raider, bed.tips, tips_abi().encode("reclaim", 50))
    bed.run(raider, bed.tips, tips_abi().encode("reclaim", 50))
    assert bed.balance(raider) == 50 and bed.count_raids(raider) == 0 and bed.balance(bed.tips) == 100
    with pytest.raises(RefusedError):
        bed.transact(PAYER, raider, raider_abi().encode("run", bed.tips, 0, tips_abi().encode("reclaim", 1)))


@pytest.mark.parametrize("seed", range(3))
def test_money__is_conserved_over_random_calls(seed: int) -> None:
    """What is in the contract is exactly all budgets and credits, as a plain count of all calls has them."""
    rng, bed = Random(seed), TipsBed()
    payers, helpers = [make_wallet(index) for index in range(3)], [make_wallet(160 + index).address for index in range(3)]
    budget, credit, paid = dict.fromkeys((payer.address for payer in payers), 0), dict.fromkeys(helpers, 0), dict.fromkeys(helpers, 0)
    for _ in range(25):
        payer, helper = rng.choice(payers), rng.choice(helpers)
        match rng.choice(("fill", "tip", "tip", "withdraw", "reclaim")):
            case "fill":
                amount = rng.randrange(100)
                assert bed.send(payer, "fill", value=amount) == ""
                budget[payer.address] += amount
            case "tip":
                items = [(rng.choice(helpers), rng.randrange(1, 40), RECEIPT) for _ in range(rng.randrange(4))]
                total = sum(amount for _, amount, _ in items)
                assert bed.send(payer, "tip", items) == ("" if total <= budget[payer.address] else "OverBudget")
                if total <= budget[payer.address]:
                    budget[payer.address] -= total
                    for one, amount, _ in items:
                        credit[one] += amount
            case "withdraw":
                assert bed.send(payer, "withdraw", helper) == ("" if credit[helper] else "NothingDue")
                paid[helper], credit[helper] = paid[helper] + credit[helper], 0
            case "reclaim":
                amount = rng.randrange(60)
                assert bed.send(payer, "reclaim", amount) == ("" if amount <= budget[payer.address] else "OverBudget")
                budget[payer.address] -= amount if amount <= budget[payer.address] else 0
        assert bed.balance(bed.tips) == sum(budget.values()) + sum(credit.values())
    assert [bed.look("budget", wallet) for wallet in budget] == list(budget.values())
    assert [bed.look("credit", wallet) for wallet in credit] == list(credit.values())
    assert [bed.balance(wallet) for wallet in paid] == list(paid.values())
