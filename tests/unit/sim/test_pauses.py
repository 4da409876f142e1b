"""A paused node takes no step, its timers wait, and then it goes on from where it was."""

from __future__ import annotations

from contextvars import copy_context
from random import Random

import trio

from tests.sim.pauses import NODE, Gate
from tests.sim.run import run_sim


def in_node(node: str, nursery: trio.Nursery, *args: object) -> None:
    """Start a task that belongs to that node."""
    context = copy_context()
    context.run(NODE.set, node)
    context.run(nursery.start_soon, *args)


def test_a_paused_node_meets_its_timers_and_events_when_it_goes_on() -> None:
    seen: list[tuple[str, float]] = []

    async def tick(name: str) -> None:
        while trio.current_time() < 10:
            await trio.sleep(1)
            seen.append((name, trio.current_time()))

    async def listen(event: trio.Event) -> None:
        with trio.move_on_after(5):
            await event.wait()
            seen.append(("event", trio.current_time()))

    async def world(_: Random) -> None:
        gate = Gate()
        gate.install()
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            in_node("a", nursery, tick, "a")
            in_node("b", nursery, tick, "b")
            in_node("a", nursery, listen, event)
            await trio.sleep(2.5)
            gate.pause("a")
            event.set()
            await trio.sleep(5)
            assert gate.is_paused("a")
            gate.resume("a")

    run_sim(1, world)
    assert [at for name, at in seen if name == "b"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [at for name, at in seen if name == "a"] == [1, 2, 7.5, 8.5, 9.5, 10.5]
    assert ("event", 7.5) in seen, "it had happened before its timeout"


def test_what_is_paused_can_be_cancelled_and_ends_when_it_goes_on() -> None:
    ended: list[float] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def world(_: Random) -> None:
        gate = Gate()
        gate.install()
        async with trio.open_nursery() as nursery:
            in_node("a", nursery, wait)
            await trio.sleep(1)
            gate.pause("a")
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            assert ended == []
            gate.resume("a")

    run_sim(1, world)
    assert ended == [2.0]
