"""Nodes whose models travel compressed (docs/compression.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio

from learnae.learning.inline import InlineLearner
from learnae.protocol.messages import ModelAnnounced, parse_message
from tests.learning.tasks import WIDE, make_config
from tests.node.bed import Bed, run_fast, select_vertices


def make_bed(folder: Path) -> tuple[Bed, list[InlineLearner]]:
    config = replace(make_config(folder, text=WIDE), codec="delta4")
    learners = [InlineLearner(config) for _ in range(2)]
    for learner in learners:
        learner.open()
    bed = Bed(folder, learner=learners[0], training_s=8)
    bed.rules = replace(bed.rules, model_codec="delta4")
    return bed, learners


def test_session__compressed_models_are_announced_fetched_and_adopted(tmp_path: Path) -> None:
    """The CID and the size that are announced are those of the file as it travels."""

    async def main() -> None:
        bed, learners = make_bed(tmp_path)
        await bed.open()
        async with trio.open_nursery() as nursery:
            for name, learner in zip(("ada", "ben"), learners, strict=True):
                await bed.start(name, nursery, learner=learner)
        await bed.check_settled()
        ada, ben = bed.machines["ada"], bed.machines["ben"]
        said = [parse_message(v.kind, v.body) for v in select_vertices(ben.journal.vertices(), issuer=ada.peer_id)]
        announced = [message for message in said if isinstance(message, ModelAnnounced)]
        assert announced and all(message.size_bytes < bed.rules.model_bytes * 0.6 for message in announced)
        content = ada.blocks.get_file(announced[-1].model, bytes_max=bed.rules.model_bytes)
        assert content is not None and len(content) == announced[-1].size_bytes
        assert b"ancestor" in content[:2000]
        assert ada.events("adopted") or ben.events("adopted")
        assert not [text for text in ada.troubles() + ben.troubles() if "cannot be used" in text]

    run_fast(main)


def test_node__initial_model_that_was_damaged_is_fetched_again_before_compressed_models_are_read(tmp_path: Path) -> None:
    """A restarted node needs it once more; the local model is not forgotten meanwhile."""

    async def main() -> None:
        bed, learners = make_bed(tmp_path)
        await bed.open()
        ada = bed.machine("ada")
        async with trio.open_nursery() as nursery:
            await bed.start("ben", nursery, learner=learners[1])
            _, scope = await bed.start("ada", nursery, learner=learners[0])
            await bed.wait_for(lambda: bool(ada.events("trained")))
            scope.cancel()
            del ada.blocks._blocks[bed.rules.initial_model]
            trained, opened = len(ada.events("trained")), len(ada.events("opened"))
            fresh = InlineLearner(replace(make_config(tmp_path, text=WIDE), codec="delta4"))
            node, _ = await bed.start("ada", nursery, learner=fresh)
            await bed.wait_for(lambda: len(ada.events("trained")) > trained)
            assert "the session's initial model was damaged on disk; it came back from another peer" in ada.troubles()
            assert len(ada.events("opened")) == opened and node._peer.cycle.local is not None
            nursery.cancel_scope.cancel()

    run_fast(main)
