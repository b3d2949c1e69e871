"""Training, averaging, measuring and slicing in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnae.errors import SliceRejectedError
from learnae.learning.codec import decode_tensors, encode_tensors
from learnae.learning.header import read_header
from learnae.learning.immediate import ImmediateLearner
from learnae.learning.inline import MEASURED_MAX, SCORE_TOTAL, InlineLearner, compute_evaluation
from tests.conformance.learner import check_learner
from tests.learning.tasks import SLICE_BYTES, make_config, open_learner

SCORED = "\ndef loss(o, y): return torch.nn.functional.cross_entropy(o, y)\ndef score(o, y): return o.softmax(1)[torch.arange(len(y)), y]\n"


def test_inline__passes_the_suite_of_its_port(tmp_path: Path) -> None:
    check_learner(lambda: ImmediateLearner(InlineLearner(make_config(tmp_path))))


def test_inline__with_scores_passes_the_suite_of_its_port(tmp_path: Path) -> None:
    config = make_config(tmp_path, extra=SCORED)
    check_learner(lambda: ImmediateLearner(InlineLearner(config)))


def test_train__improves_and_says_what_was_gained(tmp_path: Path) -> None:
    learner = open_learner(tmp_path, extra="\nEPOCHS = 20\n")
    model = learner.initial_model(1)

    trained, after = learner.train(model, private_slices=range(learner.private_slices), slices=(), seed=1)

    before = learner.evaluate(model, reference=None)
    assert after.total == 18 and after.correct > before.correct
    assert after.gained - after.lost == after.correct - before.correct > 0
    assert learner.test(trained).accuracy > learner.test(model).accuracy
    assert learner.test(trained).total == 120


def test_train__other_seed_or_slices_give_another_model(tmp_path: Path) -> None:
    learner = open_learner(tmp_path)
    model = learner.initial_model(1)

    def train(private: tuple[int, ...], seed: int) -> bytes:
        return learner.train(model, private_slices=private, slices=(), seed=seed)[0]

    assert train((0, 1), 1) == train((0, 1), 1)
    assert len({train((0, 1), 1), train((0, 1), 2), train((0,), 1), train((1,), 1)}) == 4
    assert learner.initial_model(1) != learner.initial_model(2)


def test_train__leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    learner = open_learner(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = learner.initial_model(1)
    learner.train(model, private_slices=(0,), slices=(), seed=1)

    assert torch.equal(torch.rand(1), expected)


def test_train__reports_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    learner = InlineLearner(make_config(tmp_path), on_progress=lambda done, total: seen.append((done, total)))
    learner.open()
    learner.train(learner.initial_model(1), private_slices=(0,), slices=(), seed=1)

    assert seen == [(1, 2), (2, 2)]


def test_average__normalisation_counters_keep_the_larger(tmp_path: Path) -> None:
    learner = open_learner(tmp_path)
    model = learner.initial_model(1)
    once, _ = learner.train(model, private_slices=(0,), slices=(), seed=1)
    twice, _ = learner.train(once, private_slices=(0,), slices=(), seed=1)

    average, _, _ = learner.average(once, twice, remote_share=0.5)

    seen = [decode_tensors(content, read_header(content))["1.num_batches_tracked"].item() for content in (once, average, twice)]
    assert seen[0] < seen[1] == seen[2]


def test_slices__cover_the_data_once_and_only_shared_ones_are_given_out(tmp_path: Path) -> None:
    """Section 4.1: dataslices of a predetermined size. threats.md, privacy: raw data leaves only where it was opted in."""
    config = make_config(tmp_path, share_permille=1000)
    learner, again = InlineLearner(config), InlineLearner(config)
    facts = learner.open()
    slices = [learner.read_shared_slice(index) for index in range(facts.shared_slices)]
    again.open()

    assert [again.read_shared_slice(index) for index in range(facts.shared_slices)] == slices, "equal bytes on every run"
    assert all(len(content) <= SLICE_BYTES for content in slices) and facts.private_slices == 0
    rows = [row.tobytes() for content in slices for row in decode_tensors(content, read_header(content))["x"].numpy()]
    assert len(rows) == len(set(rows)) == facts.train_examples == 102

    closed = open_learner(tmp_path, share_permille=0)
    with pytest.raises(IndexError, match="slice 0 is not one of the 0 that are shared"):
        closed.read_shared_slice(0)


def test_slices__private_and_shared_ones_are_different_data(tmp_path: Path) -> None:
    """Training on all private slices and on all shared ones together is training on everything, once."""
    everything = open_learner(tmp_path, share_permille=0)
    parted = open_learner(tmp_path, share_permille=500)
    model = everything.initial_model(1)
    shared = [parted.read_shared_slice(index) for index in range(2)]

    rows = parted._gather(range(parted.private_slices), shared)[0]

    assert parted.private_slices == 2
    assert sorted(rows.tolist()) == sorted(everything._gather(range(4), ())[0].tolist())
    with pytest.raises(IndexError, match="no private slice 2"):
        parted.train(model, private_slices=(2,), slices=(), seed=1)
    with pytest.raises(IndexError, match="no slice to train on"):
        parted.train(model, private_slices=(), slices=(), seed=1)


BAD_SLICES = [
    ({"x": torch.ones(3, 4)}, "expected x and y"),
    ({"x": torch.ones(3, 4), "y": torch.zeros(3).long(), "z": torch.ones(1)}, "expected x and y"),
    ({"x": torch.ones(3, 5), "y": torch.zeros(3).long()}, r"examples of x are F32 \[5\], expected F32 \[4\]"),
    ({"x": torch.ones(3, 4).double(), "y": torch.zeros(3).long()}, r"x are F64 \[4\], expected F32 \[4\]"),
    ({"x": torch.ones(3, 4), "y": torch.zeros(3).int()}, r"y are I32 \[\], expected I64 \[\]"),
    ({"x": torch.ones(3, 4), "y": torch.zeros(2).long()}, "one row per example"),
    ({"x": torch.ones(0, 4), "y": torch.zeros(0).long()}, "and at least one"),
    ({"x": torch.tensor(1.0), "y": torch.tensor(1)}, "one row per example"),
    ({"x": torch.ones(3, 4), "y": torch.tensor([0, 1, 3])}, "classes outside 0 to 2"),
    ({"x": torch.ones(3, 4), "y": torch.tensor([0, -1, 2])}, "classes outside 0 to 2"),
    ({"x": torch.full((3, 4), float("inf")), "y": torch.zeros(3).long()}, "not finite numbers"),
    ({"x": torch.ones(60, 4), "y": torch.zeros(60).long()}, "at most 900 are allowed"),
]


@pytest.mark.parametrize(("tensors", "words"), BAD_SLICES, ids=range(len(BAD_SLICES)))
def test_slices__of_strangers_are_checked_before_anything_is_trained(tmp_path: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    learner = open_learner(tmp_path)
    model = learner.initial_model(1)

    with pytest.raises(SliceRejectedError, match=words):
        learner.train(model, private_slices=(0,), slices=(encode_tensors(tensors),), seed=1)
    learner.train(model, private_slices=(), slices=(encode_tensors({"x": torch.ones(3, 4), "y": torch.tensor([0, 1, 2])}),), seed=1)


def test_measured__is_remembered_for_a_bounded_number_of_models(tmp_path: Path) -> None:
    learner = open_learner(tmp_path)
    for seed in range(MEASURED_MAX + 5):
        learner.evaluate(learner.initial_model(seed), reference=None)

    assert len(learner._measured) == MEASURED_MAX


@given(st.lists(st.tuples(st.integers(0, SCORE_TOTAL), st.integers(0, SCORE_TOTAL)), min_size=1, max_size=30), st.booleans())
def test_evaluation__gained_minus_lost_is_the_difference(pairs: list[tuple[int, int]], scored: bool) -> None:
    """What is called an improvement is the same by counts and by comparison, also for scores that are rounded."""
    if not scored:
        pairs = [(ours % 2, theirs % 2) for ours, theirs in pairs]
    ours, theirs = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))

    before = compute_evaluation(theirs, None, scored=scored)
    after = compute_evaluation(ours, theirs, scored=scored)

    assert after.gained - after.lost == after.correct - before.correct
    assert after.gained >= 0 and after.lost >= 0 and 0 <= after.correct <= after.total
    assert after.total == (SCORE_TOTAL if scored else len(pairs))
    assert compute_evaluation(ours, ours, scored=scored) == compute_evaluation(ours, None, scored=scored)
