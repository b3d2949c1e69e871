// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governance} from "contracts/Governance.sol";
import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {Member} from "./Members.sol";
import {vm} from "./Vm.sol";

/// @notice What the tests themselves know of a session: plain counts beside the contract's, and what must hold at any time.
abstract contract Model is Bed {
    uint256 internal constant CONTRACTS = 3; // of the actors; they misbehave when they are paid
    uint256 internal constant CALL_GAS = 3_000_000; // for calls whose recipient may burn all that it gets
    uint256 internal constant STRANGER = uint160(uint256(keccak256("stranger")));

    Session.Terms internal terms;
    Governance internal governance;
    address[] internal actors; // wallets with known keys, then contracts
    uint256 internal wallets; // of the actors that have a key

    address[] internal seats; // members by index
    mapping(address member => bool) internal isSeated;
    mapping(address member => bool) internal hasClaimed;
    mapping(address member => bool) internal hasVoted;
    mapping(address member => uint256) internal asked;
    mapping(address member => uint256) internal nays;
    mapping(address member => uint256) internal paidWei;
    uint256 internal paidTotal;
    mapping(address actor => uint256) internal sentWei; // what a contract among the actors was sent by the session, also for others
    uint256 internal forcedWei;
    uint256 internal ballots;
    uint256 internal claims;
    Session.Stage internal lastStage;
    uint256 internal lastVotingEnds;

    function _actor(uint256 seed) internal view returns (address) {
        return actors[(seed >> 16) % actors.length];
    }

    // --- what the rules say ---

    function _seatOf(address member) internal view returns (uint256 index) {
        while (seats[index] != member) ++index;
    }

    function _threshold() internal view returns (uint256) {
        uint256 quorum = (seats.length * terms.rejectQuorumPermille + 999) / 1000;
        if (quorum == 0) quorum = 1;
        uint256 half = (ballots + 1) / 2;
        return half > quorum ? half : quorum;
    }

    function _isApproved(address member) internal view returns (bool) {
        return hasClaimed[member] && nays[member] < _threshold();
    }

    function _approved() internal view returns (uint256 count, uint256 points) {
        for (uint256 i; i < seats.length; ++i) {
            if (_isApproved(seats[i])) (count, points) = (count + 1, points + asked[seats[i]]);
        }
    }

    /// What a member is owed now.
    function _share(address member) internal view returns (uint256) {
        (, uint256 points) = _approved();
        return _share(member, session.stage(), points);
    }

    function _share(address member, Session.Stage stage, uint256 points) private view returns (uint256) {
        if (!isSeated[member] || paidWei[member] != 0) return 0;
        if (stage == Session.Stage.Refunded) return DEPOSIT;
        if (stage != Session.Stage.Released || !_isApproved(member)) return 0;
        return (seats.length * DEPOSIT * asked[member]) / points;
    }

    function _mood(address actor) internal view returns (Member.Mood) {
        return actor.code.length == 0 ? Member.Mood.Accept : Member(payable(actor)).mood();
    }

    function _accepts(address actor) internal view returns (bool) {
        return _mood(actor) == Member.Mood.Accept || _mood(actor) == Member.Mood.Reenter;
    }

    // --- what must hold after every call ---

    function checkAll() public {
        if (address(session) == address(0)) return;
        _checkMoney();
        _checkCounts();
        _checkTime();
        _checkGovernance();
        for (uint256 i = wallets; i < actors.length; ++i) {
            Member member = Member(payable(actors[i]));
            vm.assertEq(member.received(), sentWei[address(member)], "a recipient that calls back gets what is its own");
        }
    }

    function _checkMoney() private view {
        uint256 fund = seats.length * DEPOSIT;
        vm.assertEq(address(session).balance, fund + forcedWei - paidTotal, "balance = fund + forced ether - paid");
        uint256 due;
        (, uint256 points) = _approved();
        Session.Row[] memory rows = session.readMembers(seats);
        Session.Stage stage = session.stage();
        for (uint256 i; i < rows.length; ++i) {
            vm.assertEq(rows[i].dueWei, _share(seats[i], stage, points), "due as the rules say");
            due += rows[i].dueWei;
        }
        vm.assertLe(due + paidTotal, fund, "sum of due + paid <= fund");
    }

    function _checkCounts() private view {
        (, Session.Counts memory c) = session.summary();
        vm.assertEq(c.members, seats.length, "members");
        vm.assertEq(c.claims, claims, "claims");
        vm.assertEq(c.ballots, ballots, "one ballot per member");
        Session.Row[] memory rows = session.readMembers(seats);
        for (uint256 i; i < rows.length; ++i) {
            address member = seats[i];
            uint256 marks = (hasClaimed[member] ? 1 : 0) + (hasVoted[member] ? 2 : 0) + (paidWei[member] != 0 ? 4 : 0);
            vm.assertEq(rows[i].index, i, "index");
            vm.assertEq(rows[i].points, asked[member], "points");
            vm.assertEq(rows[i].nays, nays[member], "counters equal a plain count");
            vm.assertEq(rows[i].marks, marks, "marks");
        }
    }

    function _checkTime() private {
        (Session.Stage stage, Session.Counts memory c) = session.summary();
        bool isFinal = lastStage == Session.Stage.Released || lastStage == Session.Stage.Refunded;
        vm.assertTrue(isFinal ? stage == lastStage : stage >= lastStage, "stages only move forward");
        vm.assertGe(c.votingEnds, lastVotingEnds, "the vote is never shortened");
        uint256 most = terms.votingEnds + terms.extensionSecondsMax + (terms.votingEnds - terms.claimingEnds + 3) / 4;
        vm.assertLe(c.votingEnds, most, "the vote ends in bounded time");
        vm.assertTrue(c.trainingEnds >= terms.trainingEnds && c.claimingEnds > c.trainingEnds, "deadlines in order");
        vm.assertTrue(c.claimingEnds >= terms.claimingEnds && c.votingEnds > c.claimingEnds, "deadlines in order");
        (lastStage, lastVotingEnds) = (stage, c.votingEnds);
    }

    function _checkGovernance() private view {
        uint256 held;
        for (uint256 i; i < actors.length; ++i) held += governance.credit(actors[i]);
        for (uint256 id; id < governance.proposalCount(); ++id) {
            Governance.Proposal memory p = governance.readProposal(id);
            if (p.open) held += p.proposalDeposit;
            vm.assertLe(p.yea + p.nay, seats.length, "one token, one vote");
        }
        vm.assertEq(governance.heldWei(), held, "deposits of proposals are held");
        vm.assertGe(address(governance).balance, held, "and are there");
    }

    // --- liveness ---

    /// From here, time and calls that anybody may make empty the contract up to dust; a wallet that takes no money can name another.
    function checkLiveness() public {
        if (address(session) == address(0)) return;
        uint256 snapshot = vm.snapshotState();
        uint256 end = _counts().votingEnds;
        if (block.timestamp < end) vm.warp(end);
        for (uint256 i; session.stage() == Session.Stage.Settling; ++i) {
            vm.assertLt(i, 16, "the tally ends");
            vm.prank(address(uint160(STRANGER)));
            session.tally(1);
        }
        (uint256 count,) = _approved();
        if (session.stage() == Session.Stage.Refunded) count = 0;
        vm.prank(address(uint160(STRANGER)));
        session.releaseBatch(seats);
        for (uint256 i; i < seats.length; ++i) {
            if (session.due(seats[i]) == 0) continue;
            vm.assertTrue(_mood(seats[i]) != Member.Mood.Accept, "who takes money was paid");
            vm.prank(seats[i]);
            session.withdrawTo(address(uint160(STRANGER)));
        }
        vm.assertLe(address(session).balance - forcedWei, count == 0 ? 0 : count - 1, "empty up to dust");
        vm.revertToState(snapshot);
    }
}
