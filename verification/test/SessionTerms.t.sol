// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {vm} from "./Vm.sol";

/// @notice Terms that could lock money are refused at creation, those at the very limit are not.
contract SessionTermsTest is Bed {
    function _refuse(Session.Terms memory terms, string memory what) private {
        vm.expectRevert(abi.encodeWithSelector(Session.BadTerms.selector, what));
        new Session(terms);
    }

    function test_deposit__zero_or_above_112_bits_is_refused() public {
        Session.Terms memory terms = _terms();
        terms.depositWei = 0;
        _refuse(terms, "deposit");
        terms.depositWei = uint256(type(uint112).max) + 1;
        _refuse(terms, "deposit");
        terms.depositWei = type(uint112).max;
        vm.assertEq(new Session(terms).terms().depositWei, type(uint112).max);
        (terms.depositWei, terms.proposalDepositWei) = (1, 1);
        vm.assertEq(new Session(terms).terms().depositWei, 1);
    }

    function test_members__none_or_more_than_the_cap_or_a_goal_above_it_is_refused() public {
        Session.Terms memory terms = _terms();
        terms.membersMin = 0;
        _refuse(terms, "members");
        (terms.membersMin, terms.membersMax) = (8, 7);
        _refuse(terms, "members");
        (terms.membersMin, terms.membersMax) = (1, 4096);
        _refuse(terms, "members");
        (terms.membersMin, terms.membersMax) = (4095, 4095);
        vm.assertEq(new Session(terms).terms().membersMin, 4095);
    }

    function test_quorum__above_everybody_is_refused() public {
        Session.Terms memory terms = _terms();
        terms.rejectQuorumPermille = 1001;
        _refuse(terms, "quorum");
        terms.rejectQuorumPermille = 1000;
        vm.assertEq(new Session(terms).terms().rejectQuorumPermille, 1000);
    }

    function test_times__out_of_order_are_refused() public {
        Session.Terms memory terms = _terms();
        terms.fundingEnds = START;
        _refuse(terms, "times");
        terms = _terms();
        terms.trainingEnds = terms.fundingEnds;
        _refuse(terms, "times");
        terms = _terms();
        terms.claimingEnds = terms.trainingEnds;
        _refuse(terms, "times");
        terms = _terms();
        terms.votingEnds = terms.claimingEnds;
        _refuse(terms, "times");
        (terms.fundingEnds, terms.trainingEnds, terms.claimingEnds, terms.votingEnds) = (START + 1, START + 2, START + 3, START + 4);
        vm.assertEq(new Session(terms).terms().votingEnds, START + 4);
    }

    function test_times__more_than_a_thousand_days_ahead_are_refused() public {
        Session.Terms memory terms = _terms();
        terms.votingEnds = START + 1000 days + 1;
        terms.extensionSecondsMax = 0;
        _refuse(terms, "times");
        terms.votingEnds = START + 1000 days;
        vm.assertEq(new Session(terms).terms().votingEnds, START + 1000 days);
    }

    function test_extension__beyond_a_thousand_days_is_refused() public {
        Session.Terms memory terms = _terms();
        terms.extensionSecondsMax = START + 1000 days - terms.votingEnds + 1;
        _refuse(terms, "extension");
        terms.extensionSecondsMax -= 1;
        vm.assertEq(new Session(terms).terms().extensionSecondsMax, START + 1000 days - terms.votingEnds);
        terms.extensionSecondsMax = type(uint256).max;
        _refuse(terms, "extension");
    }

    function test_governance__parameters_beyond_their_bounds_are_refused() public {
        Session.Terms memory terms = _terms();
        terms.proposalDepositWei = DEPOSIT + 1;
        _refuse(terms, "governance");
        terms = _terms();
        terms.minQuorumDivisor = 1;
        _refuse(terms, "governance");
        terms.minQuorumDivisor = 11;
        _refuse(terms, "governance");
        terms = _terms();
        terms.debatingSecondsMin = 0;
        _refuse(terms, "governance");
        terms.debatingSecondsMin = 56 days + 1;
        _refuse(terms, "governance");
        (terms.proposalDepositWei, terms.minQuorumDivisor, terms.debatingSecondsMin) = (DEPOSIT, 2, 56 days);
        vm.assertEq(new Session(terms).governance().debatingSecondsMin(), 56 days);
        (terms.proposalDepositWei, terms.minQuorumDivisor, terms.debatingSecondsMin) = (0, 10, 1);
        vm.assertEq(new Session(terms).governance().minQuorumDivisor(), 10);
    }

    function test_terms__are_read_as_they_were_given() public {
        vm.roll(77);
        session = new Session(_terms());
        vm.assertEq(keccak256(abi.encode(session.terms())), keccak256(abi.encode(_terms())));
        vm.assertEq(session.createdBlock(), 77);
        vm.assertEq(_counts().votingEnds, _terms().votingEnds);
        vm.assertEq(_counts().claimingEnds, _terms().claimingEnds);
        vm.assertEq(_counts().trainingEnds, _terms().trainingEnds);
        vm.assertTrue(address(session.tips()).code.length > 0);
        vm.assertEq(address(session.governance().session()), address(session));
        vm.assertEq(session.governance().proposalDeposit(), 1000);
        vm.assertEq(session.governance().proposalDepositMax(), DEPOSIT);
        vm.assertEq(session.governance().minQuorumDivisor(), 5);
        vm.assertEq(session.governance().debatingSecondsMin(), 1 days);
    }

    function test_stages__change_at_the_very_second() public {
        _join(0);
        Session.Terms memory terms = _terms();
        vm.warp(terms.fundingEnds - 1);
        _checkStage(Session.Stage.Funding);
        vm.warp(terms.fundingEnds);
        _checkStage(Session.Stage.Training);
        vm.warp(terms.trainingEnds - 1);
        _checkStage(Session.Stage.Training);
        vm.warp(terms.trainingEnds);
        _checkStage(Session.Stage.Claiming);
        _claim(0, 1);
        vm.warp(terms.claimingEnds - 1);
        _checkStage(Session.Stage.Claiming);
        vm.warp(terms.claimingEnds);
        _checkStage(Session.Stage.Voting);
        _cast(0, _nay());
        vm.warp(terms.votingEnds - 1);
        _checkStage(Session.Stage.Voting);
        vm.warp(terms.votingEnds);
        _checkStage(Session.Stage.Settling);
        session.tally(1);
        _checkStage(Session.Stage.Released);
    }

    function test_stages__objective_missed_by_one_is_refunded() public {
        Session.Terms memory terms = _terms();
        terms.membersMin = 3;
        session = new Session(terms);
        _joinMany(2);
        _startTraining();
        _checkStage(Session.Stage.Refunded);
        vm.warp(terms.votingEnds + 1);
        _checkStage(Session.Stage.Refunded);
    }

    function test_stages__objective_just_met_trains() public {
        Session.Terms memory terms = _terms();
        terms.membersMin = 3;
        session = new Session(terms);
        _joinMany(3);
        _startTraining();
        _checkStage(Session.Stage.Training);
    }

    function test_stages__nobody_claims_or_nobody_votes_is_refunded() public {
        _joinMany(2);
        _startVotes();
        _cast(0, _nay());
        _endVotes();
        _checkStage(Session.Stage.Refunded);
    }

    function test_stages__no_ballot_is_refunded() public {
        _openVote(2);
        _endVotes();
        _checkStage(Session.Stage.Refunded);
    }
}
