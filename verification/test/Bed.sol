// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";
import {vm} from "./Vm.sol";

/// @notice A session with short stages and members with known keys, for the tests.
abstract contract Bed {
    uint256 internal constant START = 1_800_000_000;
    uint256 internal constant STAGE = 10_000; // seconds of each stage
    uint256 internal constant DEPOSIT = 1_000_003; // prime: every share is rounded
    uint256 internal constant EXTENSION = 30 days;
    bytes32 internal constant EVIDENCE = bytes32(uint256(5));

    Session internal session;

    function setUp() public virtual {
        vm.warp(START);
        session = new Session(_terms());
    }

    function _terms() internal pure virtual returns (Session.Terms memory) {
        return Session.Terms({
            rulesDigest: bytes32(uint256(0x11)),
            depositWei: DEPOSIT,
            membersMin: 1,
            membersMax: 4095,
            fundingEnds: START + STAGE,
            trainingEnds: START + 2 * STAGE,
            claimingEnds: START + 3 * STAGE,
            votingEnds: START + 4 * STAGE,
            rejectQuorumPermille: 200,
            extensionSecondsMax: EXTENSION,
            proposalDepositWei: 1000,
            minQuorumDivisor: 5,
            debatingSecondsMin: 1 days
        });
    }

    // --- members: number 0, 1, 2 ... ---

    function _key(uint256 number) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("member", number)));
    }

    function _wallet(uint256 number) internal pure returns (address) {
        return vm.addr(_key(number));
    }

    function _join(uint256 number) internal {
        _joinAs(_wallet(number));
    }

    function _joinAs(address wallet) internal {
        vm.deal(wallet, wallet.balance + DEPOSIT);
        vm.prank(wallet);
        session.join{value: DEPOSIT}(address(this));
    }

    function _joinMany(uint256 count) internal {
        for (uint256 i; i < count; ++i) _join(i);
    }

    function _claim(uint256 number, uint256 points) internal {
        vm.prank(_wallet(number));
        session.claim(points, EVIDENCE);
    }

    function _cast(uint256 number, uint256[] memory nay) internal {
        vm.prank(_wallet(number));
        session.cast(nay);
    }

    // --- ballots ---

    function _nay() internal pure returns (uint256[] memory) {
        return new uint256[](0);
    }

    function _nay(uint256 index) internal pure returns (uint256[] memory ballot) {
        ballot = new uint256[](index / 256 + 1);
        ballot[index / 256] = 1 << (index % 256);
    }

    function _nayBits(uint256 bits) internal pure returns (uint256[] memory ballot) {
        ballot = new uint256[](1);
        ballot[0] = bits;
    }

    // --- time ---

    function _startTraining() internal {
        vm.warp(session.terms().fundingEnds);
    }

    function _startClaims() internal {
        vm.warp(session.terms().trainingEnds);
    }

    function _startVotes() internal {
        vm.warp(session.terms().claimingEnds);
    }

    function _endVotes() internal {
        vm.warp(_counts().votingEnds);
    }

    /// Members 0 to members - 1 have joined and claimed 10 points each; the vote has begun.
    function _openVote(uint256 members) internal {
        _joinMany(members);
        _startClaims();
        for (uint256 i; i < members; ++i) _claim(i, 10);
        _startVotes();
    }

    // --- signatures (EIP-712, EIP-2098) ---

    function _domain(uint256 chain, address verifier) internal pure returns (bytes32) {
        bytes32 kind = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        return keccak256(abi.encode(kind, keccak256("learnae Session"), keccak256("1"), chain, verifier));
    }

    function _digest(bytes32 content) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", _domain(block.chainid, address(session)), content));
    }

    function _hashClaim(address member, uint256 points, bytes32 evidence) internal pure returns (bytes32) {
        return keccak256(abi.encode(keccak256("Claim(address member,uint256 points,bytes32 evidence)"), member, points, evidence));
    }

    function _hashBallot(address member, uint256[] memory nay) internal pure returns (bytes32) {
        return keccak256(abi.encode(keccak256("Ballot(address member,bytes32 nay)"), member, keccak256(abi.encodePacked(nay))));
    }

    function _signClaim(uint256 number, uint256 points) internal view returns (Session.SignedClaim memory item) {
        (item.member, item.points, item.evidence) = (_wallet(number), points, EVIDENCE);
        (item.r, item.vs) = vm.signCompact(_key(number), _digest(_hashClaim(item.member, points, EVIDENCE)));
    }

    function _signBallot(uint256 number, uint256[] memory nay) internal view returns (Session.SignedVoter memory voter) {
        voter.member = _wallet(number);
        (voter.r, voter.vs) = vm.signCompact(_key(number), _digest(_hashBallot(voter.member, nay)));
    }

    // --- reading ---

    function _counts() internal view returns (Session.Counts memory counts) {
        (, counts) = session.summary();
    }

    function _row(uint256 number) internal view returns (Session.Row memory) {
        return session.readMembers(_one(_wallet(number)))[0];
    }

    function _rows(uint256 members) internal view returns (Session.Row[] memory) {
        address[] memory wallets = new address[](members);
        for (uint256 i; i < members; ++i) wallets[i] = _wallet(i);
        return session.readMembers(wallets);
    }

    function _checkStage(Session.Stage stage) internal view {
        vm.assertEq(uint256(session.stage()), uint256(stage), "stage");
    }

    function _one(address member) internal pure returns (address[] memory members) {
        members = new address[](1);
        members[0] = member;
    }
}
