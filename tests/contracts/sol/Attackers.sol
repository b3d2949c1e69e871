// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// Hostile members and bystanders, for the tests of Session.sol.

interface ISession {
    function join(address poid) external payable;
    function leave(address last) external;
    function claim(uint256 points, bytes32 evidence) external;
    function cast(uint256[] calldata nay) external;
    function withdraw(address member) external;
    function withdrawTo(address to) external;
    function releaseBatch(address[] calldata members) external;
}

/// A member that is a contract; `mood` says what it does when it is paid.
contract Member {
    enum Mood { Accept, Refuse, BurnGas, Bomb, Reenter }

    ISession public immutable session;
    Mood public mood;
    uint256 public reentered;

    constructor(ISession session_) payable {
        session = session_;
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function join(uint256 deposit) external {
        session.join{value: deposit}(address(this));
    }

    function leave() external {
        session.leave(address(this));
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
        if (mood == Mood.Bomb) {
            assembly {
                revert(0, 1000000) // an answer that would cost its reader dearly
            }
        }
        if (mood == Mood.Reenter) {
            address[] memory self = new address[](1);
            self[0] = address(this);
            try session.withdraw(address(this)) { reentered += 1; } catch {}
            try session.withdrawTo(address(this)) { reentered += 1; } catch {}
            try session.leave(address(this)) { reentered += 1; } catch {}
            uint256 before = address(this).balance;
            session.releaseBatch(self);
            if (address(this).balance > before) reentered += 1;
        }
    }
}
