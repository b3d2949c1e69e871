"""The `Learner` port over a worker process, so that training never blocks the node and torch's crash is not the node's.

The worker is started by the first request and again after it died. A request that is cancelled leaves the worker training on;
its late answer is thrown away. Imports neither torch nor numpy.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import trio

import learnae
from learnae import errors
from learnae.errors import LearnerDiedError, LearningError
from learnae.learning.config import LearnerConfig
from learnae.learning.frames import Frame, FrameError, FrameReader, encode_parts
from learnae.protocol.measures import Evaluation, Recount, TaskFacts

PIECE_BYTES: Final = 1 << 20
LAST_WORDS_BYTES: Final = 2000  # Of the worker's standard error: the end of a traceback.
CLOSE_S: Final = 0.5  # Given to a worker to end by itself before it is killed.
BRIDLED: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that keep libraries under torch from starting a thread per core."""

Progress = Callable[[int, int], None]


class ProcessLearner:
    """One worker process, one request at a time. `on_progress(done, total)` is called with the passes of a training.

    `on_output(text)` gets what the user's code prints, in pieces.
    """

    def __init__(
        self,
        config: LearnerConfig,
        *,
        on_progress: Progress | None = None,
        on_output: Callable[[str], None] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "learnae.learning.worker"),
    ) -> None:
        self._config = config
        self._on_progress = on_progress
        self._on_output = on_output
        self._command = tuple(command)
        self._turn = trio.Lock()
        self._process: trio.Process | None = None
        self._reader = FrameReader()
        self._said = b""
        self._broken = False
        self._asked = 0
        self._facts: TaskFacts | None = None
        self._initial: bytes | None = None

    async def open(self) -> TaskFacts:
        async with self._turn:
            await self._start()
            assert self._facts is not None
            return self._facts

    async def initial_model(self, seed: int) -> bytes:
        return (await self._request({"ask": "initial_model", "seed": seed})).attachments[0]

    async def set_initial(self, model: bytes) -> None:
        await self._request({"ask": "set_initial"}, [model])
        self._initial = model

    @property
    def has_initial(self) -> bool:
        return self._initial is not None

    async def read_shared_slice(self, index: int) -> bytes:
        if self._facts is None:
            await self.open()
        assert self._facts is not None
        if not 0 <= index < self._facts.shared_slices:
            raise IndexError(f"slice {index} is not one of the {self._facts.shared_slices} that are shared")
        return (await self._request({"ask": "read_shared_slice", "index": index})).attachments[0]

    async def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        answer = await self._request({"ask": "evaluate"}, [model] if reference is None else [model, reference])
        return _read_evaluations(answer)[0]

    async def train(
        self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int
    ) -> tuple[bytes, Evaluation]:
        asked = {"ask": "train", "private_slices": list(private_slices), "seed": seed}
        answer = await self._request(asked, [model, *slices])
        return answer.attachments[0], _read_evaluations(answer)[0]

    async def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        answer = await self._request({"ask": "average", "remote_share": remote_share}, [local, remote])
        average, theirs = _read_evaluations(answer)
        return answer.attachments[0], average, theirs

    async def read_validation(self, salt: bytes) -> tuple[bytes, int]:
        answer = await self._request({"ask": "read_validation"}, [salt])
        return answer.attachments[0], int(answer.values["total"])

    async def recount(self, before: bytes, after: bytes, remote: bytes, validation: bytes) -> Recount:
        answer = await self._request({"ask": "recount"}, [before, after, remote, validation])
        return Recount(**answer.values["recount"])

    async def close(self) -> None:
        """End the worker, within a second, whatever it is doing. A later request would start a new one."""
        process = self._forget()
        if process is None:
            return
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.move_on_after(CLOSE_S):
                await process.wait()
            await _end(process)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _request(self, values: dict[str, Any], attachments: Sequence[bytes] = ()) -> Frame:
        async with self._turn:
            await self._start()
            return await self._exchange(values, attachments)

    async def _start(self) -> None:
        """Start a worker and open the task in it, unless one is ready; a worker that ended between requests is replaced quietly."""
        if self._process is not None and (self._broken or self._process.poll() is not None):
            await self._bury(self._process)
        if self._process is not None and self._facts is not None:
            return
        if self._process is None:
            self._broken, self._said = False, b""
            environment = {**os.environ, **dict.fromkeys(BRIDLED, str(self._config.threads)), "PYTHONPATH": find_import_path()}
            self._process = await trio.lowlevel.open_process(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
            _widen(self._process.stdin, self._process.stdout)
        answer = await self._exchange({"ask": "open", "config": asdict(self._config)})
        if self._initial is not None:
            await self._exchange({"ask": "set_initial"}, [self._initial])
        self._facts = TaskFacts(**answer.values["facts"])

    async def _exchange(self, values: dict[str, Any], attachments: Sequence[bytes] = ()) -> Frame:
        """Send a request and wait for its answer. The worker writes only while it works, so only now its output is read."""
        process = self._process
        assert process is not None
        self._asked += 1
        answer: Frame | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, process)
            nursery.start_soon(self._send, process, encode_parts({**values, "id": self._asked}, attachments))
            answer = await self._receive(process, self._asked)
            if answer is None:
                await process.wait()  # Its last words arrive until then; `_listen` ends with them.
            else:
                nursery.cancel_scope.cancel()
        if answer is None:
            raise await self._bury(process)
        if "error" in answer.values:
            raise _read_error(answer.values)
        return answer

    async def _send(self, process: trio.Process, parts: Sequence[bytes]) -> None:
        assert process.stdin is not None
        whole = False
        try:
            for part in parts:
                await process.stdin.send_all(part)
            whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            whole = True  # It died; `_receive` sees that too.
        finally:
            if not whole:  # Cancelled half way: the stream cannot be used any more, so neither can the worker.
                self._broken = True
                process.kill()

    async def _receive(self, process: trio.Process, number: int) -> Frame | None:
        """The answer to request `number`; None if the worker ended."""
        assert process.stdout is not None
        while True:
            try:
                while (frame := self._reader.take()) is not None:
                    if self._on_progress is not None and "progress" in frame.values:
                        self._on_progress(*frame.values["progress"])
                    if frame.values.get("id") == number:
                        return frame
                piece = await process.stdout.receive_some(PIECE_BYTES)
            except FrameError:
                process.kill()
                return None
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not piece:
                return None
            self._reader.feed(piece)

    async def _listen(self, process: trio.Process) -> None:
        assert process.stderr is not None
        try:
            async for piece in process.stderr:
                self._said = (self._said + piece)[-LAST_WORDS_BYTES:]
                if self._on_output is not None:
                    self._on_output(piece.decode(errors="replace"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _bury(self, process: trio.Process) -> LearnerDiedError:
        if process is self._process:
            self._forget()
        await _end(process)
        code = process.returncode or 0
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return LearnerDiedError(ended, self._said.decode(errors="replace").strip())

    def _forget(self) -> trio.Process | None:
        process, self._process, self._facts = self._process, None, None
        self._reader = FrameReader()
        return process


def find_import_path() -> str:
    """PYTHONPATH with which a new process finds the same package as this one, however this one found it."""
    here = str(Path(learnae.__file__).parents[1])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _widen(*pipes: Any) -> None:
    """Let pipes hold as much as is read and written at once: models pass in a sixteenth of the turns (Linux; elsewhere as they are)."""
    for pipe in pipes:
        with suppress(AttributeError, OSError):  # The system has no such call, or the user's share of memory for pipes is used up.
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIECE_BYTES)


async def _end(process: trio.Process) -> None:
    """Kill if it still runs, collect the exit code, close the pipes."""
    if process.poll() is None:
        process.kill()
    await process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        await pipe.aclose()


def _read_evaluations(answer: Frame) -> list[Evaluation]:
    return [Evaluation(**values) for values in answer.values["evaluations"]]


def _read_error(values: dict[str, Any]) -> LearningError:
    kind = getattr(errors, str(values["error"]), LearningError)
    assert isinstance(kind, type) and issubclass(kind, LearningError)
    return kind.from_text(str(values["text"]))
