"""`python -m benchmarks._swarm_node FOLDER NUMBER`: the node of a folder as `learnae node` runs it, with the synthetic learner in it.

Everything but the learner is what users run: libp2p, journal and blocks on disk, the chain over JSON-RPC. NUMBER is the seed of the
learner, so a node that is started again has the same data. The password lies beside the node's folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from learnae.cli import INTERRUPTED, loading

with loading():
    from learnae.backends.private_files import read_password
    from learnae.cli.compose import NodeStarter, OnPasses, open_log
    from learnae.cli.folder import NodeFolder, NodeSettings
    from learnae.cli.signals import run_interruptible
    from learnae.learning.immediate import ImmediateLearner
    from learnae.learning.synthetic import SyntheticLearner
    from learnae.ports import Learner
    from learnae.protocol.events import Tell, Topic
    from learnae.protocol.rules import Ticket

PASSWORD_FILE = "password"


def main(path: str, number: str) -> int:
    folder = NodeFolder(Path(path))
    open_log(folder.log)

    def make_learner(ticket: Ticket, settings: NodeSettings, on_passes: OnPasses) -> Learner:
        return ImmediateLearner(SyntheticLearner(int(number)))

    password = read_password(folder.path.parent / PASSWORD_FILE)

    def on_tell(tell: Tell) -> None:
        """Troubles also of before the node runs, such as a chain that does not answer, are in its `output.txt`."""
        if tell.topic is Topic.TROUBLE:
            print(time.time(), tell.text, flush=True)

    starter = NodeStarter(folder, password, on_tell=on_tell, make_learner=make_learner)
    try:
        run_interruptible(starter.run, on_signal=starter.stop)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
