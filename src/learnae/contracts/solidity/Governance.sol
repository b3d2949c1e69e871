// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

uint256 constant DESCRIPTION_BYTES_MAX = 1024; // It is stored, at 700 gas a byte.
uint256 constant TRANSACTION_BYTES_MAX = 4096; // It is logged, so that anybody can execute.
uint256 constant DEBATING_SECONDS_MAX = 56 days;
uint256 constant EXECUTION_SECONDS = 14 days; // After the vote; then a proposal that nobody could execute can be closed.
uint256 constant QUORUM_DIVISOR_MIN = 2; // More than five sixths of all tokens are never needed.
uint256 constant QUORUM_DIVISOR_MAX = 10; // A tenth of all tokens is always needed.

/// What governance needs to know of its session.
interface IMembers {
    function isMember(address wallet) external view returns (bool);

    /// Number of members, once it is final; reverts before.
    function finalMembers() external view returns (uint256);
}

/// @title Proposals of a session's members (LEARNAE, section 5.2, Table 1, Eq. 2)
/// @notice A member proposes to send an amount of this contract's own money to a recipient, with a call if it likes. Members
///         vote, one token one vote. The money is what was donated here and the deposits that failed proposals left; the
///         deposits of the session are in another contract, which this one cannot touch.
/// @dev Created by its session. A change of its own parameters is a proposal that calls this contract, an extension of the
///      session's deadlines one that calls the session, which has bounds of its own.
contract Governance {
    /// Table 1, under its names.
    struct Proposal {
        address recipient;
        uint256 amount;
        string description;
        uint256 votingDeadline; // first second that no longer belongs to the vote
        bool open; // until it was executed or closed
        bool proposalPassed;
        bytes32 proposalHash; // of recipient, amount and transactionData
        uint256 proposalDeposit;
        uint256 yea;
        uint256 nay;
        address creator;
        uint256 minQuorum; // Eq. 2, fixed when the proposal was made
    }

    IMembers public immutable session;
    uint256 public immutable debatingSecondsMin;
    uint256 public immutable proposalDepositMax;

    uint256 public proposalDeposit; // asked for with a new proposal
    uint256 public minQuorumDivisor; // d of Eq. 2
    uint256 public heldWei; // deposits of open proposals, and deposits given back and not withdrawn yet
    uint256 public spentWei; // by executed proposals
    mapping(address creator => uint256) public credit;

    Proposal[] private proposals;
    mapping(uint256 id => mapping(address member => bool)) public votedYes;
    mapping(uint256 id => mapping(address member => bool)) public votedNo;

    event Proposed(uint256 indexed id, address indexed creator, address recipient, uint256 amount, bytes transactionData);
    event Voted(uint256 indexed id, address indexed member, bool yes);
    event Executed(uint256 indexed id, address recipient, uint256 amount);
    event Closed(uint256 indexed id, bool proposalPassed);
    event Withdrawn(address indexed creator, address to, uint256 amountWei);
    event Donated(address indexed from, uint256 amountWei);
    event ParameterChanged(string name, uint256 value);

    error NotAMember();
    error WrongProposalDeposit(uint256 sent, uint256 needed);
    error DescriptionTooLong(uint256 length, uint256 lengthMax);
    error TransactionTooLong(uint256 length, uint256 lengthMax);
    error WrongDebatingTime(uint256 asked, uint256 least, uint256 most);
    error NotEnoughFunds(uint256 amount, uint256 available);
    error PaysItself();
    error NoSuchProposal(uint256 id);
    error VoteIsOver(uint256 votingDeadline);
    error VoteIsRunning(uint256 votingDeadline);
    error AlreadyVoted();
    error NotOpen();
    error NotPassed(uint256 yea, uint256 nay, uint256 minQuorum);
    error StillExecutable(uint256 until);
    error WrongTransaction(bytes32 proposalHash);
    error TransactionFailed(bytes reason);
    error NothingDue(address creator);
    error PaymentRefused(address to);
    error OnlyByProposal();
    error OutOfBounds(uint256 asked, uint256 least, uint256 most);

    /// @dev Its session checks these before.
    constructor(uint256 proposalDeposit_, uint256 proposalDepositMax_, uint256 minQuorumDivisor_, uint256 debatingSecondsMin_) {
        session = IMembers(msg.sender);
        debatingSecondsMin = debatingSecondsMin_;
        proposalDepositMax = proposalDepositMax_;
        proposalDeposit = proposalDeposit_;
        minQuorumDivisor = minQuorumDivisor_;
    }

    /// @notice Give money to the members' common disposal.
    receive() external payable {
        emit Donated(msg.sender, msg.value);
    }

    // --- proposals -------------------------------------------------------------------------------------------------

    /// @notice Propose to send `amount` to `recipient` together with a call; exactly the proposal deposit is sent along.
    /// @param transactionData call data for the recipient; empty for a plain payment
    /// @param debatingSeconds how long the members may vote
    /// @return id its number
    function newProposal(
        address recipient,
        uint256 amount,
        string calldata description,
        bytes calldata transactionData,
        uint256 debatingSeconds
    ) external payable returns (uint256 id) {
        uint256 members = session.finalMembers();
        if (!session.isMember(msg.sender)) revert NotAMember();
        if (msg.value != proposalDeposit) revert WrongProposalDeposit(msg.value, proposalDeposit);
        if (bytes(description).length > DESCRIPTION_BYTES_MAX) revert DescriptionTooLong(bytes(description).length, DESCRIPTION_BYTES_MAX);
        if (transactionData.length > TRANSACTION_BYTES_MAX) revert TransactionTooLong(transactionData.length, TRANSACTION_BYTES_MAX);
        if (debatingSeconds < debatingSecondsMin || debatingSeconds > DEBATING_SECONDS_MAX)
            revert WrongDebatingTime(debatingSeconds, debatingSecondsMin, DEBATING_SECONDS_MAX);
        if (recipient == address(this) && amount != 0) revert PaysItself(); // It would count as spent and as received.
        heldWei += msg.value;
        if (amount > availableWei()) revert NotEnoughFunds(amount, availableWei());
        id = proposals.length;
        Proposal storage p = proposals.push();
        p.recipient = recipient;
        p.amount = amount;
        p.description = description;
        p.votingDeadline = block.timestamp + debatingSeconds;
        p.open = true;
        p.proposalHash = _hash(recipient, amount, transactionData);
        p.proposalDeposit = msg.value;
        p.creator = msg.sender;
        p.minQuorum = _minQuorum(members, amount);
        emit Proposed(id, msg.sender, recipient, amount, transactionData);
    }

    /// @notice Vote once, until the deadline.
    function vote(uint256 id, bool yes) external {
        Proposal storage p = _find(id);
        if (block.timestamp >= p.votingDeadline) revert VoteIsOver(p.votingDeadline);
        if (!session.isMember(msg.sender)) revert NotAMember();
        if (votedYes[id][msg.sender] || votedNo[id][msg.sender]) revert AlreadyVoted();
        if (yes) {
            votedYes[id][msg.sender] = true;
            p.yea += 1;
        } else {
            votedNo[id][msg.sender] = true;
            p.nay += 1;
        }
        emit Voted(id, msg.sender, yes);
    }

    /// @notice Carry out a proposal that passed; anybody may call it. The creator is credited its deposit.
    /// @dev The state is settled before the call: whoever is called finds the proposal closed and the money gone.
    function execute(uint256 id, bytes calldata transactionData) external {
        Proposal storage p = _findCounted(id);
        if (!_hasPassed(p)) revert NotPassed(p.yea, p.nay, p.minQuorum);
        (address recipient, uint256 amount) = (p.recipient, p.amount);
        if (_hash(recipient, amount, transactionData) != p.proposalHash) revert WrongTransaction(p.proposalHash);
        if (amount > availableWei()) revert NotEnoughFunds(amount, availableWei());
        _settle(p, true);
        spentWei += amount;
        emit Executed(id, recipient, amount);
        (bool done, bytes memory reason) = recipient.call{value: amount}(transactionData);
        if (!done) revert TransactionFailed(reason);
    }

    /// @notice Close a proposal that did not pass, or that passed and was not executed in time; anybody may call it.
    function close(uint256 id) external {
        Proposal storage p = _findCounted(id);
        bool passed = _hasPassed(p);
        uint256 until = p.votingDeadline + EXECUTION_SECONDS;
        if (passed && block.timestamp < until) revert StillExecutable(until);
        _settle(p, passed);
        emit Closed(id, passed);
    }

    /// @notice Send a creator the deposits of its proposals that passed; anybody may call it.
    function withdraw(address creator) external {
        _withdraw(creator, creator);
    }

    /// @notice Send the caller's deposits that came back to another address, for a wallet that cannot receive.
    function withdrawTo(address to) external {
        _withdraw(msg.sender, to);
    }

    // --- its own parameters ------------------------------------------------------------------------------------------

    function setProposalDeposit(uint256 amountWei) external {
        if (msg.sender != address(this)) revert OnlyByProposal();
        _check(amountWei, 0, proposalDepositMax);
        proposalDeposit = amountWei;
        emit ParameterChanged("proposalDeposit", amountWei);
    }

    function setMinQuorumDivisor(uint256 divisor) external {
        if (msg.sender != address(this)) revert OnlyByProposal();
        _check(divisor, QUORUM_DIVISOR_MIN, QUORUM_DIVISOR_MAX);
        minQuorumDivisor = divisor;
        emit ParameterChanged("minQuorumDivisor", divisor);
    }

    // --- views -------------------------------------------------------------------------------------------------------

    /// @return what proposals may spend: all that is here but the deposits that belong to creators
    function availableWei() public view returns (uint256) {
        return address(this).balance - heldWei;
    }

    /// @notice Votes that a new proposal of `amount` would need (Eq. 2, rounded up).
    function minQuorum(uint256 amount) external view returns (uint256) {
        return _minQuorum(session.finalMembers(), amount);
    }

    function proposalCount() external view returns (uint256) {
        return proposals.length;
    }

    function readProposal(uint256 id) external view returns (Proposal memory) {
        return _find(id);
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    /// ceil(T / d + transfer * T / (3 * received)), where received is all that ever came in: what is here and what was spent.
    function _minQuorum(uint256 members, uint256 amount) private view returns (uint256) {
        uint256 divisor = minQuorumDivisor;
        uint256 received = 3 * (availableWei() + spentWei);
        if (amount == 0) return (members + divisor - 1) / divisor;
        uint256 denominator = divisor * received;
        return (members * received + amount * members * divisor + denominator - 1) / denominator;
    }

    function _hasPassed(Proposal storage p) private view returns (bool) {
        return p.yea > p.nay && p.yea + p.nay >= p.minQuorum;
    }

    /// The creator gets its deposit back if a majority approved with the quorum; else it stays here.
    function _settle(Proposal storage p, bool passed) private {
        p.open = false;
        p.proposalPassed = passed;
        if (passed) credit[p.creator] += p.proposalDeposit;
        else heldWei -= p.proposalDeposit;
    }

    function _find(uint256 id) private view returns (Proposal storage) {
        if (id >= proposals.length) revert NoSuchProposal(id);
        return proposals[id];
    }

    function _findCounted(uint256 id) private view returns (Proposal storage p) {
        p = _find(id);
        if (block.timestamp < p.votingDeadline) revert VoteIsRunning(p.votingDeadline);
        if (!p.open) revert NotOpen();
    }

    function _withdraw(address creator, address to) private {
        uint256 amountWei = credit[creator];
        if (amountWei == 0) revert NothingDue(creator);
        credit[creator] = 0;
        heldWei -= amountWei;
        emit Withdrawn(creator, to, amountWei);
        bool sent;
        assembly {
            sent := call(gas(), to, amountWei, 0, 0, 0, 0) // no answer is copied: it could be huge
        }
        if (!sent) revert PaymentRefused(to);
    }

    function _hash(address recipient, uint256 amount, bytes calldata transactionData) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(recipient, amount, transactionData));
    }

    function _check(uint256 asked, uint256 least, uint256 most) private pure {
        if (asked < least || asked > most) revert OutOfBounds(asked, least, most);
    }
}
