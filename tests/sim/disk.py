"""A disk in memory that fails as real ones do: `environment.Disk` for simulations (S13 of the storage behaviours).

    SimDisk(random)  ── a process uses it; every call counts as one operation and may meet a fault
       │ copy()      ── the same moment once more, to crash it in another way
       └ crash(how)  ── the disk as the next process finds it; this one is dead, its calls raise CrashHere

A write is in the page cache until the file is synced, a new name until its folder is. What a crash leaves of the
rest is drawn by tests/sim/crash.py; which faults strike is decided by tests/sim/faults.py.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import NoReturn

from replication.environment import Buffer
from tests.sim.crash import SECTOR_BYTES, NameChange, Names, Survival, cut_power, settle_some
from tests.sim.faults import Fault, FaultKind, Faults, Operation, OperationKind, PlannedFaults
from tests.sim.pages import Inode

CAPACITY_BYTES = 1 << 40
"""Size of a simulated disk where none is asked for."""


class CrashHere(BaseException):
    """The power went, or the process was killed. No `except Exception` of the code under test may catch it."""


class SimFile:
    """An open file of a SimDisk."""

    __slots__ = ("_closed", "_disk", "_inode", "_name")

    def __init__(self, disk: SimDisk, name: str, inode: Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._closed = False

    def pread(self, size_bytes: int, position: int) -> bytes:
        """See environment.File. Raises OSError(EIO) where a sector cannot be read."""
        self._check_open()
        self._disk.begin(OperationKind.READ, self._name, position, size_bytes)
        if self._inode.fails_reading(size_bytes, position):
            raise OSError(errno.EIO, "unreadable sector", self._name)
        return self._inode.seen.read(size_bytes, position)

    def pwrite(self, parts: Sequence[Buffer], position: int) -> None:
        """See environment.File."""
        self._check_open()
        self._disk.write(self._name, self._inode, b"".join(parts), position)

    def sync(self) -> None:
        """See environment.File. After a failure the next sync succeeds, without what this one dropped."""
        self._check_open()
        self._disk.sync(self._name, self._inode)

    def truncate(self, size_bytes: int) -> None:
        """See environment.File."""
        self._check_open()
        self._disk.truncate(self._name, self._inode, size_bytes)

    def size(self) -> int:
        """See environment.File."""
        self._check_open()
        return self._inode.seen.size

    def close(self) -> None:
        """See environment.File. Closing twice is an error of the caller."""
        self._check_open()
        self._closed = True

    def _check_open(self) -> None:
        if self._disk.dead:
            raise CrashHere
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self._name)


class SimDisk:
    """One data directory on a drive that forgets, tears, reorders, corrupts and refuses."""

    def __init__(
        self,
        random: Random,
        *,
        faults: Faults | None = None,
        sector_bytes: int = SECTOR_BYTES[0],
        capacity_bytes: int = CAPACITY_BYTES,
        traced: bool = True,
    ) -> None:
        """`traced`: every operation goes into the digest."""
        self.random = random
        self.faults: Faults = faults or PlannedFaults()
        self.sector_bytes = sector_bytes
        self.capacity_bytes = capacity_bytes
        self.dead = False
        """True behind a crash: whoever still holds this disk or a file of it gets CrashHere."""
        self.operations = 0
        """Calls so far in this life."""
        self.struck: list[tuple[Operation, Fault]] = []
        """The faults that happened."""
        self.before: Callable[[Operation], None] = lambda _: None
        """Called before each operation: to take a `copy()` there, or to crash."""
        self.latency_ns: Callable[[Operation], int] = lambda _: 0
        """How long an operation takes; whoever simulates the threads asks `take_cost_ns()`."""
        self._cost_ns = 0
        self._syncs: dict[int, int] = {}  # of each inode, counted from its first write that went astray
        self._astray: list[tuple[Inode, int, bytes, int]] = []  # (inode, position, data, its syncs then)
        self._seen = Names()
        self._kept = Names()
        self._changes: list[NameChange] = []
        self._sequence = 0
        self._inodes = 0
        self._locked: dict[str, None] = {}
        self._trace = hashlib.sha256()
        self._traced = traced

    # ---- environment.Disk

    def create(self, name: str, size_bytes: int = 0) -> SimFile:
        """See environment.Disk."""
        fault = self.begin(OperationKind.CREATE, name, 0, size_bytes)
        if name in self._seen.files:
            raise FileExistsError(errno.EEXIST, "exists", name)
        self._need_folder(name)
        if (fault is not None and fault.kind is FaultKind.NO_SPACE) or size_bytes > self._room():
            raise OSError(errno.ENOSPC, "no space left", name)
        self._inodes += 1
        inode = Inode(self._inodes)
        self._change(NameChange(self._next(), _folder_of(name), name, inode))
        if size_bytes:
            inode.resize(self._next(), size_bytes)
        self._end(fault)
        return SimFile(self, name, inode)

    def open(self, name: str) -> SimFile:
        """See environment.Disk."""
        self.begin(OperationKind.OPEN, name)
        return SimFile(self, name, self._find(name))

    def list(self, folder: str) -> list[str]:
        """See environment.Disk."""
        self.begin(OperationKind.LIST, folder)
        return sorted(name.rpartition("/")[2] for name in self._seen.files if _folder_of(name) == folder)

    def make_folder(self, folder: str) -> None:
        """See environment.Disk. Durable when the folder around it is synced."""
        fault = self.begin(OperationKind.MAKE_FOLDER, folder)
        parts = folder.split("/") if folder else []
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in self._seen.folders:
                self._change(NameChange(self._next(), _folder_of(path), path, None, makes_folder=True))
        self._end(fault)

    def rename(self, source: str, target: str) -> None:
        """See environment.Disk."""
        fault = self.begin(OperationKind.RENAME, target)
        inode = self._find(source)
        self._need_folder(target)
        self._change(NameChange(self._next(), _folder_of(target), target, inode, gone=source))
        self._end(fault)

    def unlink(self, name: str) -> None:
        """See environment.Disk."""
        fault = self.begin(OperationKind.UNLINK, name)
        self._find(name)
        self._change(NameChange(self._next(), _folder_of(name), name, None))
        self._end(fault)

    def sync_folder(self, folder: str) -> None:
        """See environment.Disk. After a failure the names that it was to save are lost at the next crash."""
        fault = self.begin(OperationKind.SYNC_FOLDER, folder)
        if folder not in self._seen.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", folder)
        mine = [change for change in self._changes if change.folder == folder]
        part = fault is not None and fault.kind in (FaultKind.IO_ERROR, FaultKind.CRASH_DURING)
        for change in mine[: self.random.randrange(len(mine) + 1)] if part else mine:
            self._kept.apply(change)
        self._changes = [change for change in self._changes if change.folder != folder]
        if fault is not None and fault.kind is FaultKind.IO_ERROR:
            raise OSError(errno.EIO, "folder sync failed", folder)
        self._end(fault)

    def free_bytes(self) -> int:
        """See environment.Disk."""
        return max(self._room(), 0)

    def lock(self, name: str) -> None:
        """See environment.Disk. The end of the process gives it back, too."""
        self.begin(OperationKind.LOCK, name)
        if name in self._locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", name)
        if name not in self._seen.files:
            self._inodes += 1
            self._change(NameChange(self._next(), _folder_of(name), name, Inode(self._inodes)))
        self._locked[name] = None

    def unlock(self, name: str) -> None:
        """See environment.Disk."""
        self.begin(OperationKind.LOCK, name)
        del self._locked[name]

    # ---- what a simulation does with it

    def copy(self, random: Random) -> SimDisk:
        """The same disk at the same moment, with its page cache; without faults, hooks and locks."""
        other = SimDisk(
            random, sector_bytes=self.sector_bytes, capacity_bytes=self.capacity_bytes, traced=self._traced
        )
        twins: dict[int, Inode] = {}

        def twin(inode: Inode) -> Inode:
            if inode.number not in twins:
                twins[inode.number] = inode.copy()
            return twins[inode.number]

        for source, target in ((self._seen, other._seen), (self._kept, other._kept)):
            target.folders = dict(source.folders)
            target.files = {name: twin(inode) for name, inode in source.files.items()}
        for change in self._changes:
            inode = twin(change.inode) if change.inode is not None else None
            other._changes.append(
                NameChange(change.sequence, change.folder, change.name, inode, change.gone, change.makes_folder)
            )
        other._sequence, other._inodes = self._sequence, self._inodes
        return other

    def crash(self, survival: Survival, random: Random) -> SimDisk:
        """The disk as a new process finds it; what survives is drawn from `random`. This one is dead."""
        next_life = self.copy(random)
        self.dead = True
        if survival is not Survival.KILLED:
            next_life._lose_power(survival, random)
        return next_life

    def take_cost_ns(self) -> int:
        """Simulated time that the operations since the last call took."""
        cost_ns, self._cost_ns = self._cost_ns, 0
        return cost_ns

    def mend_last_writes(self) -> None:
        """Put down writes that went astray and that no later write of their file vouches for.

        The last write of a log is never told from a torn one: a simulation in which such a loss must be noticed
        lets it strike earlier writes only.
        """
        for inode, position, data, syncs in self._astray:
            if self._syncs[inode.number] < syncs + 2:
                inode.kept.write(data, position)

    def names(self) -> Sequence[str]:
        """All files as reads see them, with their folders, sorted."""
        return sorted(self._seen.files)

    def content(self, name: str) -> bytes:
        """What reads of the file see. Not an operation."""
        seen = self._find(name).seen
        return seen.read(seen.size, 0)

    def flip(self, name: str, position: int, bit: int = 0) -> None:
        """Rot: one bit of the file turns round, on the platter and for reads."""
        inode = self._find(name)
        inode.kept.flip(position, bit)
        inode.seen.flip(position, bit)

    def spoil(self, name: str, position: int, data: bytes) -> None:
        """Rot: other bytes stand there, on the platter and for reads."""
        inode = self._find(name)
        inode.kept.write(data, position)
        inode.seen.write(data, position)

    def make_unreadable(self, name: str, first: int, last: int) -> None:
        """Reads that touch these bytes fail with EIO until they are written again."""
        self._find(name).unreadable.append((first, last))

    def digest(self) -> str:
        """A fingerprint of every operation so far and of all that reads see: equal for equal histories."""
        trace = self._trace.copy()
        for name, inode in sorted(self._seen.files.items()):
            trace.update(f"{name} {inode.seen.size}".encode())
            trace.update(inode.seen.read(inode.seen.size, 0))
        return trace.hexdigest()

    # ---- for SimFile

    def begin(self, kind: OperationKind, name: str, position: int = 0, size_bytes: int = 0) -> Fault | None:
        """Count an operation and let a fault strike. What fails before anything has happened is raised here."""
        if self.dead:
            raise CrashHere
        self.operations += 1
        operation = Operation(self.operations, kind, name, position, size_bytes)
        if self._traced:
            self._trace.update(f"{kind.value} {name} {position} {size_bytes}\n".encode())
        self.before(operation)
        self._cost_ns += self.latency_ns(operation)
        fault = self.faults.at(operation)
        if fault is None:
            return None
        self.struck.append((operation, fault))
        if fault.kind is FaultKind.CRASH_BEFORE:
            self._die()
        if fault.kind is FaultKind.IO_ERROR and kind in (OperationKind.READ, OperationKind.CREATE):
            raise OSError(errno.EIO, "input/output error", name)
        if fault.kind is FaultKind.BIT_FLIP:
            kept = self._find(name).kept
            kept.flip(fault.argument // 8 % max(kept.size, 1), fault.argument % 8)
        return fault

    def write(self, name: str, inode: Inode, data: bytes, position: int) -> None:
        """A file's pwrite."""
        fault = self.begin(OperationKind.WRITE, name, position, len(data))
        if self._traced:
            self._trace.update(data)
        self._fit(name, inode, data, position)
        if fault is None:
            inode.write(self._next(), data, position)
            return
        if fault.kind in (FaultKind.IO_ERROR, FaultKind.NO_SPACE, FaultKind.CRASH_DURING):
            inode.write(self._next(), data[: fault.argument % (len(data) + 1)], position)
            if fault.kind is not FaultKind.CRASH_DURING:
                code = errno.EIO if fault.kind is FaultKind.IO_ERROR else errno.ENOSPC
                raise OSError(code, "write failed", name)
        elif fault.kind in (FaultKind.LOST_WRITE, FaultKind.MISDIRECTED_WRITE):
            inode.seen.write(data, position)
            self._astray.append((inode, position, data, self._syncs.setdefault(inode.number, 0)))
            if fault.kind is FaultKind.MISDIRECTED_WRITE:
                sectors = max(inode.kept.size // self.sector_bytes, 1)
                other = (position // self.sector_bytes + 1 + fault.argument) % sectors
                inode.kept.write(data, other * self.sector_bytes + position % self.sector_bytes)
        else:
            inode.write(self._next(), data, position)
        self._end(fault)

    def sync(self, name: str, inode: Inode) -> None:
        """A file's sync."""
        fault = self.begin(OperationKind.SYNC, name)
        if fault is not None and fault.kind in (FaultKind.IO_ERROR, FaultKind.CRASH_DURING):
            settle_some(inode, self.random, self.sector_bytes, 0.5)
            if fault.kind is FaultKind.IO_ERROR:
                inode.pending.clear()
                if fault.argument % 2:
                    inode.evict()
                raise OSError(errno.EIO, "sync failed", name)
            self._die()
        inode.sync()
        if inode.number in self._syncs:
            self._syncs[inode.number] += 1
        self._end(fault)

    def truncate(self, name: str, inode: Inode, size_bytes: int) -> None:
        """A file's truncate."""
        fault = self.begin(OperationKind.TRUNCATE, name, 0, size_bytes)
        if size_bytes - inode.seen.size > self._room():
            raise OSError(errno.ENOSPC, "no space left", name)
        inode.resize(self._next(), size_bytes)
        self._end(fault)

    def _fit(self, name: str, inode: Inode, data: bytes, position: int) -> None:
        """Where the disk is too full for a write, put the part that fits and raise ENOSPC."""
        growth = position + len(data) - inode.seen.size
        if growth > 0 and (lacking := growth - max(self._room(), 0)) > 0:
            inode.write(self._next(), data[: max(len(data) - lacking, 0)], position)
            raise OSError(errno.ENOSPC, "no space left", name)

    def _end(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind in (FaultKind.CRASH_DURING, FaultKind.CRASH_AFTER):
            self._die()

    def _die(self) -> NoReturn:
        self.dead = True
        raise CrashHere

    def _lose_power(self, survival: Survival, random: Random) -> None:
        inodes = {inode.number: inode for names in (self._seen, self._kept) for inode in names.files.values()}
        inodes.update({change.inode.number: change.inode for change in self._changes if change.inode is not None})
        in_order = [inodes[number] for number in sorted(inodes)]
        cut_power(self._kept, self._changes, in_order, survival, random, self.sector_bytes)
        self._changes = []
        folders = {folder: None for folder in self._kept.folders if self._reaches(folder)}
        files = {name: inode for name, inode in self._kept.files.items() if _folder_of(name) in folders}
        self._kept = Names(files, folders)
        self._seen = Names(dict(files), dict(folders))
        for inode in in_order:
            inode.pending.clear()
            inode.evict()

    def _reaches(self, folder: str) -> bool:
        while folder:
            if folder not in self._kept.folders:
                return False
            folder = _folder_of(folder)
        return True

    def _change(self, change: NameChange) -> None:
        self._seen.apply(change)
        self._changes.append(change)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _find(self, name: str) -> Inode:
        inode = self._seen.files.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return inode

    def _need_folder(self, name: str) -> None:
        if _folder_of(name) not in self._seen.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", _folder_of(name))

    def _room(self) -> int:
        return self.capacity_bytes - sum(inode.seen.size for inode in self._seen.files.values())


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]
