"""hivemind 1.1.12 to compare with, in an environment of its own: `build/hivemind`, made on the first call (a minute, 300 MB).

Its processes cannot import learnae, nor learnae hivemind: what they share goes through files and pipes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "hivemind"
PINS = Path(__file__).with_name("hivemind.txt")
INSTALL_S_MAX = 1200


def install_hivemind() -> Path:
    """The Python that has hivemind. Raises: RuntimeError: it could not be installed."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / "pins"
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return python
    print("installing hivemind 1.1.12 into build/hivemind ...", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(FOLDER)], [*pip, "-r", str(PINS)]):
        done = subprocess.run(command, timeout=INSTALL_S_MAX, check=False)
        if done.returncode:
            raise RuntimeError(f"hivemind could not be installed: {' '.join(command)} ended with {done.returncode}")
    stamp.write_text(digest, encoding="utf-8")
    return python
