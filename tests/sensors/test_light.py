"""Issue: a light publisher, with no torch, libp2p or chain: what `pip install learnae` alone brings is enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sensors.station_bed import ROOT

HEAVY = (
    "torch", "numpy", "safetensors", "rich", "libp2p", "multiaddr", "web3", "eth_account", "eth_keys", "coincurve", "h11", "paho", "cbor2",
    "httpx", "pygments",
)  # fmt: skip

HIDDEN = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
from learnae.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sensor", "publish", "--name", "s", "--fields", "a", "--folder", "{folder}"], "this sensor's id is 12D3Koo"),
        (["sensor", "watch", "garden", "--node", "nowhere"], "no node for sensors at nowhere"),
        (["mam", "parse"], "MAM v0 is insecure"),
        (["gateway", "--broker", "mqtt://x", "--mapping", "x"], "install learnae[gateway]"),
    ],
)
def test_command__runs_without_what_a_node_needs(arguments: list[str], said: str, tmp_path: Path) -> None:
    words = [word.format(folder=tmp_path / "s") for word in arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", HIDDEN, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=60, check=False)

    assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
