// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governance} from "contracts/Governance.sol";
import {Session} from "contracts/Session.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {Model} from "./Model.sol";
import {vm} from "./Vm.sol";

/// @notice Random proposals, good and greedy, with votes, executions and closings: whatever is decided, deposits stay where they are.
abstract contract Proposals is Model {
    uint256 internal constant DEBATE = 2500; // seconds
    bytes[] private calls; // call data of each proposal, as its log tells

    function _govern(uint256 a, uint256 b) internal {
        uint256 action = (a >> 240) % 8;
        if (action < 2) _propose(a, b);
        else if (action < 3) _donate(b % 900);
        else if (action < 5) _vote(a, b);
        else if (action < 7) _finish(a, b);
        else _takeBack(a);
    }

    function _propose(uint256 a, uint256 b) private {
        address actor = _actor(a);
        uint256 available = governance.availableWei();
        uint256 amount = (b >> 8) % 4 == 0 || b % 11 > 2 ? 0 : (b >> 16) % (available + available / 8 + 1);
        (address recipient, bytes memory data) = _pickCall(b);
        uint256 depositWei = governance.proposalDeposit();
        bool expected = session.stage() != Session.Stage.Funding && isSeated[actor] && amount <= available;
        expected = expected && (recipient != address(governance) || amount == 0) && a % 16 != 1;
        uint256 value = a % 16 == 1 ? depositWei + 1 : depositWei;
        vm.deal(actor, actor.balance + value);
        vm.prank(actor);
        try governance.newProposal{value: value}(recipient, amount, "", data, DEBATE) {
            vm.assertTrue(expected, "a proposal that must fail");
            calls.push(data);
        } catch {
            vm.assertTrue(!expected, "a proposal that must succeed");
        }
    }

    /// Plain payments, what members may really decide, and attempts at the deposits.
    function _pickCall(uint256 seed) private view returns (address recipient, bytes memory data) {
        uint256 pick = [uint256(0), 0, 0, 1, 1, 1, 2, 3, 4, 5, 6][seed % 11];
        bytes[7] memory choices = [
            bytes(""),
            abi.encodeCall(Session.extendDeadlines, ((seed >> 32) % (STAGE / 2))),
            abi.encodeCall(Session.withdrawTo, (address(governance))),
            abi.encodeCall(Session.leave, (_actor(seed))),
            abi.encodeCall(IERC721.transferFrom, (_actor(seed), address(governance), 1)),
            abi.encodeCall(Governance.setProposalDeposit, ((seed >> 32) % 2000)),
            abi.encodeCall(Governance.setMinQuorumDivisor, ((seed >> 32) % 13))
        ];
        recipient = pick == 0 ? _actor(seed >> 64) : pick < 5 ? address(session) : address(governance);
        return (recipient, choices[pick]);
    }

    function _donate(uint256 amountWei) private {
        vm.deal(address(this), amountWei);
        (bool sent,) = address(governance).call{value: amountWei}("");
        vm.assertTrue(sent, "a donation is taken");
    }

    /// Mostly the newest.
    function _pickProposal(uint256 seed) private view returns (uint256) {
        return seed % 4 == 0 ? (seed >> 8) % calls.length : calls.length - 1;
    }

    /// One that waits for its execution, if there is any.
    function _pickDecided(uint256 seed) private view returns (uint256 id) {
        for (uint256 i; i < calls.length; ++i) {
            id = ((seed >> 8) + i) % calls.length;
            Governance.Proposal memory p = governance.readProposal(id);
            if (p.open && p.yea > p.nay && block.timestamp >= p.votingDeadline) return id;
        }
    }

    /// Most members vote in one go, so that something is decided now and then.
    function _vote(uint256 a, uint256 b) private {
        if (calls.length == 0) return;
        uint256 id = _pickProposal(b);
        bool open = block.timestamp < governance.readProposal(id).votingDeadline;
        for (uint256 i = (a >> 8) % 5; i < actors.length; ++i) {
            address actor = actors[i];
            bool expected = open && isSeated[actor] && !governance.votedYes(id, actor) && !governance.votedNo(id, actor);
            vm.prank(actor);
            try governance.vote(id, a % 8 != 0) {
                vm.assertTrue(expected, "a vote that must fail");
            } catch {
                vm.assertTrue(!expected, "a vote that must succeed");
            }
        }
    }

    function _finish(uint256 a, uint256 b) private {
        if (calls.length == 0) return;
        uint256 id = b % 4 == 0 ? _pickProposal(b) : _pickDecided(b);
        Governance.Proposal memory p = governance.readProposal(id);
        bool decided = p.open && block.timestamp >= p.votingDeadline;
        bool passed = p.yea > p.nay && p.yea + p.nay >= p.minQuorum;
        uint256 spent = governance.spentWei();
        if (a % 3 == 0) {
            bool late = block.timestamp >= p.votingDeadline + 14 days;
            try governance.close(id) {
                vm.assertTrue(decided && (!passed || late), "closing that must fail");
            } catch {
                vm.assertTrue(!decided || (passed && !late), "closing that must succeed");
            }
            return;
        }
        try governance.execute{gas: CALL_GAS}(id, calls[id]) {
            vm.assertTrue(decided && passed, "an execution that must fail");
            vm.assertEq(governance.spentWei(), spent + p.amount, "spends what was decided");
        } catch {
            bool mayFail = calls[id].length != 0 || !_accepts(p.recipient) || governance.availableWei() < p.amount;
            vm.assertTrue(!decided || !passed || mayFail, "an execution that must succeed");
        }
    }

    function _takeBack(uint256 a) private {
        address actor = _actor(a);
        (uint256 credit, uint256 held) = (governance.credit(actor), governance.heldWei());
        bool done;
        if (a % 2 == 0) {
            try governance.withdraw{gas: CALL_GAS}(actor) { done = true; } catch {}
            vm.assertEq(done, credit != 0 && _accepts(actor), "deposits come back when taken");
        } else {
            vm.prank(actor);
            try governance.withdrawTo(address(uint160(STRANGER))) { done = true; } catch {}
            vm.assertEq(done, credit != 0, "deposits come back to another address");
        }
        vm.assertEq(governance.heldWei(), done ? held - credit : held, "held");
    }
}
