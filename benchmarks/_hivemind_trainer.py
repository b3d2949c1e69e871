"""One hivemind peer that trains digits; runs in the environment of `hivemind.txt`, not in that of learnae.

`python _hivemind_trainer.py FILE.npz STEPS_PER_S [ADDRESS ...]`: the file holds data and the initial weights. The peer takes so many steps
of gradient descent a second and averages its weights with the others in the background, as often as groups form, without waiting for
them. If the file says `late`, it first loads the state of the others. It writes lines of JSON with Unix times: `ready`, then after a
line `go` on its standard input `merged` (with the seconds it took), and `accuracy` on the held-out test digits whenever it reads a line
`test`, with the steps taken so far. It ends with its standard input.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import hivemind  # type: ignore[import-not-found]
import numpy as np
import torch

BATCH, LEARNING_RATE, MOMENTUM = 32, 0.1, 0.9  # As in the built-in task `digits`.
GROUP = 6
MATCHMAKING_S = 1.0  # Less makes groups that miss somebody, more makes merges slower; both ends here less accurate.
MERGE_TIMEOUT_S = 10.0
CHUNK_TIMEOUT_S = 2.0


def tell(event: str, **values: float) -> None:
    print(json.dumps({"event": event, "time_s": time.time(), **values}), flush=True)


class Trainer:
    def __init__(self, path: str, addresses: list[str]) -> None:
        torch.set_num_threads(1)
        data = np.load(path, allow_pickle=False)
        self.x, self.y, self.test_x, self.test_y = (torch.from_numpy(data[name]) for name in ("x", "y", "test_x", "test_y"))
        self.net = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
        with torch.no_grad():
            for parameter, name in zip(
                self.net.parameters(), ("hidden_weight", "hidden_bias", "output_weight", "output_bias"), strict=True
            ):
                parameter.copy_(torch.from_numpy(data[name]))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], initial_peers=addresses, start=True)
        self.averager = hivemind.DecentralizedAverager(
            [parameter.detach().clone() for parameter in self.net.parameters()],
            self.dht,
            prefix="digits",
            target_group_size=GROUP,
            min_matchmaking_time=MATCHMAKING_S,
            request_timeout=0.5,
            allreduce_timeout=MERGE_TIMEOUT_S,  # Without these two a merge waits for ever when somebody in it hangs or dies.
            next_chunk_timeout=CHUNK_TIMEOUT_S,
            start=True,
        )
        self.merge: Future[object] | None = None
        self.rows, self.steps = torch.randperm(len(self.x)), 0
        if data["late"]:
            loaded = self.averager.load_state_from_peers(timeout=30.0)
            if loaded is not None:
                self._take(loaded[1])
        address = next(str(address) for address in self.dht.get_visible_maddrs() if "127.0.0.1" in str(address))
        print(json.dumps({"event": "ready", "time_s": time.time(), "address": address}), flush=True)

    def _take(self, tensors: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, tensor in zip(self.net.parameters(), tensors, strict=True):
                parameter.copy_(tensor)

    def step(self) -> None:
        begin = self.steps * BATCH % len(self.x)
        self.steps += 1
        if begin < BATCH:
            self.rows = torch.randperm(len(self.x))
        rows = self.rows[begin : begin + BATCH]
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(self.net(self.x[rows].float() / 255), self.y[rows]).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def average(self) -> None:
        """Begin a merge, or take what one brought: the others' part is added to what was trained meanwhile."""
        if self.merge is None:
            with self.averager.get_tensors() as tensors, torch.no_grad():
                for tensor, parameter in zip(tensors, self.net.parameters(), strict=True):
                    tensor.copy_(parameter)
                self.before = [parameter.detach().clone() for parameter in self.net.parameters()]
            self.began_s = time.time()
            self.merge = self.averager.step(wait=False, timeout=MERGE_TIMEOUT_S, allow_retries=True)
        elif self.merge.done():
            failed = self.merge.cancelled() or self.merge.exception() is not None or self.merge.result() is None
            if not failed:
                with self.averager.get_tensors() as tensors, torch.no_grad():
                    for tensor, before, parameter in zip(tensors, self.before, self.net.parameters(), strict=True):
                        parameter.add_(tensor - before)
            tell("alone" if failed else "merged", seconds=time.time() - self.began_s)
            self.merge = None

    def test(self) -> None:
        with torch.no_grad():
            right = self.net(self.test_x.float() / 255).argmax(1) == self.test_y
        tell("accuracy", accuracy=float(right.float().mean()), steps=self.steps)


def main() -> None:
    trainer, rate = Trainer(sys.argv[1], sys.argv[3:]), float(sys.argv[2])
    words: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            words.put(line.strip())
        words.put("end")

    threading.Thread(target=listen, daemon=True).start()
    assert words.get() in ("go", "end")
    began_s = time.time()
    while True:
        try:
            word = words.get_nowait()
        except queue.Empty:
            word = ""
        if word == "end":
            break
        if word == "test":
            trainer.test()
        trainer.average()
        if trainer.steps < rate * (time.time() - began_s):
            trainer.step()
        else:
            time.sleep(0.005)
    trainer.averager.shutdown()
    trainer.dht.shutdown()


if __name__ == "__main__":
    main()
