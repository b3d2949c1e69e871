// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IERC721Metadata} from "@openzeppelin/contracts/token/ERC721/extensions/IERC721Metadata.sol";
import {Base64} from "@openzeppelin/contracts/utils/Base64.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// ERC-5192: minimal soulbound tokens.
interface IERC5192 {
    event Locked(uint256 tokenId);
    event Unlocked(uint256 tokenId);

    function locked(uint256 tokenId) external view returns (bool);
}

/// @title The membership token (LEARNAE, section 6): one per member, which grants one vote
/// @notice ERC-721 for wallets and explorers, locked for ever by ERC-5192. The id of a token is its owner's address, so
///         nothing is stored for it.
abstract contract MemberToken is IERC721Metadata, IERC5192 {
    error NoSuchToken(uint256 tokenId);
    error TokenIsLocked();

    /// @return whether this wallet is a member
    function isMember(address wallet) public view virtual returns (bool);

    function name() external pure returns (string memory) {
        return "LEARNAE session member";
    }

    function symbol() external pure returns (string memory) {
        return "LEARNAE";
    }

    /// @return a data URI: the same JSON for every member, with no server behind it
    function tokenURI(uint256 tokenId) external view returns (string memory) {
        ownerOf(tokenId);
        bytes memory json =
            '{"name":"LEARNAE session member","description":"Grants one vote in one training session. It cannot be transferred."}';
        return string.concat("data:application/json;base64,", Base64.encode(json));
    }

    function balanceOf(address wallet) external view returns (uint256) {
        if (wallet == address(0)) revert NoSuchToken(0); // as ERC-721 asks
        return isMember(wallet) ? 1 : 0;
    }

    function ownerOf(uint256 tokenId) public view returns (address) {
        address wallet = address(uint160(tokenId));
        if (tokenId >> 160 != 0 || !isMember(wallet)) revert NoSuchToken(tokenId);
        return wallet;
    }

    function locked(uint256 tokenId) external view returns (bool) {
        ownerOf(tokenId);
        return true;
    }

    function supportsInterface(bytes4 id) external pure returns (bool) {
        return id == type(IERC165).interfaceId || id == type(IERC721).interfaceId || id == type(IERC721Metadata).interfaceId
            || id == type(IERC5192).interfaceId;
    }

    // --- nothing moves a token ------------------------------------------------------------------------------------

    function getApproved(uint256 tokenId) external view returns (address) {
        ownerOf(tokenId);
        return address(0);
    }

    function isApprovedForAll(address, address) external pure returns (bool) {
        return false;
    }

    function approve(address, uint256) external pure {
        revert TokenIsLocked();
    }

    function setApprovalForAll(address, bool) external pure {
        revert TokenIsLocked();
    }

    function transferFrom(address, address, uint256) external pure {
        revert TokenIsLocked();
    }

    function safeTransferFrom(address, address, uint256) external pure {
        revert TokenIsLocked();
    }

    function safeTransferFrom(address, address, uint256, bytes calldata) external pure {
        revert TokenIsLocked();
    }

    function _mint(address wallet) internal {
        emit Transfer(address(0), wallet, uint160(wallet));
        emit Locked(uint160(wallet));
    }

    function _burn(address wallet) internal {
        emit Transfer(wallet, address(0), uint160(wallet));
    }
}
