"""How long the event loop has nothing to do."""

from __future__ import annotations

import trio
import trio.testing

from learnae.backends.idle_clock import IdleClock, Spent


def test_idle_clock__tells_idle_from_work_and_leaves_out_pauses() -> None:
    now = worked = 0.0
    clock = IdleClock(lambda: now, lambda: worked)
    for timeout, waited_s in ((1.0, 2.0), (0.0, 4.0)):  # the second: there is work, the loop only looks whether something arrived
        clock.before_io_wait(timeout)
        now += waited_s
        clock.after_io_wait(timeout)
        now, worked = now + 8.0, worked + 5.0
    with clock.paused():
        with clock.paused():
            pass
        clock.before_io_wait(1.0)
        now += 16.0
        clock.after_io_wait(1.0)
    assert clock.read() == Spent(passed_s=22.0, idle_s=2.0, worked_s=10.0)


def test_idle_clock__is_told_by_the_loop_while_it_runs() -> None:
    async def run() -> None:
        clock = IdleClock()
        with clock.run():
            await trio.testing.wait_all_tasks_blocked(0.01)
        counted_s = clock.read().idle_s
        assert counted_s > 0.005
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert clock.read().idle_s == counted_s

    trio.run(run)
