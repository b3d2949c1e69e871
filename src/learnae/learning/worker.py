"""The process that trains for a node: `python -m learnae.learning.worker`, started by `process.ProcessLearner`.

Its standard input is a socket, on which it reads requests and answers them one after another (`frames`). What the user's code prints
goes to standard error. When the socket ends, the node is gone: the worker ends at once, in the middle of a training too.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from learnae.errors import LearningError
from learnae.ids import Content
from learnae.imports import loading_modules
from learnae.learning.config import LearnerConfig
from learnae.learning.frames import (
    FILES_SPACE,
    PIECE_BYTES,
    RECEIVE_FLAGS,
    Frame,
    FrameReader,
    SharedMemory,
    encode_frame,
    pack_files,
    unpack_files,
)
from learnae.protocol.measures import Evaluation

if TYPE_CHECKING:
    from learnae.learning.inline import InlineLearner

REQUESTS_MAX: Final = 4  # The node sends one at a time; a cancelled one may still be under way.
NICENESS: Final = 5  # The node answers the network first.

Answer = tuple[dict[str, Any], Sequence[Content]]


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # They reach the whole group; the node decides when to end.
    line = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)
    requests: queue.Queue[Frame] = queue.Queue(REQUESTS_MAX)
    threading.Thread(target=_read_requests, args=(line, requests), daemon=True).start()
    with loading_modules():
        import learnae.learning.inline  # noqa: F401 - torch, while the node starts the rest of itself
    os.nice(NICENESS)  # Not sooner: on a busy machine a late joiner would wait for torch the longest.
    service = Service(lambda values: send_frame(line, values))
    while True:
        request = requests.get()
        values, attachments = service.handle(request)
        sys.stdout.flush()
        sys.stderr.flush()
        send_frame(line, {**values, "id": request.values.get("id")}, attachments, room=request.room)
        del request, attachments  # models: they would stay in memory until the next answer


def _read_requests(line: socket.socket, requests: queue.Queue[Frame]) -> None:
    reader = FrameReader()
    while True:
        try:
            piece, ancillary, _, _ = line.recvmsg(PIECE_BYTES, FILES_SPACE, RECEIVE_FLAGS)
        except ConnectionResetError:
            piece = b""
        if not piece:
            os._exit(0)  # From this thread, because the main one may be deep in a training.
        reader.feed(piece, unpack_files(ancillary))
        while (frame := reader.take()) is not None:
            requests.put(frame)
        frame = None


def send_frame(
    line: socket.socket, values: dict[str, Any], attachments: Sequence[Content] = (), *, room: SharedMemory | None = None
) -> None:
    """Send one frame, however long the other side takes for it. `room`: where the attachments go; closed then.

    Where there is no memory for them, "no_room" says why instead.
    """
    in_room = {} if room is None else {"in_room": True}
    with closing(room or SharedMemory()) as memory:
        try:
            content, files = encode_frame({**values, **in_room}, attachments, memory)
        except OSError as error:
            content, files = encode_frame({"id": values.get("id"), "no_room": error.strerror or str(error)}, (), memory)
        sent = line.sendmsg([content], pack_files(files))
        line.sendall(content[sent:])


class Service:
    """Requests to answers. A LearningError is an answer; anything else is our bug and ends the process with its traceback."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._learner: InlineLearner | None = None

    def handle(self, request: Frame) -> Answer:
        try:
            return self._answer(str(request.values["ask"]), request.values, request.attachments)
        except LearningError as error:
            return {"error": type(error).__name__, "text": str(error)}, ()

    def _answer(self, ask: str, values: dict[str, Any], attachments: Sequence[Content]) -> Answer:
        if ask == "open":
            from learnae.learning.inline import InlineLearner

            self._learner = InlineLearner(LearnerConfig(**values["config"]), on_progress=self._on_progress)
            return {"facts": asdict(self._learner.open())}, ()
        learner = self._learner
        assert learner is not None, "the first request is not open"
        match ask:
            case "initial_model":
                return {}, (learner.initial_model(values["seed"]),)
            case "set_initial":
                learner.set_initial(*map(bytes, attachments))  # It keeps them.
                return {}, ()
            case "read_shared_slice":
                return {}, (learner.read_shared_slice(values["index"]),)
            case "evaluate":
                model, *reference = attachments
                return _answer_evaluations(learner.evaluate(model, reference=reference[0] if reference else None))
            case "train":
                model, *slices = attachments
                trained, evaluation = learner.train(model, private_slices=values["private_slices"], slices=slices, seed=values["seed"])
                return _answer_evaluations(evaluation, model=trained)
            case "average":
                average, *evaluations = learner.average(*attachments, remote_share=values["remote_share"])
                return _answer_evaluations(*evaluations, model=average)
            case "read_validation":
                content, total = learner.read_validation(*attachments)
                return {"total": total}, (content,)
            case "recount":
                return {"recount": asdict(learner.recount(*attachments))}, ()
        raise AssertionError(f"unknown request {ask!r}")

    def _on_progress(self, done: int, total: int) -> None:
        self._tell({"progress": [done, total]})


def _answer_evaluations(*evaluations: Evaluation, model: Content | None = None) -> Answer:
    return {"evaluations": [asdict(item) for item in evaluations]}, () if model is None else (model,)


if __name__ == "__main__":
    main()
