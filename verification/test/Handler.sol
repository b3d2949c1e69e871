// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {Forcer, Member} from "./Members.sol";
import {Proposals} from "./Proposals.sol";
import {vm} from "./Vm.sol";

/// @notice Many actors that call everything in any order at any time. Each call must do what the rules say, also when it must fail.
contract Handler is Proposals {
    uint256 private constant KINDS = 7; // of signatures, good and bad

    /// @param seed picks the terms
    function begin(uint256 walletCount, uint256 seed) public {
        vm.warp(START);
        terms = _terms();
        terms.membersMin = 1 + (seed % 3);
        terms.membersMax = walletCount + CONTRACTS - ((seed >> 8) % 2);
        terms.rejectQuorumPermille = [uint256(0), 1, 200, 500, 667, 1000][(seed >> 16) % 6];
        terms.extensionSecondsMax = (seed >> 24) % 3 == 0 ? 0 : STAGE;
        terms.debatingSecondsMin = DEBATE;
        session = new Session(terms);
        governance = session.governance();
        (lastStage, lastVotingEnds) = (Session.Stage.Funding, terms.votingEnds);
        wallets = walletCount;
        for (uint256 i; i < walletCount; ++i) actors.push(_wallet(i));
        for (uint256 i; i < CONTRACTS; ++i) actors.push(address(new Member(session)));
    }

    /// All actors with a key join and claim; the vote begins. For sessions too large to grow by single calls.
    function fill(uint256 seed) external {
        for (uint256 i; i < wallets; ++i) _join(actors[i], DEPOSIT);
        vm.warp(terms.trainingEnds);
        for (uint256 i; i < wallets; ++i) {
            if ((seed >> (i % 256)) & 7 != 0) _claimBy(actors[i], 1 + (seed >> (i % 200)) % 1000);
        }
        vm.warp(terms.claimingEnds);
    }

    /// @notice One call: mostly one that fits the stage, sometimes any.
    function act(uint256 kind, uint256 a, uint256 b) external {
        if (address(session) == address(0)) return begin(9, a);
        vm.warp(block.timestamp + (a >> 200) % 300);
        uint256[CONTRACTS] memory owed;
        for (uint256 i; i < CONTRACTS; ++i) owed[i] = _share(actors[wallets + i]);
        _act(kind, a, b);
        for (uint256 i; i < CONTRACTS; ++i) _noteOwnPayment(actors[wallets + i], owed[i]);
    }

    /// A contract that is sent anything, also for another member or by governance, may take its own due in between.
    function _noteOwnPayment(address actor, uint256 owedWei) private {
        if (owedWei == 0 || paidWei[actor] != 0 || session.due(actor) != 0) return;
        _notePaid(actor, owedWei);
        sentWei[actor] += owedWei;
    }

    function _act(uint256 kind, uint256 a, uint256 b) private {
        uint256 choice = kind % 32;
        if (choice == 0) return _hop(a);
        if (choice == 1) return _force(a);
        if (choice == 2) return _setMood(a);
        if (choice < 12) return _govern(a, b);
        Session.Stage stage = session.stage();
        if (choice < 16) stage = Session.Stage(b % 7);
        if (stage == Session.Stage.Funding || stage == Session.Stage.Training) {
            if (stage == Session.Stage.Training || a % 16 == 7) _leave(a, b);
            else _join(_actor(a), a % 32 == 3 ? DEPOSIT + (b % 3) - 1 : DEPOSIT);
        } else if (stage == Session.Stage.Claiming) {
            if (a % 2 == 0) _claimBy(_actor(b), _points(b));
            else _claimBatch(a, b);
        } else if (stage == Session.Stage.Voting) {
            if (a % 2 == 0) _cast(_actor(b), _ballot(a));
            else _castGrouped(a, b);
        } else if (stage == Session.Stage.Settling) {
            _tally(b % 3 == 0 ? type(uint256).max : b % 3 - 1);
        } else {
            _payOut(a, b);
        }
    }

    function _points(uint256 seed) private pure returns (uint256) {
        uint256 special = (seed >> 64) % 8;
        return special == 0 ? 0 : special == 1 ? type(uint64).max : special == 2 ? 1 << 64 : 1 + (seed >> 72) % 100;
    }

    /// @notice What this run has come to.
    function reached() external view returns (bool[8] memory what) {
        Session.Stage stage = session.stage();
        what[0] = stage == Session.Stage.Released;
        what[1] = stage == Session.Stage.Refunded;
        what[2] = paidTotal != 0;
        for (uint256 i; i < seats.length; ++i) {
            what[3] = what[3] || (what[0] && hasClaimed[seats[i]] && !_isApproved(seats[i]));
            what[4] = what[4] || nays[seats[i]] >= 4;
            what[7] = what[7] || (session.due(seats[i]) != 0 && !_accepts(seats[i]));
        }
        what[5] = governance.spentWei() != 0;
        what[6] = _counts().claimingEnds > terms.claimingEnds;
    }

    /// Mostly few nays and mostly against claims, at times anything.
    function _ballot(uint256 seed) private view returns (uint256[] memory ballot) {
        uint256 words = (seats.length + 255) / 256;
        if ((seed >> 8) % 16 == 0) ++words;
        ballot = new uint256[](words);
        for (uint256 i; words != 0 && i < (seed >> 12) % 3; ++i) {
            uint256 index = uint256(keccak256(abi.encode(seed % 4, i))) % (seats.length + 2);
            if ((seed >> 40) % 9 != 0) index = _nextClaim(index);
            if (index >> 8 < words) ballot[index >> 8] |= 1 << (index & 255);
        }
    }

    function _nextClaim(uint256 index) private view returns (uint256) {
        for (uint256 i; i < seats.length; ++i) {
            if (hasClaimed[seats[(index + i) % seats.length]]) return (index + i) % seats.length;
        }
        return index;
    }

    // --- time and bystanders ---

    function _hop(uint256 seed) private {
        (, Session.Counts memory c) = session.summary();
        uint256[4] memory ends = [terms.fundingEnds, c.trainingEnds, c.claimingEnds, c.votingEnds];
        for (uint256 i; i < 4; ++i) {
            if (block.timestamp >= ends[i]) continue;
            uint256 target = ends[i] + (seed % 3) - 1;
            if (target > block.timestamp) vm.warp(target);
            return;
        }
    }

    function _force(uint256 seed) private {
        uint256 amountWei = (seed >> 8) % 1000;
        vm.deal(address(this), amountWei);
        new Forcer{value: amountWei}(payable(address(session)));
        forcedWei += amountWei;
        vm.deal(address(this), 1);
        (bool sent,) = address(session).call{value: 1}("");
        vm.assertTrue(!sent, "a plain payment is refused");
    }

    function _setMood(uint256 seed) private {
        Member(payable(actors[wallets + (seed >> 8) % CONTRACTS])).setMood(Member.Mood((seed >> 16) % 5));
    }

    // --- members ---

    function _join(address actor, uint256 depositWei) private {
        vm.deal(actor, actor.balance + depositWei);
        bool expected = session.stage() == Session.Stage.Funding && !isSeated[actor] && seats.length < terms.membersMax;
        expected = expected && depositWei == DEPOSIT;
        vm.prank(actor);
        try session.join{value: depositWei}(address(this)) {
            vm.assertTrue(expected, "a join that must fail");
            seats.push(actor);
            isSeated[actor] = true;
        } catch {
            vm.assertTrue(!expected, "a join that must succeed");
        }
    }

    function _leave(uint256 a, uint256 b) private {
        address actor = _actor(a);
        address last = seats.length == 0 || b % 8 == 0 ? _actor(b) : seats[seats.length - 1];
        bool expected = session.stage() == Session.Stage.Funding && isSeated[actor] && _accepts(actor);
        expected = expected && last == seats[seats.length - 1];
        uint256 balance = actor.balance;
        vm.prank(actor);
        try session.leave{gas: CALL_GAS}(last) {
            vm.assertTrue(expected, "leaving that must fail");
            vm.assertEq(actor.balance, balance + DEPOSIT, "the deposit is back");
            sentWei[actor] += DEPOSIT;
            seats[_seatOf(actor)] = last;
            seats.pop();
            isSeated[actor] = false;
        } catch {
            vm.assertTrue(!expected, "leaving that must succeed");
        }
    }

    // --- claims ---

    function _mayClaim(address actor, uint256 points) private view returns (bool) {
        return isSeated[actor] && !hasClaimed[actor] && points < 1 << 64;
    }

    function _noteClaim(address actor, uint256 points) private {
        (hasClaimed[actor], asked[actor]) = (true, points);
        ++claims;
    }

    function _claimBy(address actor, uint256 points) private {
        bool expected = session.stage() == Session.Stage.Claiming && _mayClaim(actor, points);
        vm.prank(actor);
        try session.claim(points, EVIDENCE) {
            vm.assertTrue(expected, "a claim that must fail");
            _noteClaim(actor, points);
        } catch {
            vm.assertTrue(!expected, "a claim that must succeed");
        }
    }

    function _claimBatch(uint256 a, uint256 b) private {
        uint256 count = (a >> 8) % 5;
        Session.SignedClaim[] memory items = new Session.SignedClaim[](count);
        uint256[] memory kinds = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(a, b, i)));
            uint256 number = seed % wallets;
            (items[i].member, items[i].points, items[i].evidence) = (actors[number], _points(seed), EVIDENCE);
            kinds[i] = (seed >> 100) % (4 * KINDS);
            bytes32 content = _hashClaim(items[i].member, items[i].points + (kinds[i] == 1 ? 1 : 0), EVIDENCE);
            (items[i].r, items[i].vs) = _sign(number, content, kinds[i]);
        }
        bool open = session.stage() == Session.Stage.Claiming;
        try session.claimBatch(items) {
            vm.assertTrue(open, "a batch that must fail");
            for (uint256 i; i < count; ++i) {
                if (_isGood(kinds[i]) && _mayClaim(items[i].member, items[i].points)) _noteClaim(items[i].member, items[i].points);
            }
        } catch {
            vm.assertTrue(!open, "no item makes a batch fail");
        }
    }

    // --- signatures: 1 of other content, 2 of another session, 3 chain, 4 member, 5 nothing, 6 malleable; all others good ---

    function _isGood(uint256 kind) private pure returns (bool) {
        return kind == 0 || kind >= KINDS;
    }

    function _sign(uint256 number, bytes32 content, uint256 kind) private view returns (bytes32 r, bytes32 vs) {
        bytes32 domain = _domain(block.chainid + (kind == 3 ? 1 : 0), kind == 2 ? address(this) : address(session));
        uint256 key = _key(kind == 4 ? number + 1 : number);
        if (kind == 5) return (0, 0);
        (r, vs) = vm.signCompact(key, keccak256(abi.encodePacked(hex"1901", domain, content)));
        if (kind == 6) vs = _turn(vs);
    }

    function _turn(bytes32 vs) private pure returns (bytes32) {
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        return bytes32((order - s) | ((uint256(vs) >> 255 ^ 1) << 255));
    }

    // --- ballots ---

    /// A ballot that some member may cast.
    function _isBallot(uint256[] memory nay) private view returns (bool) {
        uint256 spent;
        if (nay.length > (seats.length + 255) / 256) return false;
        for (uint256 index; index < 256 * nay.length; ++index) {
            if ((nay[index >> 8] >> (index & 255)) & 1 == 0) continue;
            if (index >= seats.length || !hasClaimed[seats[index]]) return false;
            ++spent;
        }
        return spent <= (seats.length - 1) / 2;
    }

    function _mayCast(address actor, uint256[] memory nay) private view returns (bool) {
        if (!isSeated[actor] || hasVoted[actor]) return false;
        uint256 index = _seatOf(actor);
        return index >> 8 >= nay.length || (nay[index >> 8] >> (index & 255)) & 1 == 0;
    }

    function _noteBallot(address actor, uint256[] memory nay) private {
        hasVoted[actor] = true;
        ++ballots;
        for (uint256 index; index < seats.length && index < 256 * nay.length; ++index) {
            if ((nay[index >> 8] >> (index & 255)) & 1 == 1) ++nays[seats[index]];
        }
    }

    function _cast(address actor, uint256[] memory nay) private {
        bool expected = session.stage() == Session.Stage.Voting && _mayCast(actor, nay) && _isBallot(nay);
        vm.prank(actor);
        try session.cast(nay) {
            vm.assertTrue(expected, "a ballot that must fail");
            _noteBallot(actor, nay);
        } catch {
            vm.assertTrue(!expected, "a ballot that must succeed");
        }
    }

    function _castGrouped(uint256 a, uint256 b) private {
        uint256[] memory nay = _ballot(a);
        uint256 count = (b >> 8) % (wallets > 20 ? 60 : 9);
        Session.SignedVoter[] memory voters = new Session.SignedVoter[](count);
        uint256[] memory kinds = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(a, b, i)));
            uint256 number = seed % wallets;
            voters[i].member = actors[number];
            kinds[i] = (seed >> 100) % (4 * KINDS);
            bytes32 content = _hashBallot(voters[i].member, kinds[i] == 1 ? new uint256[](nay.length + 1) : nay);
            (voters[i].r, voters[i].vs) = _sign(number, content, kinds[i]);
        }
        bool expected = session.stage() == Session.Stage.Voting && _isBallot(nay);
        try session.castGrouped(nay, voters) {
            vm.assertTrue(expected, "a group that must fail");
            for (uint256 i; i < count; ++i) {
                if (_isGood(kinds[i]) && _mayCast(voters[i].member, nay)) _noteBallot(voters[i].member, nay);
            }
        } catch {
            vm.assertTrue(!expected, "no voter makes a group fail");
        }
    }

    // --- settlement and money ---

    function _tally(uint256 maxWords) private {
        bool expected = session.stage() == Session.Stage.Settling;
        try session.tally(maxWords) {
            vm.assertTrue(expected, "a tally that must fail");
        } catch {
            vm.assertTrue(!expected, "a tally that must succeed");
        }
    }

    function _payOut(uint256 a, uint256 b) private {
        if (a % 3 == 0) return _releaseBatch(a, b);
        (address member, address to) = (_actor(b), a % 3 == 1 ? _actor(b) : _actor(a));
        uint256 dueWei = _share(member);
        bool expected = dueWei != 0 && _accepts(to);
        uint256 balance = to.balance;
        bool paid;
        if (a % 3 == 1) {
            try session.withdraw{gas: CALL_GAS}(member) { paid = true; } catch {}
        } else {
            vm.prank(member);
            try session.withdrawTo{gas: CALL_GAS}(to) { paid = true; } catch {}
        }
        vm.assertEq(paid, expected, "paid when due and taken");
        if (_mood(to) != Member.Mood.Reenter) vm.assertEq(to.balance - balance, paid ? dueWei : 0, "the whole due");
        if (!paid) return;
        _notePaid(member, dueWei);
        sentWei[to] += dueWei;
    }

    function _releaseBatch(uint256 a, uint256 b) private {
        address[] memory members = new address[]((a >> 8) % 6);
        uint256[] memory balances = new uint256[](members.length);
        uint256[] memory dues = new uint256[](members.length);
        for (uint256 i; i < members.length; ++i) {
            members[i] = actors[uint256(keccak256(abi.encode(a, b, i))) % actors.length];
            (balances[i], dues[i]) = (members[i].balance, _share(members[i]));
        }
        vm.prank(address(uint160(STRANGER)));
        session.releaseBatch(members);
        for (uint256 i; i < members.length; ++i) {
            // A contract that calls back may find the gas of a push too little for it.
            bool mayFail = _mood(members[i]) == Member.Mood.Reenter;
            uint256 got = members[i].balance - balances[i];
            if (!mayFail) vm.assertEq(got, _accepts(members[i]) ? dues[i] : 0, "pushed when due and taken");
            if (got == 0 || paidWei[members[i]] != 0) continue;
            _notePaid(members[i], dues[i]);
            sentWei[members[i]] += dues[i];
        }
    }

    function _notePaid(address member, uint256 amountWei) private {
        vm.assertEq(paidWei[member], 0, "paid once");
        (paidWei[member], paidTotal) = (amountWei, paidTotal + amountWei);
    }
}
