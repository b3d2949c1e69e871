"""`learnae model`: a node's local model as plain safetensors, whatever the codec in which its session's models travel."""

from __future__ import annotations

import argparse
from pathlib import Path

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import read_record_beside
from learnae.backends.errors import NotStoredError
from learnae.cli.folder import NodeFolder
from learnae.cli.ipfs import open_out
from learnae.errors import FolderError
from learnae.ids import Cid, cid_text
from learnae.learning.codec import encode_tensors
from learnae.learning.header import read_manifest
from learnae.learning.model_files import ModelFiles
from learnae.protocol.cycle import RECORD_LOCAL, read_local
from learnae.protocol.rules import SessionRules
from learnae.protocol.validation import compute_model_bytes_max


def write_model(options: argparse.Namespace) -> int:
    """Write the local model out; also while the node runs. Raises: FolderError, NotStoredError, ModelRejectedError, UsageError."""
    folder = NodeFolder(Path(options.folder))
    rules = folder.read_ticket().rules
    record = read_record_beside(folder.path, RECORD_LOCAL)
    if record is None:
        raise FolderError(options.folder, "its node has no model yet; it gets the session's initial one when training begins")
    local = read_local(record)
    blocks = DiskBlocks(folder.blocks, read_only=True)
    initial = _read(blocks, rules.initial_model, rules, options.folder)
    files = ModelFiles(options.folder, rules.model_codec, read_manifest(initial))
    files.set_initial(initial)
    content = encode_tensors(files.read(_read(blocks, local.cid, rules, options.folder)))
    with open_out(options.out) as file:
        file.write(content)
    if options.out != "-":
        claim = f"{local.maturity_cycles} work cycles, {local.correct} of {local.total} right on this node's validation data"
        print(f"{options.out}: {len(content)} bytes of safetensors; {claim}")
    return 0


def _read(blocks: DiskBlocks, cid: Cid, rules: SessionRules, folder: str) -> bytes:
    content = blocks.get_file(cid, bytes_max=compute_model_bytes_max(rules))
    if content is None:
        raise NotStoredError(cid_text(cid), folder, "it is not whole here; start the node, which fetches what is damaged")
    return bytes(content)
