// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The paper's way taken literally: a vote per claim, each with a transaction of its own. For the benchmark only.
/// @notice As little as it takes: no stages, no limits. What a session costs so is a lower bound.
contract NaiveVotes {
    struct Member {
        bool joined;
        bool paid;
        uint16 nays;
        uint64 points;
    }

    address[] private wallets;
    mapping(address wallet => Member) private members;
    mapping(address claimant => mapping(address voter => bool)) private voted;
    uint256 private approved;
    uint256 private fund;

    event Voted(address indexed voter, address indexed claimant, bool nay);

    function join() external payable {
        require(!members[msg.sender].joined);
        members[msg.sender].joined = true;
        wallets.push(msg.sender);
    }

    function claim(uint64 points) external {
        require(members[msg.sender].joined);
        members[msg.sender].points = points;
    }

    function vote(address claimant, bool nay) external {
        require(members[msg.sender].joined && claimant != msg.sender && !voted[claimant][msg.sender]);
        voted[claimant][msg.sender] = true;
        if (nay) members[claimant].nays += 1;
        emit Voted(msg.sender, claimant, nay);
    }

    function settle(uint256 first, uint256 count) external {
        fund = address(this).balance;
        for (uint256 i = first; i < first + count; ++i) approved += _approvedPoints(wallets[i]);
    }

    function withdraw() external {
        Member storage member = members[msg.sender];
        require(!member.paid);
        member.paid = true;
        (bool sent,) = msg.sender.call{value: (fund * _approvedPoints(msg.sender)) / approved}("");
        require(sent);
    }

    function _approvedPoints(address wallet) private view returns (uint256) {
        Member storage member = members[wallet];
        return 2 * member.nays < wallets.length ? member.points : 0;
    }
}
