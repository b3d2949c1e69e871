"""A user's task file: everything that can be wrong with it is said in one sentence, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learnae.errors import LearningError, TaskDataError, TaskError, TrainingDivergedError
from learnae.learning.check import check_task
from learnae.learning.config import compute_task_digest
from learnae.learning.inline import InlineLearner
from tests.learning.tasks import LINES, SLICE_BYTES, make_config, open_learner, write_task

DATA = "\ndef load_data(source):\n    return "
CORRECT = "\ndef correct(o, y): return o.argmax(1) == y\n"
MODEL = "\ndef build_model():\n    return "
BAD_FILES = [
    ("def build_model(: pass", "running the file failed with SyntaxError"),
    ("import nothing_of_that_name", r"ModuleNotFoundError: No module named 'nothing_of_that_name' \(task.py, line 1\)"),
    ("x = 1", r"it defines no build_model\(\); see docs/your-own-model.md"),
    ("def build_model(): pass", r"it defines no load_data\(\)"),
    (LINES + "\nloss = 3", "loss is int, expected a function"),
    (LINES + "\ndef correct(o, y): pass\ndef score(o, y): pass", r"defines both correct\(\) and score\(\)"),
    (LINES + "\ndef loss(o, y): return o.sum()", r"defines loss\(\) but neither correct\(\) nor score\(\)"),
    (LINES + "\nBATCH = 1.5", "BATCH is 1.5, expected a whole number from 1 to"),
    (LINES + "\nEPOCHS = True", "EPOCHS is True, expected a whole number"),
    (LINES + "\nLEARNING_RATE = 'fast'", "LEARNING_RATE is 'fast', expected a number from 0"),
    (LINES + "\nVALIDATION_SHARE = 1.0", "VALIDATION_SHARE is 1.0, expected a number from 0.01 to 0.9"),
    (LINES + MODEL + "1 / 0", r"build_model\(\) failed with ZeroDivisionError: division by zero \(task.py, line \d+\)"),
    (LINES + MODEL + "3", r"build_model\(\) gave int, expected a torch.nn.Module"),
    (LINES + MODEL + "torch.nn.ReLU()", "model has 0 parameters and buffers, expected 1 to 512"),
    (LINES + MODEL + "torch.nn.Linear(4, 3, dtype=torch.complex64)", "'weight' of its model is not a dense tensor"),
    (LINES + MODEL + "torch.nn.Linear(5, 3)", r"running the model on x of shape \[2, 4\] and torch.float32 failed with RuntimeError"),
    (LINES + MODEL + "torch.nn.Unflatten(1, (2, 2))", "model has 0 parameters"),
    (LINES + MODEL + "torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Unflatten(1, (2, 2)))", r"gave \[2, 2, 2\] for 2 examples"),
    (LINES + "\ndef correct(o, y): return (o.argmax(1) == y).sum()", r"correct\(\) gave \[\] for 2 examples, expected a tensor of"),
    (LINES + "\ndef correct(o, y): return o.argmax(1)", r"correct\(\) gave a tensor of torch.int64, expected torch.bool"),
    (LINES + "\ndef score(o, y): return 1.0", r"score\(\) gave float for 2 examples"),
    (LINES + "\ndef score(o, y): raise KeyError('z')", r"measuring the model failed with KeyError: 'z' \(task.py, line \d+\)"),
    (LINES + "\ndef score(o, y): return y\ndef loss(o, y): return o", r"loss\(\) gave a tensor of shape \[2, 3\], expected one number"),
    (LINES + "\ndef score(o, y): return y\ndef loss(o, y): return y.float().mean()", "computing the loss failed with RuntimeError"),
    (LINES + "\ndef build_optimizer(model): return 7", "training failed with AttributeError"),
]
BAD_DATA = [
    ("open(source)", r"loading them failed with FileNotFoundError: .*mine.* \(task.py, line \d+\)"),
    ("None", r"loading it gave NoneType, expected a tuple \(x, y\)"),
    ("[1], [2]", "x is list, expected a torch tensor or a numpy array"),
    ("torch.ones(9, 4), torch.ones(8).long()", r"x has shape \[9, 4\] and y \[8\], expected one row per example"),
    ("torch.ones(3, 4), torch.ones(3).long()", "it has 3 examples, expected 4 or more"),
    ("torch.full((9, 4), float('nan')), torch.ones(9).long()", "x holds NaN or infinity"),
    ("torch.ones(9, 4, dtype=torch.complex64), torch.ones(9).long()", "x is a tensor of torch.complex64"),
    ("torch.ones(9, 4), torch.ones(9)", r"y is torch.float32 of shape \[8\], expected class numbers"),
    ("torch.ones(9, 4), torch.ones(9).long() * 3", "y holds classes 3 to 3, but the model has 3 outputs: 0 to 2"),
    ("torch.ones(9, 400), torch.ones(9).long()", "RuntimeError"),
    ("__import__('numpy').array([['a']] * 9), torch.ones(9).long()", "x is an array of <U1, expected numbers"),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=[words[:40] for _, words in BAD_FILES])
def test_task__what_is_wrong_in_the_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    report = check_task(write_task(tmp_path, text), "mine", slice_bytes=SLICE_BYTES, device="cpu")

    assert isinstance(report.fault, TaskError)
    with pytest.raises(TaskError, match=words):
        raise report.fault
    assert str(report.fault).startswith(f"the task {tmp_path}/task.py cannot be used: ") and "\n" not in str(report.fault)


@pytest.mark.parametrize(("returned", "words"), BAD_DATA, ids=[words[:40] for _, words in BAD_DATA])
def test_task__data_that_do_not_fit_are_said(tmp_path: Path, returned: str, words: str) -> None:
    report = check_task(write_task(tmp_path, extra=DATA + returned), "mine", slice_bytes=SLICE_BYTES, device="cpu")

    assert isinstance(report.fault, LearningError)
    with pytest.raises((TaskDataError, TaskError), match=words):
        raise report.fault


def test_task__example_larger_than_a_slice_is_said(tmp_path: Path) -> None:
    report = check_task(write_task(tmp_path), "mine", slice_bytes=100, device="cpu")

    assert "one example needs a dataslice of" in str(report.fault) and "slices have 100" in str(report.fault)


def test_task__no_such_file_and_a_file_that_is_no_python_are_said(tmp_path: Path) -> None:
    (tmp_path / "task.txt").write_text("x")

    assert "no such file; give the path of a Python file, or a built-in task: digits" in str(check_task("nope.py", "").fault)
    assert "its name has to end in .py" in str(check_task(str(tmp_path / "task.txt"), "").fault)


def test_task__good_one_is_explained(tmp_path: Path) -> None:
    report = check_task(write_task(tmp_path), "mine", slice_bytes=SLICE_BYTES, device="cpu")

    assert report.is_good and report.fault is None
    text = "\n".join(report.lines)
    found = "102 examples to train on, 18 private", "x F32 [4] and y I64 []", "on cpu", "accuracy 0.", "two models average", "test data"
    for words in found:
        assert words in text
    assert compute_task_digest(write_task(tmp_path)).hex()[:16] in text


def test_task__own_randomness_is_noticed(tmp_path: Path) -> None:
    """Equal seeds have to give equal models, or receipts could not be executed again (contribution.md)."""
    loss = "\nimport random\ndef loss(o, y): return torch.nn.functional.cross_entropy(o * random.random(), y)\n"

    report = check_task(write_task(tmp_path, extra=loss + CORRECT), "mine", slice_bytes=SLICE_BYTES, device="cpu")

    assert report.is_good and any("something in the task uses randomness of its own" in line for line in report.lines)


def test_task__training_that_does_not_help_is_noticed(tmp_path: Path) -> None:
    still = "\nLEARNING_RATE = 0.0\n" + MODEL + "torch.nn.Linear(4, 3)\n"

    report = check_task(write_task(tmp_path, extra=still), "mine", slice_bytes=SLICE_BYTES, device="cpu")

    assert any("did not improve it" in line for line in report.lines)


def test_task__interrupts_are_not_blamed_on_the_user(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check_task(write_task(tmp_path, "raise KeyboardInterrupt"), "mine")


def test_train__diverging_is_said_and_gives_no_model(tmp_path: Path) -> None:
    steep = "\nLEARNING_RATE = 1e6\nEPOCHS = 60\ndef loss(o, y): return o.pow(4).mean()\n"
    learner = open_learner(tmp_path, extra=steep + CORRECT + MODEL + "torch.nn.Linear(4, 3)\n")
    model = learner.initial_model(1)

    with pytest.raises(TrainingDivergedError, match=r"'\w+' became NaN or infinite at LEARNING_RATE 1e\+06; the model from before is kept"):
        learner.train(model, private_slices=(0,), slices=(), seed=1)
    assert torch.isfinite(torch.tensor(learner.evaluate(model, reference=None).accuracy))


def test_examples__own_tasks_of_the_documentation_work() -> None:
    folder = Path(__file__).parents[2] / "examples"
    for name in ("my_task.py", "my_score.py"):
        report = check_task(str(folder / name), "1/3", device="cpu")
        assert report.is_good, report.fault
        assert not any("did not improve" in line or "randomness" in line for line in report.lines)


def test_config__device_and_test_data_that_are_not_there(tmp_path: Path) -> None:
    for device, words in (("tpu9", "no device of that name"), ("meta", "cpu or cuda only"), ("cuda:99", "CUDA devices")):
        with pytest.raises(LearningError, match=f"cannot train on device '{device}': .*{words}; choose cpu, cuda, or auto"):
            InlineLearner(make_config(tmp_path, device=device)).open()
    learner = open_learner(tmp_path, extra="\nload_test_data = None\n")
    with pytest.raises(TaskError, match=r"defines no load_test_data\(\)"):
        learner.test(learner.initial_model(1))
