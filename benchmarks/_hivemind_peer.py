"""One hivemind peer, driven by lines on its standard input; runs in the environment of `hivemind.txt`, not in that of learnae.

`python _hivemind_peer.py SIZE[,SIZE...] [ADDRESS]` prints its address. Then `load SIZE` loads the other peer's state of so many bytes,
`step SIZE` averages with it, `miss SIZE SECONDS` does so alone until the time-out; each is answered with the seconds it took.
"""

from __future__ import annotations

import sys
import time

import hivemind  # type: ignore[import-not-found]
import torch
from hivemind.averaging.partition import AllreduceException  # type: ignore[import-not-found]

TENSORS = 10  # As many as a small network has; one large one is not faster here.


def make_averager(dht: hivemind.DHT, size_bytes: int) -> hivemind.DecentralizedAverager:
    """For a group of two, started as soon as the second is there."""
    tensors = [torch.rand(size_bytes // 4 // TENSORS) for _ in range(TENSORS)]
    group = {"target_group_size": 2, "min_group_size": 2, "min_matchmaking_time": 2.0, "request_timeout": 1.0}
    return hivemind.DecentralizedAverager(tensors, dht, prefix=f"model{size_bytes}", start=True, **group)


def run_command(averager: hivemind.DecentralizedAverager, name: str, timeout_s: float) -> float:
    began_s = time.perf_counter()
    if name == "load":
        loaded = averager.load_state_from_peers(timeout=timeout_s)
        if loaded is None or sum(tensor.nbytes for tensor in loaded[1]) != averager.total_size * 4:
            raise RuntimeError("hivemind loaded no state or a part of it")
    else:
        try:
            done = averager.step(timeout=timeout_s, allow_retries=False)
        except AllreduceException:  # nobody came
            done = None
        if (done is None) != (name == "miss"):
            raise RuntimeError(f"hivemind's step returned {done}")
    return time.perf_counter() - began_s


def main() -> None:
    initial = sys.argv[2:]
    dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], initial_peers=initial, start=True)
    averagers = {size: make_averager(dht, int(size)) for size in sys.argv[1].split(",")}
    print(next(address for address in dht.get_visible_maddrs() if "127.0.0.1" in str(address)), flush=True)
    for line in sys.stdin:
        name, size, *more = line.split()
        print(run_command(averagers[size], name, float(more[0]) if more else 60.0), flush=True)
    for averager in averagers.values():
        averager.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    main()
