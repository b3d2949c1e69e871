// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Direct tips (LEARNAE, section 4.3, Eq. 1)
/// @notice Pays helpers and names the receipts that earned it: at once, or out of a budget that the payer filled before and
///         cannot pass. Tips out of a budget are collected per helper, who takes all of them out together.
contract Tips {
    /// One payment for one receipt.
    struct Tip {
        address helper; // wallet of the peer that helped
        uint256 amountWei;
        bytes32 receipt; // SHA-256 digest in the CID of the help receipt
    }

    mapping(address payer => uint256) public budget;
    mapping(address helper => uint256) public credit;

    event Tipped(address indexed from, address indexed helper, uint256 amountWei, bytes32 receipt);
    event BudgetChanged(address indexed payer, uint256 budgetWei);
    event Withdrawn(address indexed helper, address to, uint256 amountWei);

    error NoTip();
    error TipRefused(address helper);
    error OverBudget(uint256 amountWei, uint256 budgetWei);
    error NothingDue(address helper);
    error PaymentRefused(address to);

    /// @notice Pay one tip at once.
    function pay(address helper, bytes32 receipt) external payable {
        if (msg.value == 0) revert NoTip();
        emit Tipped(msg.sender, helper, msg.value, receipt);
        if (!_send(helper, msg.value)) revert TipRefused(helper);
    }

    /// @notice Raise the caller's budget by the value sent.
    function fill() external payable {
        budget[msg.sender] += msg.value;
        emit BudgetChanged(msg.sender, budget[msg.sender]);
    }

    /// @notice Take back what is left of the caller's budget, or a part of it.
    function reclaim(uint256 amountWei) external {
        _spend(amountWei);
        emit BudgetChanged(msg.sender, budget[msg.sender]);
        if (!_send(msg.sender, amountWei)) revert PaymentRefused(msg.sender);
    }

    /// @notice Credit many tips to their helpers out of the caller's budget: all of them, or none.
    function tip(Tip[] calldata tips) external {
        for (uint256 i; i < tips.length; ++i) {
            Tip calldata one = tips[i];
            if (one.amountWei == 0) revert NoTip();
            _spend(one.amountWei);
            credit[one.helper] += one.amountWei;
            emit Tipped(msg.sender, one.helper, one.amountWei, one.receipt);
        }
    }

    /// @notice Send a helper all tips that were collected for it; anybody may call it.
    function withdraw(address helper) external {
        _withdraw(helper, helper);
    }

    /// @notice Send the caller's collected tips to another address, for a wallet that cannot receive.
    function withdrawTo(address to) external {
        _withdraw(msg.sender, to);
    }

    function _spend(uint256 amountWei) private {
        uint256 budgetWei = budget[msg.sender];
        if (amountWei > budgetWei) revert OverBudget(amountWei, budgetWei);
        budget[msg.sender] = budgetWei - amountWei;
    }

    function _withdraw(address helper, address to) private {
        uint256 amountWei = credit[helper];
        if (amountWei == 0) revert NothingDue(helper);
        credit[helper] = 0;
        emit Withdrawn(helper, to, amountWei);
        if (!_send(to, amountWei)) revert PaymentRefused(to);
    }

    function _send(address to, uint256 amountWei) private returns (bool sent) {
        assembly {
            sent := call(gas(), to, amountWei, 0, 0, 0, 0) // no answer is copied: it could be huge
        }
    }
}
