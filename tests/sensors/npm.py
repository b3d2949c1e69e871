"""Installs the genuine MAM clients from their lock file, once, into build/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from learnae.contracts.build import find_node

HERE = Path(__file__).parent / "mam_clients"
CLIENTS = Path(__file__).parents[2] / "build" / "mam_clients"


def install_clients() -> tuple[str, Path]:
    """The Node program, and the folder below which the clients are."""
    node, npm = find_node()
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = CLIENTS / "installed.sha256"
    if not stamp.exists() or stamp.read_text() != digest:
        CLIENTS.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, CLIENTS / name)
        subprocess.run([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=CLIENTS, check=True, capture_output=True)
        stamp.write_text(digest)
    return node, CLIENTS
