// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governance} from "contracts/Governance.sol";
import {Session} from "contracts/Session.sol";
import {Bed} from "./Bed.sol";
import {vm} from "./Vm.sol";

/// @notice A recipient of proposals: keeps the money, refuses it, or calls back.
contract Recipient {
    enum Mood { Accept, Refuse, Reenter }

    Governance public governance;
    Mood public mood;
    uint256 public called;
    uint256 public reentered;

    constructor(Governance governance_) {
        governance = governance_;
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function work(uint256 value) external payable {
        called = value;
    }

    function withdrawTo(address to) external {
        governance.withdrawTo(to);
    }

    receive() external payable {
        if (mood == Mood.Refuse) revert("no, thanks");
        if (mood == Mood.Reenter) {
            try governance.execute(0, "") { reentered += 1; } catch {}
            try governance.withdraw(address(this)) { reentered += 1; } catch {}
            try governance.close(0) { reentered += 1; } catch {}
        }
    }
}

/// @notice Proposals: Table 1 under its names, Eq. 2, deposits, and that only the governance's own money moves.
contract GovernanceTest is Bed {
    uint256 private constant PROPOSAL_DEPOSIT = 1000;
    uint256 private constant DAY = 1 days;
    Governance private governance;

    function setUp() public override {
        super.setUp();
        governance = session.governance();
        _joinMany(10);
        _startTraining();
        _donate(50_000);
    }

    function _donate(uint256 amountWei) private {
        vm.deal(address(this), amountWei);
        (bool sent,) = address(governance).call{value: amountWei}("");
        vm.assertTrue(sent);
    }

    function _propose(uint256 number, address recipient, uint256 amount, bytes memory data) private returns (uint256 id) {
        vm.deal(_wallet(number), _wallet(number).balance + governance.proposalDeposit());
        uint256 depositWei = governance.proposalDeposit();
        vm.prank(_wallet(number));
        return governance.newProposal{value: depositWei}(recipient, amount, "because", data, DAY);
    }

    function _vote(uint256 id, uint256 yeas, uint256 nays) private {
        for (uint256 i; i < yeas + nays; ++i) {
            vm.prank(_wallet(i));
            governance.vote(id, i < yeas);
        }
    }

    function _endDebate(uint256 id) private {
        vm.warp(governance.readProposal(id).votingDeadline);
    }

    /// Decided by all members: the call is carried out.
    function _decide(address recipient, uint256 amount, bytes memory data) private returns (uint256 id) {
        id = _propose(0, recipient, amount, data);
        _vote(id, 10, 0);
        _endDebate(id);
        governance.execute(id, data);
    }

    // --- new proposals ---

    function test_newProposal__keeps_the_parameters_of_table_1() public {
        vm.expectEmit(address(governance));
        emit Governance.Proposed(0, _wallet(3), address(77), 500, hex"1234");
        uint256 id = _propose(3, address(77), 500, hex"1234");
        Governance.Proposal memory p = governance.readProposal(id);
        vm.assertEq(p.recipient, address(77));
        vm.assertEq(p.amount, 500);
        vm.assertEq(p.description, "because");
        vm.assertEq(p.votingDeadline, block.timestamp + DAY);
        vm.assertTrue(p.open && !p.proposalPassed);
        vm.assertEq(p.proposalHash, keccak256(abi.encodePacked(address(77), uint256(500), hex"1234")));
        vm.assertEq(p.proposalDeposit, PROPOSAL_DEPOSIT);
        vm.assertEq(p.yea + p.nay, 0);
        vm.assertEq(p.creator, _wallet(3));
        vm.assertEq(governance.proposalCount(), 1);
        vm.assertEq(governance.heldWei(), PROPOSAL_DEPOSIT);
        vm.assertEq(governance.availableWei(), 50_000);
    }

    function _refuse(address sender, uint256 value, uint256 debating, bytes memory reason) private {
        vm.deal(sender, value);
        vm.expectRevert(reason);
        vm.prank(sender);
        governance.newProposal{value: value}(address(77), 500, "", "", debating);
    }

    function test_newProposal__asks_for_a_member_the_deposit_and_a_debate() public {
        _refuse(_wallet(10), PROPOSAL_DEPOSIT, DAY, abi.encodeWithSelector(Governance.NotAMember.selector));
        _refuse(_wallet(0), 999, DAY, abi.encodeWithSelector(Governance.WrongProposalDeposit.selector, 999, 1000));
        _refuse(_wallet(0), 1001, DAY, abi.encodeWithSelector(Governance.WrongProposalDeposit.selector, 1001, 1000));
        _refuse(_wallet(0), 1000, DAY - 1, abi.encodeWithSelector(Governance.WrongDebatingTime.selector, DAY - 1, DAY, 56 days));
        _refuse(_wallet(0), 1000, 56 days + 1, abi.encodeWithSelector(Governance.WrongDebatingTime.selector, 56 days + 1, DAY, 56 days));
        vm.deal(_wallet(0), 1000);
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 500, "", "", 56 days);
    }

    function test_newProposal__long_texts_are_refused() public {
        vm.deal(_wallet(0), 4000);
        vm.expectRevert(abi.encodeWithSelector(Governance.DescriptionTooLong.selector, 1025, 1024));
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 1, string(new bytes(1025)), "", DAY);
        vm.expectRevert(abi.encodeWithSelector(Governance.TransactionTooLong.selector, 4097, 4096));
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 1, "", new bytes(4097), DAY);
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 1, string(new bytes(1024)), new bytes(4096), DAY);
    }

    function test_newProposal__of_more_than_there_is_or_to_itself_is_refused() public {
        vm.deal(_wallet(0), 3000);
        vm.expectRevert(abi.encodeWithSelector(Governance.NotEnoughFunds.selector, 50_001, 50_000));
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 50_001, "", "", DAY);
        vm.expectRevert(Governance.PaysItself.selector);
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(governance), 1, "", "", DAY);
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 50_000, "", "", DAY);
    }

    function test_newProposal__waits_until_the_members_are_final() public {
        vm.warp(START);
        vm.deal(_wallet(0), 1000);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Funding, Session.Stage.Training));
        vm.prank(_wallet(0));
        governance.newProposal{value: 1000}(address(77), 1, "", "", DAY);
    }

    // --- Eq. 2 ---

    function test_minQuorum__is_a_fifth_for_nothing_and_53_percent_for_all() public view {
        vm.assertEq(governance.minQuorum(0), 2); // ceil(10 / 5)
        vm.assertEq(governance.minQuorum(50_000), 6); // ceil(2 + 10 / 3)
        vm.assertEq(governance.minQuorum(25_000), 4); // ceil(2 + 5 / 3)
        vm.assertEq(governance.minQuorum(1), 3); // rounded up
        vm.assertEq(governance.minQuorum(15_000), 3); // 2 + 1, exactly
        vm.assertEq(governance.minQuorum(15_001), 4);
    }

    function test_minQuorum__counts_what_was_spent_as_received() public {
        _decide(address(77), 20_000, "");
        vm.assertEq(governance.availableWei(), 30_000);
        vm.assertEq(governance.spentWei(), 20_000);
        vm.assertEq(governance.minQuorum(30_000), 4); // ceil(2 + 3 / 5 * 10 / 3)
    }

    function test_minQuorum__is_fixed_when_the_proposal_is_made() public {
        uint256 id = _propose(0, address(77), 50_000, "");
        _donate(1_000_000);
        vm.assertEq(governance.minQuorum(50_000), 3);
        vm.assertEq(governance.readProposal(id).minQuorum, 6);
    }

    // --- votes ---

    function test_vote__once_by_members_until_the_deadline() public {
        uint256 id = _propose(0, address(77), 1, "");
        vm.expectEmit(address(governance));
        emit Governance.Voted(id, _wallet(1), true);
        vm.prank(_wallet(1));
        governance.vote(id, true);
        vm.prank(_wallet(2));
        governance.vote(id, false);
        vm.assertTrue(governance.votedYes(id, _wallet(1)) && governance.votedNo(id, _wallet(2)));
        for (uint256 i = 1; i < 3; ++i) {
            for (uint256 yes; yes < 2; ++yes) {
                vm.expectRevert(Governance.AlreadyVoted.selector);
                vm.prank(_wallet(i));
                governance.vote(id, yes == 1);
            }
        }
        vm.expectRevert(Governance.NotAMember.selector);
        vm.prank(_wallet(10));
        governance.vote(id, true);
        vm.expectRevert(abi.encodeWithSelector(Governance.NoSuchProposal.selector, 1));
        vm.prank(_wallet(3));
        governance.vote(1, true);
        uint256 deadline = governance.readProposal(id).votingDeadline;
        vm.warp(deadline - 1);
        vm.prank(_wallet(3));
        governance.vote(id, true);
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(Governance.VoteIsOver.selector, deadline));
        vm.prank(_wallet(4));
        governance.vote(id, true);
        vm.assertEq(governance.readProposal(id).yea, 2);
        vm.assertEq(governance.readProposal(id).nay, 1);
    }

    // --- execution ---

    function test_execute__pays_calls_and_gives_the_deposit_back() public {
        Recipient recipient = new Recipient(governance);
        bytes memory data = abi.encodeCall(Recipient.work, (42));
        uint256 id = _propose(0, address(recipient), 500, data);
        _vote(id, 6, 4);
        _endDebate(id);
        vm.expectEmit(address(governance));
        emit Governance.Executed(id, address(recipient), 500);
        governance.execute(id, data);
        vm.assertEq(recipient.called(), 42);
        vm.assertEq(address(recipient).balance, 500);
        vm.assertTrue(!governance.readProposal(id).open && governance.readProposal(id).proposalPassed);
        vm.assertEq(governance.credit(_wallet(0)), PROPOSAL_DEPOSIT);
        vm.assertEq(governance.availableWei(), 49_500);
        vm.expectRevert(Governance.NotOpen.selector);
        governance.execute(id, data);

        vm.expectEmit(address(governance));
        emit Governance.Withdrawn(_wallet(0), _wallet(0), PROPOSAL_DEPOSIT);
        governance.withdraw(_wallet(0));
        vm.assertEq(_wallet(0).balance, PROPOSAL_DEPOSIT);
        vm.assertEq(governance.heldWei(), 0);
        vm.expectRevert(abi.encodeWithSelector(Governance.NothingDue.selector, _wallet(0)));
        governance.withdraw(_wallet(0));
        vm.assertEq(address(session).balance, 10 * DEPOSIT, "the members' deposits");
    }

    function test_execute__waits_for_the_vote() public {
        uint256 id = _propose(0, address(77), 1, "");
        _vote(id, 10, 0);
        uint256 deadline = governance.readProposal(id).votingDeadline;
        vm.warp(deadline - 1);
        vm.expectRevert(abi.encodeWithSelector(Governance.VoteIsRunning.selector, deadline));
        governance.execute(id, "");
        vm.expectRevert(abi.encodeWithSelector(Governance.VoteIsRunning.selector, deadline));
        governance.close(id);
        vm.warp(deadline);
        governance.execute(id, "");
    }

    function _checkPasses(uint256 yeas, uint256 nays, uint256 amount, bool passes) private {
        uint256 id = _propose(0, address(77), amount, "");
        _vote(id, yeas, nays);
        _endDebate(id);
        if (!passes) {
            vm.expectRevert(
                abi.encodeWithSelector(Governance.NotPassed.selector, yeas, nays, governance.readProposal(id).minQuorum)
            );
        }
        governance.execute(id, "");
    }

    function test_execute__needs_a_majority_and_the_quorum() public {
        _checkPasses(5, 5, 0, false);
        _checkPasses(6, 4, 0, true);
        _checkPasses(1, 0, 0, false); // the quorum is 2
        _checkPasses(2, 0, 0, true);
        _checkPasses(4, 6, 0, false);
        _checkPasses(3, 2, 50_000, false); // the quorum is 6
        _checkPasses(4, 2, 50_000, true);
    }

    function test_execute__another_call_than_was_decided_is_refused() public {
        uint256 id = _propose(0, address(77), 1, hex"01");
        _vote(id, 10, 0);
        _endDebate(id);
        bytes32 hash = governance.readProposal(id).proposalHash;
        vm.expectRevert(abi.encodeWithSelector(Governance.WrongTransaction.selector, hash));
        governance.execute(id, hex"02");
        governance.execute(id, hex"01");
    }

    function test_execute__of_money_that_another_proposal_took_waits() public {
        uint256 first = _propose(0, address(77), 30_000, "");
        uint256 second = _propose(1, address(78), 30_000, "");
        _vote(first, 10, 0);
        _vote(second, 10, 0);
        _endDebate(second);
        governance.execute(first, "");
        vm.expectRevert(abi.encodeWithSelector(Governance.NotEnoughFunds.selector, 30_000, 20_000));
        governance.execute(second, ""); // the creators' deposits are not spent
        _donate(10_000);
        governance.execute(second, "");
        vm.assertEq(governance.availableWei(), 0);
        vm.assertEq(address(governance).balance, 2 * PROPOSAL_DEPOSIT);
    }

    function test_execute__a_recipient_that_fails_leaves_the_proposal_open() public {
        Recipient recipient = new Recipient(governance);
        recipient.setMood(Recipient.Mood.Refuse);
        uint256 id = _propose(0, address(recipient), 500, "");
        _vote(id, 10, 0);
        _endDebate(id);
        bytes memory reason = abi.encodeWithSignature("Error(string)", "no, thanks");
        vm.expectRevert(abi.encodeWithSelector(Governance.TransactionFailed.selector, reason));
        governance.execute(id, "");
        vm.assertTrue(governance.readProposal(id).open);
        vm.assertEq(governance.spentWei(), 0);
        recipient.setMood(Recipient.Mood.Accept);
        governance.execute(id, "");
        vm.assertEq(address(recipient).balance, 500);
    }

    function test_execute__calling_back_is_paid_once() public {
        Recipient recipient = new Recipient(governance);
        recipient.setMood(Recipient.Mood.Reenter);
        uint256 id = _propose(0, address(recipient), 500, "");
        _vote(id, 10, 0);
        _endDebate(id);
        governance.execute(id, "");
        vm.assertEq(recipient.reentered(), 0);
        vm.assertEq(address(recipient).balance, 500);
        vm.assertEq(governance.spentWei(), 500);
        vm.assertEq(governance.credit(_wallet(0)), PROPOSAL_DEPOSIT);
    }

    // --- closing ---

    function test_close__a_proposal_that_failed_leaves_its_deposit() public {
        uint256 id = _propose(0, address(77), 1, "");
        _vote(id, 5, 5);
        _endDebate(id);
        vm.expectEmit(address(governance));
        emit Governance.Closed(id, false);
        governance.close(id);
        vm.assertTrue(!governance.readProposal(id).open && !governance.readProposal(id).proposalPassed);
        vm.assertEq(governance.credit(_wallet(0)), 0);
        vm.assertEq(governance.availableWei(), 50_000 + PROPOSAL_DEPOSIT);
        vm.expectRevert(Governance.NotOpen.selector);
        governance.close(id);
    }

    function test_close__one_that_passed_only_after_a_fortnight() public {
        uint256 id = _propose(0, address(77), 1, "");
        _vote(id, 10, 0);
        _endDebate(id);
        uint256 until = block.timestamp + 14 days;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(Governance.StillExecutable.selector, until));
        governance.close(id);
        vm.warp(until);
        vm.expectEmit(address(governance));
        emit Governance.Closed(id, true);
        governance.close(id);
        vm.assertEq(governance.credit(_wallet(0)), PROPOSAL_DEPOSIT);
        vm.expectRevert(Governance.NotOpen.selector);
        governance.execute(id, "");
    }

    function test_unknown_proposal__is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(Governance.NoSuchProposal.selector, 0));
        governance.readProposal(0);
        vm.expectRevert(abi.encodeWithSelector(Governance.NoSuchProposal.selector, 0));
        governance.execute(0, "");
        vm.expectRevert(abi.encodeWithSelector(Governance.NoSuchProposal.selector, 0));
        governance.close(0);
    }

    // --- deposits that came back ---

    function test_withdraw__a_wallet_that_takes_no_money_keeps_its_credit() public {
        vm.warp(START);
        Recipient creator = new Recipient(governance);
        _joinAs(address(creator));
        _startTraining();
        vm.deal(address(creator), PROPOSAL_DEPOSIT);
        vm.prank(address(creator));
        uint256 id = governance.newProposal{value: PROPOSAL_DEPOSIT}(address(77), 1, "", "", DAY);
        _vote(id, 10, 0);
        _endDebate(id);
        governance.execute(id, "");
        creator.setMood(Recipient.Mood.Refuse);
        vm.expectRevert(abi.encodeWithSelector(Governance.PaymentRefused.selector, address(creator)));
        governance.withdraw(address(creator));
        vm.assertEq(governance.credit(address(creator)), PROPOSAL_DEPOSIT);
        creator.withdrawTo(address(99));
        vm.assertEq(address(99).balance, PROPOSAL_DEPOSIT);
        vm.assertEq(governance.heldWei(), 0);
    }

    function test_withdraw__calling_back_gets_each_deposit_once() public {
        vm.warp(START);
        Recipient creator = new Recipient(governance);
        _joinAs(address(creator));
        _startTraining();
        for (uint256 i; i < 2; ++i) {
            vm.deal(address(creator), PROPOSAL_DEPOSIT);
            vm.prank(address(creator));
            _vote(governance.newProposal{value: PROPOSAL_DEPOSIT}(address(77), 1, "", "", DAY), 10, 0);
        }
        uint256 other = _propose(0, address(77), 1, ""); // its deposit is what could be taken
        _endDebate(other);
        governance.execute(0, "");
        governance.execute(1, "");
        creator.setMood(Recipient.Mood.Reenter);
        governance.withdraw(address(creator));
        vm.assertEq(creator.reentered(), 0);
        vm.assertEq(address(creator).balance, 2 * PROPOSAL_DEPOSIT);
        vm.assertEq(governance.heldWei(), PROPOSAL_DEPOSIT);
    }

    // --- its own parameters ---

    function test_parameters__change_by_a_proposal_only() public {
        vm.expectRevert(Governance.OnlyByProposal.selector);
        governance.setProposalDeposit(5);
        vm.expectRevert(Governance.OnlyByProposal.selector);
        governance.setMinQuorumDivisor(5);
        bytes[2] memory calls =
            [abi.encodeCall(Governance.setProposalDeposit, (2000)), abi.encodeCall(Governance.setMinQuorumDivisor, (10))];
        for (uint256 i; i < 2; ++i) {
            _vote(_propose(0, address(governance), 0, calls[i]), 10, 0);
            _endDebate(i);
            vm.expectEmit(address(governance));
            emit Governance.ParameterChanged(i == 0 ? "proposalDeposit" : "minQuorumDivisor", i == 0 ? 2000 : 10);
            governance.execute(i, calls[i]);
        }
        vm.assertEq(governance.proposalDeposit(), 2000);
        vm.assertEq(governance.minQuorum(0), 1);
    }

    function _refuseCall(address recipient, bytes memory data, bytes memory reason) private {
        uint256 id = _propose(0, recipient, 0, data);
        _vote(id, 10, 0);
        _endDebate(id);
        vm.expectRevert(abi.encodeWithSelector(Governance.TransactionFailed.selector, reason));
        governance.execute(id, data);
    }

    function test_parameters__stay_within_their_bounds() public {
        bytes4 bounds = Governance.OutOfBounds.selector;
        _refuseCall(
            address(governance),
            abi.encodeCall(Governance.setProposalDeposit, (DEPOSIT + 1)),
            abi.encodeWithSelector(bounds, DEPOSIT + 1, 0, DEPOSIT)
        );
        _refuseCall(address(governance), abi.encodeCall(Governance.setMinQuorumDivisor, (1)), abi.encodeWithSelector(bounds, 1, 2, 10));
        _refuseCall(address(governance), abi.encodeCall(Governance.setMinQuorumDivisor, (11)), abi.encodeWithSelector(bounds, 11, 2, 10));
        _decide(address(governance), 0, abi.encodeCall(Governance.setProposalDeposit, (DEPOSIT)));
        _decide(address(governance), 0, abi.encodeCall(Governance.setMinQuorumDivisor, (2)));
        _decide(address(governance), 0, abi.encodeCall(Governance.setProposalDeposit, (0)));
        vm.assertEq(_propose(0, address(77), 0, ""), 6);
    }

    // --- deadlines of the session ---

    function test_extendDeadlines__by_governance_only() public {
        vm.expectRevert(Session.OnlyByGovernance.selector);
        session.extendDeadlines(1);
        vm.expectRevert(Session.OnlyByGovernance.selector);
        vm.prank(_wallet(0));
        session.extendDeadlines(1);
    }

    function _extend(uint256 addedSeconds) private {
        vm.prank(address(governance));
        session.extendDeadlines(addedSeconds);
    }

    function test_extendDeadlines__by_a_decision() public {
        Session.Terms memory terms = _terms();
        (terms.trainingEnds, terms.claimingEnds, terms.votingEnds) = (START + 3 days, START + 4 days, START + 5 days);
        vm.warp(START);
        session = new Session(terms);
        governance = session.governance();
        _joinMany(10);
        _startTraining();
        _decide(address(session), 0, abi.encodeCall(Session.extendDeadlines, (2 days)));
        vm.assertEq(_counts().votingEnds, START + 7 days);
    }

    function test_extendDeadlines__moves_the_running_stage_and_the_later_ones() public {
        Session.Terms memory terms = _terms();
        vm.expectEmit(address(session));
        emit Session.DeadlinesExtended(terms.trainingEnds + 5, terms.claimingEnds + 5, terms.votingEnds + 5);
        _extend(5);
        vm.warp(terms.trainingEnds + 4);
        _checkStage(Session.Stage.Training);
        vm.warp(terms.trainingEnds + 5);
        _checkStage(Session.Stage.Claiming);
        _extend(7);
        vm.assertEq(_counts().trainingEnds, terms.trainingEnds + 5);
        vm.warp(terms.claimingEnds + 11);
        _checkStage(Session.Stage.Claiming);
        vm.warp(terms.claimingEnds + 12);
        _checkStage(Session.Stage.Voting);
        _extend(11);
        vm.assertEq(_counts().claimingEnds, terms.claimingEnds + 12);
        vm.assertEq(_counts().votingEnds, terms.votingEnds + 23);
    }

    function test_extendDeadlines__within_the_terms_in_all() public {
        _extend(EXTENSION - 1);
        vm.expectRevert(abi.encodeWithSelector(Session.ExtensionTooLong.selector, 2, 1));
        _extend(2);
        _extend(1);
        vm.expectRevert(abi.encodeWithSelector(Session.ExtensionTooLong.selector, 1, 0));
        _extend(1);
        vm.expectRevert(abi.encodeWithSelector(Session.ExtensionTooLong.selector, type(uint256).max, 0));
        _extend(type(uint256).max);
        _extend(0);
    }

    function test_extendDeadlines__after_a_late_ballot_that_went_beyond_them() public {
        vm.warp(START);
        Session.Terms memory terms = _terms();
        terms.extensionSecondsMax = 0;
        session = new Session(terms);
        governance = session.governance();
        _openVote(10);
        vm.warp(terms.votingEnds - 1);
        _cast(0, _nay());
        _cast(1, _nay());
        vm.expectRevert(abi.encodeWithSelector(Session.ExtensionTooLong.selector, 1, 0));
        _extend(1);
    }

    function test_extendDeadlines__not_before_training_nor_after_the_vote() public {
        vm.warp(START);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Funding, Session.Stage.Voting));
        _extend(1);
        vm.warp(_terms().votingEnds);
        vm.expectRevert(abi.encodeWithSelector(Session.WrongStage.selector, Session.Stage.Refunded, Session.Stage.Voting));
        _extend(1);
    }
}
