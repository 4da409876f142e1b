"""A broker in one page, at the other end of a stream that is no socket: it keeps its word, and breaks when told.

It answers within the client's `send`, so nothing depends on time. `script` decides about each request before it is
carried out: "carry out" (the default), "refuse" with an error, "lose" (the connection breaks before the request is
carried out) or "mute" (it breaks after it was carried out, before the answer) or "ignore" (nothing happens).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from plait.wire import Buffer
from plait.wire.batch import RecordRun, assign, open_body, positions, read_header, run_of
from plait.wire.errors import NotFound, NotLeader, PlaitError, SequenceOutOfOrder
from plait.wire.frames import FrameReader
from plait.wire.messages import (
    Cancel,
    Commit,
    Committed,
    Consume,
    Create,
    Delete,
    Delivered,
    Describe,
    Fetch,
    Hello,
    ListNames,
    Locate,
    NewProducer,
    Ping,
    Publish,
    Request,
    Settle,
    consumer_gone,
    deliver,
    failed,
    ok,
    parse_request,
    welcome,
)

Verdict = str | PlaitError


@dataclass
class Log:
    """A topic or queue."""

    kind: str
    partitions: int
    batches: list[list[bytes]] = field(default_factory=list)
    """By partition."""
    ends: list[int] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    leased: dict[int, tuple[PeerStream, int]] = field(default_factory=dict)
    deliveries: dict[int, int] = field(default_factory=dict)

    def runs(self, partition: int) -> dict[int, RecordRun]:
        """Every record as a run of one, by offset."""
        found = {}
        for batch in self.batches[partition]:
            header = read_header(batch)
            body = open_body(batch, header)
            places = positions(body)
            for delta in range(header.count):
                found[header.base_offset + delta] = run_of(header, body, places, delta, delta)
        return found


class Peer:
    """The broker; lives longer than its connections."""

    def __init__(self, node_id: int = 1) -> None:
        self.node_id = node_id
        self.logs: dict[str, Log] = {}
        self.streams: list[PeerStream] = []
        self.requests: list[Request] = []
        self.script: Callable[[Request], Verdict] = lambda _: "carry out"
        self.unreachable = False
        self.forwards_to: Peer | None = None
        """It has publishes carried out by that one, and says so to whoever wants to know."""
        self.cluster_id = "cluster"
        self.features: list[str] = []
        """What it says that it knows beside the rest."""
        self.committed: dict[tuple[str, str], dict[int, int]] = {}
        self._producers = 0
        self._known: dict[tuple[str, int, int], deque[tuple[int, int, int]]] = {}

    async def connect(self, host: str, port: int) -> PeerStream:
        await anyio.lowlevel.checkpoint()
        if self.unreachable:
            raise ConnectionRefusedError("nobody listens")
        stream = PeerStream(self)
        self.streams.append(stream)
        return stream

    def break_all(self) -> None:
        """Every connection is lost, and with it its leases."""
        for stream in self.streams:
            stream.break_off()
        self.streams.clear()

    def count(self, kind: type[Request]) -> int:
        """How many requests of a kind came."""
        return sum(isinstance(request, kind) for request in self.requests)

    def values(self, name: str, partition: int = 0) -> list[bytes]:
        """What is stored."""
        from plait.wire.batch import iterate_run

        runs = self.logs[name].runs(partition)
        return [record.value or b"" for offset in sorted(runs) for record in iterate_run(runs[offset])]

    def take(self, stream: PeerStream, request: Request, payload: memoryview) -> None:
        self.requests.append(request)
        verdict = self.script(request)
        if isinstance(verdict, PlaitError):
            stream.reply(failed(request.correlation, verdict))
        elif verdict == "ignore":
            return
        elif verdict == "lose":
            stream.break_off()
        else:
            try:
                answer = self.carry_out(stream, request, payload)
            except PlaitError as error:
                answer = failed(request.correlation, error)
            if verdict == "mute":
                stream.break_off()
            elif answer is not None:
                stream.reply(answer)
                self.serve_consumers()

    def carry_out(self, stream: PeerStream, request: Request, payload: memoryview) -> list[Buffer] | None:
        c = request.correlation
        if isinstance(request, Hello):
            limits = {"max_frame_bytes": 1 << 24, "max_record_bytes": 1 << 20, "features": self.features}
            return welcome(c, 1, self.cluster_id, self.node_id, 1, limits)
        if isinstance(request, Create):
            partitions = request.settings.get("partitions", 1)
            made = Log(request.kind, partitions, [[] for _ in range(partitions)], [0] * partitions)
            self.logs.setdefault(request.name, made)
            return ok(c, self.describe(request.name))
        if isinstance(request, Describe):
            return ok(c, self.describe(request.name))
        if isinstance(request, ListNames):
            return ok(c, [self.describe(name) for name in self.logs])
        if isinstance(request, NewProducer):
            self._producers += 1
            return ok(c, self._producers, 0)
        if isinstance(request, Publish):
            stored = self.publish(request, bytearray(payload))
            leader = self.forwards_to
            return ok(c, *stored, *((leader.node_id, f"node{leader.node_id}:4150") if leader is not None else ()))
        if isinstance(request, Fetch):
            return self.fetch(stream, request)
        if isinstance(request, Locate):
            end = self.log(request.name).ends[request.partition]
            return ok(c, 0 if request.at == "start" else end, 0, end)
        return self.subscribe(stream, request)

    def subscribe(self, stream: PeerStream, request: Request) -> list[Buffer] | None:
        c = request.correlation
        if isinstance(request, Commit):
            self.committed.setdefault((request.subscription, request.name), {}).update(request.positions)
        elif isinstance(request, Committed):
            known = self.committed.get((request.subscription, request.name), {})
            return ok(c, [list(each) for each in known.items()])
        elif isinstance(request, Consume):
            stream.consumers[request.tag] = request
        elif isinstance(request, Settle):
            return self.settle(stream, request)
        elif isinstance(request, Cancel):
            consumer = stream.consumers.pop(request.tag)
            log = self.log(consumer.name)
            log.leased = {at: owner for at, owner in log.leased.items() if owner != (stream, request.tag)}
        elif isinstance(request, Delete):
            self.log(request.name)
            del self.logs[request.name]
        return ok(c)

    def log(self, name: str) -> Log:
        if name not in self.logs:
            raise NotFound(f"there is no {name!r}")
        return self.logs[name]

    def describe(self, name: str) -> dict[str, Any]:
        log = self.log(name)
        details = [
            {"backlog_records": end - len(log.acked), "backlog_bytes": 0, "leased": len(log.leased)}
            for end in log.ends
        ]
        found = {"name": name, "kind": log.kind, "partitions": log.partitions}
        return {**found, "settings": {"lease_ms": 30_000}, "partitions_detail": details}

    def publish(self, request: Publish, batch: bytearray) -> tuple[int, int, int, int, bool]:
        log, header = self.log(request.name), read_header(batch)
        if header.producer_id >= 0:
            key = (request.name, request.partition, header.producer_id)
            known = self._known.setdefault(key, deque(maxlen=5))
            for first, _, offset in known:
                if first == header.base_sequence:
                    return request.partition, offset, -1, 0, True
            if header.base_sequence != (known[-1][1] + 1 if known else 0):
                raise SequenceOutOfOrder("there is a gap")
            last = header.base_sequence + header.count - 1
            known.append((header.base_sequence, last, log.ends[request.partition]))
        offset = log.ends[request.partition]
        assign(batch, offset, 0)
        log.batches[request.partition].append(bytes(batch))
        log.ends[request.partition] += header.count
        self.answer_fetches()
        return request.partition, offset, -1, 0, False

    def fetch(self, stream: PeerStream, request: Fetch) -> list[Buffer] | None:
        log = self.log(request.name)
        end = log.ends[request.partition]
        if request.offset >= end:
            stream.fetches.append(request)
            return None
        found = [
            batch for batch in log.batches[request.partition] if read_header(batch).last_offset >= request.offset
        ]
        taken = found[:3]
        return ok(request.correlation, 0, end, read_header(taken[-1]).last_offset + 1, payload=taken)

    def answer_fetches(self) -> None:
        for stream in self.streams:
            waiting, stream.fetches = stream.fetches, []
            for request in waiting:
                if (answer := self.fetch(stream, request)) is not None:
                    stream.reply(answer)

    def serve_consumers(self) -> None:
        for stream in self.streams:
            for tag, consumer in stream.consumers.items():
                log = self.logs.get(consumer.name)
                if log is not None:
                    self.serve(stream, tag, consumer, log)

    def serve(self, stream: PeerStream, tag: int, consumer: Consume, log: Log) -> None:
        mine = sum(owner == (stream, tag) for owner in log.leased.values())
        free = [at for at in range(log.ends[0]) if at not in log.acked and at not in log.leased]
        runs = log.runs(0)
        for offset in free[: consumer.prefetch - mine]:
            log.leased[offset] = (stream, tag)
            log.deliveries[offset] = log.deliveries.get(offset, 0) + 1
            stream.reply(deliver(tag, 0, [Delivered(1000 + offset, log.deliveries[offset], runs[offset])]))

    def settle(self, stream: PeerStream, request: Settle) -> list[Buffer]:
        log = self.log(stream.consumers[request.tag].name)
        lost = []
        count = 0
        for _, first, last in request.ranges:
            for offset in range(first, last + 1):
                if log.leased.get(offset) != (stream, request.tag):
                    lost.append([offset, offset])
                    continue
                count += 1
                if request.action != "extend":
                    del log.leased[offset]
                if request.action == "ack":
                    log.acked.add(offset)
        return ok(request.correlation, count, lost)


class PeerCluster:
    """Several brokers with one state, of which one leads everything; the others point to it."""

    def __init__(self, count: int, point: bool = True) -> None:
        self.peers = [Peer(number) for number in range(1, count + 1)]
        self.leader: Peer | None = self.peers[0]
        self.connects: list[str] = []
        for peer in self.peers:
            peer.logs, peer.committed = self.peers[0].logs, self.peers[0].committed
            peer._known, peer._producers = self.peers[0]._known, 1000 * peer.node_id
            peer.script = partial(self._verdict, peer)
        self._point = point

    async def connect(self, host: str, port: int) -> PeerStream:
        self.connects.append(host)
        return await self.peers[int(host.removeprefix("node")) - 1].connect(host, port)

    def lead(self, leader: Peer | None) -> None:
        """Leadership moves: the former leader tells its consumers, which hold nothing any more."""
        former, self.leader = self.leader, leader
        for log in self.peers[0].logs.values():
            log.leased.clear()
        for stream in former.streams if former is not None else ():
            for tag in list(stream.consumers):
                stream.reply(consumer_gone(tag, self._error()))
            stream.consumers.clear()

    def _error(self) -> NotLeader:
        if self.leader is None:
            return NotLeader("nobody leads", leader=0)
        details = {"address": f"node{self.leader.node_id}:4150"} if self._point else {}
        return NotLeader("another leads", leader=self.leader.node_id, **details)

    def _verdict(self, peer: Peer, request: Request) -> Verdict:
        return "carry out" if peer is self.leader or isinstance(request, Hello | Ping) else self._error()


class PeerStream:
    """The client's end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self.consumers: dict[int, Consume] = {}
        self.fetches: list[Fetch] = []
        self._peer = peer
        self._reader = FrameReader()
        self._incoming: deque[bytes] = deque()
        self._broken = False
        self._wake = anyio.Event()

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._broken:
            raise anyio.BrokenResourceError
        self._reader.feed(item)
        for head, payload in self._reader.frames():
            if not self._broken:
                self._peer.take(self, parse_request(head), payload)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._incoming:
            if self._broken:
                raise anyio.EndOfStream
            self._wake = anyio.Event()
            await self._wake.wait()
        data = b"".join(self._incoming)
        self._incoming.clear()
        return data

    async def aclose(self) -> None:
        self.break_off()
        await anyio.lowlevel.checkpoint()

    def reply(self, parts: list[Buffer]) -> None:
        self._incoming.append(b"".join(parts))
        self._wake.set()

    def break_off(self) -> None:
        self._broken = True
        if self in self._peer.streams:
            self._peer.streams.remove(self)
        for log in self._peer.logs.values():
            log.leased = {at: owner for at, owner in log.leased.items() if owner[0] is not self}
        self._wake.set()
