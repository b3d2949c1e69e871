// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Distributed proof of identity (LEARNAE, section 4.4)
/// @notice One contract per peer binds its peer id to its wallet. Nothing in it can change; it has no owner.
/// @dev All fields are immutables, so the runtime code holds them: a reader compares the code with the published artefact
///      and reads the fields out of it. Readers check both signatures themselves, and order records by the block and
///      transaction that `PoidCreated` was logged in: code deployed by other init code may hold any timestamp.
contract ProofOfIdentity {
    bytes32 private immutable peerId;
    address private immutable wallet;
    bytes32 private immutable publicKeyX;
    bytes32 private immutable publicKeyY;
    bytes32 private immutable peerSignatureR;
    bytes32 private immutable peerSignatureS;
    bytes32 private immutable walletSignatureR;
    bytes32 private immutable walletSignatureS;
    uint8 private immutable walletSignatureV;
    uint256 private immutable timestamp;
    uint256 private immutable createdBlock;

    event PoidCreated(bytes32 indexed peerId, address indexed wallet);

    /// @param peerId_ Ed25519 public key of the peer, the libp2p identity
    /// @param wallet_ Ethereum address that is paid for this peer
    /// @param publicKey public key of the wallet: x and y
    /// @param peerSignature Ed25519 signature of the peer over the wallet and the chain id: R and S
    /// @param walletSignature signature of the wallet over the peer id: r and s
    /// @param walletSignatureV_ recovery id of that signature, 27 or 28
    constructor(
        bytes32 peerId_,
        address wallet_,
        bytes32[2] memory publicKey,
        bytes32[2] memory peerSignature,
        bytes32[2] memory walletSignature,
        uint8 walletSignatureV_
    ) {
        peerId = peerId_;
        wallet = wallet_;
        publicKeyX = publicKey[0];
        publicKeyY = publicKey[1];
        peerSignatureR = peerSignature[0];
        peerSignatureS = peerSignature[1];
        walletSignatureR = walletSignature[0];
        walletSignatureS = walletSignature[1];
        walletSignatureV = walletSignatureV_;
        timestamp = block.timestamp;
        createdBlock = block.number;
        emit PoidCreated(peerId_, wallet_);
    }

    /// @return the peer id, the wallet and the wallet's public key, as the paper asks
    function getPoid() external view returns (bytes32, address, bytes32[2] memory) {
        return (peerId, wallet, [publicKeyX, publicKeyY]);
    }

    /// @return when the contract was deployed, Unix seconds of block time
    function getTimestamp() external view returns (uint256) {
        return timestamp;
    }

    /// @return the block of the deployment, where `PoidCreated` is found
    function getBlock() external view returns (uint256) {
        return createdBlock;
    }

    /// @return the peer's signature, the wallet's signature and its recovery id
    function getSignatures() external view returns (bytes32[2] memory, bytes32[2] memory, uint8) {
        return ([peerSignatureR, peerSignatureS], [walletSignatureR, walletSignatureS], walletSignatureV);
    }
}
