"""Machines of which a test can make the disk full or slow and the memory scarce, and plentiful again."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

from replication.environment import Environment, Memory
from replication.real import RealDisk, RealFile
from replication.storage.store import StorageSettings

MEBIBYTE = 1 << 20
PLENTY = 1 << 40
LOW = 200 * MEBIBYTE
"""Free bytes of a disk that is nearly full."""
CRITICAL = 50 * MEBIBYTE
"""Of one that is fuller still."""
LOOKS_OFTEN = StorageSettings(janitor_interval_ms=20)
"""Storage that notices at once."""


class Machine:
    """What one node lives on."""

    def __init__(self) -> None:
        self.free_bytes = PLENTY
        """Room on the disk, as the node sees it, if there is not even less."""
        self.memory = Memory(0, 0)
        self.disk_goes = Event()
        """Cleared: nothing that is written becomes durable until it is set."""
        self.disk_goes.set()

    def has(self, environment: Environment) -> Environment:
        """The world of a node that lives here."""
        disk = environment.disk
        assert isinstance(disk, RealDisk)
        return replace(environment, disk=_Disk(disk.root, self), memory=lambda: self.memory)


class Machines:
    """Of a cluster, by node."""

    def __init__(self) -> None:
        self._machines: dict[int, Machine] = {}

    def __getitem__(self, node_id: int) -> Machine:
        return self._machines.setdefault(node_id, Machine())

    def adjust(self, node_id: int, environment: Environment) -> Environment:
        """See Cluster.adjust."""
        return self[node_id].has(environment)

    def mend(self) -> None:
        """All disks go on: threads that wait for them would keep the test from its end."""
        for machine in self._machines.values():
            machine.disk_goes.set()


class _File(RealFile):
    __slots__ = ("machine",)

    machine: Machine

    def sync(self) -> None:
        self.machine.disk_goes.wait()
        super().sync()


class _Disk(RealDisk):
    def __init__(self, root: str, machine: Machine) -> None:
        super().__init__(root)
        self._machine = machine

    def create(self, name: str, size_bytes: int = 0) -> RealFile:
        return self._slow(super().create(name, size_bytes))

    def open(self, name: str) -> RealFile:
        return self._slow(super().open(name))

    def free_bytes(self) -> int:
        return min(super().free_bytes(), self._machine.free_bytes)

    def _slow(self, file: RealFile) -> RealFile:
        slow = _File(file._descriptor)
        slow.machine = self._machine
        return slow
