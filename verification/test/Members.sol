// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Session} from "contracts/Session.sol";

/// @notice A member that is a contract; `mood` says what it does when it is paid.
contract Member {
    enum Mood { Accept, Refuse, BurnGas, HugeAnswer, Reenter }

    Session public immutable session;
    Mood public mood;
    uint256 public paidTwice; // calls back that were paid, although only one payment was due
    uint256 public received; // from the session, in all

    constructor(Session session_) payable {
        session = session_;
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function join(uint256 depositWei) external {
        session.join{value: depositWei}(address(this));
    }

    function leave(address last) external {
        session.leave(last);
    }

    function claim(uint256 points) external {
        session.claim(points, 0);
    }

    function cast(uint256[] calldata nay) external {
        session.cast(nay);
    }

    function withdrawTo(address to) external {
        session.withdrawTo(to);
    }

    receive() external payable {
        if (mood == Mood.Refuse) revert("no, thanks");
        if (mood == Mood.BurnGas) while (true) {}
        if (mood == Mood.HugeAnswer) {
            assembly {
                revert(0, 1000000)
            }
        }
        if (msg.sender == address(session)) received += msg.value;
        if (mood == Mood.Reenter) {
            address[] memory self = new address[](1);
            self[0] = address(this);
            try session.withdraw(address(this)) { paidTwice += 1; } catch {}
            try session.withdrawTo(address(this)) { paidTwice += 1; } catch {}
            try session.leave(address(this)) { paidTwice += 1; } catch {}
            uint256 before = address(this).balance;
            session.releaseBatch(self);
            if (address(this).balance > before) paidTwice += 1;
        }
    }
}

/// @notice Sends ether that nobody can refuse.
contract Forcer {
    constructor(address payable to) payable {
        selfdestruct(to);
    }
}
