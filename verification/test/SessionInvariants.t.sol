// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Handler} from "./Handler.sol";
import {vm} from "./Vm.sol";

/// @notice What holds after any calls by anybody at any time. One test for all of it, so that the runs are done once.
abstract contract Invariants {
    Handler internal handler;

    function setUp() public virtual {
        handler = new Handler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0].addr = address(handler);
        targets[0].selectors = new bytes4[](1);
        targets[0].selectors[0] = Handler.act.selector;
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function afterInvariant() public {
        handler.checkLiveness();
    }
}

/// @notice Twelve actors from the first deposit to the last withdrawal, under terms that differ from run to run.
contract SessionInvariants is Invariants {
    function invariant_money_counts_stages_governance_and_liveness() public {
        handler.checkAll();
        handler.checkLiveness();
    }
}

/// @notice The random calls really get somewhere: else no invariant above would mean much.
contract HandlerTest {
    function test_handler__reaches_what_matters() public {
        uint256[8] memory times;
        for (uint256 run; run < 60; ++run) {
            Handler handler = new Handler();
            for (uint256 i; i < 128; ++i) {
                uint256 seed = uint256(keccak256(abi.encode(run, i)));
                handler.act(seed, uint256(keccak256(abi.encode(seed))), uint256(keccak256(abi.encode(seed, 1))));
            }
            bool[8] memory reached = handler.reached();
            for (uint256 i; i < 8; ++i) if (reached[i]) times[i] += 1;
        }
        string[8] memory names = [
            "released", "refunded", "paid", "rejected a claim", "carried over three planes", "spent by governance",
            "deadlines put off", "failed push"
        ];
        for (uint256 i; i < 8; ++i) vm.assertGe(times[i], 2, names[i]);
    }
}

/// @notice Three words of members and more planes: starts with the vote.
contract LargeSessionInvariants is Invariants {
    function setUp() public override {
        super.setUp();
        handler.begin(520, 2);
        handler.fill(0x9e3779b97f4a7c15f39cc0605cedc8341082276bf3a27251f86c6a11d0c18e95);
    }

    /// forge-config: default.invariant.runs = 6
    /// forge-config: default.invariant.depth = 32
    function invariant_money_counts_stages_and_liveness() public {
        handler.checkAll();
    }
}
