"""A node of the replication benchmark: a store, peer links and groups, as in a broker, but nothing above them.

lines from the parent ──> Work ──> Group ──> log, links to the other nodes
                           ^──────── Tally (state machine) <──(committed)──┘
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from plait.cli.bench.raft_plan import RAFT_WORKLOAD, Answer, Ask, NodeOrders
from plait.wire.errors import NotLeader, Overloaded
from replication.actor import Actor, Host
from replication.environment import Environment
from replication.group import Group
from replication.machine import Entry, Proposal, Range, Role, RoleChange
from replication.peers.peers import Peers
from replication.peers.protocol import Identity
from replication.raft.membership import Membership
from replication.real import real_environment
from replication.storage.log import GroupLog
from replication.storage.store import Store
from replication.transfer import Transfers

CLUSTER = "bench"
KIND = 1
DIFFERENT_BATCHES = 16
"""Batches of different contents that are proposed, in turn."""
OPENED_BETWEEN_TURNS = 8
"""Groups opened before sockets and others have a turn."""
READ_BYTES = 64 * 1024
"""Asked of the parent's pipe at once."""


class Tally:
    """The state machine: how many entries it saw and how many bytes they had."""

    def __init__(self, standing: Standing) -> None:
        self.count = 0
        self.bytes = 0
        self.ready = False
        self._standing = standing
        self._news: trio.Event | None = None

    def apply(self, entries: Sequence[Entry]) -> None:
        """See StateMachine."""
        self.count += len(entries)
        self.bytes += sum([len(entry.payload) for entry in entries])
        self._tell()

    def snapshot(self) -> bytes:
        """See StateMachine."""
        return b"%d %d" % (self.count, self.bytes)

    def restore(self, state: bytes) -> None:
        """See StateMachine."""
        self.count, self.bytes = map(int, state.split())
        self._tell()

    def live_entries(self) -> Sequence[Range]:
        """See StateMachine."""
        return ()

    def role_changed(self, change: RoleChange) -> None:
        """See StateMachine."""
        self._standing.leading += change.ready - self.ready
        self._standing.fenced += change.role is Role.FENCED
        self.ready = change.ready
        self._tell()

    async def news(self) -> None:
        """Return when it applied something, or leadership came or went."""
        if self._news is None:
            self._news = trio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


class Standing:
    """What all groups of the node are together."""

    def __init__(self) -> None:
        self.leading = 0
        """Groups that this node leads, ready."""
        self.fenced = 0


class Work:
    """What the parent may ask for: each method by its name."""

    def __init__(self, node: int, environment: Environment, store: Store, host: Host, peers: Peers) -> None:
        self._node = node
        self._transfers = Transfers(environment, peers, self._log_of)
        self._environment = environment
        self._store = store
        self._host = host
        self._peers = peers
        self._groups: dict[int, Group] = {}
        self._machines: dict[int, Tally] = {}
        self._standing = Standing()
        self._hope = trio.CancelScope()

    def _log_of(self, group: int) -> GroupLog | None:
        return self._store.log(group) if group in self._groups else None

    async def connect(self, ports: dict[str, int]) -> None:
        """Keep links to these nodes, and return when they are up."""
        for node, port in ports.items():
            self._peers.connect_to(int(node), "127.0.0.1", port)
        while not all(self._peers.is_up(int(node)) for node in ports):  # noqa: ASYNC110 - links tell groups only
            await trio.sleep(0.005)

    async def open(self, first: int, count: int, nodes: list[int]) -> float:
        """Open groups with members on these nodes, new or from the disk; leaders spread. The seconds it took."""
        begun = time.perf_counter()
        members = Membership({node: node for node in nodes})
        known = set(self._store.groups())
        for group in range(first, first + count):
            await self._open(group, group in known, members, nodes[group % len(nodes)])
            if group % OPENED_BETWEEN_TURNS == 0:
                await trio.lowlevel.checkpoint()
        return time.perf_counter() - begun

    async def _open(self, number: int, known: bool, members: Membership, preferred: int) -> None:
        log = self._store.log(number) if known else self._store.create(number)
        machine = self._machines[number] = Tally(self._standing)
        environment = self._environment
        group = self._groups[number] = Group(
            self._host,
            number,
            self._node,
            log,
            machine,
            environment.tasks,
            environment.random,
            self._peers,
            self._transfers,
        )
        self._peers.add(group)
        await group.open(members, eager=preferred == self._node)

    async def standing(self) -> dict[str, int]:
        """Groups that are led here, and that are fenced."""
        return {"leading": self._standing.leading, "fenced": self._standing.fenced}

    async def look(self, group: int) -> dict[str, Any]:
        """How a group stands here."""
        found = self._groups[group]
        machine = self._machines[group]
        return {
            "ready": found.ready,
            "term": found.term,
            "asleep": found.asleep,
            "applied": found.applied_index,
            "count": machine.count,
            "bytes": machine.bytes,
        }

    async def asleep(self) -> int:
        """How many groups sleep here."""
        return sum(group.asleep for group in self._groups.values())

    async def cpu(self) -> float:
        """Seconds of processor time that this process has used."""
        return time.process_time()

    async def batched(self, group: int, batches: int, under_way: int) -> dict[str, float]:
        """Propose batches and keep some under way, until all are applied."""
        made = [_batch() for _ in range(DIFFERENT_BATCHES)]
        driven, machine, size = self._groups[group], self._machines[group], len(made[0])
        first = machine.count
        proposed = 0
        begun = time.perf_counter()
        while (done := (machine.count - first) // size) < batches:
            while proposed < min(done + under_way, batches):
                driven.propose(made[proposed % DIFFERENT_BATCHES], driven.term)
                proposed += 1
            await machine.news()
        return {"entries": batches * size, "seconds": time.perf_counter() - begun}

    async def single(self, group: int, count: int) -> list[float]:
        """Propose one entry, wait until it is applied, and again; the seconds of each."""
        driven, machine = self._groups[group], self._machines[group]
        proposal = [Proposal(KIND, 0, 0, bytes(RAFT_WORKLOAD.entry_bytes))]
        times = []
        for _ in range(count):
            wanted = machine.count + 1
            begun = time.perf_counter()
            driven.propose(proposal, driven.term)
            while machine.count < wanted:
                await machine.news()
            times.append(time.perf_counter() - begun)
        return times

    async def trickle(self, group: int) -> None:
        """Propose one entry every few milliseconds, until this process ends or its leadership."""
        driven = self._groups[group]
        proposal = [Proposal(KIND, 0, 0, bytes(RAFT_WORKLOAD.entry_bytes))]
        while driven.ready:
            driven.propose(proposal, driven.term)
            await trio.sleep(RAFT_WORKLOAD.trickle_ms / 1_000)

    async def give_up(self) -> None:
        """End a `succeed` that has not."""
        self._hope.cancel()

    async def succeed(self, group: int) -> int:
        """Return when a proposal has succeeded here: the machine's monotonic clock then, in nanoseconds; or 0."""
        with trio.CancelScope() as self._hope:
            return await self._succeed(group)
        return 0

    async def _succeed(self, group: int) -> int:
        driven, machine = self._groups[group], self._machines[group]
        proposal = [Proposal(KIND, 0, 0, bytes(RAFT_WORKLOAD.entry_bytes))]
        while True:
            while not driven.ready:
                await machine.news()
            term = driven.term
            try:
                index = driven.propose(proposal, term)
            except (NotLeader, Overloaded):
                await machine.news()
                continue
            while driven.ready and driven.term == term:
                if driven.applied_index >= index:
                    return time.monotonic_ns()
                await machine.news()

    async def caught_up(self, group: int, applied: int) -> None:
        """Return when the replica here has applied up to that index."""
        while self._groups[group].applied_index < applied:
            await self._machines[group].news()


def _batch() -> list[Proposal]:
    """As it comes from a client: views of one buffer."""
    size_bytes = RAFT_WORKLOAD.entry_bytes
    data = memoryview(os.urandom(RAFT_WORKLOAD.batch_bytes // size_bytes * size_bytes))
    return [Proposal(KIND, 0, 0, data[at : at + size_bytes]) for at in range(0, len(data), size_bytes)]


async def serve(orders: NodeOrders) -> None:
    """Run a node until its standard input ends. The first answer, number 0, is the port that it listens on."""
    async with trio.open_nursery() as nursery:
        environment = real_environment(orders.folder, nursery)
        store = await Store.open(environment)
        nursery.start_soon(store.run)
        host = Host(environment.clock, _failed)
        nursery.start_soon(host.run)
        identity = Identity(CLUSTER, orders.node, store.life)
        peers = Peers(environment, host, identity)
        _, port = await peers.listen("127.0.0.1", orders.port)
        work = Work(orders.node, environment, store, host, peers)
        _say(Answer(0, port))
        async with trio.open_nursery() as asked:
            async for line in _lines(trio.lowlevel.FdStream(os.dup(0))):
                asked.start_soon(_answer, work, msgspec.json.decode(line, type=Ask))
            asked.cancel_scope.cancel()
        await peers.close()
        await store.close()
        nursery.cancel_scope.cancel()


async def _lines(stream: trio.abc.ReceiveStream) -> Any:
    rest = b""
    while data := await stream.receive_some(READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def _answer(work: Work, ask: Ask) -> None:
    try:
        _say(Answer(ask.id, await getattr(work, ask.do)(**ask.args)))
    except Exception as error:  # it goes to whoever asked, and the measurement ends there
        _say(Answer(ask.id, error=repr(error)))


def _say(answer: Answer) -> None:
    os.write(1, msgspec.json.encode(answer) + b"\n")


def _failed(actor: Actor, error: Exception) -> None:
    raise SystemExit(f"{actor.name} failed: {error!r}")
