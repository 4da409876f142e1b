"""Stop all tasks of one node and let them go on later, as SIGSTOP and SIGCONT do to a process.

    trio ── runnable task ──> Gate ──(its node runs)──> the loop
                               └──(its node is paused)──> held, until `resume`

A paused node is stopped between two steps: its timers ring and its sockets fill meanwhile, and it meets all of
that at once when it goes on. Which node a task belongs to is in the task's context, which tasks hand on to those
that they start.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar

import trio
import trio._core._run as trio_run

NODE: ContextVar[str] = ContextVar("NODE", default="")
"""The node that a task belongs to; empty: none, it is never paused."""

# The private name that pauses hang on (trio 0.35): fail here, not in a node that goes on.
assert "runq" in trio_run.Runner.__annotations__


class Gate(deque[trio.lowlevel.Task]):
    """trio's queue of runnable tasks, which keeps those of paused nodes back."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, list[trio.lowlevel.Task]] = {}

    def install(self) -> None:
        """Take the place of the running loop's queue."""
        runner = trio_run.GLOBAL_RUN_CONTEXT.runner
        self.extend(runner.runq)
        runner.runq = self

    def append(self, task: trio.lowlevel.Task, /) -> None:
        """Called by trio when a task becomes runnable."""
        if self._held:
            held = self._held.get(task.context.get(NODE, ""))
            if held is not None:
                held.append(task)
                return
        super().append(task)

    def is_paused(self, node: str) -> bool:
        """True between `pause` and `resume`."""
        return node in self._held

    def pause(self, node: str) -> None:
        """The node's tasks take no further step, beyond those of this very turn of the loop."""
        if node not in self._held:
            tasks = list(self)
            self.clear()
            self._held[node] = []
            for task in tasks:
                self.append(task)

    def resume(self, node: str) -> None:
        """They go on."""
        for task in self._held.pop(node, ()):
            super().append(task)

    def resume_all(self) -> None:
        """All nodes go on."""
        for node in list(self._held):
            self.resume(node)
