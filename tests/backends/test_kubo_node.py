"""The Kubo node of the tests is what it says: real, alone, and able to move a file to another of its kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.kubo_node import KuboNodeError, open_kubo


def test_kubo_node__names_a_file_as_ipfs_does_and_gives_it_to_another_node(tmp_path: Path) -> None:
    """The CID of these bytes is the example of IPFS's own introduction; the second node has the file from the first."""
    (tmp_path / "hello").write_bytes(b"hello world\n")
    (tmp_path / "model").write_bytes(os.urandom(300_000))
    with open_kubo(tmp_path / "a") as giver, open_kubo(tmp_path / "b") as taker:
        assert giver.add_file(tmp_path / "hello") == "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
        cid = giver.add_file(tmp_path / "model")
        assert giver.peers() == []
        taker.connect(giver.addresses[0])
        taker.download(cid, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "model").read_bytes()


def test_kubo_node__knows_nobody_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    """A test must not reach out of this machine, nor be reached."""
    with open_kubo(tmp_path / "a") as node:
        config = json.loads((tmp_path / "a" / "repo" / "config").read_text())
        assert config["Bootstrap"] == [] and not config["Discovery"]["MDNS"]["Enabled"]
        assert all(address.startswith("/ip4/127.0.0.1/tcp/") for address in node.addresses)


def test_kubo_node__what_it_refuses_is_an_error_with_its_name(tmp_path: Path) -> None:
    with open_kubo(tmp_path / "a") as node, pytest.raises(KuboNodeError, match="AddFile failed"):
        node.add_file(tmp_path / "absent")
