"""Run a whole simulated world in one trio loop, reproducible to the byte from its seed.

trio's order of runnable tasks comes from one private random generator; with its flag for deterministic scheduling
set and that generator seeded, equal seeds give equal runs (measured: docs of the simulation). Its clock jumps when
nothing is runnable. What a simulation must not do: threads, sockets, files, iterating sets of objects.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio._core._run as trio_run
import trio.abc
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
STALLED_ROUNDS = 3
"""Rounds in a row with nothing runnable and no deadline, after which a world counts as deadlocked."""
STEPS_MAX = 20_000_000
"""Task steps that one run may take; more means that it never ends."""
TRACE_LINES = 200
"""Scheduler events kept for a report of a failed run."""

# The two private names that determinism hangs on (trio 0.35): fail here, not in a wrong digest.
assert hasattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
assert isinstance(trio_run._r, Random)


class Deadlock(Exception):
    """Every task of the world waits for another one."""


class NeverEnds(Exception):
    """The world took STEPS_MAX steps."""


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self.steps += 1


class Trace(Steps):
    """A running fingerprint of the schedule, and its last lines for people. Costs as much as the schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._hash = hashlib.sha256()
        self._first: int | None = None

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self._note("spawn", task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self.steps += 1
        self._note("step", task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self._note("exit", task)

    def digest(self) -> str:
        """Equal for equal schedules."""
        return self._hash.hexdigest()

    def _note(self, what: str, task: trio.lowlevel.Task) -> None:
        counter: int = task._counter  # private: a task's number in this process
        if self._first is None:
            self._first = counter
        line = f"{what} {counter - self._first} {task.name}"
        self._hash.update(line.encode())
        self.lines.append(line)
        if len(self.lines) > 2 * TRACE_LINES:
            del self.lines[:TRACE_LINES]


class _Watch(trio.abc.Instrument):
    """Ends a run that stands still (MockClock would spin for ever) or that never ends."""

    def __init__(self, trace: Steps) -> None:
        self._trace = trace
        self._stalled = 0
        self._steps = 0
        self.scope: trio.CancelScope | None = None
        self.error: Exception | None = None

    def before_io_wait(self, timeout: float) -> None:
        """See trio.abc.Instrument."""
        if self._trace.steps != self._steps:
            self._steps = self._trace.steps
            self._stalled = 0
            if self._steps > STEPS_MAX:
                self._end(NeverEnds(f"more than {STEPS_MAX} steps"))
            return
        self._stalled += 1
        if self._stalled >= STALLED_ROUNDS:
            statistics = trio.lowlevel.current_statistics()
            if statistics.tasks_runnable == 0 and statistics.seconds_to_next_deadline == float("inf"):
                self._end(Deadlock("every task waits for another one:\n" + "\n".join(_waiting())))

    def _end(self, error: Exception) -> None:
        if self.scope is not None and self.error is None:
            self.error = error
            self.scope.cancel()


def _waiting() -> Iterator[str]:
    """Each task and the lines at which it waits, outermost first."""
    root = trio.lowlevel.current_root_task()
    tasks = [root] if root is not None else []
    while tasks:
        task = tasks.pop()
        places = [f"{frame.f_code.co_name}:{line}" for frame, line in task.iter_await_frames()]
        yield f"  {task.name}: {' > '.join(places)}"
        for nursery in task.child_nurseries:
            tasks.extend(sorted(nursery.child_tasks, key=lambda child: child.name))


def run_sim(seed: int, world: Callable[..., Awaitable[T]], *args: Any, trace: Steps | None = None) -> T:
    """Run `world(random, *args)` with everything that trio draws coming from the seed; its result.

    Raises what the world raises, Deadlock where all its tasks wait for each other, NeverEnds beyond STEPS_MAX.
    """
    root = Random(seed)
    trace = trace or Steps()
    watch = _Watch(trace)

    async def watched() -> T:
        with trio.CancelScope() as watch.scope:
            return await world(root, *args)
        assert watch.error is not None
        raise watch.error

    with _deterministic(root.getrandbits(64)):
        return trio.run(watched, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[trace, watch])


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    flag = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    collecting = gc.isenabled()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final for users; the recipe sets it
    trio_run._r.seed(seed)
    gc.disable()  # finalisers run at moments that no seed decides
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = flag  # type: ignore[misc]  # see above
        trio_run._r.setstate(state)
        if collecting:
            gc.enable()
