// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Does whatever it is told to, and tries one armed call whenever it is paid.
contract Raider {
    uint256 public succeeded;
    address private target;
    bytes private armed;

    constructor() payable {}

    function arm(address target_, bytes calldata armed_) external {
        target = target_;
        armed = armed_;
    }

    function run(address to, uint256 value, bytes calldata data) external {
        (bool done, bytes memory answer) = to.call{value: value}(data);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }

    receive() external payable {
        if (target == address(0)) return;
        (bool done,) = target.call(armed);
        if (done) succeeded += 1;
    }
}
