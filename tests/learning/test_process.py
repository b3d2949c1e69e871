"""The learner in its worker process: the port's suite, and everything that can happen to a process."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import trio

from learnae.errors import DiskFullError, LearnerDiedError, ModelMismatchError, TaskDataError, TaskError
from learnae.learning.codec import encode_tensors
from learnae.learning.config import LearnerConfig
from learnae.learning.frames import FILES_SPACE, PIECE_BYTES, FrameReader, unpack_files
from learnae.learning.process import ProcessLearner, find_import_path
from learnae.learning.worker import send_frame
from tests.conformance.learner import check_learner
from tests.learning.tasks import WIDE, make_config

SLOW = "\nEPOCHS = 10_000\n"
"""A training that takes far longer than any test waits."""


def run(learner: ProcessLearner, body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body under a limit, and close the learner whatever happens."""

    async def main() -> None:
        with trio.fail_after(50):
            try:
                await body()
            finally:
                await learner.close()

    trio.run(main)


def test_process__passes_the_suite_of_its_port(tmp_path: Path) -> None:
    check_learner(lambda: ProcessLearner(make_config(tmp_path)))


def test_process__prints_of_the_user_reach_the_node_and_break_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    talk = "\nimport os, sys\nprint('hello from the task')\nos.write(1, b'raw bytes')\nprint('and an error', file=sys.stderr)\n"
    learner = ProcessLearner(
        make_config(tmp_path, extra=talk), on_progress=lambda done, total: seen.append((done, total)), on_output=said.append
    )

    async def body() -> None:
        model = await learner.initial_model(1)
        await learner.train(model, private_slices=(0,), slices=(), seed=1)

    run(learner, body)
    assert seen == [(1, 2), (2, 2)]
    for words in ("hello from the task", "raw bytes", "and an error"):
        assert words in "".join(said)


def test_process__errors_arrive_as_they_were_raised(tmp_path: Path) -> None:
    learner = ProcessLearner(make_config(tmp_path))

    async def body() -> None:
        model = await learner.initial_model(1)
        with pytest.raises(ModelMismatchError, match=r"^cannot average parameter '1.num_\w+': local has I64 \[\], remote lacks it"):
            await learner.average(model, encode_tensors({}), remote_share=0.5)

    run(learner, body)
    for extra, kind in (("\n1 / 0", TaskError), ("\ndef load_data(source): return open(source)", TaskDataError)):
        broken = ProcessLearner(make_config(tmp_path, extra=extra))

        async def fails(broken: ProcessLearner = broken, kind: type[Exception] = kind) -> None:
            for _ in range(2):
                with pytest.raises(kind):
                    await broken.open()

        run(broken, fails)


def test_process__worker_that_was_killed_is_told_and_replaced(tmp_path: Path) -> None:
    cry = "\nimport os, signal, sys\ndef load_test_data(source): pass\ndef correct(o, y):\n    print('goodbye', file=sys.stderr)\n"
    die = cry + "    if len(y) > 10: os.kill(os.getpid(), signal.SIGKILL)\n    return o.argmax(1) == y\n"
    learner = ProcessLearner(make_config(tmp_path, extra=die))

    async def body() -> None:
        facts = await learner.open()
        model = await learner.initial_model(1)
        with pytest.raises(LearnerDiedError, match=r"ended by signal 9; a new one starts with the next request; its last words: .*goodbye"):
            await learner.evaluate(model, reference=None)
        assert await learner.initial_model(1) == model
        assert await learner.open() == facts

    run(learner, body)


def test_process__worker_that_dies_between_requests_is_replaced_quietly(tmp_path: Path) -> None:
    learner = ProcessLearner(make_config(tmp_path))

    async def body() -> None:
        model = await learner.initial_model(1)
        assert learner._process is not None
        first = learner._process.pid
        os.kill(first, signal.SIGKILL)
        await learner._process.wait()
        assert await learner.initial_model(1) == model
        assert learner._process.pid != first

    run(learner, body)


def test_process__new_worker_is_given_the_initial_model_again(tmp_path: Path) -> None:
    """Compressed models are differences from it, and a worker remembers nothing."""
    learner = ProcessLearner(replace(make_config(tmp_path, text=WIDE), codec="delta4"))

    async def body() -> None:
        facts = await learner.open()
        initial = await learner.initial_model(1)
        assert not learner.has_initial
        await learner.set_initial(initial)
        model, claimed = await learner.train(initial, private_slices=range(facts.private_slices), slices=(), seed=1)
        assert learner.has_initial and len(model) < len(initial) * 0.6
        assert learner._process is not None
        os.kill(learner._process.pid, signal.SIGKILL)
        await learner._process.wait()
        assert await learner.evaluate(model, reference=initial) == claimed

    run(learner, body)


def test_process__worker_with_a_bug_of_ours_tells_its_traceback(tmp_path: Path) -> None:
    learner = ProcessLearner(make_config(tmp_path))

    async def body() -> None:
        model = await learner.initial_model(1)
        with pytest.raises(LearnerDiedError, match=r"(?s)exit code 1; .*IndexError: there is no private slice 99"):
            await learner.train(model, private_slices=(99,), slices=(), seed=1)

    run(learner, body)


def test_process__babbling_program_is_ended() -> None:
    babble = "import os, sys; os.write(0, b'x' * 100); sys.stdin.buffer.read()"
    learner = ProcessLearner(LearnerConfig(task="digits", source=""), command=(sys.executable, "-c", babble))

    async def body() -> None:
        with pytest.raises(LearnerDiedError, match="was ended by signal 9"):
            await learner.open()

    run(learner, body)


def test_process__too_many_open_files_fail_a_request_and_hang_none(tmp_path: Path) -> None:
    """The memory of a question or an answer takes a descriptor, and a piece of it a second one."""
    learner = ProcessLearner(make_config(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def leave_free(count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        while count:
            os.close(taken.pop())
            count -= 1

    async def body() -> None:
        model = await learner.initial_model(1)  # It is in use, so the next answer needs other room.
        try:
            leave_free(0)
            with pytest.raises(LearnerDiedError, match="was ended by signal 9"):
                await learner.average(model, model, remote_share=0.5)
        finally:
            give_back()
        await learner.open()
        assert learner._memory is not None
        learner._memory.close()
        learner._memory = None  # as after a request that was cancelled
        try:
            leave_free(0)
            with pytest.raises(DiskFullError, match=r"no room in the memory that the learning worker shares .*: Too many open files"):
                await learner.average(model, model, remote_share=0.5)
        finally:
            give_back()
        assert await learner.initial_model(1) == model

    def give_back() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        while taken:
            os.close(taken.pop())

    run(learner, body)


def test_process__cancelled_request_leaves_the_learner_usable(tmp_path: Path) -> None:
    """A late answer belongs to nobody: the next request gets its own."""
    began, may_end = tmp_path / "began", tmp_path / "may_end"
    for pipe in (began, may_end):
        os.mkfifo(pipe)
    slow = f"\ndef load_test_data(source): pass\ndef build_optimizer(model):\n    open({str(began)!r}, 'w').close()\n"
    slow += f"    open({str(may_end)!r}).close()\n    return torch.optim.SGD(model.parameters(), lr=0.1)\n"
    learner = ProcessLearner(make_config(tmp_path, extra=slow))

    async def body() -> None:
        model = await learner.initial_model(1)
        assert learner._process is not None
        worker = learner._process.pid
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(learner.train, model, private_slices=(0,), slices=(), seed=1))
            await trio.to_thread.run_sync(began.read_bytes, abandon_on_cancel=True)  # Until the worker has opened the pipe.
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(may_end.write_bytes, b"", abandon_on_cancel=True)
        assert await learner.initial_model(1) == model
        assert learner._process.pid == worker

    run(learner, body)


def test_process__request_cancelled_half_way_through_sending_costs_the_worker_only(tmp_path: Path) -> None:
    learner = ProcessLearner(make_config(tmp_path))

    async def body() -> None:
        model = await learner.initial_model(1)
        assert learner._process is not None
        os.kill(learner._process.pid, signal.SIGSTOP)  # So the socket fills up.
        while not learner._broken:
            with trio.move_on_after(0.01):
                await learner.train(model, private_slices=range(10_000), slices=(), seed=1)
        assert await learner.initial_model(1) == model

    run(learner, body)


def test_process__answer_that_is_in_use_is_not_written_over(tmp_path: Path) -> None:
    """The room of an answer serves the next one only when nobody refers to it."""
    learner = ProcessLearner(make_config(tmp_path))

    async def body() -> None:
        model = await learner.initial_model(1)
        kept, _ = await learner.train(model, private_slices=(0,), slices=(), seed=1)
        copy = bytes(kept)
        for seed in range(2, 5):
            other, _ = await learner.train(model, private_slices=(0,), slices=(), seed=seed)
            assert bytes(other) != copy
            del other
        assert bytes(kept) == copy

    run(learner, body)


def test_process__close_ends_a_training_within_a_second(tmp_path: Path) -> None:
    learner = ProcessLearner(make_config(tmp_path, extra=SLOW))

    async def main() -> None:
        with trio.fail_after(50):
            model = await learner.initial_model(1)
            process = learner._process
            assert process is not None
            async with trio.open_nursery() as nursery:
                started = trio.Event()
                learner._on_progress = lambda done, total: started.set()
                nursery.start_soon(train_until_closed, learner, model)
                await started.wait()
                begin = trio.current_time()
                await learner.close()
                assert trio.current_time() - begin < 1
            assert process.returncode is not None
            await learner.close()

    trio.run(main)


async def train_until_closed(learner: ProcessLearner, model: bytes) -> None:
    with pytest.raises(LearnerDiedError):
        await learner.train(model, private_slices=(0,), slices=(), seed=1)


def test_worker__dies_when_its_node_is_gone_in_the_middle_of_a_training(tmp_path: Path) -> None:
    """A node that was killed with SIGKILL leaves nothing behind that eats the machine."""
    config = make_config(tmp_path, extra=SLOW)
    line, theirs = socket.socketpair()
    with theirs:
        worker = subprocess.Popen(
            [sys.executable, "-m", "learnae.learning.worker"], stdin=theirs, env={**os.environ, "PYTHONPATH": find_import_path()}
        )
    with worker:
        send_frame(line, {"ask": "open", "config": asdict(config), "id": 1})
        send_frame(line, {"ask": "initial_model", "seed": 1, "id": 2})
        reader = FrameReader()
        while (frame := reader.take()) is None or frame.values.get("id") != 2:
            if frame is None:
                piece, ancillary, _, _ = line.recvmsg(PIECE_BYTES, FILES_SPACE)
                reader.feed(piece, unpack_files(ancillary))
        send_frame(line, {"ask": "train", "private_slices": [0], "seed": 1, "id": 3}, frame.attachments)
        line.recv(PIECE_BYTES)  # Its first progress: it is training now.
        worker.send_signal(signal.SIGINT)  # Ctrl+C in the terminal reaches it too, and is not its business.
        line.recv(PIECE_BYTES)
        line.close()
        assert worker.wait(timeout=20) == 0
