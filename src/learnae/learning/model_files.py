"""The files in which a session's models travel, whatever its codec: what a learner writes, and what it reads of others.

The CID of a model names the file as it travels, and its accuracy is measured on what that file says, so that everybody who fetches it
gets the model that was announced. Of its own newest models a learner also keeps the full precision in memory and goes on from that:
what rounding took away is not lost but counts in the next file (error feedback). After a restart it goes on from the file.
The session's initial model travels raw, also with a codec; every other model is encoded. Source: docs/compression.md.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from learnae.errors import TaskError
from learnae.ids import Content
from learnae.learning.checks import check_model
from learnae.learning.codec import StateDict, decode_tensors, encode_tensors
from learnae.learning.compressed import make_layout
from learnae.learning.header import Manifest

EXACT_MAX: Final = 4  # Own models in full precision: the local one, and the one or two that may become it.


class ModelFiles:
    """Reads and writes the models of one session. With a codec `set_initial` comes before everything else."""

    def __init__(self, task: str, codec: str, manifest: Manifest) -> None:
        self._manifest = manifest
        self._layout = None if codec == "raw" else make_layout(codec, manifest)
        self._initial: StateDict = {}
        self._ancestor = b""
        self._exact: OrderedDict[bytes, StateDict] = OrderedDict()  # by digest of the file
        if self._layout is not None and self._layout.file_bytes_max > manifest.file_bytes_max:
            raise TaskError(
                task,
                f"its model is too small for the codec {codec}: a file could have {self._layout.file_bytes_max} bytes, "
                f"and the model itself has {manifest.file_bytes}; use the codec raw",
            )

    def set_initial(self, model: Content) -> None:
        """Take the session's initial model, from which all others descend. Raises: ModelRejectedError."""
        self._initial = decode_tensors(model, check_model(model, self._manifest))
        self._ancestor = hashlib.sha256(model).digest()

    def write(self, state: StateDict) -> bytes:
        """A model that this learner made as a file; its full precision is remembered."""
        if self._layout is None:
            return encode_tensors(state)
        assert self._ancestor, "a codec needs the session's initial model first"
        content = self._layout.encode(state, self._initial, self._ancestor)
        self._exact[hashlib.sha256(content).digest()] = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        if len(self._exact) > EXACT_MAX:
            self._exact.popitem(last=False)
        return content

    def read(self, model: Content) -> StateDict:
        """What everybody reads in a file. Raises: ModelRejectedError, ModelMismatchError."""
        if self._layout is None or self._is_initial(model):
            return decode_tensors(model, check_model(model, self._manifest))
        return self._layout.decode(model, self._layout.check(model, self._ancestor), self._initial)

    def read_own(self, model: Content) -> StateDict:
        """The same in full precision, if this learner wrote the file lately."""
        digest = hashlib.sha256(model).digest() if self._exact else b""
        if digest not in self._exact:
            return self.read(model)
        self._exact.move_to_end(digest)
        return dict(self._exact[digest])

    def compute_slack(self, model: Content, state: StateDict) -> StateDict:
        """How far each value of this file, which was read as `state`, may lie from the one that its author had.

        Tensors that travel exactly are left out, without a codec all.
        """
        if self._layout is None or self._is_initial(model):
            return {}
        return self._layout.compute_slack(model, self._layout.check(model, self._ancestor), state, self._initial)

    def _is_initial(self, model: Content) -> bool:
        assert self._ancestor, "a codec needs the session's initial model first"
        return len(model) == self._manifest.file_bytes and hashlib.sha256(model).digest() == self._ancestor
