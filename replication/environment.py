"""What the outside world looks like to the core: time, randomness, disk, network, tasks, threads.

Code in replication/, cluster/, node/ and gateways/ reaches the world only through these interfaces.
`replication/real.py` implements them with the machine; `tests/sim/` implements them with a seed, so that a
whole cluster runs reproducibly in one loop. The style test bans the direct ways (tests/tidy).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

import trio.abc

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")


class Clock(Protocol):
    """Time. Deadlines are monotonic nanoseconds; only stamps that people see are wall time."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back; the zero point means nothing."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC, as the machine believes; may jump either way."""

    async def sleep_until(self, deadline_ns: int) -> None:
        """Return when `monotonic_ns()` has reached the deadline."""


class File(Protocol):
    """One open file. All calls block: run them inside `Environment.offload`, except small page-cache reads."""

    def pread(self, size_bytes: int, position: int) -> bytes:
        """At most `size_bytes` from `position`; shorter only at the end of the file. Raises OSError."""

    def pwrite(self, parts: Sequence[Buffer], position: int) -> None:
        """Write all parts one behind the other, whole or raise OSError (then an unknown prefix is written)."""

    def sync(self) -> None:
        """fdatasync. After an OSError the written data is to be taken as lost: never call it again."""

    def truncate(self, size_bytes: int) -> None: ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One data directory. Names are relative to it, with "/" between folders. All calls block."""

    def create(self, name: str, size_bytes: int = 0) -> File:
        """A new file (FileExistsError where there is one), `size_bytes` of zeros allocated at once."""

    def open(self, name: str) -> File:
        """An existing file for reading and writing (FileNotFoundError where there is none)."""

    def list(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; [] where the folder does not exist."""

    def make_folder(self, folder: str) -> None: ...

    def rename(self, source: str, target: str) -> None:
        """Replaces the target atomically; durable after `sync_folder` of its folder."""

    def unlink(self, name: str) -> None: ...

    def sync_folder(self, folder: str) -> None: ...

    def free_bytes(self) -> int: ...

    def lock(self, name: str) -> None:
        """Take the lock of that name for this process, which ends with `unlock` or with the process.

        Raises BlockingIOError where somebody has it.
        """

    def unlock(self, name: str) -> None:
        """Give back a lock that this Disk took."""


class Network(Protocol):
    """Streams between addresses."""

    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Listeners on the address; port 0 picks a free one."""

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """A connected stream, small writes sent at once. Raises OSError."""

    def address_of(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        """The (host, port) that a listener really has."""


class Tasks(Protocol):
    """Where long-lived tasks are started."""

    def spawn(self, name: str, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task; an exception that leaves it ends the node."""

    async def offload(self, lane: str, work: Callable[[], T]) -> T:
        """Run blocking `work` in a thread. Calls of one lane run one at a time, in order of arrival.

        Not abandoned on cancellation: the caller waits until the work has ended.
        """


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process uses of the machine's memory; 0 and 0 where nobody can say."""

    used_bytes: int
    machine_bytes: int


def unknown_memory() -> Memory:
    """For worlds without a memory."""
    return Memory(0, 0)


@dataclass(frozen=True, slots=True)
class Environment:
    """All of it, handed to whatever needs the world."""

    clock: Clock
    random: Random
    disk: Disk
    network: Network
    tasks: Tasks
    memory: Callable[[], Memory] = unknown_memory
