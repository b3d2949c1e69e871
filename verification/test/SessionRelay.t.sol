// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {vm} from "./Vm.sol";

/// @notice Signed claims and ballots that anybody sends in groups: what counts, and that a bad one blocks nobody.
contract SessionRelayTest is Bed {
    uint256 private constant N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141; // order of secp256k1

    function _claims(uint256 count) private pure returns (Session.SignedClaim[] memory) {
        return new Session.SignedClaim[](count);
    }

    function _expectSkip(uint256 item, address member, Session.Fault fault) private {
        vm.expectEmit(address(session));
        emit Session.Skipped(item, member, fault);
    }

    function _voters(uint256 first, uint256 count, uint256[] memory nay) private view returns (Session.SignedVoter[] memory voters) {
        voters = new Session.SignedVoter[](count);
        for (uint256 i; i < count; ++i) voters[i] = _signBallot(first + i, nay);
    }

    // --- claims ---

    function test_claimBatch__counts_every_signed_claim() public {
        _joinMany(3);
        _startClaims();
        Session.SignedClaim[] memory items = _claims(3);
        for (uint256 i; i < 3; ++i) items[i] = _signClaim(i, 10 + i);
        for (uint256 i; i < 3; ++i) {
            vm.expectEmit(address(session));
            emit Session.Claimed(i, 10 + i, EVIDENCE);
        }
        session.claimBatch(items);
        for (uint256 i; i < 3; ++i) {
            vm.assertEq(_row(i).points, 10 + i);
            vm.assertEq(_row(i).marks, 1);
        }
        vm.assertEq(_counts().claims, 3);
        vm.assertEq(_counts().points, 33);
    }

    function test_claimBatch__bad_items_are_skipped_with_their_fault() public {
        _joinMany(4);
        _startClaims();
        _claim(3, 5);
        Session.SignedClaim[] memory items = _claims(8);
        items[0] = _signClaim(9, 1); // not a member
        items[1] = _signClaim(3, 6); // has claimed
        items[2] = _signClaim(0, 1 << 64);
        items[3] = _signClaim(0, 7);
        items[3].points = 8; // not what was signed
        items[4] = _signClaim(0, 7);
        items[4].member = _wallet(1); // not who signed
        items[5] = _signClaim(0, 7);
        items[5].evidence = 0;
        items[6] = _signClaim(2, 9); // good
        items[7] = _signClaim(2, 9); // the same again
        _expectSkip(0, _wallet(9), Session.Fault.NotAMember);
        _expectSkip(1, _wallet(3), Session.Fault.AlreadyClaimed);
        _expectSkip(2, _wallet(0), Session.Fault.TooManyPoints);
        _expectSkip(3, _wallet(0), Session.Fault.BadSignature);
        _expectSkip(4, _wallet(1), Session.Fault.BadSignature);
        _expectSkip(5, _wallet(0), Session.Fault.BadSignature);
        vm.expectEmit(address(session));
        emit Session.Claimed(2, 9, EVIDENCE);
        _expectSkip(7, _wallet(2), Session.Fault.AlreadyClaimed);
        session.claimBatch(items);
        vm.assertEq(_counts().claims, 2);
        vm.assertEq(_counts().points, 14);
        vm.assertEq(_row(0).marks + _row(1).marks, 0);
    }

    function test_claimBatch__of_the_most_points_fits() public {
        _joinMany(1);
        _startClaims();
        Session.SignedClaim[] memory items = _claims(1);
        items[0] = _signClaim(0, type(uint64).max);
        session.claimBatch(items);
        vm.assertEq(_row(0).points, type(uint64).max);
    }

    function test_claimBatch__only_while_claiming() public {
        _join(0);
        Session.SignedClaim[] memory items = _claims(1);
        items[0] = _signClaim(0, 1);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Funding, Session.Stage.Claiming));
        session.claimBatch(items);
    }

    /// Claims signed for another session, chain or domain do nothing here, nor do zero and malleable signatures.
    function test_claimBatch__foreign_zero_and_malleable_signatures_do_nothing() public {
        _join(0);
        _startClaims();
        address member = _wallet(0);
        bytes32 content = _hashClaim(member, 7, EVIDENCE);
        bytes32[3] memory domains = [
            _domain(block.chainid + 1, address(session)),
            _domain(block.chainid, address(0x5e5510)),
            keccak256(abi.encode(keccak256("EIP712Domain(string name)"), keccak256("learnae Session")))
        ];
        Session.SignedClaim[] memory items = _claims(7);
        for (uint256 i; i < 7; ++i) items[i] = _signClaim(0, 7);
        for (uint256 i; i < 3; ++i) {
            (items[i].r, items[i].vs) = vm.signCompact(_key(0), keccak256(abi.encodePacked(hex"1901", domains[i], content)));
        }
        (items[3].r, items[3].vs) = vm.signCompact(_key(0), content); // without any domain
        (items[4].r, items[4].vs) = (0, 0);
        (items[5].r, items[5].vs) = (bytes32(N), items[5].vs);
        items[6].vs = _flip(items[6].vs);
        for (uint256 i; i < 7; ++i) _expectSkip(i, member, Session.Fault.BadSignature);
        session.claimBatch(items);
        vm.assertEq(_counts().claims, 0);
    }

    /// The other of the two signatures that a key has for each content: s is N - s and the parity is turned.
    function _flip(bytes32 vs) private pure returns (bytes32) {
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        return bytes32((N - s) | ((uint256(vs) >> 255 ^ 1) << 255));
    }

    function test_domain__follows_the_chain() public {
        vm.assertEq(session.domainSeparator(), _domain(block.chainid, address(session)));
        vm.chainId(99);
        vm.assertEq(session.domainSeparator(), _domain(99, address(session)));
    }

    // --- ballots ---

    function test_castGrouped__counts_equal_ballots_in_one_addition() public {
        _openVote(40);
        uint256[] memory nay = _nayBits(0x30);
        vm.expectEmit(address(session));
        emit Session.BallotsCast(nay, _nayBits(((1 << 30) - 1) << 6));
        session.castGrouped(nay, _voters(6, 30, nay));
        _cast(36, _nay(5));
        vm.assertEq(_row(4).nays, 30);
        vm.assertEq(_row(5).nays, 31);
        vm.assertEq(_row(6).nays, 0);
        vm.assertEq(_row(6).marks, 3);
        vm.assertEq(_counts().ballots, 31);
    }

    function test_castGrouped__bad_voters_are_skipped_with_their_fault() public {
        _openVote(6);
        _cast(3, _nay());
        uint256[] memory nay = _nay(1);
        Session.SignedVoter[] memory voters = _voters(0, 6, nay);
        voters[2] = _signBallot(2, _nay(0)); // signed another ballot
        voters[5] = _signBallot(4, nay); // 4 a second time
        voters[0] = _signBallot(9, nay);
        _expectSkip(0, _wallet(9), Session.Fault.NotAMember);
        _expectSkip(1, _wallet(1), Session.Fault.NayOnOwnClaim);
        _expectSkip(2, _wallet(2), Session.Fault.BadSignature);
        _expectSkip(3, _wallet(3), Session.Fault.AlreadyVoted);
        _expectSkip(5, _wallet(4), Session.Fault.AlreadyVoted);
        session.castGrouped(nay, voters);
        vm.assertEq(_row(1).nays, 1);
        vm.assertEq(_counts().ballots, 2);
        vm.assertEq(_row(2).marks, 1);
    }

    function test_castGrouped__of_nobody_changes_no_counter() public {
        _openVote(6);
        session.castGrouped(_nay(1), new Session.SignedVoter[](0));
        vm.assertEq(_counts().ballots, 0);
        vm.assertEq(_row(1).nays, 0);
    }

    function test_castGrouped__a_ballot_that_nobody_may_cast_is_refused() public {
        _joinMany(6);
        _startClaims();
        for (uint256 i; i < 5; ++i) _claim(i, 10);
        _startVotes();
        uint256[] memory nay = _nay(5); // has not claimed
        Session.SignedVoter[] memory voters = _voters(0, 1, nay);
        vm.expectRevert(abi.encodeWithSelector(Session.NayWithoutClaim.selector, 0, 1 << 5));
        session.castGrouped(nay, voters);
        nay = _nayBits(0x1e);
        vm.expectRevert(abi.encodeWithSelector(Session.TooManyNays.selector, 4, 2));
        session.castGrouped(nay, voters);
        nay = new uint256[](2);
        vm.expectRevert(abi.encodeWithSelector(Session.BallotTooLong.selector, 2, 1));
        session.castGrouped(nay, voters);
        vm.assertEq(_counts().ballots, 0);
    }

    function test_castGrouped__only_while_voting() public {
        _join(0);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Funding, Session.Stage.Voting));
        session.castGrouped(_nay(), _voters(0, 1, _nay()));
    }

    function test_castGrouped__of_another_session_or_chain_does_nothing() public {
        _openVote(3);
        Session.SignedVoter[] memory voters = _voters(0, 2, _nay());
        bytes32 content = _hashBallot(_wallet(0), _nay());
        bytes32[2] memory domains = [_domain(block.chainid, address(0x5e5510)), _domain(block.chainid + 1, address(session))];
        for (uint256 i; i < 2; ++i) {
            (voters[i].r, voters[i].vs) = vm.signCompact(_key(0), keccak256(abi.encodePacked(hex"1901", domains[i], content)));
            voters[i].member = _wallet(0);
            _expectSkip(i, _wallet(0), Session.Fault.BadSignature);
        }
        session.castGrouped(_nay(), voters);
        vm.assertEq(_counts().ballots, 0);
    }

    /// The popcount of a group carries over many planes, whatever the counters held before.
    function test_castGrouped__adds_every_size_of_group_exactly() public {
        uint256 members = 300;
        _openVote(members);
        uint256[] memory nay = _nayBits(1 << 3);
        uint256 next = 4;
        uint256[9] memory sizes = [uint256(1), 1, 2, 3, 5, 31, 33, 64, 127];
        for (uint256 i; i < sizes.length; ++i) {
            uint256[] memory other = i % 2 == 0 ? nay : _nayBits((1 << 3) | (1 << 0));
            session.castGrouped(other, _voters(next, sizes[i], other));
            next += sizes[i];
            vm.assertEq(_row(3).nays, next - 4);
        }
        vm.assertEq(_row(0).nays, 1 + 3 + 31 + 64);
        vm.assertEq(_row(299).nays, 0);
        _endVotes();
        session.tally(9);
        vm.assertTrue(!_row(3).approved, "267 of 267 ballots");
        vm.assertTrue(_row(0).approved, "99 of 267 ballots");
    }

    function test_castGrouped__voters_of_every_word_are_marked() public {
        _openVote(520);
        uint256[] memory nay = _nay(1);
        Session.SignedVoter[] memory voters = new Session.SignedVoter[](3);
        (voters[0], voters[1], voters[2]) = (_signBallot(0, nay), _signBallot(256, nay), _signBallot(519, nay));
        uint256[] memory counted = new uint256[](3);
        (counted[0], counted[1], counted[2]) = (1, 1, 1 << 7);
        vm.expectEmit(address(session));
        emit Session.BallotsCast(nay, counted);
        session.castGrouped(nay, voters);
        vm.assertEq(_row(256).marks + _row(519).marks + _row(0).marks, 9);
        vm.assertEq(_row(257).marks, 1);
    }

    function test_castGrouped__a_group_that_jumps_over_the_quorum_late_extends_once() public {
        _openVote(10); // The quorum is 2.
        uint256 ends = _terms().votingEnds;
        vm.warp(ends - 1);
        vm.expectEmit(address(session));
        emit Session.VotingExtended(ends - 1 + STAGE / 4);
        session.castGrouped(_nay(), _voters(0, 5, _nay()));
        vm.warp(ends + 5);
        session.castGrouped(_nay(), _voters(5, 5, _nay()));
        vm.assertEq(_counts().votingEnds, ends - 1 + STAGE / 4);
    }
}
