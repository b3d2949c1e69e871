"""Which blocks of a file are still wanted, who was asked for what, and what has arrived.

Only what is in the plan may be kept: each block's greatest size is known before it is asked for, the size of the file is
known from its root, and what an earlier try left in the store is not asked for again: the store holds it until the fetch ends.

Pure but for the store that it looks into: no network, the clock is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from learnae.backends.idle_clock import Spent
from learnae.backends.unixfs import LEAF_BYTES, NODE_BYTES_MAX, NodeError, parse_node
from learnae.ids import CODEC_DAG_PB, CODEC_RAW, Cid, PeerId

HEDGE_S: Final = 0.25  # Before an idle provider is asked for what another already owes.
WAIT_S: Final = 0.01  # That a fetch waits with nothing to do before more are asked: a provider that is ready answers sooner.
FORGIVEN_S: Final = 0.03  # To providers that have kept it busy: a process on a machine with others stops for as long now and then.
WAIT_SHARE: Final = 0.25  # Of its time that it may wait all along: what another provider costs is not worth less.
BUSY_BYTES: Final = 4 << 20  # In `HEDGE_S`: who is busy and gets less is busy with something else, and asks more as well.


@dataclass(slots=True)
class _Wanted:
    file_bytes: int | None  # below this block; None: the root, whose size is not known yet
    depth: int | None  # 0: a leaf
    size_max: int
    asked: dict[PeerId, float] = field(default_factory=dict)  # when


class Need:
    """How many providers a fetch asks at a time: as few as keep it busy, for each costs it time that it has not.

    One at first. As many again whenever it waited for `WAIT_S` with nothing to do (and `FORGIVEN_S`, if it was busy before), beyond a share
    of its time and beyond the time that others held the processor: where that is short, more providers bring nothing. And also if little
    comes for any other reason. So a line, or a provider that is slow, silent or gone, holds it up for milliseconds.
    """

    def __init__(self) -> None:
        self._last = Spent(0.0, 0.0, 0.0)
        self._waited_s = 0.0
        self._since_s, self._had_bytes = 0.0, 0

    def compute_pause_s(self, spent: Spent, got_bytes: int) -> float:
        """When to look again, in seconds; 0: as many providers as are asked already are to be asked besides.

        Args: spent: the time of the fetch. got_bytes: what it has received in all.
        """
        passed_s, idle_s = spent.passed_s - self._last.passed_s, spent.idle_s - self._last.idle_s
        taken_s = max(0.0, passed_s - idle_s - (spent.worked_s - self._last.worked_s))
        self._last = spent
        self._waited_s = max(-FORGIVEN_S, self._waited_s + idle_s - taken_s - WAIT_SHARE * passed_s)
        needs_more = self._waited_s >= WAIT_S
        if (since_s := spent.passed_s - self._since_s) >= HEDGE_S:
            needs_more |= got_bytes - self._had_bytes < BUSY_BYTES * since_s / HEDGE_S
            self._since_s, self._had_bytes = spent.passed_s, got_bytes
        if needs_more:
            self._waited_s = 0.0
            return 0.0
        return (WAIT_S - self._waited_s) / (1.0 - WAIT_SHARE)


class FetchPlan:
    """What is still wanted of one file, and of whom. `fault` says why it can never be complete, if it cannot.

    `keep` is called for each block of the file (`BlockStore.hold`): how many bytes it has, if it is here, and that it stays.
    """

    def __init__(self, root: Cid, bytes_max: int, keep: Callable[[Cid], int | None], get_block: Callable[[Cid], bytes | None]) -> None:
        self.root, self.bytes_max = root, bytes_max
        self._keep, self._get = keep, get_block
        self._wanted: dict[Cid, _Wanted] = {}
        self._order: OrderedDict[Cid, None] = OrderedDict()  # to be asked: of nobody yet, or owed by somebody who is silent
        self.lacking: dict[PeerId, set[Cid]] = {}
        self.fault = ""
        if root[1] == CODEC_DAG_PB:
            self._want(root, None, None, NODE_BYTES_MAX)
        elif root[1] == CODEC_RAW:
            self._want(root, None, 0, LEAF_BYTES)
        else:
            self.fault = "it is not a file"

    @property
    def is_done(self) -> bool:
        return not self._wanted or bool(self.fault)

    def take(self, peer: PeerId, count: int, now_s: float, *, is_idle: bool = True) -> list[Cid]:
        """Up to `count` blocks to ask `peer` for; when all are asked for and it is idle, some that another owes and would bring last."""
        lacking = self.lacking.get(peer, set())
        taken: list[Cid] = []
        for cid in self._order:
            if len(taken) == count:
                break
            if cid not in lacking and peer not in self._wanted[cid].asked:
                taken.append(cid)
        if not taken and is_idle:
            late = [
                (len(wanted.asked), -max(wanted.asked.values()), cid)
                for cid, wanted in reversed(self._wanted.items())
                if wanted.asked and peer not in wanted.asked and cid not in lacking and now_s - max(wanted.asked.values()) > HEDGE_S
            ]
            late.sort(key=lambda entry: entry[:2])
            taken = [cid for *_, cid in late[: max(1, count // 4)]]
        for cid in taken:
            self._order.pop(cid, None)
            self._wanted[cid].asked[peer] = now_s
        return taken

    def handle_block(self, cid: Cid, block: bytes) -> bool:
        """A verified block has arrived; whether it is to be kept: not if another provider was faster, or it ends the plan."""
        wanted = self._wanted.get(cid)
        if wanted is None:
            return False
        if len(block) > wanted.size_max:
            self.fault = f"a block of it has {len(block)} bytes, at most {wanted.size_max} were expected"
        elif wanted.depth == 0:
            self._check_leaf(len(block), wanted.file_bytes)
        else:
            self._handle_node(wanted, block)
        if self.fault:
            return False
        del self._wanted[cid]
        self._order.pop(cid, None)
        return True

    def _check_leaf(self, size_bytes: int, file_bytes: int | None) -> None:
        if file_bytes is not None and size_bytes != file_bytes:
            self.fault = "a leaf has not the size that the node above it says"
        elif size_bytes > self.bytes_max:
            self.fault = f"it has {size_bytes} bytes, at most {self.bytes_max} were expected"

    def _handle_node(self, wanted: _Wanted, block: bytes) -> None:
        try:
            children = parse_node(block, file_bytes=wanted.file_bytes, depth=wanted.depth)
        except NodeError as error:
            self.fault = f"it is not a file as learnae and IPFS write it: {error}"
            return
        size_bytes = sum(child.file_bytes for child in children)
        if size_bytes > self.bytes_max:
            self.fault = f"it has {size_bytes} bytes, at most {self.bytes_max} were expected"
            return
        for child in children:
            self._want(child.cid, child.file_bytes, child.depth, child.file_bytes if child.depth == 0 else NODE_BYTES_MAX)

    def may_bring(self, peer: PeerId) -> bool:
        """Whether `peer` may have anything of what is wanted, from whomever it was asked."""
        lacking = self.lacking.get(peer, set())
        return any(cid not in lacking for cid in self._wanted)

    def handle_absent(self, peer: PeerId, cid: Cid) -> None:
        self.lacking.setdefault(peer, set()).add(cid)
        self._give_back(peer, cid)

    def handle_late(self, peer: PeerId) -> None:
        """`peer` is silent: what it owes may be asked of others at once, and is still taken from it if it comes."""
        for cid, wanted in self._wanted.items():
            if peer in wanted.asked and len(wanted.asked) == 1:
                self._order[cid] = None
                self._order.move_to_end(cid, last=False)

    def handle_lost(self, peer: PeerId) -> None:
        """`peer` will not send what it still owes."""
        for cid in list(self._wanted):
            self._give_back(peer, cid)

    def _give_back(self, peer: PeerId, cid: Cid) -> None:
        wanted = self._wanted.get(cid)
        if wanted is not None and wanted.asked.pop(peer, None) is not None and not wanted.asked:
            self._order[cid] = None
            self._order.move_to_end(cid, last=False)

    def _want(self, cid: Cid, file_bytes: int | None, depth: int | None, size_max: int) -> None:
        wanted = self._wanted.get(cid)
        if wanted is not None:
            if (wanted.file_bytes, wanted.depth) != (file_bytes, depth):
                self.fault = "it names one block with two sizes"
            return
        size_bytes = self._keep(cid)
        if size_bytes is None:
            self._wanted[cid] = _Wanted(file_bytes, depth, size_max)
            self._order[cid] = None
        elif depth == 0:
            self._check_leaf(size_bytes, file_bytes)
        else:
            block = self._get(cid)  # a node that an earlier try left here: go on below it
            self._wanted[cid] = _Wanted(file_bytes, depth, size_max)
            if block is None:
                self._order[cid] = None
            else:
                self.handle_block(cid, block)
