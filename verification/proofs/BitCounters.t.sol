// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {BitCounters} from "contracts/BitCounters.sol";
import {vm} from "./Vm.sol";

/// @notice Proofs by halmos: each function holds for all values of its parameters within the widths that its name or its
///         assumptions say. `lane` is any of the 256 counters of any word.
contract BitCountersProof {
    using BitCounters for BitCounters.Counters;

    BitCounters.Counters private counters;

    function _fill(uint256 word, uint256[] memory planes) private {
        for (uint256 k; k < planes.length; ++k) counters.planes[word][k] = planes[k];
    }

    /// Counter `lane` of a word, put together bit by bit.
    function _plain(uint256 word, uint256 lane, uint256 width) private view returns (uint256 count) {
        for (uint256 k; k < width; ++k) count |= ((counters.planes[word][k] >> lane) & 1) << k;
    }

    function _five(uint256[5] memory values) private pure returns (uint256[] memory planes) {
        planes = new uint256[](5);
        for (uint256 k; k < 5; ++k) planes[k] = values[k];
    }

    function _twelve(uint256[12] memory values) private pure returns (uint256[] memory planes) {
        planes = new uint256[](12);
        for (uint256 k; k < 12; ++k) planes[k] = values[k];
    }

    function _checkAdd(uint256 word, uint256 lane, uint256[] memory planes, uint256 mask, uint256 amount) private {
        vm.assume(lane < 256);
        _fill(word, planes);
        uint256 before = _plain(word, lane, planes.length);
        counters.add(word, mask, amount);
        uint256 expected = (mask >> lane) & 1 == 1 ? before + amount : before;
        assert(_plain(word, lane, planes.length + 1) == expected);
    }

    /// A group: up to 7 equal ballots onto counters of 5 bits.
    function check_add__any_group(uint256 word, uint256 lane, uint256[5] memory values, uint256 mask, uint256 amount) public {
        vm.assume(amount < 8);
        _checkAdd(word, lane, _five(values), mask, amount);
    }

    /// A direct ballot, at the full width of 12 bits.
    function check_add__one(uint256 word, uint256 lane, uint256[12] memory values, uint256 mask) public {
        _checkAdd(word, lane, _twelve(values), mask, 1);
    }

    /// Groups whose popcount has its bits far apart, side by side or all set, at the full width.
    function check_add__wide_group(uint256 word, uint256 lane, uint256[12] memory values, uint256 mask) public {
        _checkAdd(word, lane, _twelve(values), mask, 0x801);
    }

    function check_add__largest_group(uint256 word, uint256 lane, uint256[12] memory values, uint256 mask) public {
        _checkAdd(word, lane, _twelve(values), mask, 4095);
    }

    /// Nothing is written outside the word.
    function check_add__leaves_other_words(uint256 word, uint256 other, uint256 lane, uint256[5] memory values, uint256 mask) public {
        vm.assume(word != other && lane < 256);
        _fill(other, _five(values));
        uint256 before = _plain(other, lane, 6);
        counters.add(word, mask, 5);
        assert(_plain(other, lane, 6) == before);
    }

    /// Comparison of counters and thresholds below 32.
    function check_findAtLeast__any(uint256 word, uint256 lane, uint256[5] memory values, uint256 threshold) public {
        vm.assume(threshold < 32);
        _checkAtLeast(word, lane, _five(values), threshold, 31);
    }

    /// At the full width, for thresholds whose bits are first, last, alternating and all.
    function check_findAtLeast__wide(uint256 word, uint256 lane, uint256[12] memory values, uint8 pick) public {
        uint256[4] memory thresholds = [uint256(1), 0x555, 0x800, 4095];
        vm.assume(pick < 4);
        for (uint256 i; i < 4; ++i) {
            if (i == pick) _checkAtLeast(word, lane, _twelve(values), thresholds[i], 4095);
        }
    }

    function _checkAtLeast(uint256 word, uint256 lane, uint256[] memory planes, uint256 threshold, uint256 most) private {
        vm.assume(lane < 256);
        _fill(word, planes);
        uint256 found = counters.findAtLeast(word, threshold, most);
        assert(((found >> lane) & 1 == 1) == (_plain(word, lane, planes.length) >= threshold));
    }

    /// Reading one counter, at the full width.
    function check_read__any(uint256 index, uint256[12] memory values) public {
        _fill(index >> 8, _twelve(values));
        assert(counters.read(index, 4095) == _plain(index >> 8, index & 255, 12));
    }
}
