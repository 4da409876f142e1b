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

from tests.sim.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
STEPS_MAX = 4_000_000
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
    """Counts the steps of all tasks, up to STEPS_MAX."""

    def __init__(self) -> None:
        self.steps = 0
        self.watch: _Watch | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self.steps += 1
        if self.steps > STEPS_MAX and self.watch is not None:
            self.watch.end(NeverEnds(f"more than {STEPS_MAX} steps"))


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
        super().before_task_step(task)
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


class _Watch:
    """Ends a run that stands still (MockClock would spin for ever)."""

    def __init__(self) -> None:
        self.scope: trio.CancelScope | None = None
        self.error: Exception | None = None

    def stand_still(self) -> None:
        """Every task waits, and nothing will ever be due."""
        self.end(Deadlock("every task waits for another one:\n" + "\n".join(_waiting())))

    def end(self, error: Exception) -> None:
        """Raise this from the run."""
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
    watch = trace.watch = _Watch()
    clock = trio.testing.MockClock(autojump_threshold=0)
    Timers(clock, watch.stand_still)

    async def watched() -> T:
        with trio.CancelScope() as watch.scope:
            result = await world(root, *args)
        if watch.error is not None:  # also where the world took its cancellation for an end
            raise watch.error
        return result

    with _deterministic(root.getrandbits(64)):
        return trio.run(watched, clock=clock, instruments=[trace])


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
