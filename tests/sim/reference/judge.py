"""Judges a group of replicas while somebody else drives them, as whole nodes do; keeps no trace.

    core ── observer, take, read_index, log ──> Judge ──> Recorder ──> Model ──(illegal)──> broken("...")

It judges for as long as the papers do: what they call durable is. Once a disk may have lost what it had synced, it
says nothing more; the checkers of the simulator go on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from replication.raft.core import RaftCore
from replication.raft.log import Log, Vote
from replication.raft.output import Output
from tests.sim.reference.model import Illegal, Model
from tests.sim.reference.record import RecordedLog, Recorder
from tests.sim.reference.trace import Event, Write


class Judge:
    """Of one group."""

    def __init__(
        self, clock: Callable[[], int], broken: Callable[[str], None], in_doubt: Callable[[], bool]
    ) -> None:
        """`broken` is told of the first illegal step. `in_doubt`: a disk may have lost what it had synced."""
        self.model = Model()
        self.recorder = Recorder(clock, self._tell)
        self._broken = broken
        self._in_doubt = in_doubt
        self._ended = False

    @property
    def judges(self) -> bool:
        """It still does."""
        self._ended = self._ended or self._in_doubt()
        return not self._ended

    def follow(self, core: RaftCore, vote: Vote, alive: Callable[[], bool]) -> None:
        """A core was just made. `alive`: what it does has effects; not so when its process was killed."""
        if not self.judges:
            return
        former = self.model.group.replicas.get(core.replica)
        if former is not None and former.alive:
            self.recorder.crashed(core.replica)
        log = core.log
        core.log = RecordedLog(log, partial(self._wrote, core.replica, alive))
        self.recorder.started(core, log, vote, observe=False)
        core.observer = _Witness(self, core, log, core.observer, alive)
        core.__class__ = _WitnessedCore

    def _wrote(self, replica: int, alive: Callable[[], bool], write: Write) -> None:
        if alive():
            self.recorder.wrote(replica, write)

    def _tell(self, event: Event) -> None:
        try:
            self.model.accept(event)
        except Illegal as illegal:
            self._ended = True
            self._broken(f"not what the papers allow: {illegal}")


class _Witness:
    """Tells a judge what one core does in one life, and whoever observed it before."""

    __slots__ = ("_alive", "_core", "_judge", "_log", "_others")

    def __init__(
        self,
        judge: Judge,
        core: RaftCore,
        log: Log,
        others: Callable[[str, tuple[Any, ...]], None] | None,
        alive: Callable[[], bool],
    ) -> None:
        self._judge = judge
        self._core = core
        self._log = log
        self._others = others
        self._alive = alive

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        """See RaftCore.observer."""
        if self._others is not None:
            self._others(name, arguments)
        if self.sees:
            self._judge.recorder.observed(self._core, self._log, name, arguments)

    @property
    def sees(self) -> bool:
        """What it sees still counts."""
        return self._alive() and self._judge.judges

    def asked(self, ticket: int) -> None:
        """What `read_index` has just returned."""
        if self.sees:
            self._judge.recorder.asked(self._core, ticket)

    def taken(self, output: Output) -> None:
        """What `take` has just returned."""
        if self.sees:
            self._judge.recorder.taken(self._core, output)


class _WitnessedCore(RaftCore):
    """What a core becomes that is followed: its results are seen too. Nothing else changes."""

    __slots__ = ()

    def read_index(self, now_ns: int) -> int:
        """See RaftCore."""
        ticket = super().read_index(now_ns)
        _witness(self).asked(ticket)
        return ticket

    def take(self) -> Output:
        """See RaftCore."""
        output = super().take()
        _witness(self).taken(output)
        return output


def _witness(core: RaftCore) -> _Witness:
    assert isinstance(core.observer, _Witness), "nobody else observes a core that is followed"
    return core.observer
