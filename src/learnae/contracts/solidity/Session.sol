// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {BitCounters} from "./BitCounters.sol";
import {DEBATING_SECONDS_MAX, Governance, QUORUM_DIVISOR_MAX, QUORUM_DIVISOR_MIN} from "./Governance.sol";
import {MemberToken} from "./MemberToken.sol";
import {Tips} from "./Tips.sol";

/// @title The DAO of one collaborative training session (LEARNAE, section 6, Fig. 5)
/// @notice Members deposit, train, claim their share, vote on all claims with one ballot, and take out what they are due.
/// @dev No owner, no pause, no upgrade, no receive(). Stages are a pure function of time, members and tally. A member costs
///      one storage slot, found by its wallet; all else is packed by the member's index: four claims to a slot, 256 marks
///      or nay counter bits to a slot.
contract Session is MemberToken {
    using BitCounters for BitCounters.Counters;

    enum Stage { Funding, Training, Claiming, Voting, Settling, Released, Refunded }

    /// Why an item of a batch was left out.
    enum Fault { NotAMember, AlreadyClaimed, AlreadyVoted, TooManyPoints, NayOnOwnClaim, BadSignature }

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
        uint256 extensionSecondsMax; // by which governance may put off the end of the vote in all
        uint256 proposalDepositWei; // governance: deposit of a proposal, at first
        uint256 minQuorumDivisor; // governance: d of Eq. 2, at first
        uint256 debatingSecondsMin; // governance: least time to vote on a proposal
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
        uint8 talliedWords;
        uint40 trainingEnds;
        uint40 claimingEnds;
        uint40 votingEnds;
        uint80 points; // of all claims; after the tally of the approved ones
    }

    /// What 256 members did, a bit each: bit i of word w is about member 256 * w + i.
    struct Marks {
        uint256 claimed;
        uint256 voted;
        uint256 rejected;
        uint256 paid;
    }

    /// A claim with its member's signature: EIP-712, EIP-2098.
    struct SignedClaim {
        address member;
        uint256 points;
        bytes32 evidence;
        bytes32 r;
        bytes32 vs;
    }

    /// A member's signature under a ballot that it shares with others: EIP-712, EIP-2098.
    struct SignedVoter {
        address member;
        bytes32 r;
        bytes32 vs;
    }

    /// A member as `readMembers` returns it.
    struct Row {
        address wallet;
        address poid;
        uint64 points;
        uint8 marks; // 1 claimed, 2 voted, 4 paid
        uint16 nays;
        bool approved;
        uint256 dueWei;
        uint16 index;
    }

    uint256 private constant MEMBERS_MAX = 4095; // 16 words, 12 planes: counts fit 12 bits, a ballot stays far below 2^24 gas (EIP-7825).
    uint256 private constant DEPOSIT_MAX = type(uint112).max; // fund * points stays below 2^256.
    uint256 private constant DURATION_MAX = 1000 days; // Nobody's deposit can be locked for ever by a slip of the pen.
    uint256 private constant PUSH_GAS = 30000; // Enough for a plain wallet contract, too little to be worth griefing.
    bytes32 private constant DOMAIN_TYPE = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant DOMAIN_NAME = keccak256("learnae Session");
    bytes32 private constant DOMAIN_VERSION = keccak256("1");
    bytes32 private constant CLAIM_TYPE = keccak256("Claim(address member,uint256 points,bytes32 evidence)");
    bytes32 private constant BALLOT_TYPE = keccak256("Ballot(address member,bytes32 nay)");

    bytes32 private immutable rulesDigest;
    uint256 private immutable depositWei;
    uint256 private immutable membersMin;
    uint256 private immutable membersMax;
    uint256 private immutable fundingEnds;
    uint256 private immutable trainingEnds;
    uint256 private immutable claimingEnds;
    uint256 private immutable votingEnds;
    uint256 private immutable rejectQuorumPermille;
    uint256 private immutable extensionSecondsMax;
    uint256 private immutable proposalDepositWei;
    uint256 private immutable minQuorumDivisor;
    uint256 private immutable debatingSecondsMin;
    uint256 public immutable createdBlock;
    Tips public immutable tips;
    Governance public immutable governance;

    Counts private counts;
    mapping(address wallet => Entry) private entries;
    mapping(uint256 quad => uint256) private points; // of members 4 * quad to 4 * quad + 3, 64 bits each
    mapping(uint256 word => Marks) private marks;
    BitCounters.Counters private nays;

    event SessionCreated(bytes32 indexed rulesDigest, address tips, address governance);
    event Joined(uint256 indexed index, address indexed wallet, address poid);
    event Left(uint256 indexed index, address indexed wallet); // with its deposit
    event Claimed(uint256 indexed index, uint256 points, bytes32 evidence);
    event BallotCast(uint256 indexed index, uint256[] nay);
    event BallotsCast(uint256[] nay, uint256[] voters); // bit i of word w of `voters`: member 256 * w + i
    event Skipped(uint256 indexed item, address indexed member, Fault fault);
    event VotingExtended(uint256 votingEnds);
    event DeadlinesExtended(uint256 trainingEnds, uint256 claimingEnds, uint256 votingEnds);
    event Tallied(uint256 words, uint256 points);
    event Paid(address indexed member, address to, uint256 amountWei);
    event PushFailed(address indexed member);

    error BadTerms(string what);
    error WrongStage(Stage current, Stage needed);
    error WrongDeposit(uint256 sent, uint256 needed);
    error AlreadyMember();
    error SessionFull(uint256 membersMax);
    error NotAMember();
    error NotTheLastMember(address last);
    error AlreadyClaimed();
    error TooManyPoints(uint256 points);
    error AlreadyVoted();
    error BallotTooLong(uint256 words, uint256 wordsMax);
    error NayOnOwnClaim();
    error NayWithoutClaim(uint256 word, uint256 bits);
    error TooManyNays(uint256 nays, uint256 naysMax);
    error OnlyByGovernance();
    error ExtensionTooLong(uint256 asked, uint256 left);
    error NothingDue(address member);
    error PaymentRefused(address to);

    constructor(Terms memory t) {
        if (t.depositWei == 0 || t.depositWei > DEPOSIT_MAX) revert BadTerms("deposit");
        if (t.membersMin == 0 || t.membersMin > t.membersMax || t.membersMax > MEMBERS_MAX) revert BadTerms("members");
        if (t.rejectQuorumPermille > 1000) revert BadTerms("quorum");
        if (t.fundingEnds <= block.timestamp || t.trainingEnds <= t.fundingEnds || t.claimingEnds <= t.trainingEnds)
            revert BadTerms("times");
        if (t.votingEnds <= t.claimingEnds || t.votingEnds > block.timestamp + DURATION_MAX) revert BadTerms("times");
        if (t.extensionSecondsMax > block.timestamp + DURATION_MAX - t.votingEnds) revert BadTerms("extension");
        if (t.proposalDepositWei > t.depositWei || t.minQuorumDivisor < QUORUM_DIVISOR_MIN || t.minQuorumDivisor > QUORUM_DIVISOR_MAX)
            revert BadTerms("governance");
        if (t.debatingSecondsMin == 0 || t.debatingSecondsMin > DEBATING_SECONDS_MAX) revert BadTerms("governance");
        rulesDigest = t.rulesDigest;
        depositWei = t.depositWei;
        membersMin = t.membersMin;
        membersMax = t.membersMax;
        fundingEnds = t.fundingEnds;
        trainingEnds = t.trainingEnds;
        claimingEnds = t.claimingEnds;
        votingEnds = t.votingEnds;
        rejectQuorumPermille = t.rejectQuorumPermille;
        extensionSecondsMax = t.extensionSecondsMax;
        proposalDepositWei = t.proposalDepositWei;
        minQuorumDivisor = t.minQuorumDivisor;
        debatingSecondsMin = t.debatingSecondsMin;
        createdBlock = block.number;
        tips = new Tips();
        governance = new Governance(t.proposalDepositWei, t.depositWei, t.minQuorumDivisor, t.debatingSecondsMin);
        counts.trainingEnds = uint40(t.trainingEnds);
        counts.claimingEnds = uint40(t.claimingEnds);
        counts.votingEnds = uint40(t.votingEnds);
        emit SessionCreated(t.rulesDigest, address(tips), address(governance));
    }

    // --- members ---------------------------------------------------------------------------------------------------

    /// @notice Pay exactly the deposit and become a member.
    /// @param poid the member's proof of identity, which readers judge; asking here whether it exists would cost 2,600 gas
    function join(address poid) external payable {
        Counts memory c = _require(Stage.Funding);
        if (msg.value != depositWei) revert WrongDeposit(msg.value, depositWei);
        if (entries[msg.sender].seat != 0) revert AlreadyMember();
        if (c.members == membersMax) revert SessionFull(membersMax);
        emit Joined(c.members, msg.sender, poid);
        c.members += 1;
        entries[msg.sender] = Entry(poid, c.members);
        counts = c;
        _mint(msg.sender);
    }

    /// @notice Take the deposit back while members are still joining. The last member takes over the index of the one who left.
    /// @param last the member that joined last, as the events tell; nothing is stored by index
    function leave(address last) external {
        Counts memory c = _require(Stage.Funding);
        uint256 index = _indexOf(msg.sender);
        if (entries[last].seat != c.members) revert NotTheLastMember(last);
        c.members -= 1;
        entries[last].seat = uint16(index + 1);
        delete entries[msg.sender];
        counts = c;
        emit Left(index, msg.sender);
        _burn(msg.sender);
        if (!_send(msg.sender, depositWei, gasleft())) revert PaymentRefused(msg.sender);
    }

    // --- claims ----------------------------------------------------------------------------------------------------

    /// @notice Ask for a share of the fund: `asked` relative to all approved points. One per member, final.
    /// @param evidence hash of the member's final contribution vector (the head of its log)
    function claim(uint256 asked, bytes32 evidence) external {
        Counts memory c = _require(Stage.Claiming);
        uint256 index = _indexOf(msg.sender);
        Marks storage m = _marks(index);
        if (_has(m.claimed, index)) revert AlreadyClaimed();
        if (asked > type(uint64).max) revert TooManyPoints(asked);
        m.claimed |= _bit(index);
        _claim(c, index, asked, evidence);
        counts = c;
    }

    /// @notice Many claims that their members signed, sent by anybody. A bad item is skipped.
    function claimBatch(SignedClaim[] calldata items) external {
        Counts memory c = _require(Stage.Claiming);
        bytes32 domain = domainSeparator();
        uint256[] memory claimed = new uint256[](_words(c));
        for (uint256 word; word < claimed.length; ++word) claimed[word] = marks[word].claimed;
        for (uint256 i; i < items.length; ++i) {
            SignedClaim calldata item = items[i];
            (bool known, uint256 index) = _find(item.member);
            if (!known) {
                emit Skipped(i, item.member, Fault.NotAMember);
            } else if (_has(claimed[index >> 8], index)) {
                emit Skipped(i, item.member, Fault.AlreadyClaimed);
            } else if (item.points > type(uint64).max) {
                emit Skipped(i, item.member, Fault.TooManyPoints);
            } else if (!_isSigned(domain, _hashClaim(item), item.member, item.r, item.vs)) {
                emit Skipped(i, item.member, Fault.BadSignature);
            } else {
                claimed[index >> 8] |= _bit(index);
                _claim(c, index, item.points, item.evidence);
            }
        }
        for (uint256 word; word < claimed.length; ++word) marks[word].claimed = claimed[word];
        counts = c;
    }

    // --- ballots ---------------------------------------------------------------------------------------------------

    /// @notice One ballot over all claims: bit i of word w set rejects the claim of member 256 * w + i.
    /// @param nay trailing words that are zero may be left out
    function cast(uint256[] calldata nay) external {
        Counts memory c = _require(Stage.Voting);
        uint256 index = _indexOf(msg.sender);
        Marks storage m = _marks(index);
        if (_has(m.voted, index)) revert AlreadyVoted();
        m.voted |= _bit(index);
        if (_rejects(nay, index)) revert NayOnOwnClaim();
        _count(c, nay, 1);
        counts = c;
        emit BallotCast(index, nay);
    }

    /// @notice One ballot that many members signed, counted in one addition; sent by anybody. A bad voter is skipped.
    function castGrouped(uint256[] calldata nay, SignedVoter[] calldata voters) external {
        Counts memory c = _require(Stage.Voting);
        bytes32 domain = domainSeparator();
        bytes32 ballot = keccak256(abi.encodePacked(nay));
        uint256[] memory counted = new uint256[](_words(c)); // newly
        uint256[] memory done = new uint256[](counted.length);
        for (uint256 word; word < done.length; ++word) done[word] = marks[word].voted;
        uint256 ballots;
        for (uint256 i; i < voters.length; ++i) {
            SignedVoter calldata voter = voters[i];
            (bool known, uint256 index) = _find(voter.member);
            if (!known) {
                emit Skipped(i, voter.member, Fault.NotAMember);
            } else if (_has(done[index >> 8] | counted[index >> 8], index)) {
                emit Skipped(i, voter.member, Fault.AlreadyVoted);
            } else if (_rejects(nay, index)) {
                emit Skipped(i, voter.member, Fault.NayOnOwnClaim);
            } else if (!_isSigned(domain, _hashBallot(voter.member, ballot), voter.member, voter.r, voter.vs)) {
                emit Skipped(i, voter.member, Fault.BadSignature);
            } else {
                counted[index >> 8] |= _bit(index);
                ++ballots;
            }
        }
        for (uint256 word; word < counted.length; ++word) marks[word].voted = done[word] | counted[word];
        _count(c, nay, ballots);
        counts = c;
        emit BallotsCast(nay, counted);
    }

    /// @notice Count on after the vote, at most `maxWords` words of 256 claims; anybody may call it, any number of times.
    function tally(uint256 maxWords) external {
        Counts memory c = _require(Stage.Settling);
        uint256 threshold = _threshold(c);
        uint256 end = _words(c);
        if (maxWords < end - c.talliedWords) end = c.talliedWords + maxWords;
        uint256 left = c.points;
        for (uint256 word = c.talliedWords; word < end; ++word) {
            uint256 over = nays.findAtLeast(word, threshold, c.ballots) & marks[word].claimed;
            if (over == 0) continue;
            marks[word].rejected = over;
            for (uint256 i; i < 256; ++i) {
                if ((over >> i) & 1 == 1) left -= _points(256 * word + i);
            }
        }
        c.talliedWords = uint8(end);
        c.points = uint80(left);
        counts = c;
        emit Tallied(end, left);
    }

    // --- money -----------------------------------------------------------------------------------------------------

    /// @notice What `member` can take out now.
    function due(address member) external view returns (uint256) {
        Counts memory c = counts;
        (bool known, uint256 index) = _find(member);
        return known ? _due(c, _stage(c), index) : 0;
    }

    /// @notice Send a member what it is due; anybody may call it.
    function withdraw(address member) external {
        _withdraw(member, member);
    }

    /// @notice Send what the caller is due to another address, for a wallet that cannot receive.
    function withdrawTo(address to) external {
        _withdraw(msg.sender, to);
    }

    /// @notice Push to many members with little gas each. Who is due nothing is passed over; who fails keeps its credit.
    function releaseBatch(address[] calldata members) external {
        Counts memory c = counts; // Once money can be due, nothing in it changes any more, also if a recipient calls back.
        Stage current = _stage(c);
        for (uint256 i; i < members.length; ++i) {
            address member = members[i];
            (uint256 amountWei, bool sent) = _pay(c, current, member, member, PUSH_GAS);
            if (amountWei != 0 && !sent) emit PushFailed(member);
        }
    }

    // --- governance ------------------------------------------------------------------------------------------------

    /// @notice Put off the end of the stage that runs and of all later ones, within the terms; only by a proposal that passed.
    function extendDeadlines(uint256 addedSeconds) external {
        if (msg.sender != address(governance)) revert OnlyByGovernance();
        Counts memory c = counts;
        Stage current = _stage(c);
        if (current < Stage.Training || current > Stage.Voting) revert WrongStage(current, Stage.Voting);
        uint256 last = votingEnds + extensionSecondsMax;
        uint256 left = last > c.votingEnds ? last - c.votingEnds : 0;
        if (addedSeconds > left) revert ExtensionTooLong(addedSeconds, left);
        if (current == Stage.Training) c.trainingEnds += uint40(addedSeconds);
        if (current != Stage.Voting) c.claimingEnds += uint40(addedSeconds);
        c.votingEnds += uint40(addedSeconds);
        counts = c;
        emit DeadlinesExtended(c.trainingEnds, c.claimingEnds, c.votingEnds);
    }

    /// @return number of members, once it is final
    function finalMembers() external view returns (uint256) {
        Counts memory c = counts;
        if (_stage(c) == Stage.Funding) revert WrongStage(Stage.Funding, Stage.Training);
        return c.members;
    }

    // --- views -----------------------------------------------------------------------------------------------------

    function stage() external view returns (Stage) {
        return _stage(counts);
    }

    /// @return t what the session was created with
    function terms() external view returns (Terms memory t) {
        t.rulesDigest = rulesDigest;
        t.depositWei = depositWei;
        t.membersMin = membersMin;
        t.membersMax = membersMax;
        t.fundingEnds = fundingEnds;
        t.trainingEnds = trainingEnds;
        t.claimingEnds = claimingEnds;
        t.votingEnds = votingEnds;
        t.rejectQuorumPermille = rejectQuorumPermille;
        t.extensionSecondsMax = extensionSecondsMax;
        t.proposalDepositWei = proposalDepositWei;
        t.minQuorumDivisor = minQuorumDivisor;
        t.debatingSecondsMin = debatingSecondsMin;
    }

    /// @return the stage and everything that changes with each call, for readers that poll
    function summary() external view returns (Stage, Counts memory) {
        return (_stage(counts), counts);
    }

    /// @notice The members with these wallets, in this order. `nays` grow during the vote, `approved` is final after the tally.
    function readMembers(address[] calldata wallets) external view returns (Row[] memory rows) {
        Counts memory c = counts;
        rows = new Row[](wallets.length);
        Stage current = _stage(c);
        for (uint256 i; i < wallets.length; ++i) {
            uint256 index = _indexOf(wallets[i]);
            Row memory row = rows[i];
            row.wallet = wallets[i];
            row.poid = entries[wallets[i]].poid;
            row.points = uint64(_points(index));
            Marks memory m = _marks(index);
            bool hasClaimed = _has(m.claimed, index);
            row.marks = (hasClaimed ? 1 : 0) | (_has(m.voted, index) ? 2 : 0) | (_has(m.paid, index) ? 4 : 0);
            row.nays = uint16(nays.read(index, c.ballots));
            row.approved = current == Stage.Released && hasClaimed && !_has(m.rejected, index);
            row.dueWei = _due(c, current, index);
            row.index = uint16(index);
        }
    }

    function isMember(address wallet) public view override returns (bool) {
        return entries[wallet].seat != 0;
    }

    /// @return the EIP-712 domain that claims and ballots are signed in; computed anew, so that a fork of the chain has its own
    function domainSeparator() public view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, address(this)));
    }

    // --- inside: stages and members ----------------------------------------------------------------------------------

    function _require(Stage needed) private view returns (Counts memory c) {
        c = counts;
        Stage current = _stage(c);
        if (current != needed) revert WrongStage(current, needed);
    }

    function _stage(Counts memory c) private view returns (Stage) {
        if (block.timestamp < fundingEnds) return Stage.Funding;
        if (c.members < membersMin) return Stage.Refunded;
        if (block.timestamp < c.trainingEnds) return Stage.Training;
        if (block.timestamp < c.claimingEnds) return Stage.Claiming;
        if (block.timestamp < c.votingEnds) return Stage.Voting;
        if (c.claims == 0 || c.ballots == 0) return Stage.Refunded;
        if (c.talliedWords < _words(c)) return Stage.Settling;
        return c.points == 0 ? Stage.Refunded : Stage.Released;
    }

    function _indexOf(address wallet) private view returns (uint256) {
        (bool known, uint256 index) = _find(wallet);
        if (!known) revert NotAMember();
        return index;
    }

    function _find(address wallet) private view returns (bool known, uint256 index) {
        uint256 seat = entries[wallet].seat;
        unchecked {
            return (seat != 0, seat - 1);
        }
    }

    function _words(Counts memory c) private pure returns (uint256) {
        return (uint256(c.members) + 255) >> 8;
    }

    function _marks(uint256 index) private view returns (Marks storage) {
        return marks[index >> 8];
    }

    function _bit(uint256 index) private pure returns (uint256) {
        return 1 << (index & 255);
    }

    function _has(uint256 word, uint256 index) private pure returns (bool) {
        return word & _bit(index) != 0;
    }

    // --- inside: claims and ballots ----------------------------------------------------------------------------------

    function _claim(Counts memory c, uint256 index, uint256 asked, bytes32 evidence) private {
        points[index >> 2] |= asked << (64 * (index & 3));
        c.claims += 1;
        c.points += uint80(asked);
        emit Claimed(index, asked, evidence);
    }

    function _points(uint256 index) private view returns (uint256) {
        return uint64(points[index >> 2] >> (64 * (index & 3)));
    }

    function _rejects(uint256[] calldata nay, uint256 index) private pure returns (bool) {
        return nay.length > index >> 8 && _has(nay[index >> 8], index);
    }

    /// Adds one ballot as often as it was cast. It is refused as a whole if no member may cast it.
    function _count(Counts memory c, uint256[] calldata nay, uint256 ballots) private {
        uint256 words = _words(c);
        if (nay.length > words) revert BallotTooLong(nay.length, words);
        uint256 spent;
        for (uint256 word; word < nay.length; ++word) {
            uint256 bits = nay[word];
            if (bits == 0) continue;
            uint256 unclaimed = bits & ~marks[word].claimed;
            if (unclaimed != 0) revert NayWithoutClaim(word, unclaimed);
            spent += _popCount(bits);
            nays.add(word, bits, ballots);
        }
        uint256 budget = (uint256(c.members) - 1) / 2;
        if (spent > budget) revert TooManyNays(spent, budget);
        uint256 before = c.ballots;
        c.ballots = uint16(before + ballots);
        uint256 quorum = _quorum(c);
        if (before < quorum && c.ballots >= quorum) _extendIfLate(c);
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

    function _popCount(uint256 bits) private pure returns (uint256 count) {
        for (; bits != 0; ++count) bits &= bits - 1;
    }

    // --- inside: signatures ------------------------------------------------------------------------------------------

    function _hashClaim(SignedClaim calldata item) private pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_TYPE, item.member, item.points, item.evidence));
    }

    function _hashBallot(address member, bytes32 ballot) private pure returns (bytes32) {
        return keccak256(abi.encode(BALLOT_TYPE, member, ballot));
    }

    /// Zero and malleable signatures recover to nobody, and nobody is a member.
    function _isSigned(bytes32 domain, bytes32 content, address member, bytes32 r, bytes32 vs) private pure returns (bool) {
        (address signer,,) = ECDSA.tryRecover(keccak256(abi.encodePacked("\x19\x01", domain, content)), r, vs);
        return signer == member;
    }

    // --- inside: money -----------------------------------------------------------------------------------------------

    function _due(Counts memory c, Stage current, uint256 index) private view returns (uint256) {
        if (current != Stage.Released && current != Stage.Refunded) return 0;
        Marks storage m = _marks(index);
        if (_has(m.paid, index)) return 0;
        if (current == Stage.Refunded) return depositWei;
        if (_has(m.rejected, index)) return 0;
        unchecked {
            return (depositWei * c.members * _points(index)) / c.points; // Below 2^112 * 2^12 * 2^64; without a claim, no points.
        }
    }

    /// Marks first, sends then: a recipient that calls back finds nothing due. A failed call leaves the credit as it was.
    function _pay(Counts memory c, Stage current, address member, address to, uint256 gasMax)
        private
        returns (uint256 amountWei, bool sent)
    {
        (bool known, uint256 index) = _find(member);
        if (!known) return (0, false);
        amountWei = _due(c, current, index);
        if (amountWei == 0) return (0, false);
        Marks storage m = _marks(index);
        m.paid |= _bit(index);
        sent = _send(to, amountWei, gasMax);
        if (sent) emit Paid(member, to, amountWei);
        else m.paid &= ~_bit(index);
    }

    function _withdraw(address member, address to) private {
        Counts memory c = counts;
        (uint256 amountWei, bool sent) = _pay(c, _stage(c), member, to, gasleft());
        if (amountWei == 0) revert NothingDue(member);
        if (!sent) revert PaymentRefused(to);
    }

    function _send(address to, uint256 amountWei, uint256 gasMax) private returns (bool sent) {
        assembly {
            sent := call(gasMax, to, amountWei, 0, 0, 0, 0) // no answer is copied: it could be huge
        }
    }
}
