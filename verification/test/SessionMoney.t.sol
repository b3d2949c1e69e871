// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {Forcer, Member} from "./Members.sol";
import {vm} from "./Vm.sol";

/// @notice Who is paid what, once, whatever the recipients do.
contract SessionMoneyTest is Bed {
    function _settle() private {
        _endVotes();
        session.tally(type(uint256).max);
    }

    function _addMember(Member.Mood mood) private returns (Member member) {
        member = new Member(session);
        vm.deal(address(member), DEPOSIT);
        member.join(DEPOSIT);
        member.setMood(mood);
    }

    function test_release__shares_are_proportional_and_rounded_down() public {
        _joinMany(3);
        _startClaims();
        _claim(0, 1);
        _claim(1, 2);
        _claim(2, 4);
        _startVotes();
        _cast(0, _nay());
        _settle();
        uint256 fund = 3 * DEPOSIT;
        for (uint256 i; i < 3; ++i) vm.assertEq(session.due(_wallet(i)), (fund * (1 << i)) / 7);
        vm.expectEmit(address(session));
        emit Session.Paid(_wallet(2), _wallet(2), (fund * 4) / 7);
        session.withdraw(_wallet(2));
        vm.assertEq(_wallet(2).balance, (fund * 4) / 7);
        vm.assertEq(session.due(_wallet(0)), fund / 7, "independent of order");
    }

    function test_release__the_largest_numbers_fit() public {
        Session.Terms memory terms = _terms();
        terms.depositWei = type(uint112).max;
        session = new Session(terms);
        for (uint256 i; i < 3; ++i) {
            vm.deal(_wallet(i), terms.depositWei);
            vm.prank(_wallet(i));
            session.join{value: terms.depositWei}(address(this));
        }
        _startClaims();
        for (uint256 i; i < 3; ++i) _claim(i, type(uint64).max);
        _startVotes();
        _cast(0, _nay());
        _settle();
        for (uint256 i; i < 3; ++i) session.withdraw(_wallet(i));
        vm.assertEq(address(session).balance, 0);
    }

    function test_release__a_rejected_claim_and_no_claim_get_nothing() public {
        _joinMany(5);
        _startClaims();
        for (uint256 i; i < 4; ++i) _claim(i, 10);
        _startVotes();
        for (uint256 i; i < 3; ++i) _cast(i, _nay(3));
        _settle();
        vm.assertEq(session.due(_wallet(3)), 0);
        vm.assertEq(session.due(_wallet(4)), 0);
        vm.assertEq(session.due(_wallet(0)), (5 * DEPOSIT) / 3);
        vm.expectRevert(abi.encodeWithSelector(Session.NothingDue.selector, _wallet(3)));
        session.withdraw(_wallet(3));
        vm.expectRevert(abi.encodeWithSelector(Session.NothingDue.selector, address(this)));
        session.withdrawTo(address(this));
    }

    function test_refund__everybody_rejected_gets_deposits_back() public {
        _joinMany(5);
        _startClaims();
        _claim(0, 10);
        _claim(1, 10);
        _startVotes();
        for (uint256 i = 2; i < 5; ++i) _cast(i, _nayBits(3));
        _settle();
        _checkStage(Session.Stage.Refunded);
        for (uint256 i; i < 5; ++i) session.withdraw(_wallet(i));
        vm.assertEq(address(session).balance, 0);
        vm.assertEq(_wallet(0).balance, DEPOSIT);
    }

    function test_refund__claims_of_zero_points_give_deposits_back() public {
        _joinMany(2);
        _startClaims();
        _claim(0, 0);
        _startVotes();
        _cast(0, _nay());
        _settle();
        _checkStage(Session.Stage.Refunded);
        vm.assertEq(session.due(_wallet(0)), DEPOSIT);
        vm.assertEq(session.due(_wallet(1)), DEPOSIT);
        vm.assertEq(session.due(address(this)), 0);
    }

    function test_withdraw__is_paid_once() public {
        _openVote(2);
        _cast(0, _nay());
        _settle();
        session.withdraw(_wallet(0));
        vm.assertEq(_row(0).marks, 7);
        vm.assertEq(_row(0).dueWei, 0);
        vm.expectRevert(abi.encodeWithSelector(Session.NothingDue.selector, _wallet(0)));
        session.withdraw(_wallet(0));
        vm.expectRevert(abi.encodeWithSelector(Session.NothingDue.selector, _wallet(0)));
        vm.prank(_wallet(0));
        session.withdrawTo(_wallet(5));
        session.releaseBatch(_one(_wallet(0)));
        vm.assertEq(_wallet(0).balance, DEPOSIT);
    }

    function test_withdraw__nothing_before_the_end() public {
        _openVote(2);
        vm.expectRevert(abi.encodeWithSelector(Session.NothingDue.selector, _wallet(0)));
        session.withdraw(_wallet(0));
    }

    function test_withdrawTo__pays_another_address() public {
        Member member = _addMember(Member.Mood.Refuse);
        _startClaims();
        member.claim(1);
        _startVotes();
        member.cast(_nay());
        _settle();
        vm.expectRevert(abi.encodeWithSelector(Session.PaymentRefused.selector, address(member)));
        session.withdraw(address(member));
        vm.expectRevert(abi.encodeWithSelector(Session.PaymentRefused.selector, address(member)));
        member.withdrawTo(address(member));
        vm.expectEmit(address(session));
        emit Session.Paid(address(member), _wallet(8), DEPOSIT);
        member.withdrawTo(_wallet(8));
        vm.assertEq(_wallet(8).balance, DEPOSIT);
    }

    function test_releaseBatch__bad_recipients_keep_their_credit_and_block_nobody() public {
        _join(0);
        Member refuses = _addMember(Member.Mood.Refuse);
        Member burns = _addMember(Member.Mood.BurnGas);
        Member huge = _addMember(Member.Mood.HugeAnswer);
        _join(1);
        _startClaims();
        _claim(0, 10);
        _claim(1, 10);
        refuses.claim(10);
        burns.claim(10);
        huge.claim(10);
        _startVotes();
        _cast(0, _nay());
        _settle();
        address[] memory members = new address[](7);
        (members[0], members[1], members[2], members[3]) = (_wallet(0), address(refuses), address(burns), address(huge));
        (members[4], members[5], members[6]) = (_wallet(0), address(this), _wallet(1));
        vm.expectEmit(address(session));
        emit Session.PushFailed(address(refuses));
        vm.expectEmit(address(session));
        emit Session.PushFailed(address(burns));
        vm.expectEmit(address(session));
        emit Session.PushFailed(address(huge));
        uint256 gasBefore = gasleft();
        session.releaseBatch(members);
        vm.assertLe(gasBefore - gasleft(), 600_000, "gas of seven pushes");
        vm.assertEq(_wallet(0).balance, DEPOSIT);
        vm.assertEq(_wallet(1).balance, DEPOSIT);
        vm.assertEq(session.due(address(burns)), DEPOSIT);
        burns.setMood(Member.Mood.Accept);
        session.withdraw(address(burns));
        vm.assertEq(address(burns).balance, DEPOSIT);
    }

    function test_withdraw__calling_back_is_paid_once() public {
        _join(0);
        Member member = _addMember(Member.Mood.Reenter);
        _startClaims();
        _claim(0, 10);
        member.claim(10);
        _startVotes();
        _cast(0, _nay());
        _settle();
        session.withdraw(address(member));
        vm.assertEq(member.paidTwice(), 0);
        vm.assertEq(address(member).balance, DEPOSIT);
        vm.assertEq(address(session).balance, DEPOSIT);
    }

    function test_forced_ether__changes_no_share() public {
        _openVote(2);
        vm.deal(address(this), 7);
        new Forcer{value: 7}(payable(address(session)));
        _cast(0, _nay());
        _settle();
        vm.assertEq(address(session).balance, 2 * DEPOSIT + 7);
        session.withdraw(_wallet(0));
        session.withdraw(_wallet(1));
        vm.assertEq(_wallet(1).balance, DEPOSIT);
        vm.assertEq(address(session).balance, 7);
    }

    function test_plain_payment__is_refused() public {
        vm.deal(address(this), 1);
        (bool sent,) = address(session).call{value: 1}("");
        vm.assertTrue(!sent);
    }

    function test_one_member__takes_out_its_deposit() public {
        _openVote(1);
        _cast(0, _nay());
        _settle();
        session.withdraw(_wallet(0));
        vm.assertEq(_wallet(0).balance, DEPOSIT);
    }
}
