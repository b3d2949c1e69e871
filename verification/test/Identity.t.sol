// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ProofOfIdentity} from "contracts/ProofOfIdentity.sol";
import {vm} from "./Vm.sol";

/// @notice A proof of identity says what it was made with, for good.
contract IdentityTest {
    function test_fields__are_what_the_constructor_got() public {
        vm.warp(1_800_000_000);
        vm.roll(12);
        bytes32[2] memory publicKey = [bytes32(uint256(3)), bytes32(uint256(4))];
        bytes32[2] memory peerSignature = [bytes32(uint256(5)), bytes32(uint256(6))];
        bytes32[2] memory walletSignature = [bytes32(uint256(7)), bytes32(uint256(8))];
        ProofOfIdentity proof =
            new ProofOfIdentity(bytes32(uint256(1)), address(2), publicKey, peerSignature, walletSignature, 27);
        vm.warp(1_900_000_000);
        vm.roll(13);

        (bytes32 peerId, address wallet, bytes32[2] memory key) = proof.getPoid();
        (bytes32[2] memory byPeer, bytes32[2] memory byWallet, uint8 v) = proof.getSignatures();
        vm.assertEq(
            keccak256(abi.encode(peerId, wallet, key, byPeer, byWallet, v)),
            keccak256(abi.encode(uint256(1), address(2), publicKey, peerSignature, walletSignature, uint8(27)))
        );
        vm.assertEq(proof.getTimestamp(), 1_800_000_000);
        vm.assertEq(proof.getBlock(), 12);
    }

    function test_creation__is_logged() public {
        bytes32[2] memory none;
        vm.expectEmit();
        emit ProofOfIdentity.PoidCreated(bytes32(uint256(1)), address(2));
        new ProofOfIdentity(bytes32(uint256(1)), address(2), none, none, none, 28);
    }
}
