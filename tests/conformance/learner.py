"""What every `Learner` promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from learnae.errors import ModelRejectedError, SliceRejectedError
from learnae.ports import Learner
from learnae.protocol.measures import Recount


def check_learner(make_learner: Callable[[], Learner]) -> None:
    """`make_learner()` gives a new learner over the same data each time, with one shared slice or more, and private ones."""
    trio.run(_check_models, make_learner)
    trio.run(_check_training, make_learner)
    trio.run(_check_strangers, make_learner)
    trio.run(_check_audits, make_learner)


async def _check_models(make_learner: Callable[[], Learner]) -> None:
    learner = make_learner()
    try:
        facts = await learner.open()
        assert facts.private_slices > 0 and facts.shared_slices > 0
        assert await learner.open() == facts, "opening twice is opening once"
        model = await learner.initial_model(1)
        assert len(model) == facts.model_bytes
        assert await learner.initial_model(1) == model, "the same seed gives the same model"
        alone = await learner.evaluate(model, reference=None)
        assert alone.total > 0 and alone.gained == alone.lost == 0
        assert await learner.evaluate(model, reference=model) == alone, "a model differs nowhere from itself"
        average, evaluation, remote = await learner.average(model, model, remote_share=0.5)
        assert (average, evaluation, remote) == (model, alone, alone), "the mean of a model and itself is itself"
    finally:
        await learner.close()


async def _check_training(make_learner: Callable[[], Learner]) -> None:
    learner, other = make_learner(), make_learner()
    try:
        facts = await learner.open()
        model = await learner.initial_model(1)
        own = range(facts.private_slices)
        trained, after = await learner.train(model, private_slices=own, slices=(), seed=5)
        assert trained != model
        assert await learner.evaluate(trained, reference=model) == after
        before = await learner.evaluate(model, reference=None)
        assert after.gained - after.lost == after.correct - before.correct
        assert (await other.train(model, private_slices=own, slices=(), seed=5))[0] == trained, "same model, slices, seed: same bytes"
        foreign, _ = await learner.train(model, private_slices=(), slices=(await other.read_shared_slice(0),), seed=6)
        average, evaluation, remote = await learner.average(trained, foreign, remote_share=0.25)
        assert len(average) == facts.model_bytes
        assert evaluation == await learner.evaluate(average, reference=trained)
        assert remote == await learner.evaluate(foreign, reference=trained)
        _, nothing, _ = await learner.average(trained, foreign, remote_share=0.0)
        assert nothing.gained == nothing.lost == 0
        _, everything, remote = await learner.average(trained, foreign, remote_share=1.0)
        assert everything == remote
    finally:
        await learner.close()
        await other.close()


async def _check_strangers(make_learner: Callable[[], Learner]) -> None:
    learner = make_learner()
    try:
        facts = await learner.open()
        model = bytes(await learner.initial_model(1))
        shared = bytes(await learner.read_shared_slice(facts.shared_slices - 1))
        with pytest.raises(IndexError):
            await learner.read_shared_slice(facts.shared_slices)
        for hostile in (b"", model[:-1], model + b"\0", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os"):
            with pytest.raises(ModelRejectedError):
                await learner.average(model, hostile, remote_share=0.5)
            with pytest.raises(ModelRejectedError):
                await learner.evaluate(hostile, reference=None)
        for hostile in (b"", shared[:-1], shared + b"\0", model):
            with pytest.raises(SliceRejectedError):
                await learner.train(model, private_slices=(0,), slices=(hostile,), seed=1)
        assert (await learner.evaluate(model, reference=None)).total > 0, "it goes on after a rejection"
    finally:
        await learner.close()


async def _check_audits(make_learner: Callable[[], Learner]) -> None:
    """What one learner reports, another repeats from the models and the opened validation file."""
    learner, auditor = make_learner(), make_learner()
    salt = bytes(range(16))
    try:
        facts = await learner.open()
        before = await learner.initial_model(1)
        remote, _ = await learner.train(before, private_slices=range(facts.private_slices), slices=(), seed=5)
        validation, total = await learner.read_validation(salt)
        assert (await learner.read_validation(salt))[0] == validation != (await learner.read_validation(bytes(16)))[0]
        for share in (0.25, 0.5, 1.0):
            after, evaluation, _ = await learner.average(before, remote, remote_share=share)
            was = await learner.evaluate(before, reference=None)
            recount = await auditor.recount(before, after, remote, validation)
            assert recount == Recount(correct_before=was.correct, correct_after=evaluation.correct, total=total, derives=True)
        for impostor in (before, await learner.initial_model(2)):
            assert not (await auditor.recount(before, impostor, remote, validation)).derives, "not made from the helper's model"
        for hostile in (b"", validation[:-1], bytes(validation) + b"\0", before):
            with pytest.raises(SliceRejectedError):
                await auditor.recount(before, after, remote, hostile)
        with pytest.raises(ModelRejectedError):
            await auditor.recount(before, b"", remote, validation)
    finally:
        await learner.close()
        await auditor.close()
