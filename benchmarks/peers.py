"""Training side by side: six processes of ours and six of hivemind 1.1.12, one after the other in the same run.

The demo's data (six unequal shares of 5,000 digits), model and optimiser; the same initial model; equal local steps: ours train and average
as in the demo, and each hivemind peer takes as many steps a second as ours with the same data did. Accuracy is on the held-out digits, the
median of the six peers. After a minute one peer is killed; later somebody comes late with the same data, and is looked at until it is as
good as the others: from the start of its process, with the loading of Python and torch.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from benchmarks import Result
from benchmarks._hivemind import install_hivemind
from benchmarks._peers import MARKS_S, NEAR, SPANS
from benchmarks._peers_hivemind import measure_hivemind
from benchmarks._peers_ours import measure_ours


def run() -> list[Result]:
    install_hivemind()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ours, initial, rates = measure_ours(Path(one))
        load = os.getloadavg()[0]
        theirs = measure_hivemind(Path(other), initial, rates)
    figures: list[tuple[str, str, float, float]] = [
        (
            f"median accuracy after {mark_s} s",
            "accuracy",
            statistics.median(ours.accuracies[mark_s]),
            statistics.median(theirs.accuracies[mark_s]),
        )
        for mark_s in MARKS_S
    ]
    figures += [
        (f"processor time of all six in {MARKS_S[-1]} s", "s", ours.cpu_s, theirs.cpu_s),
        ("memory of a peer's main process", "MB", ours.main_mb, theirs.main_mb),
        ("memory of a peer with its children", "MB", ours.all_mb, theirs.all_mb),
        *(
            (f"longest time that one of the others exchanges nothing: {name}", "s", ours.gaps_s[name], theirs.gaps_s[name])
            for name in SPANS
        ),
        (f"start of a late joiner until it is {100 * NEAR:.0f} point below the others", "s", ours.late_s, theirs.late_s),
        ("the others' median then", "accuracy", ours.late_others, theirs.late_others),
        ("local steps of a peer: mean", "1/s", ours.steps_s, theirs.steps_s),
    ]
    return [
        *(Result(case=case, value=value, unit=unit, reference="hivemind", reference_value=their) for case, unit, value, their in figures),
        Result(
            case="load average: ours, hivemind's", value=load, unit="processes", reference="hivemind", reference_value=os.getloadavg()[0]
        ),
    ]
