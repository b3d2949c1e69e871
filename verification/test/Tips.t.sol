// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Tips} from "contracts/Tips.sol";
import {vm} from "./Vm.sol";

/// @notice A helper: takes its tips, refuses them, or calls back.
contract Helper {
    enum Mood { Accept, Refuse, Reenter }

    Tips public tips;
    Mood public mood;
    uint256 public reentered;

    constructor(Tips tips_) {
        tips = tips_;
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function withdrawTo(address to) external {
        tips.withdrawTo(to);
    }

    function fill() external payable {
        tips.fill{value: msg.value}();
    }

    function reclaim(uint256 amountWei) external {
        tips.reclaim(amountWei);
    }

    receive() external payable {
        if (mood == Mood.Refuse) revert("no, thanks");
        if (mood == Mood.Reenter) {
            try tips.withdraw(address(this)) { reentered += 1; } catch {}
            try tips.reclaim(1) { reentered += 1; } catch {}
        }
    }
}

/// @notice Tips at once and out of a budget (Eq. 1): each payment names its receipt, no budget is passed.
contract TipsTest {
    bytes32 private constant RECEIPT = keccak256("receipt");
    address private constant HELPER = address(0x4e1);
    address private constant PAYER = address(0x9a1);
    Tips private tips;

    function setUp() public {
        tips = new Tips();
        vm.deal(PAYER, 1000);
        vm.deal(address(this), 1000);
    }

    function _tips(uint256 count) private pure returns (Tips.Tip[] memory batch) {
        batch = new Tips.Tip[](count);
        for (uint256 i; i < count; ++i) batch[i] = Tips.Tip(HELPER, 10 + i, RECEIPT);
    }

    function _fill(uint256 amountWei) private {
        vm.prank(PAYER);
        tips.fill{value: amountWei}();
    }

    function test_pay__goes_to_the_helper_at_once() public {
        vm.expectEmit(address(tips));
        emit Tips.Tipped(PAYER, HELPER, 7, RECEIPT);
        vm.prank(PAYER);
        tips.pay{value: 7}(HELPER, RECEIPT);
        vm.assertEq(HELPER.balance, 7);
        vm.assertEq(address(tips).balance, 0);
    }

    function test_pay__nothing_or_to_one_who_refuses_fails() public {
        vm.expectRevert(Tips.NoTip.selector);
        tips.pay(HELPER, RECEIPT);
        Helper helper = new Helper(tips);
        helper.setMood(Helper.Mood.Refuse);
        vm.expectRevert(abi.encodeWithSelector(Tips.TipRefused.selector, address(helper)));
        tips.pay{value: 1}(address(helper), RECEIPT);
    }

    function test_budget__is_filled_and_reclaimed() public {
        vm.expectEmit(address(tips));
        emit Tips.BudgetChanged(PAYER, 100);
        _fill(100);
        _fill(50);
        vm.assertEq(tips.budget(PAYER), 150);
        vm.expectEmit(address(tips));
        emit Tips.BudgetChanged(PAYER, 110);
        vm.prank(PAYER);
        tips.reclaim(40);
        vm.assertEq(PAYER.balance, 890);
        vm.expectRevert(abi.encodeWithSelector(Tips.OverBudget.selector, 111, 110));
        vm.prank(PAYER);
        tips.reclaim(111);
        vm.expectRevert(abi.encodeWithSelector(Tips.OverBudget.selector, 1, 0));
        tips.reclaim(1); // another's budget
    }

    function test_reclaim__by_a_wallet_that_refuses_keeps_the_budget() public {
        Helper payer = new Helper(tips);
        payer.fill{value: 9}();
        payer.setMood(Helper.Mood.Refuse);
        vm.expectRevert(abi.encodeWithSelector(Tips.PaymentRefused.selector, address(payer)));
        payer.reclaim(9);
        vm.assertEq(tips.budget(address(payer)), 9);
    }

    function test_tip__is_collected_and_taken_out_together() public {
        _fill(21);
        for (uint256 i; i < 2; ++i) {
            vm.expectEmit(address(tips));
            emit Tips.Tipped(PAYER, HELPER, 10 + i, RECEIPT);
        }
        Tips.Tip[] memory batch = _tips(2);
        vm.prank(PAYER);
        tips.tip(batch);
        vm.assertEq(tips.budget(PAYER), 0);
        vm.assertEq(tips.credit(HELPER), 21);
        vm.expectEmit(address(tips));
        emit Tips.Withdrawn(HELPER, HELPER, 21);
        tips.withdraw(HELPER);
        vm.assertEq(HELPER.balance, 21);
        vm.expectRevert(abi.encodeWithSelector(Tips.NothingDue.selector, HELPER));
        tips.withdraw(HELPER);
    }

    function test_tip__beyond_the_budget_pays_nothing_at_all() public {
        _fill(20);
        Tips.Tip[] memory batch = _tips(2);
        vm.expectRevert(abi.encodeWithSelector(Tips.OverBudget.selector, 11, 10));
        vm.prank(PAYER);
        tips.tip(batch);
        vm.assertEq(tips.credit(HELPER), 0);
        vm.assertEq(tips.budget(PAYER), 20);
        vm.expectRevert(abi.encodeWithSelector(Tips.OverBudget.selector, 10, 0));
        tips.tip(batch); // another's budget
        batch[1].amountWei = 0;
        vm.expectRevert(Tips.NoTip.selector);
        vm.prank(PAYER);
        tips.tip(batch);
    }

    function test_withdrawTo__for_a_wallet_that_takes_no_money() public {
        Helper helper = new Helper(tips);
        helper.setMood(Helper.Mood.Refuse);
        _fill(10);
        Tips.Tip[] memory batch = _tips(1);
        batch[0].helper = address(helper);
        vm.prank(PAYER);
        tips.tip(batch);
        vm.expectRevert(abi.encodeWithSelector(Tips.PaymentRefused.selector, address(helper)));
        tips.withdraw(address(helper));
        vm.expectEmit(address(tips));
        emit Tips.Withdrawn(address(helper), HELPER, 10);
        helper.withdrawTo(HELPER);
        vm.assertEq(HELPER.balance, 10);
        vm.assertEq(tips.credit(address(helper)), 0);
    }

    function test_withdraw__calling_back_is_paid_once() public {
        Helper helper = new Helper(tips);
        helper.fill{value: 5}();
        helper.reclaim(5);
        helper.setMood(Helper.Mood.Reenter);
        _fill(100);
        Tips.Tip[] memory batch = _tips(1);
        batch[0].helper = address(helper);
        vm.prank(PAYER);
        tips.tip(batch);
        tips.withdraw(address(helper));
        vm.assertEq(helper.reentered(), 0);
        vm.assertEq(address(tips).balance, 90);
    }

    function test_reclaim__calling_back_gets_the_budget_once() public {
        Helper payer = new Helper(tips);
        payer.fill{value: 5}();
        payer.setMood(Helper.Mood.Reenter);
        _fill(100);
        payer.reclaim(5);
        vm.assertEq(payer.reentered(), 0);
        vm.assertEq(address(tips).balance, 100);
    }

    /// The contract holds exactly the budgets and the credits.
    function testFuzz_money__is_conserved(uint64 filled, uint64 first, uint64 second, uint64 back) public {
        vm.deal(PAYER, filled);
        _fill(filled);
        Tips.Tip[] memory batch = new Tips.Tip[](2);
        batch[0] = Tips.Tip(HELPER, first, RECEIPT);
        batch[1] = Tips.Tip(address(this), second, RECEIPT);
        vm.prank(PAYER);
        try tips.tip(batch) {
            vm.assertTrue(first > 0 && second > 0 && uint256(first) + second <= filled, "a tip that must fail");
        } catch {
            vm.assertTrue(first == 0 || second == 0 || uint256(first) + second > filled, "a tip that must be paid");
        }
        vm.prank(PAYER);
        try tips.reclaim(back) {} catch {}
        vm.assertEq(address(tips).balance, tips.budget(PAYER) + tips.credit(HELPER) + tips.credit(address(this)), "held");
        vm.assertEq(tips.budget(PAYER) + tips.credit(HELPER) + tips.credit(address(this)) + PAYER.balance, filled, "all");
    }
}
