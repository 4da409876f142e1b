"""What a node must know of itself before it can ask anybody: its id, its disk's own number, how often it started.

    start n ──> node.a, then node.b (each in place, synced) ──> only then is anything said under number n

Two copies, so that no torn write and no single bad sector takes both. They are as large as they will ever need to
be from the first: a node whose disk is full can still start, and meet others. A node that has lost both has lost
its disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from struct import Struct

import cbor2
import trio

from plait.wire.errors import StorageDamaged
from replication.crc import crc32c
from replication.environment import Disk, Environment, File
from replication.peers.lives import Life, remembered

FILES = ("node.a", "node.b")
"""The names of the two copies."""
DISK_BITS = 62
"""Size of the number that a data directory is given for its life."""
CLUSTER_ID_CHARACTERS = 16
"""Length of a cluster's id."""
COPY_BYTES = 16 << 10
"""Room that a copy takes from the first: enough for a cluster of some hundred nodes; it grows by as much."""

_FORMAT = 3
_FIRST_FIELDS = 4
_CRC = Struct(">I")
_NEW = ".tmp"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Of this node with another one, for the last time."""

    life: Life
    """The other's."""
    start: int
    """This one's."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """One node's own facts."""

    node_id: int
    disk: int
    """Drawn when the data directory was first used: another disk, another number."""
    starts: int
    """How often the node was started on it; never falls."""
    founders: Mapping[int, int] = field(default_factory=dict)
    """Node to disk of all who founded the cluster; empty until that is agreed."""
    past: Mapping[int, int] = field(default_factory=dict)
    """What was drawn at its latest starts, by their numbers."""
    met: Mapping[int, Meeting] = field(default_factory=dict)
    """The last life of each other node that this one saw."""
    cluster: str = ""
    """What the nodes of its cluster call it among themselves; "": not known yet."""
    addresses: Mapping[int, str] = field(default_factory=dict)
    """"host:port" of each other node, as far as it was known: where to look for them after a start."""

    def started(self, mark: int) -> NodeIdentity:
        """What is true of the next start, at which that was drawn."""
        number = self.starts + 1
        needed = {meeting.start for meeting in self.met.values()}
        return replace(self, starts=number, past=remembered({**self.past, number: mark}, needed))

    def having_met(self, node: int, life: Life) -> NodeIdentity:
        """What is true when it has seen that life of the node."""
        return replace(self, met={**self.met, node: Meeting(life, self.starts)})

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that these disks founded: all of them find the same."""
        assert self.founders, "the cluster is not founded"
        known = cbor2.dumps(sorted(self.founders.items()))
        return sha256(known).hexdigest()[:CLUSTER_ID_CHARACTERS]


class IdentityFile:
    """A node's facts, as they stand on its disk; changed one after the other."""

    def __init__(self, environment: Environment, identity: NodeIdentity) -> None:
        self.identity = identity
        self._environment = environment
        self._lock = trio.Lock()

    async def change(self, changed: Callable[[NodeIdentity], NodeIdentity]) -> NodeIdentity:
        """Make of the facts what that makes of them; durable on return. Raises OSError."""
        async with self._lock:
            identity = changed(self.identity)
            if identity != self.identity:
                write = partial(write_identity, self._environment.disk, identity)
                await self._environment.tasks.offload("identity", write)
                self.identity = identity
        return self.identity

    async def met(self, node: int, life: Life) -> None:
        """Remember that life of another node. Raises OSError."""
        await self.change(lambda identity: identity.having_met(node, life))


def read_identity(disk: Disk) -> NodeIdentity | None:
    """The node's facts (blocking); None on a disk that has none. Raises StorageDamaged."""
    found: list[NodeIdentity] = []
    unreadable: list[str] = []
    for name in FILES:
        try:
            found.append(_read(disk, name))
        except FileNotFoundError:
            pass
        except (ValueError, OSError):  # a sector that cannot be read is as bad as one that is wrong
            unreadable.append(name)
    if not found and unreadable:
        raise StorageDamaged(
            f"{' and '.join(unreadable)}: damaged; without them nobody knows which node this disk belongs to. "
            "Bring one of them back from a copy"
        )
    return max(found, key=lambda each: each.starts, default=None)


def write_identity(disk: Disk, identity: NodeIdentity) -> None:
    """Make these the node's facts; durable on return (blocking). Raises OSError; the former then stand."""
    present = [name for name in disk.list("") if name in FILES]
    body = _encode(identity)
    for name in sorted(FILES, key=lambda name: _is_good(disk, name)):  # a good one goes last: there is always one
        if name in present:
            file = disk.open(name)
            try:
                _fill(file, body)
            finally:
                file.close()
        else:
            _begin(disk, name, body)


def _begin(disk: Disk, name: str, body: bytes) -> None:
    """A copy that was not there: it has its name when it is whole."""
    draft = name + _NEW
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(draft)
    file = disk.create(draft, COPY_BYTES)
    try:
        _fill(file, body)
    finally:
        file.close()
    disk.rename(draft, name)
    disk.sync_folder("")


def _fill(file: File, body: bytes) -> None:
    """A whole copy: the body, zeros, and the sum of both at the very end."""
    least = max(len(body) + _CRC.size, file.size())
    padded = body.ljust(-(-least // COPY_BYTES) * COPY_BYTES - _CRC.size, b"\0")
    file.pwrite([padded + _CRC.pack(crc32c(padded))], 0)
    file.sync()


def _is_good(disk: Disk, name: str) -> bool:
    try:
        _read(disk, name)
    except (ValueError, OSError):
        return False
    return True


def _read(disk: Disk, name: str) -> NodeIdentity:
    """Raises OSError, and ValueError for bytes that are not what was written."""
    file = disk.open(name)
    try:
        content = file.pread(file.size(), 0)
    finally:
        file.close()
    body = content[: -_CRC.size]
    if len(content) <= _CRC.size or _CRC.unpack(content[-_CRC.size :])[0] != crc32c(body):
        raise ValueError(f"{name} is damaged")
    form, *fields = cbor2.loads(body)
    if form not in range(1, _FORMAT + 1):
        raise StorageDamaged(f"{name} is of format {form}, this version reads 1 to {_FORMAT}: use a newer Plait")
    fields += [[], [], "", []][len(fields) - _FIRST_FIELDS :]
    node_id, number, starts, founders, past, met, cluster, addresses = fields
    meetings = {node: Meeting(Life(life, mark), start) for node, life, mark, start in met}
    return NodeIdentity(node_id, number, starts, dict(founders), dict(past), meetings, cluster, dict(addresses))


def _encode(identity: NodeIdentity) -> bytes:
    founders = sorted(identity.founders.items())
    met = [[node, each.life.number, each.life.mark, each.start] for node, each in sorted(identity.met.items())]
    past = sorted(identity.past.items())
    addresses = sorted(identity.addresses.items())
    facts = [identity.node_id, identity.disk, identity.starts, founders, past, met, identity.cluster, addresses]
    return cbor2.dumps([_FORMAT, *facts])
