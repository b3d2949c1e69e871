// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Direct tips (LEARNAE, section 4.3, Eq. 1)
/// @notice Passes a tip on to a helper at once and names the receipt that earned it. It never holds money.
contract Tips {
    event Tipped(address indexed from, address indexed helper, uint256 amountWei, bytes32 receipt);

    error NoTip();
    error TipRefused(address helper);

    /// @param helper wallet of the peer that helped
    /// @param receipt SHA-256 digest in the CID of the help receipt
    function pay(address helper, bytes32 receipt) external payable {
        if (msg.value == 0) revert NoTip();
        emit Tipped(msg.sender, helper, msg.value, receipt);
        bool paid;
        assembly {
            paid := call(gas(), helper, callvalue(), 0, 0, 0, 0) // no answer is copied: it could be huge
        }
        if (!paid) revert TipRefused(helper);
    }
}
