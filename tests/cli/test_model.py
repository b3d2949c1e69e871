"""`learnae model`: what a member takes home (docs/compression.md)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.cli import main
from learnae.cli.folder import NodeFolder
from learnae.ids import Cid
from learnae.learning.header import read_manifest
from learnae.learning.model_files import ModelFiles
from learnae.protocol.cycle import RECORD_LOCAL
from learnae.tangle import cbor
from tests.cli.conftest import World

Refuse = Callable[..., str]


@pytest.fixture
def node(world: World, tmp_path: Path) -> Path:
    """A copy of the founder's folder, in a session whose models travel compressed."""
    folder = tmp_path / "me"
    shutil.copytree(world.root / "founder", folder)
    made = NodeFolder(folder)
    (folder / "ticket.txt").unlink()
    made.write(replace(world.ticket, rules=replace(world.ticket.rules, model_codec="delta4")), made.read_settings())
    return folder


def set_local(node: Path, cid: Cid) -> None:
    journal = DiskJournal(node)
    try:
        journal.append([], [(RECORD_LOCAL, cbor.encode([cid, 1000, 70, 90, 12, 30, 71, cid]))])
    finally:
        journal.close()


def test_model__is_written_as_plain_safetensors_whatever_the_codec(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = NodeFolder(node).read_ticket().rules
    store = DiskBlocks(NodeFolder(node).blocks)
    initial = store.get_file(rules.initial_model, bytes_max=1 << 20)
    assert initial is not None
    files = ModelFiles("digits", "delta4", read_manifest(initial))
    files.set_initial(initial)
    content = files.write({name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in files.read(initial).items()})
    set_local(node, store.put_file(content))
    out = tmp_path / "mine.safetensors"

    assert main(["model", str(node), "--out", str(out)]) == 0

    assert "safetensors; 12 work cycles, 70 of 90 right on this node's validation data" in capsys.readouterr().out
    written, expected = load_file(out), files.read(content)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert len(content) < out.stat().st_size / 4


def test_model__that_is_not_there_yet_or_not_whole_is_told(node: Path, refuse: Refuse) -> None:
    out = ["--out", str(node / "x")]
    assert "its node has no model yet" in refuse(["model", str(node), *out])
    set_local(node, Cid(b"\x01\x55\x12\x20" + bytes(32)))
    assert "it is not whole here; start the node" in refuse(["model", str(node), *out])
    assert not (node / "x").exists()
    assert "cannot be used" in refuse(["model", str(node / "nowhere"), *out])
