"""Audits in running nodes: validation files in the block store, opened by the network, measured again by the learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from learnae.backends.memory_blocks import MemoryBlocks
from learnae.learning.immediate import PlainLearner
from learnae.learning.synthetic import SyntheticLearner
from learnae.protocol.committed import compute_rows
from learnae.protocol.measures import Evaluation
from tests.node.bed import Bed, restore_lane, run_fast
from tests.node.test_session import run_all

NAMES = ("ada", "ben", "cleo", "dan", "eve")


class Exaggerator(SyntheticLearner):
    """Counts ten right answers more than there are after every averaging."""

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        average, evaluation, theirs = super().average(local, remote, remote_share=remote_share)
        more = min(10, evaluation.total - evaluation.correct)
        return average, replace(evaluation, correct=evaluation.correct + more, gained=evaluation.gained + more), theirs


def test_nodes__freeze_the_row_of_a_liar_and_pay_everybody_by_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, training_s=8, audit_permille=300)
        learners: dict[str, PlainLearner | None] = {name: SyntheticLearner(index) for index, name in enumerate(NAMES)}
        await run_all(bed, {**learners, "ada": Exaggerator(0)})
        view = await bed.check_settled()
        assert view.approved == {claim.index for claim in view.claims}, "all claimed by the same ledger"
        liar = bed.machines["ada"].peer_id
        for name in NAMES:
            machine = bed.machines[name]
            lane = restore_lane(machine.journal.vertices(), bed.rules)
            lane.members = frozenset(other.peer_id for other in bed.machines.values())
            assert set(compute_rows(lane)) == lane.members - {liar}
            assert name == "ada" or machine.events("audited")
        findings = {str(tell.values["finding"]) for name in NAMES for tell in bed.machines[name].events("audited")}
        assert findings == {"upheld", "wrong counts"}
        assert any("accuses one of this peer's receipts" in text for text in bed.machines["ada"].troubles())
        check_privacy(bed)

    run_fast(main)


def check_privacy(bed: Bed) -> None:
    """Validation files are given to nobody by anybody any more once the nodes have ended, and were never public."""
    lane = restore_lane(bed.machines["ben"].journal.vertices(), bed.rules)
    assert lane.audits is not None
    for machine in bed.machines.values():
        commitment = lane.audits.find_commitment(machine.peer_id)
        assert commitment is not None
        assert machine.blocks.get_block(commitment.slice) is not None, "its owner keeps it"
        holders = [other.blocks for other in bed.machines.values() if other.blocks.has_block(commitment.slice)]
        assert len(holders) >= 2 and all(is_hidden(blocks, commitment.slice) for blocks in holders)


def is_hidden(blocks: MemoryBlocks, cid: bytes) -> bool:
    return blocks.get_public_block(cid) is None  # type: ignore[arg-type]
