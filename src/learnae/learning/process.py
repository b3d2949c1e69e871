"""The `Learner` port over a worker process, so that training never blocks the node and torch's crash is not the node's.

The worker is started by the first request and again after it died. A request that is cancelled leaves the worker training on;
its late answer is thrown away. Imports neither torch nor numpy.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

import learnae
from learnae import errors
from learnae.errors import DiskFullError, LearnerDiedError, LearningError
from learnae.ids import Content, Pieces
from learnae.learning.config import LearnerConfig
from learnae.learning.frames import (
    FILES_SPACE,
    KEPT_BYTES,
    PIECE_BYTES,
    RECEIVE_FLAGS,
    Frame,
    FrameError,
    FrameReader,
    SharedMemory,
    encode_frame,
    pack_files,
    unpack_files,
)
from learnae.protocol.measures import Evaluation, Recount, TaskFacts

LAST_WORDS_BYTES: Final = 2000  # Of the worker's standard error: the end of a traceback.
CLOSE_S: Final = 0.5  # Given to a worker to end by itself before it is killed.
BRIDLED: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that keep libraries under torch from starting a thread per core."""

SHARED: Final = "the memory that the learning worker shares"
MEMORY: Final = f"glibc.malloc.mmap_threshold={KEPT_BYTES}:glibc.malloc.trim_threshold={KEPT_BYTES}"
"""A worker keeps what it freed, up to `KEPT_BYTES`, for the next model: new memory costs several times more than filling it."""

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
        self._socket: trio.socket.SocketType | None = None
        self._reader = FrameReader()
        self._memory: SharedMemory | None = None  # of the requests; None while a worker may still read what a cancelled one gave it
        self._room: SharedMemory | None = None  # of the last answer
        self._said = b""
        self._broken = False
        self._asked = 0
        self._facts: TaskFacts | None = None
        self._initial: Content | None = None

    async def open(self) -> TaskFacts:
        async with self._turn:
            await self._start()
            assert self._facts is not None
            return self._facts

    async def initial_model(self, seed: int) -> Content:
        return (await self._request({"ask": "initial_model", "seed": seed})).attachments[0]

    async def set_initial(self, model: Content | Pieces) -> None:
        initial = model if isinstance(model, bytes | memoryview) else b"".join(model)  # A new worker needs it, whatever the disk lost.
        await self._request({"ask": "set_initial"}, [initial])
        self._initial = initial

    @property
    def has_initial(self) -> bool:
        return self._initial is not None

    async def read_shared_slice(self, index: int) -> Content:
        if self._facts is None:
            await self.open()
        assert self._facts is not None
        if not 0 <= index < self._facts.shared_slices:
            raise IndexError(f"slice {index} is not one of the {self._facts.shared_slices} that are shared")
        return (await self._request({"ask": "read_shared_slice", "index": index})).attachments[0]

    async def evaluate(self, model: Content | Pieces, *, reference: Content | Pieces | None) -> Evaluation:
        answer = await self._request({"ask": "evaluate"}, [model] if reference is None else [model, reference])
        return _read_evaluations(answer)[0]

    async def train(
        self, model: Content | Pieces, *, private_slices: Sequence[int], slices: Sequence[Content | Pieces], seed: int
    ) -> tuple[Content, Evaluation]:
        asked = {"ask": "train", "private_slices": list(private_slices), "seed": seed}
        answer = await self._request(asked, [model, *slices])
        return answer.attachments[0], _read_evaluations(answer)[0]

    async def average(
        self, local: Content | Pieces, remote: Content | Pieces, *, remote_share: float
    ) -> tuple[Content, Evaluation, Evaluation]:
        answer = await self._request({"ask": "average", "remote_share": remote_share}, [local, remote])
        average, theirs = _read_evaluations(answer)
        return answer.attachments[0], average, theirs

    async def read_validation(self, salt: bytes) -> tuple[Content, int]:
        answer = await self._request({"ask": "read_validation"}, [salt])
        return answer.attachments[0], int(answer.values["total"])

    async def recount(
        self, before: Content | Pieces, after: Content | Pieces, remote: Content | Pieces, validation: Content | Pieces
    ) -> Recount:
        answer = await self._request({"ask": "recount"}, [before, after, remote, validation])
        return Recount(**answer.values["recount"])

    async def close(self) -> None:
        """End the worker, within a second, whatever it is doing. A later request would start a new one."""
        process = self._forget()
        if process is None:
            return
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
            await process.wait()
        with trio.CancelScope(shield=True):
            await _end(process)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _request(self, values: dict[str, Any], attachments: Sequence[Content | Pieces] = ()) -> Frame:
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
            environment["GLIBC_TUNABLES"] = ":".join(filter(None, (environment.get("GLIBC_TUNABLES"), MEMORY)))
            ours, theirs = socket.socketpair()
            with theirs:
                self._socket = trio.socket.from_stdlib_socket(ours)
                self._process = await trio.lowlevel.open_process(
                    self._command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
                )
        answer = await self._exchange({"ask": "open", "config": asdict(self._config)})
        if self._initial is not None:
            await self._exchange({"ask": "set_initial"}, [self._initial])
        self._facts = TaskFacts(**answer.values["facts"])

    async def _exchange(self, values: dict[str, Any], attachments: Sequence[Content | Pieces] = ()) -> Frame:
        """Send a request and wait for its answer. The worker writes only while it works, so only now its output is read."""
        process, line = self._process, self._socket
        assert process is not None and line is not None
        self._asked += 1
        values = {**values, "id": self._asked}
        memory: SharedMemory | None = None
        room: SharedMemory | None = None
        answer: Frame | None = None
        try:
            try:
                memory, self._memory = self._memory or SharedMemory(), None
                room = self._take_room()
                encode = partial(encode_frame, values, attachments, memory, room=room)
                content, files = await trio.to_thread.run_sync(encode)
            except OSError as error:
                raise DiskFullError(SHARED, sum(map(len, attachments)), error.strerror or str(error)) from error
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, process)
                nursery.start_soon(self._send, process, line, content, files)
                answer = await self._receive(process, line, self._asked, room)
                if answer is None:
                    await process.wait()  # Its last words arrive until then; `_listen` ends with them.
                else:
                    nursery.cancel_scope.cancel()
        finally:
            if answer is not None and sum(map(len, attachments)) <= KEPT_BYTES:
                self._memory, self._room = memory, room
            else:
                _close(memory, room)
        if answer is None:
            raise await self._bury(process)
        if "no_room" in answer.values:
            raise DiskFullError(SHARED, self._facts.model_bytes if self._facts else 0, str(answer.values["no_room"]))
        if "error" in answer.values:
            raise _read_error(answer.values)
        return answer

    async def _send(self, process: trio.Process, line: trio.socket.SocketType, content: bytes, files: Sequence[int]) -> None:
        whole = False
        try:
            sent = await line.sendmsg([content], pack_files(files))
            while sent < len(content):
                sent += await line.send(content[sent:])
            whole = True
        except (OSError, trio.ClosedResourceError):
            whole = True  # It died; `_receive` sees that too.
        finally:
            if not whole:  # Cancelled half way: the line cannot be used any more, so neither can the worker.
                self._broken = True
                process.kill()

    def _take_room(self) -> SharedMemory:
        """That of the last answer, unless somebody refers to it still."""
        room, self._room = self._room, None
        if room is not None and not room.is_free():
            room.close()
            room = None
        return room or SharedMemory()

    async def _receive(self, process: trio.Process, line: trio.socket.SocketType, number: int, room: SharedMemory) -> Frame | None:
        """The answer to request `number`; None if the worker ended."""
        while True:
            try:
                while (frame := self._reader.take()) is not None:
                    if self._on_progress is not None and "progress" in frame.values:
                        self._on_progress(*frame.values["progress"])
                    if frame.values.get("id") == number:
                        return replace(frame, attachments=room.view(frame.sizes)) if any(frame.sizes) else frame
                piece, ancillary, _, _ = await line.recvmsg(PIECE_BYTES, FILES_SPACE, RECEIVE_FLAGS)
            except FrameError:
                process.kill()
                return None
            except (OSError, trio.ClosedResourceError):
                process.kill()  # It may live: what it answered finds no room here.
                return None
            if not piece:
                return None
            self._reader.feed(piece, unpack_files(ancillary))

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
        self._reader.close()
        self._reader = FrameReader()
        _close(self._socket, self._memory, self._room)
        self._socket, self._memory, self._room = None, None, None
        return process


def _close(*used: trio.socket.SocketType | SharedMemory | None) -> None:
    for item in used:
        if item is not None:
            item.close()


def find_import_path() -> str:
    """PYTHONPATH with which a new process finds the same package as this one, however this one found it."""
    here = str(Path(learnae.__file__).parents[1])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


async def _end(process: trio.Process) -> None:
    """Kill if it still runs, collect the exit code, close the pipe."""
    if process.poll() is None:
        process.kill()
    await process.wait()
    assert process.stderr is not None
    await process.stderr.aclose()


def _read_evaluations(answer: Frame) -> list[Evaluation]:
    return [Evaluation(**values) for values in answer.values["evaluations"]]


def _read_error(values: dict[str, Any]) -> LearningError:
    kind = getattr(errors, str(values["error"]), LearningError)
    assert isinstance(kind, type) and issubclass(kind, LearningError)
    return kind.from_text(str(values["text"]))
