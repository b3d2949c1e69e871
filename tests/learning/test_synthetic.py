"""The learner without learning: lawful, the same everywhere, and credible (swarm above alone, averages that hurt)."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.errors import ModelRejectedError, SliceRejectedError
from learnae.learning.immediate import ImmediateLearner
from learnae.learning.synthetic import (
    COUNTED_MAX,
    SKILL_MAX,
    SKILLS,
    SyntheticLearner,
    average_skills,
    decode_skills,
    encode_skills,
    train_skills,
)
from tests.conformance.learner import check_learner

SKILL_SETS = st.lists(st.integers(0, SKILL_MAX), min_size=SKILLS, max_size=SKILLS).map(tuple)


def test_synthetic__passes_the_suite_of_its_port() -> None:
    check_learner(lambda: ImmediateLearner(SyntheticLearner(3, shared_slices=2)))


@given(SKILL_SETS, SKILL_SETS, st.integers(0, 1000), st.integers(0, 2**64))
def test_synthetic__skills_stay_in_range(ours: tuple[int, ...], theirs: tuple[int, ...], share: int, seed: int) -> None:
    average = average_skills(ours, theirs, share / 1000)

    assert all(0 <= skill <= max(pair) for skill, pair in zip(average, zip(ours, theirs, strict=True), strict=True))
    assert average_skills(ours, ours, share / 1000) == ours
    assert decode_skills(encode_skills(train_skills(ours, theirs, seed))) == train_skills(ours, theirs, seed)


def test_synthetic__gives_the_same_bytes_on_every_machine() -> None:
    """The simulator's traces are compared between machines."""
    learner, models = SyntheticLearner(7), []
    model = learner.initial_model(1)
    for seed in range(50):
        model, _ = learner.train(model, private_slices=range(8), slices=(), seed=seed)
        model, _, _ = learner.average(model, learner.initial_model(seed), remote_share=0.25)
        models.append(model)

    assert hashlib.sha256(b"".join(models)).hexdigest()[:16] == "67d54fe2cfe7b73b"


def run_swarm(policy: str) -> tuple[float, int, int]:
    """Six peers, 60 cycles each: mean accuracy at the end, and how many averages helped and hurt."""
    rng = Random(1)
    peers = [SyntheticLearner(index, examples=100 + 40 * index) for index in range(6)]
    models = [peers[0].initial_model(1)] * 6
    helped = hurt = 0
    for seed in range(360):
        me, other = rng.randrange(6), rng.randrange(6)
        if policy == "alone" or rng.random() < 0.5:
            models[me], _ = peers[me].train(models[me], private_slices=range(8), slices=(), seed=seed)
            continue
        average, evaluation, _ = peers[me].average(models[me], models[other], remote_share=0.5)
        helped += evaluation.gained > evaluation.lost
        hurt += evaluation.gained < evaluation.lost
        if evaluation.gained >= evaluation.lost:
            models[me] = average
    return sum(peer.evaluate(model, reference=None).accuracy for peer, model in zip(peers, models, strict=True)) / 6, helped, hurt


def test_synthetic__swarm_beats_peers_alone_and_averages_may_help_or_hurt() -> None:
    """Paper 4.1 and 7: averaging is a try; some succeed, some do not."""
    alone, swarm = run_swarm("alone"), run_swarm("swarm")

    assert swarm[0] > alone[0] + 0.05
    assert swarm[1] >= 20 and swarm[2] >= 20


def test_synthetic__what_is_no_model_or_slice_is_refused() -> None:
    learner = SyntheticLearner(1, shared_slices=1)
    model, content = learner.initial_model(1), learner.read_shared_slice(0)
    for hostile in (b"", model[:-1], b"X" + model[1:]):
        with pytest.raises(ModelRejectedError, match="no synthetic model of 20"):
            learner.evaluate(hostile, reference=None)
    for hostile in (b"", content[:-1], b"X" + content[1:], content[:4] + b"\x08" + content[5:]):
        with pytest.raises(SliceRejectedError, match="no synthetic slice of 12"):
            learner.train(model, private_slices=(), slices=(hostile,), seed=1)


def test_synthetic__remembers_a_bounded_number_of_models() -> None:
    learner = SyntheticLearner(1)
    for seed in range(3 * COUNTED_MAX):
        learner.evaluate(learner.initial_model(seed), reference=None)

    assert len(learner._counted) <= COUNTED_MAX
