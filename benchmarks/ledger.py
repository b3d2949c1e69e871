"""The Shared Contribution Ledger: receipts folded and rows merged into it a second, against writing the same numbers into a plain dict."""

from __future__ import annotations

import statistics
import time

from benchmarks import Result
from learnae.ids import Cid, Credits, PeerId, compute_cid
from learnae.protocol.contribution import ReceiptFold
from learnae.protocol.messages import HelpReported
from learnae.protocol.rewards import compute_budgeted_points

PEERS, RECEIPTS_EACH = 100, 50
ROUNDS = 5


def run() -> list[Result]:
    peers = [PeerId(bytes([number]) * 32) for number in range(PEERS)]
    receipts = [
        (peer, number + 1, make_receipt(peers[(index + number + 1) % PEERS], index * RECEIPTS_EACH + number))
        for index, peer in enumerate(peers)
        for number in range(RECEIPTS_EACH)
    ]
    folds, merges, plains, points = [], [], [], []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        rows = {peer: ReceiptFold(peer) for peer in peers}
        for number, (reporter, sequence, receipt) in enumerate(receipts):
            rows[reporter].fold(sequence, receipt, number)
        folds.append(len(receipts) / (time.perf_counter() - began_s))

        began_s = time.perf_counter()
        plain: dict[PeerId, dict[PeerId, Credits]] = {}
        for reporter, _, receipt in receipts:
            plain.setdefault(reporter, {})[receipt.helper] = receipt.owed
        plains.append(len(receipts) / (time.perf_counter() - began_s))

        began_s = time.perf_counter()
        ledger = {peer: row.at(RECEIPTS_EACH).credits for peer, row in rows.items()}
        merges.append(PEERS / (time.perf_counter() - began_s))
        assert ledger == plain

        began_s = time.perf_counter()
        compute_budgeted_points(ledger, peers)
        points.append((time.perf_counter() - began_s) * 1000)
    plain_rate = statistics.median(plains)
    return [
        Result(case="receipts folded", value=statistics.median(folds), unit="1/s", reference="plain dict", reference_value=plain_rate),
        Result(case="rows merged", value=statistics.median(merges), unit="1/s"),
        Result(case=f"budgeted points of {PEERS} members", value=statistics.median(points), unit="ms"),
    ]


def make_receipt(helper: PeerId, number: int) -> HelpReported:
    cid = Cid(compute_cid(number.to_bytes(4, "big")))
    return HelpReported(
        helper=helper,
        announcement=cid,
        before=cid,
        after=cid,
        correct_before=1,
        correct_after=2,
        total=100,
        credits=Credits(10),
        owed=Credits(10),
    )
