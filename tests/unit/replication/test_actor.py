"""Actors: mailboxes drained in batches, alarms in order, failures that stay with the actor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from replication import actor as actor_module
from replication.actor import Actor, Host, MailboxFull, Promise, rejected


class TrioClock:
    """The clock of the running loop, which the tests jump."""

    def monotonic_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def wall_ms(self) -> int:
        return int(trio.current_time() * 1e3)

    async def sleep_until(self, deadline_ns: int) -> None:
        await trio.sleep_until(deadline_ns / 1e9)


class Recorder(Actor):
    """Remembers what it was given, batch by batch."""

    def __init__(self, host: Host, name: str = "recorder") -> None:
        super().__init__(host, name)
        self.batches: list[list[Any]] = []

    def handle(self, messages: list[Any]) -> None:
        self.batches.append(messages)
        if "fail" in messages:
            raise ValueError("asked to")


@asynccontextmanager
async def running_host() -> AsyncIterator[tuple[Host, list[tuple[str, Exception]]]]:
    failures: list[tuple[str, Exception]] = []
    host = Host(TrioClock(), lambda actor, error: failures.append((actor.name, error)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        yield host, failures
        nursery.cancel_scope.cancel()


async def test_everything_that_waits_is_handled_in_one_call() -> None:
    async with running_host() as (host, _):
        recorder = Recorder(host)
        for number in range(3):
            recorder.post(number)
        await trio.testing.wait_all_tasks_blocked()
        recorder.post(3)
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.batches == [[0, 1, 2], [3]]


async def test_a_full_mailbox_refuses_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_module, "MAILBOX_MESSAGES", 2)
    async with running_host() as (host, _):
        recorder = Recorder(host)
        recorder.post("a")
        recorder.post("b")
        with pytest.raises(MailboxFull):
            recorder.post("c")
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.batches == [["a", "b"]]


async def test_one_failing_actor_does_not_stop_the_others() -> None:
    async with running_host() as (host, failures):
        bad, good = Recorder(host, "bad"), Recorder(host, "good")
        bad.post("fail")
        good.post("fine")
        await trio.testing.wait_all_tasks_blocked()
        assert good.batches == [["fine"]]
        assert [name for name, _ in failures] == ["bad"]


async def test_a_stopped_actor_handles_nothing_more() -> None:
    async with running_host() as (host, _):
        recorder = Recorder(host)
        recorder.post("before")
        recorder.stop()
        recorder.post("after")
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.batches == []


async def test_alarms_ring_in_the_order_of_their_times(autojump_clock: trio.testing.MockClock) -> None:
    async with running_host() as (host, _):
        late, early = Recorder(host), Recorder(host)
        now_ns = host.clock.monotonic_ns()
        host.alarm(now_ns + 2_000_000_000, late, "second")
        host.alarm(now_ns + 1_000_000_000, early, "first")
        await trio.sleep(1.5)
        assert (early.batches, late.batches) == ([["first"]], [])
        await trio.sleep(1)
        assert late.batches == [["second"]]


async def test_an_actors_new_alarm_replaces_the_last_one(autojump_clock: trio.testing.MockClock) -> None:
    async with running_host() as (host, _):
        recorder = Recorder(host)
        now_ns = host.clock.monotonic_ns()
        host.alarm(now_ns + 1_000_000_000, recorder, "first")
        host.alarm(now_ns + 2_000_000_000, recorder, "second")
        assert recorder.alarm_ns == now_ns + 2_000_000_000
        await trio.sleep(3)
        assert recorder.batches == [["second"]]
        assert recorder.alarm_ns is None
        host.alarm(now_ns + 4_000_000_000, recorder, "third")
        recorder.stop()
        await trio.sleep(3)
        assert recorder.batches == [["second"]]


async def test_alarms_that_were_replaced_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_module, "ALARMS_REPLACED", 10)
    async with running_host() as (host, _):
        recorder = Recorder(host)
        hours_ns = 12 * 3_600_000_000_000
        for number in range(1_000):
            host.alarm(host.clock.monotonic_ns() + hours_ns - number, recorder, number)
        assert len(host._alarms) <= 13


async def test_an_alarm_rings_though_the_mailbox_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_module, "MAILBOX_MESSAGES", 1)
    async with running_host() as (host, _):
        recorder = Recorder(host)
        host.alarm(host.clock.monotonic_ns() - 1, recorder, "alarm")
        recorder.post("a")
        await trio.testing.wait_all_tasks_blocked()
        assert [each for batch in recorder.batches for each in batch] == ["a", "alarm"]


async def test_an_actor_that_posts_to_itself_does_not_starve_the_loop() -> None:
    class Restless(Actor):
        turns = 0

        def handle(self, messages: list[Any]) -> None:
            self.turns += 1
            self.post("again")

    async with running_host() as (host, _):
        restless = Restless(host, "restless")
        restless.post("begin")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert restless.turns > 1
        restless.stop()


async def test_a_promise_is_answered_once_and_tells_everyone() -> None:
    promise: Promise[int] = Promise()
    told: list[int] = []
    promise.then(lambda done: told.append(done.result()))
    promise.resolve(1)
    promise.resolve(2)
    promise.reject(ValueError("too late"))
    promise.then(lambda done: told.append(done.result()))
    assert told == [1, 1]
    assert await promise.wait() == 1


async def test_a_callback_that_fails_harms_neither_the_others_nor_the_one_who_answers() -> None:
    promise: Promise[int] = Promise()
    told: list[int] = []

    def fails(_: Promise[int]) -> None:
        raise ValueError("a defect of the one who asked")

    promise.then(fails)
    promise.then(lambda done: told.append(done.result()))
    promise.resolve(1)
    promise.then(fails)
    assert told == [1]


async def test_a_rejected_promise_raises_its_error() -> None:
    with pytest.raises(KeyError):
        await rejected(KeyError("x")).wait()


def test_whoever_holds_the_work_is_told_once_that_nobody_waits() -> None:
    told: list[int] = []
    promise: Promise[int] = Promise()
    promise.when_abandoned(lambda: told.append(1))
    promise.abandon()
    promise.abandon()
    promise.when_abandoned(lambda: told.append(2))
    assert told == [1, 2]
    answered: Promise[int] = Promise()
    answered.when_abandoned(lambda: told.append(3))
    answered.resolve(7)
    answered.abandon()
    assert (told, answered.abandoned) == ([1, 2], False)


async def test_a_cancelled_waiter_abandons_the_promise(autojump_clock: trio.testing.MockClock) -> None:
    promise: Promise[int] = Promise()
    with trio.move_on_after(1):
        await promise.wait()
    assert promise.abandoned
    assert not promise.done
