"""The functions behind the commands about sensors."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from learnae.cli.mam import run_create, run_parse

SENSOR_RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"mam create": run_create, "mam parse": run_parse}
