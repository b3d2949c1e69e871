// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC5192, MemberToken} from "contracts/MemberToken.sol";
import {Session} from "contracts/Session.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {Bed} from "./Bed.sol";
import {Member} from "./Members.sol";
import {vm} from "./Vm.sol";

/// @notice Joining and leaving, and the token that says who is a member.
contract SessionMembersTest is Bed {
    function test_join__gives_an_index_and_a_token() public {
        address wallet = _wallet(0);
        vm.deal(wallet, DEPOSIT);
        vm.expectEmit(address(session));
        emit Session.Joined(0, wallet, address(this));
        vm.expectEmit(address(session));
        emit IERC721.Transfer(address(0), wallet, uint160(wallet));
        vm.expectEmit(address(session));
        emit IERC5192.Locked(uint160(wallet));
        vm.prank(wallet);
        session.join{value: DEPOSIT}(address(this));

        _join(1);
        Session.Row memory row = _row(0);
        vm.assertEq(row.wallet, wallet);
        vm.assertEq(row.poid, address(this));
        vm.assertEq(row.points + row.marks + row.nays + row.dueWei, 0);
        vm.assertEq(_row(1).wallet, _wallet(1));
        vm.assertEq(_counts().members, 2);
        vm.assertEq(address(session).balance, 2 * DEPOSIT);
    }

    function test_join__asks_for_the_exact_deposit() public {
        vm.deal(address(this), 10 * DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongDeposit.selector, DEPOSIT - 1, DEPOSIT));
        session.join{value: DEPOSIT - 1}(address(this));
        vm.expectRevert(abi.encodeWithSelector(Session.WrongDeposit.selector, DEPOSIT + 1, DEPOSIT));
        session.join{value: DEPOSIT + 1}(address(this));
    }

    function test_join__twice_is_refused() public {
        _join(0);
        vm.deal(_wallet(0), DEPOSIT);
        vm.expectRevert(Session.AlreadyMember.selector);
        vm.prank(_wallet(0));
        session.join{value: DEPOSIT}(address(this));
    }

    function test_join__stops_at_the_cap() public {
        Session.Terms memory terms = _terms();
        terms.membersMax = 2;
        session = new Session(terms);
        _joinMany(2);
        vm.deal(address(this), DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(Session.SessionFull.selector, 2));
        session.join{value: DEPOSIT}(address(this));
        vm.prank(_wallet(0));
        session.leave(_wallet(1));
        _join(2);
        vm.assertEq(_counts().members, 2);
    }

    function test_join__is_over_when_funding_ends() public {
        vm.warp(_terms().fundingEnds);
        vm.deal(address(this), DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Refunded, Session.Stage.Funding));
        session.join{value: DEPOSIT}(address(this));
    }

    function test_leave__returns_the_deposit_and_the_last_member_takes_the_index() public {
        _joinMany(4);
        address left = _wallet(0);
        vm.expectEmit(address(session));
        emit Session.Left(0, left);
        vm.expectEmit(address(session));
        emit IERC721.Transfer(left, address(0), uint160(left));
        vm.prank(left);
        session.leave(_wallet(3));

        vm.assertEq(left.balance, DEPOSIT);
        vm.assertEq(address(session).balance, 3 * DEPOSIT);
        vm.assertEq(_row(3).index, 0);
        vm.assertEq(_row(2).index, 2);
        vm.assertEq(_row(1).index, 1);
        vm.assertEq(session.balanceOf(left), 0);
        _startClaims();
        _claim(3, 7);
        _startVotes();
        _cast(1, _nay(0)); // The member that moved is found at its new index.
        vm.assertEq(_row(3).nays, 1);
    }

    function test_leave__the_last_member_leaves_nothing_behind() public {
        _joinMany(2);
        vm.prank(_wallet(1));
        session.leave(_wallet(1));
        vm.assertEq(_counts().members, 1);
        vm.assertTrue(!session.isMember(_wallet(1)));
        _join(1);
        vm.assertEq(_row(1).index, 1);
    }

    function test_leave__a_stranger_or_one_who_left_is_refused() public {
        vm.expectRevert(Session.NotAMember.selector);
        session.leave(_wallet(0));
        _join(0);
        vm.prank(_wallet(0));
        session.leave(_wallet(0));
        vm.expectRevert(Session.NotAMember.selector);
        vm.prank(_wallet(0));
        session.leave(_wallet(0));
    }

    function test_leave__is_over_when_funding_ends() public {
        _join(0);
        _startTraining();
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Training, Session.Stage.Funding));
        vm.prank(_wallet(0));
        session.leave(_wallet(0));
    }

    function test_leave__the_last_member_must_be_named() public {
        _joinMany(3);
        address[3] memory wrong = [_wallet(0), _wallet(1), _wallet(9)];
        for (uint256 i; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(Session.NotTheLastMember.selector, wrong[i]));
            vm.prank(_wallet(0));
            session.leave(wrong[i]);
        }
    }

    function test_leave__a_wallet_that_takes_no_money_stays_a_member() public {
        Member member = new Member(session);
        vm.deal(address(member), DEPOSIT);
        member.join(DEPOSIT);
        member.setMood(Member.Mood.Refuse);
        vm.expectRevert(abi.encodeWithSelector(Session.PaymentRefused.selector, address(member)));
        member.leave(address(member));
        vm.assertEq(_counts().members, 1);
    }

    function test_leave__calling_back_gets_one_deposit_only() public {
        _joinMany(3);
        Member member = new Member(session);
        vm.deal(address(member), DEPOSIT);
        member.join(DEPOSIT);
        member.setMood(Member.Mood.Reenter);
        member.leave(address(member));
        vm.assertEq(member.paidTwice(), 0);
        vm.assertEq(address(member).balance, DEPOSIT);
        vm.assertEq(address(session).balance, 3 * DEPOSIT);
    }

    function test_token__one_each_and_locked() public {
        _join(0);
        address wallet = _wallet(0);
        vm.assertEq(session.balanceOf(wallet), 1);
        vm.assertEq(session.balanceOf(_wallet(1)), 0);
        vm.assertEq(session.ownerOf(uint160(wallet)), wallet);
        vm.assertTrue(session.locked(uint160(wallet)));
    }

    function test_token__nobodys_is_refused() public {
        _join(0);
        uint256 foreign = uint160(_wallet(1));
        bytes memory refusal = abi.encodeWithSelector(MemberToken.NoSuchToken.selector, foreign);
        vm.expectRevert(refusal);
        session.ownerOf(foreign);
        vm.expectRevert(refusal);
        session.locked(foreign);
        vm.expectRevert(refusal);
        session.tokenURI(foreign);
        vm.expectRevert(refusal);
        session.getApproved(foreign);
        uint256 high = uint256(uint160(_wallet(0))) | (1 << 160);
        vm.expectRevert(abi.encodeWithSelector(MemberToken.NoSuchToken.selector, high));
        session.ownerOf(high);
        vm.expectRevert(abi.encodeWithSelector(MemberToken.NoSuchToken.selector, 0));
        session.balanceOf(address(0));
    }

    function test_token__does_not_move() public {
        _join(0);
        (address from, address to, uint256 id) = (_wallet(0), _wallet(1), uint160(_wallet(0)));
        bytes[5] memory moves = [
            abi.encodeWithSignature("approve(address,uint256)", to, id),
            abi.encodeWithSignature("setApprovalForAll(address,bool)", to, true),
            abi.encodeWithSignature("transferFrom(address,address,uint256)", from, to, id),
            abi.encodeWithSignature("safeTransferFrom(address,address,uint256)", from, to, id),
            abi.encodeWithSignature("safeTransferFrom(address,address,uint256,bytes)", from, to, id, hex"01")
        ];
        for (uint256 i; i < moves.length; ++i) {
            vm.prank(from);
            (bool done, bytes memory reason) = address(session).call(moves[i]);
            vm.assertTrue(!done);
            vm.assertEq(bytes32(reason), bytes32(MemberToken.TokenIsLocked.selector));
        }
        vm.assertEq(session.getApproved(id), address(0));
        vm.assertTrue(!session.isApprovedForAll(from, to));
        vm.assertEq(session.ownerOf(id), from);
    }

    function test_token__says_which_interfaces_it_has() public view {
        vm.assertTrue(session.supportsInterface(0x01ffc9a7), "ERC-165");
        vm.assertTrue(session.supportsInterface(0x80ac58cd), "ERC-721");
        vm.assertTrue(session.supportsInterface(0x5b5e139f), "ERC-721 metadata");
        vm.assertTrue(session.supportsInterface(0xb45a3c0e), "ERC-5192");
        vm.assertTrue(!session.supportsInterface(0xffffffff), "none");
    }

    function test_token__describes_itself() public {
        _join(0);
        vm.assertEq(session.name(), "LEARNAE session member");
        vm.assertEq(session.symbol(), "LEARNAE");
        bytes memory uri = bytes(session.tokenURI(uint160(_wallet(0))));
        bytes memory prefix = "data:application/json;base64,eyJuYW1lIjoiTEVBUk5BRSBzZXNzaW9uIG1lbWJlciIs"; // {"name":"LEARNAE session member",
        for (uint256 i; i < prefix.length; ++i) vm.assertEq(bytes32(uri[i]), bytes32(prefix[i]));
    }

    function test_readMembers__of_a_stranger_is_refused() public {
        _joinMany(2);
        vm.assertEq(_rows(2)[1].wallet, _wallet(1));
        vm.expectRevert(Session.NotAMember.selector);
        this.readRow(5);
    }

    function readRow(uint256 number) external view returns (Session.Row memory) {
        return _row(number);
    }
}
