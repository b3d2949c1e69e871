// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {vm} from "./Vm.sol";

/// @notice Claims and direct ballots: what is counted, what is refused, what rejects a claim.
contract SessionVotesTest is Bed {
    function _refuse(uint256 number, uint256[] memory nay, bytes memory reason) private {
        vm.expectRevert(reason);
        _cast(number, nay);
    }

    // --- claims ---

    function test_claim__is_kept_with_its_evidence() public {
        _joinMany(2);
        _startClaims();
        vm.expectEmit(address(session));
        emit Session.Claimed(1, 42, EVIDENCE);
        _claim(1, 42);
        vm.assertEq(_row(1).points, 42);
        vm.assertEq(_row(1).marks, 1);
        vm.assertEq(_row(0).marks, 0);
        vm.assertEq(_counts().claims, 1);
        vm.assertEq(_counts().points, 42);
    }

    function test_claim__twice_is_refused() public {
        _join(0);
        _startClaims();
        _claim(0, 1);
        vm.expectRevert(Session.AlreadyClaimed.selector);
        _claim(0, 2);
    }

    function test_claim__a_stranger_is_refused() public {
        _join(0);
        _startClaims();
        vm.expectRevert(Session.NotAMember.selector);
        _claim(1, 2);
    }

    function test_claim__of_more_than_64_bits_is_refused() public {
        _joinMany(2);
        _startClaims();
        vm.expectRevert(abi.encodeWithSelector(Session.TooManyPoints.selector, 1 << 64));
        _claim(0, 1 << 64);
        _claim(0, type(uint64).max);
        _claim(1, type(uint64).max);
        vm.assertEq(_counts().points, 2 * uint256(type(uint64).max));
    }

    function test_claim__only_while_claiming() public {
        _join(0);
        _startTraining();
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Training, Session.Stage.Claiming));
        _claim(0, 2);
        _startVotes();
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Voting, Session.Stage.Claiming));
        _claim(0, 2);
    }

    // --- ballots ---

    function test_cast__is_counted_and_logged() public {
        _openVote(5);
        vm.expectEmit(address(session));
        emit Session.BallotCast(1, _nayBits(0x18));
        _cast(1, _nayBits(0x18));
        _cast(0, _nayBits(0x10));
        vm.assertEq(_row(3).nays, 1);
        vm.assertEq(_row(4).nays, 2);
        vm.assertEq(_row(0).nays, 0);
        vm.assertEq(_row(1).marks, 3);
        vm.assertEq(_counts().ballots, 2);
    }

    function test_cast__twice_is_refused() public {
        _openVote(3);
        _cast(0, _nay());
        _refuse(0, _nay(1), abi.encodeWithSelector(Session.AlreadyVoted.selector));
    }

    function test_cast__a_stranger_is_refused() public {
        _openVote(3);
        _refuse(3, _nay(), abi.encodeWithSelector(Session.NotAMember.selector));
    }

    function test_cast__only_while_voting() public {
        _join(0);
        _startClaims();
        _claim(0, 1);
        _refuse(0, _nay(), abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Claiming, Session.Stage.Voting));
        vm.warp(_terms().votingEnds);
        _refuse(0, _nay(), abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Refunded, Session.Stage.Voting));
    }

    function test_cast__against_oneself_is_refused() public {
        _openVote(300);
        _refuse(4, _nay(4), abi.encodeWithSelector(Session.NayOnOwnClaim.selector));
        _refuse(299, _nay(299), abi.encodeWithSelector(Session.NayOnOwnClaim.selector));
        _cast(299, _nay(43)); // 299 - 256: the same bit of another word
        vm.assertEq(_row(43).nays, 1);
    }

    function test_cast__against_what_was_not_claimed_is_refused() public {
        _joinMany(5);
        _startClaims();
        _claim(0, 1);
        _startVotes();
        _refuse(1, _nayBits(3), abi.encodeWithSelector(Session.NayOnOwnClaim.selector));
        _refuse(1, _nayBits(5), abi.encodeWithSelector(Session.NayWithoutClaim.selector, 0, 4));
        _refuse(1, _nayBits(1 << 255), abi.encodeWithSelector(Session.NayWithoutClaim.selector, 0, 1 << 255));
    }

    function test_cast__beyond_the_last_word_is_refused() public {
        _openVote(256);
        _refuse(1, new uint256[](2), abi.encodeWithSelector(Session.BallotTooLong.selector, 2, 1));
        _cast(1, new uint256[](1));
    }

    function test_cast__no_more_than_half_of_the_others() public {
        _openVote(8); // floor(7 / 2) = 3
        _refuse(0, _nayBits(0x1e), abi.encodeWithSelector(Session.TooManyNays.selector, 4, 3));
        _cast(0, _nayBits(0x0e));
        _openVoteAgain(7); // floor(6 / 2) = 3
        _refuse(0, _nayBits(0x1e), abi.encodeWithSelector(Session.TooManyNays.selector, 4, 3));
        _cast(0, _nayBits(0x0e));
        _openVoteAgain(2); // floor(1 / 2) = 0
        _refuse(0, _nayBits(2), abi.encodeWithSelector(Session.TooManyNays.selector, 1, 0));
        _cast(0, _nay());
    }

    function _openVoteAgain(uint256 members) private {
        vm.warp(START);
        session = new Session(_terms());
        _openVote(members);
    }

    // --- what rejects ---

    function test_tally__half_of_the_ballots_reject() public {
        _openVote(10); // The quorum is 2; 7 ballots: 4 nays reject, 3 do not.
        for (uint256 i; i < 7; ++i) _cast(i, i < 3 ? _nayBits(0x300) : i == 3 ? _nay(8) : _nay());
        _endVotes();
        session.tally(1);
        vm.assertTrue(!_row(8).approved, "4 of 7");
        vm.assertTrue(_row(9).approved, "3 of 7");
        vm.assertEq(_counts().points, 90);
    }

    function test_tally__the_quorum_rejects_and_not_less() public {
        _openVote(11); // ceil(0.2 * 11) = 3
        for (uint256 i; i < 3; ++i) _cast(i, i < 2 ? _nayBits(0x300) : _nay(8));
        _endVotes();
        session.tally(1);
        vm.assertTrue(!_row(8).approved, "3 nays");
        vm.assertTrue(_row(9).approved, "2 nays: more than half, but not the quorum");
    }

    function test_tally__without_a_quorum_one_nay_is_needed_at_least() public {
        Session.Terms memory terms = _terms();
        terms.rejectQuorumPermille = 0;
        session = new Session(terms);
        _openVote(5);
        _cast(0, _nay(1));
        _endVotes();
        session.tally(1);
        vm.assertTrue(!_row(1).approved, "one nay");
        vm.assertTrue(_row(2).approved, "no nay");
    }

    /// Nay counters of every size up to 300: each claim i gets i nays (a 16-bit prototype broke at the seventh ballot).
    function test_tally__every_count_is_exact() public {
        uint256 members = 301;
        _openVote(members);
        for (uint256 voter; voter < members; ++voter) {
            uint256[] memory nay = new uint256[](2);
            uint256 spent;
            // Claim 2k - 1 and 2k get about k nays: the budget is half of the others.
            for (uint256 index = 1; index < members && spent < 150; ++index) {
                if (index != voter && (voter + index) % members < index / 2) {
                    nay[index >> 8] |= 1 << (index & 255);
                    ++spent;
                }
            }
            _cast(voter, nay);
            for (uint256 word; word < 2; ++word) {
                for (uint256 bit; bit < 256; ++bit) {
                    if ((nay[word] >> bit) & 1 == 1) ++plain[256 * word + bit];
                }
            }
        }
        Session.Row[] memory rows = _rows(members);
        uint256 most;
        for (uint256 i; i < members; ++i) {
            vm.assertEq(rows[i].nays, plain[i]);
            if (plain[i] > most) most = plain[i];
        }
        vm.assertGe(most, 120, "the counters go high enough to mean something");
        _endVotes();
        session.tally(2);
        rows = _rows(members);
        uint256 threshold = 151; // half of 301 ballots, rounded up
        for (uint256 i; i < members; ++i) vm.assertEq(rows[i].approved, plain[i] < threshold, "approved");
    }

    mapping(uint256 index => uint256) private plain;

    function test_tally__all_reject_all_at_forty_and_three_hundred() public {
        uint256[2] memory sizes = [uint256(40), 300];
        for (uint256 i; i < 2; ++i) {
            uint256 members = sizes[i];
            vm.warp(START);
            session = new Session(_terms());
            _openVote(members);
            for (uint256 voter; voter < members; ++voter) _cast(voter, voter == 7 ? _nay(9) : _nay(7));
            vm.assertEq(_row(7).nays, members - 1);
            _endVotes();
            session.tally(type(uint256).max);
            vm.assertTrue(!_row(7).approved, "rejected");
            vm.assertTrue(_row(9).approved, "approved");
            vm.assertEq(_counts().points, 10 * (members - 1));
        }
    }

    function test_tally__goes_on_where_it_stopped() public {
        _openVote(600);
        for (uint256 i; i < 120; ++i) _cast(i, _nay(599));
        _endVotes();
        _checkStage(Session.Stage.Settling);
        session.tally(0);
        vm.assertEq(_counts().talliedWords, 0);
        vm.expectEmit(address(session));
        emit Session.Tallied(1, 6000);
        session.tally(1);
        _checkStage(Session.Stage.Settling);
        vm.assertEq(session.due(_wallet(0)), 0);
        session.tally(1);
        vm.expectEmit(address(session));
        emit Session.Tallied(3, 5990);
        session.tally(7);
        _checkStage(Session.Stage.Released);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Released, Session.Stage.Settling));
        session.tally(1);
    }

    function test_tally__takes_each_rejected_claim_off_once() public {
        _openVote(300);
        uint256[] memory nay = new uint256[](2);
        (nay[0], nay[1]) = (1 << 250, 1 << 40); // 250 and 296
        for (uint256 i; i < 60; ++i) _cast(i, nay);
        _endVotes();
        session.tally(1);
        vm.assertEq(_counts().points, 2990);
        session.tally(1);
        vm.assertEq(_counts().points, 2980);
        vm.assertTrue(!_row(250).approved && !_row(296).approved && _row(251).approved);
    }

    // --- the late ballot ---

    function test_extension__a_late_quorum_extends_once() public {
        _openVote(10); // The quorum is 2.
        uint256 ends = _terms().votingEnds;
        _cast(0, _nay());
        vm.warp(ends - 1);
        vm.expectEmit(address(session));
        emit Session.VotingExtended(ends - 1 + STAGE / 4);
        _cast(1, _nay());
        vm.assertEq(_counts().votingEnds, ends - 1 + STAGE / 4);
        vm.warp(ends);
        _checkStage(Session.Stage.Voting);
        vm.warp(ends - 2 + STAGE / 4);
        _cast(2, _nay());
        vm.assertEq(_counts().votingEnds, ends - 1 + STAGE / 4);
        vm.warp(ends - 1 + STAGE / 4);
        _checkStage(Session.Stage.Settling);
    }

    function test_extension__an_early_quorum_shortens_nothing() public {
        _openVote(10);
        _cast(0, _nay());
        _cast(1, _nay());
        vm.assertEq(_counts().votingEnds, _terms().votingEnds);
    }

    function test_extension__without_a_quorum_the_first_ballot_is_it() public {
        Session.Terms memory terms = _terms();
        terms.rejectQuorumPermille = 0;
        session = new Session(terms);
        _openVote(5);
        vm.warp(terms.votingEnds - 1);
        _cast(0, _nay());
        vm.assertEq(_counts().votingEnds, terms.votingEnds - 1 + STAGE / 4);
    }

    function test_extension__leaves_a_quarter_of_the_vote() public {
        _openVote(10);
        vm.warp(_terms().votingEnds - STAGE / 4);
        _cast(0, _nay());
        _cast(1, _nay());
        vm.assertEq(_counts().votingEnds, _terms().votingEnds);
        _openVoteAgain(10);
        vm.warp(_terms().votingEnds - STAGE / 4 + 1);
        _cast(0, _nay());
        vm.assertEq(_counts().votingEnds, _terms().votingEnds);
        _cast(1, _nay());
        vm.assertEq(_counts().votingEnds, _terms().votingEnds + 1);
    }
}
