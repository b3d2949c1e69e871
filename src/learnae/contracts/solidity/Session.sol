// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Tips} from "./Tips.sol";

/// @title The DAO of one collaborative training session (LEARNAE, section 6, Fig. 5)
/// @notice Members deposit, train, claim their share, vote on all claims with one ballot, and take out what they are due.
/// @dev No owner, no pause, no upgrade, no receive(). Stages are a pure function of time, members and tally.
///      Nay counters are bit-sliced: plane k of word w holds bit k of the counters of 256 claims.
contract Session {
    enum Stage { Funding, Training, Claiming, Voting, Settling, Released, Refunded }

    /// Fixed at creation. Times are Unix seconds of block time; each is the first second that no longer belongs to its stage.
    struct Terms {
        bytes32 rulesDigest; // SHA-256 digest in the CID of the session's rules
        uint256 depositWei;
        uint256 membersMin; // creation objective
        uint256 membersMax;
        uint256 fundingEnds;
        uint256 trainingEnds;
        uint256 claimingEnds;
        uint256 votingEnds;
        uint256 rejectQuorumPermille; // of all members, for rejecting a claim
    }

    /// One member, found by its index; one slot.
    struct Seat {
        address wallet;
        uint64 points;
        uint8 marks;
    }

    /// One member, found by its wallet; one slot.
    struct Entry {
        address poid;
        uint16 seat; // index + 1; 0 is nobody
    }

    /// Everything that changes with each call; one slot.
    struct Counts {
        uint16 members;
        uint16 claims;
        uint16 ballots;
        uint16 talliedWords;
        uint40 votingEnds;
        uint96 points; // of all claims; after the tally of the approved ones
    }

    /// A member as `readMembers` returns it.
    struct Row {
        address wallet;
        address poid;
        uint64 points;
        uint8 marks;
        uint16 nays;
        bool approved;
        uint256 dueWei;
    }

    uint256 private constant MEMBERS_MAX = 4096; // One ballot over 16 words and 13 planes stays below 2^24 gas (EIP-7825).
    uint256 private constant DEPOSIT_MAX = type(uint112).max; // fund * points stays below 2^256.
    uint256 private constant DURATION_MAX = 1000 days; // Nobody's deposit can be locked for ever by a slip of the pen.
    uint256 private constant PUSH_GAS = 30000; // Enough for a plain wallet contract, too little to be worth griefing.
    uint8 private constant CLAIMED = 1;
    uint8 private constant VOTED = 2;
    uint8 private constant PAID = 4;

    bytes32 private immutable rulesDigest;
    uint256 private immutable depositWei;
    uint256 private immutable membersMin;
    uint256 private immutable membersMax;
    uint256 private immutable fundingEnds;
    uint256 private immutable trainingEnds;
    uint256 private immutable claimingEnds;
    uint256 private immutable votingEnds;
    uint256 private immutable rejectQuorumPermille;
    uint256 public immutable createdBlock;
    Tips public immutable tips;

    Counts private counts;
    mapping(uint256 index => Seat) private seats;
    mapping(address wallet => Entry) private entries;
    mapping(uint256 word => uint256) private claimed;
    mapping(uint256 word => uint256) private rejected;
    mapping(uint256 word => mapping(uint256 plane => uint256)) private nays;

    event SessionCreated(bytes32 indexed rulesDigest, address tips);
    event Joined(uint256 indexed index, address indexed wallet, address poid);
    event Left(uint256 indexed index, address indexed wallet); // with its deposit
    event Claimed(uint256 indexed index, uint256 points, bytes32 evidence);
    event BallotCast(uint256 indexed index, uint256[] nay);
    event VotingExtended(uint256 votingEnds);
    event Tallied(uint256 words, uint256 points);
    event Paid(address indexed member, address to, uint256 amountWei);
    event PushFailed(address indexed member);
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId); // ERC-721, mint and burn
    event Locked(uint256 tokenId); // ERC-5192

    error BadTerms(string what);
    error WrongStage(Stage current, Stage needed);
    error WrongDeposit(uint256 sent, uint256 needed);
    error NotAContract(address poid);
    error AlreadyMember();
    error SessionFull(uint256 membersMax);
    error NotAMember();
    error AlreadyClaimed();
    error TooManyPoints(uint256 points);
    error AlreadyVoted();
    error BallotTooLong(uint256 words, uint256 wordsMax);
    error NayOnOwnClaim();
    error NayWithoutClaim(uint256 word, uint256 bits);
    error TooManyNays(uint256 nays, uint256 naysMax);
    error NothingDue(address member);
    error PaymentRefused(address to);
    error NoSuchToken(uint256 tokenId);

    constructor(Terms memory t) {
        if (t.depositWei == 0 || t.depositWei > DEPOSIT_MAX) revert BadTerms("deposit");
        if (t.membersMin == 0 || t.membersMin > t.membersMax || t.membersMax > MEMBERS_MAX) revert BadTerms("members");
        if (t.rejectQuorumPermille > 1000) revert BadTerms("quorum");
        if (t.fundingEnds <= block.timestamp || t.trainingEnds <= t.fundingEnds || t.claimingEnds <= t.trainingEnds)
            revert BadTerms("times");
        if (t.votingEnds <= t.claimingEnds || t.votingEnds > block.timestamp + DURATION_MAX) revert BadTerms("times");
        rulesDigest = t.rulesDigest;
        depositWei = t.depositWei;
        membersMin = t.membersMin;
        membersMax = t.membersMax;
        fundingEnds = t.fundingEnds;
        trainingEnds = t.trainingEnds;
        claimingEnds = t.claimingEnds;
        votingEnds = t.votingEnds;
        rejectQuorumPermille = t.rejectQuorumPermille;
        createdBlock = block.number;
        tips = new Tips();
        counts.votingEnds = uint40(t.votingEnds);
        emit SessionCreated(t.rulesDigest, address(tips));
    }

    // --- members ---------------------------------------------------------------------------------------------------

    /// @notice Pay exactly the deposit and become a member. Readers judge the proof of identity; here it need only exist.
    function join(address poid) external payable {
        Counts memory c = _require(Stage.Funding);
        if (msg.value != depositWei) revert WrongDeposit(msg.value, depositWei);
        if (poid.code.length == 0) revert NotAContract(poid);
        if (entries[msg.sender].seat != 0) revert AlreadyMember();
        if (c.members == membersMax) revert SessionFull(membersMax);
        seats[c.members].wallet = msg.sender;
        emit Joined(c.members, msg.sender, poid);
        c.members += 1;
        entries[msg.sender] = Entry(poid, c.members);
        counts = c;
        emit Transfer(address(0), msg.sender, uint160(msg.sender));
        emit Locked(uint160(msg.sender));
    }

    /// @notice Take the deposit back while members are still joining. The last member takes over the index of the one who left.
    function leave() external {
        Counts memory c = _require(Stage.Funding);
        uint256 index = _indexOf(msg.sender);
        c.members -= 1;
        if (index != c.members) {
            address last = seats[c.members].wallet;
            seats[index].wallet = last;
            entries[last].seat = uint16(index + 1);
        }
        delete seats[c.members];
        delete entries[msg.sender];
        counts = c;
        emit Left(index, msg.sender);
        emit Transfer(msg.sender, address(0), uint160(msg.sender));
        if (!_send(msg.sender, depositWei, gasleft())) revert PaymentRefused(msg.sender);
    }

    // --- claims and ballots ----------------------------------------------------------------------------------------

    /// @notice Ask for a share of the fund: `points` relative to all approved points. One per member, final.
    /// @param evidence hash of the member's final contribution vector (the head of its log)
    function claim(uint256 points, bytes32 evidence) external {
        Counts memory c = _require(Stage.Claiming);
        uint256 index = _indexOf(msg.sender);
        Seat memory seat = seats[index];
        if (seat.marks & CLAIMED != 0) revert AlreadyClaimed();
        if (points > type(uint64).max) revert TooManyPoints(points);
        seat.points = uint64(points);
        seat.marks |= CLAIMED;
        seats[index] = seat;
        claimed[index >> 8] |= 1 << (index & 255);
        c.claims += 1;
        c.points += uint96(points);
        counts = c;
        emit Claimed(index, points, evidence);
    }

    /// @notice One ballot over all claims: bit i of word w set rejects the claim of member 256 * w + i.
    /// @param nay trailing words that are zero may be left out
    function cast(uint256[] calldata nay) external {
        Counts memory c = _require(Stage.Voting);
        uint256 index = _indexOf(msg.sender);
        if (seats[index].marks & VOTED != 0) revert AlreadyVoted();
        seats[index].marks |= VOTED;
        uint256 words = _words(c);
        if (nay.length > words) revert BallotTooLong(nay.length, words);
        if (nay.length > index >> 8 && (nay[index >> 8] >> (index & 255)) & 1 == 1) revert NayOnOwnClaim();
        uint256 spent;
        for (uint256 word; word < nay.length; ++word) {
            uint256 bits = nay[word];
            if (bits == 0) continue;
            if (bits & ~claimed[word] != 0) revert NayWithoutClaim(word, bits & ~claimed[word]);
            spent += _popCount(bits);
            _addBallot(word, bits);
        }
        uint256 budget = (uint256(c.members) - 1) / 2;
        if (spent > budget) revert TooManyNays(spent, budget);
        c.ballots += 1;
        if (c.ballots == _quorum(c)) _extendIfLate(c);
        counts = c;
        emit BallotCast(index, nay);
    }

    /// @notice Count on after the vote, at most `maxWords` words of 256 claims; anybody may call it, any number of times.
    function tally(uint256 maxWords) external {
        Counts memory c = _require(Stage.Settling);
        uint256 threshold = _threshold(c);
        uint256 end = _words(c);
        if (maxWords < end - c.talliedWords) end = c.talliedWords + maxWords;
        uint256 points = c.points;
        for (uint256 word = c.talliedWords; word < end; ++word) {
            uint256 over = _atLeast(word, threshold, c.ballots) & claimed[word];
            if (over == 0) continue;
            rejected[word] = over;
            for (uint256 i; i < 256; ++i) {
                if ((over >> i) & 1 == 1) points -= seats[256 * word + i].points;
            }
        }
        c.talliedWords = uint16(end);
        c.points = uint96(points);
        counts = c;
        emit Tallied(end, points);
    }

    // --- money -----------------------------------------------------------------------------------------------------

    /// @notice What `member` can take out now.
    function due(address member) public view returns (uint256) {
        uint256 seat = entries[member].seat;
        return seat == 0 ? 0 : _due(counts, seat - 1);
    }

    /// @notice Send a member what it is due; anybody may call it.
    function withdraw(address member) external {
        if (!_pay(member, member, gasleft())) revert PaymentRefused(member);
    }

    /// @notice Send what the caller is due to another address, for a wallet that cannot receive.
    function withdrawTo(address to) external {
        if (!_pay(msg.sender, to, gasleft())) revert PaymentRefused(to);
    }

    /// @notice Push to many members with little gas each. Who is due nothing is passed over; who fails keeps its credit.
    function releaseBatch(address[] calldata members) external {
        for (uint256 i; i < members.length; ++i) {
            if (due(members[i]) == 0) continue;
            if (!_pay(members[i], members[i], PUSH_GAS)) emit PushFailed(members[i]);
        }
    }

    // --- views -----------------------------------------------------------------------------------------------------

    function stage() public view returns (Stage) {
        return _stage(counts);
    }

    function terms() external view returns (Terms memory) {
        return Terms(
            rulesDigest, depositWei, membersMin, membersMax, fundingEnds, trainingEnds, claimingEnds, votingEnds, rejectQuorumPermille
        );
    }

    /// @return the stage and everything that changes with each call, for readers that poll
    function summary() external view returns (Stage, Counts memory) {
        return (_stage(counts), counts);
    }

    /// @notice Members `first` to `first + count - 1`, or fewer at the end. `nays` grow during the vote, `approved` is final after the tally.
    function readMembers(uint256 first, uint256 count) external view returns (Row[] memory rows) {
        Counts memory c = counts;
        if (first > c.members) first = c.members;
        if (count > c.members - first) count = c.members - first;
        rows = new Row[](count);
        bool settled = _stage(c) == Stage.Released;
        for (uint256 i; i < count; ++i) {
            uint256 index = first + i;
            Seat memory seat = seats[index];
            rows[i] = Row(
                seat.wallet,
                entries[seat.wallet].poid,
                seat.points,
                seat.marks,
                _nays(index, c.ballots),
                settled && seat.marks & CLAIMED != 0 && (rejected[index >> 8] >> (index & 255)) & 1 == 0,
                _due(c, index)
            );
        }
    }

    // --- membership token (ERC-5192: it cannot be transferred, so it has no transfer functions) ---------------------

    function balanceOf(address wallet) external view returns (uint256) {
        return entries[wallet].seat == 0 ? 0 : 1;
    }

    function ownerOf(uint256 tokenId) public view returns (address) {
        address wallet = address(uint160(tokenId));
        if (tokenId >> 160 != 0 || entries[wallet].seat == 0) revert NoSuchToken(tokenId);
        return wallet;
    }

    function locked(uint256 tokenId) external view returns (bool) {
        ownerOf(tokenId);
        return true;
    }

    function supportsInterface(bytes4 id) external pure returns (bool) {
        return id == 0x01ffc9a7 || id == 0xb45a3c0e; // ERC-165, ERC-5192
    }

    // --- inside ----------------------------------------------------------------------------------------------------

    function _require(Stage needed) private view returns (Counts memory c) {
        c = counts;
        Stage current = _stage(c);
        if (current != needed) revert WrongStage(current, needed);
    }

    function _stage(Counts memory c) private view returns (Stage) {
        if (block.timestamp < fundingEnds) return Stage.Funding;
        if (c.members < membersMin) return Stage.Refunded;
        if (block.timestamp < trainingEnds) return Stage.Training;
        if (block.timestamp < claimingEnds) return Stage.Claiming;
        if (block.timestamp < c.votingEnds) return Stage.Voting;
        if (c.claims == 0 || c.ballots == 0) return Stage.Refunded;
        if (c.talliedWords < _words(c)) return Stage.Settling;
        return c.points == 0 ? Stage.Refunded : Stage.Released;
    }

    function _indexOf(address wallet) private view returns (uint256) {
        uint256 seat = entries[wallet].seat;
        if (seat == 0) revert NotAMember();
        return seat - 1;
    }

    function _words(Counts memory c) private pure returns (uint256) {
        return (uint256(c.members) + 255) >> 8;
    }

    /// Members that make rejecting possible: ceil(quorum * members), at least one.
    function _quorum(Counts memory c) private view returns (uint256) {
        uint256 quorum = (uint256(c.members) * rejectQuorumPermille + 999) / 1000;
        return quorum == 0 ? 1 : quorum;
    }

    /// Nays that reject a claim: half of the ballots, and the quorum of all members; so silence is no veto.
    function _threshold(Counts memory c) private view returns (uint256) {
        uint256 half = (uint256(c.ballots) + 1) / 2;
        uint256 quorum = _quorum(c);
        return half > quorum ? half : quorum;
    }

    /// The ballot that reaches the quorum late leaves the others a quarter of the vote to answer. It happens at most once.
    function _extendIfLate(Counts memory c) private {
        uint256 extended = block.timestamp + (votingEnds - claimingEnds + 3) / 4;
        if (extended <= c.votingEnds) return;
        c.votingEnds = uint40(extended);
        emit VotingExtended(extended);
    }

    function _addBallot(uint256 word, uint256 carry) private {
        for (uint256 plane; carry != 0; ++plane) {
            uint256 bits = nays[word][plane];
            nays[word][plane] = bits ^ carry;
            carry &= bits;
        }
    }

    /// Bit i is set if counter i of the word is at least `threshold`; compared from the lowest plane to the highest.
    function _atLeast(uint256 word, uint256 threshold, uint256 ballots) private view returns (uint256 over) {
        over = type(uint256).max;
        for (uint256 plane; (threshold | ballots) >> plane != 0; ++plane) {
            uint256 bits = nays[word][plane];
            over = (threshold >> plane) & 1 == 1 ? bits & over : bits | over;
        }
    }

    function _nays(uint256 index, uint256 ballots) private view returns (uint16 count) {
        for (uint256 plane; ballots >> plane != 0; ++plane) {
            count |= uint16(((nays[index >> 8][plane] >> (index & 255)) & 1) << plane);
        }
    }

    function _popCount(uint256 bits) private pure returns (uint256 count) {
        for (; bits != 0; ++count) bits &= bits - 1;
    }

    function _due(Counts memory c, uint256 index) private view returns (uint256) {
        Seat memory seat = seats[index];
        if (seat.marks & PAID != 0) return 0;
        Stage current = _stage(c);
        if (current == Stage.Refunded) return depositWei;
        if (current != Stage.Released || seat.marks & CLAIMED == 0) return 0;
        if ((rejected[index >> 8] >> (index & 255)) & 1 == 1) return 0;
        return (depositWei * c.members * seat.points) / c.points;
    }

    /// Marks first, sends then: a recipient that calls back finds nothing due. A failed call leaves the credit as it was.
    function _pay(address member, address to, uint256 gasMax) private returns (bool sent) {
        uint256 amountWei = due(member);
        if (amountWei == 0) revert NothingDue(member);
        uint256 index = entries[member].seat - 1;
        seats[index].marks |= PAID;
        sent = _send(to, amountWei, gasMax);
        if (sent) emit Paid(member, to, amountWei);
        else seats[index].marks &= ~PAID;
    }

    function _send(address to, uint256 amountWei, uint256 gasMax) private returns (bool sent) {
        assembly {
            sent := call(gasMax, to, amountWei, 0, 0, 0, 0) // no answer is copied: it could be huge
        }
    }
}
