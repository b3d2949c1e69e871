// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Counters that are added to and compared 256 at a time
/// @notice Bit-sliced: plane k of word w holds bit k of counters 256 * w to 256 * w + 255, so adding is a ripple carry over
///         planes and comparing is one pass over them. A counter is as wide as its largest value: none ever overflows.
library BitCounters {
    struct Counters {
        mapping(uint256 word => mapping(uint256 plane => uint256)) planes;
    }

    /// @notice Add `amount` to each counter of a word whose bit in `mask` is set.
    function add(Counters storage self, uint256 word, uint256 mask, uint256 amount) internal {
        uint256 carry;
        for (uint256 plane; amount >> plane != 0 || carry != 0; ++plane) {
            uint256 bits = self.planes[word][plane];
            uint256 addend = (amount >> plane) & 1 == 1 ? mask : 0;
            if (addend | carry == 0) continue;
            self.planes[word][plane] = bits ^ addend ^ carry;
            carry = (bits & addend) | (bits & carry) | (addend & carry);
        }
    }

    /// @notice Which counters of a word are at least `threshold`; `most` is a number that no counter exceeds.
    /// @dev Compared from the lowest plane to the highest: at each plane the higher bit decides, equal bits keep what was found.
    function findAtLeast(Counters storage self, uint256 word, uint256 threshold, uint256 most) internal view returns (uint256 found) {
        found = type(uint256).max;
        for (uint256 plane; (threshold | most) >> plane != 0; ++plane) {
            uint256 bits = self.planes[word][plane];
            found = (threshold >> plane) & 1 == 1 ? bits & found : bits | found;
        }
    }

    /// @notice One counter.
    function read(Counters storage self, uint256 index, uint256 most) internal view returns (uint256 count) {
        for (uint256 plane; most >> plane != 0; ++plane) {
            count |= ((self.planes[index >> 8][plane] >> (index & 255)) & 1) << plane;
        }
    }
}
