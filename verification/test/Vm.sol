// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What the tests use of the calls that forge and halmos answer at a fixed address ("cheat codes").
interface Vm {
    function warp(uint256 timestamp) external;
    function roll(uint256 number) external;
    function chainId(uint256 id) external;
    function deal(address wallet, uint256 amountWei) external;
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function store(address account, bytes32 slot, bytes32 value) external;
    function load(address account, bytes32 slot) external view returns (bytes32);
    function etch(address account, bytes calldata code) external;

    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function signCompact(uint256 key, bytes32 digest) external pure returns (bytes32 r, bytes32 vs);

    function snapshotState() external returns (uint256);
    function revertToState(uint256 snapshot) external returns (bool);

    function assume(bool condition) external pure;
    function expectRevert() external;
    function expectRevert(bytes calldata reason) external;
    function expectRevert(bytes4 selector) external;
    function expectEmit() external;
    function expectEmit(address emitter) external;

    function assertTrue(bool condition) external pure;
    function assertTrue(bool condition, string calldata what) external pure;
    function assertEq(uint256 got, uint256 expected) external pure;
    function assertEq(uint256 got, uint256 expected, string calldata what) external pure;
    function assertEq(address got, address expected) external pure;
    function assertEq(bytes calldata got, bytes calldata expected) external pure;
    function assertEq(bytes32 got, bytes32 expected) external pure;
    function assertEq(bool got, bool expected) external pure;
    function assertEq(bool got, bool expected, string calldata what) external pure;
    function assertEq(string calldata got, string calldata expected) external pure;
    function assertLe(uint256 got, uint256 most, string calldata what) external pure;
    function assertLt(uint256 got, uint256 most, string calldata what) external pure;
    function assertGe(uint256 got, uint256 least, string calldata what) external pure;
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
