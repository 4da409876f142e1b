"""Consumers of other nodes' clients at the partitions that are led here.

    node ──OPEN──> Session ──ATTACH──> consumer of a partition
         <──────── what is leased in one turn, in frames, in order ── Session

A session is one unbroken time of a link: its OPEN is answered when it is over, and then the other node attaches
its consumers again, here or wherever they are served by then. Deliveries carry their place; the answer to one is
its credit. What a consumer holds is in the partition's state, and survives the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from node.consumers import Consumer, LeasedRun
from node.partition import Attach, Leave, Look
from node.questions import post
from node.replicas import Replicas
from plait.wire.errors import BadRequest, NotLeader, PlaitError, Unavailable
from replication.actor import Actor, Host, Promise, rejected
from replication.environment import Buffer
from replication.peers.channels import Answer, Heard
from replication.peers.peers import Peers

CHANNEL = "consumers"
"""The channel on which a node speaks for its consumers."""
DELIVERIES = "deliveries"
"""The channel on which it is sent what they are leased."""
OPEN, ATTACH, PAUSE = 1, 2, 3
DELIVERY_RUNS = 500
"""Runs of records in one delivery to a node: they fit into a head whatever their numbers are."""
DELIVERY_BYTES = 1 << 20
"""Bytes from which on a delivery is not filled up any more; one large run may be larger."""
DELIVERY_BYTES_UNDER_WAY = 8 << 20
"""Bytes of deliveries that a node has not taken yet; a single larger one may be alone."""
DELIVERY_BYTES_WAITING = 8 << 20
"""Bytes that wait for it from which on nothing more is leased to that node's consumers."""
DELIVERY_MS = 30_000
"""How long a node may take to take a delivery, before its consumers must attach again."""
MESSAGE_CHARACTERS = 1_000
"""Of the sentence that says why a consumer is over."""
EVER_MS = 1 << 40
"""Of a question that is answered when something is over."""

Item = tuple[int, list[LeasedRun] | PlaitError]
"""(number of a consumer, what it is leased, or why it is over)."""


@dataclass(frozen=True, slots=True)
class _Hosted:
    """One consumer."""

    group: int
    consumer: Consumer


class Session(Actor):
    """All that another node's consumers have here, until the link breaks."""

    def __init__(self, host: Host, peers: Peers, replicas: Replicas, node: int, number: int) -> None:
        super().__init__(host, f"consumers of node {node}")
        self.over: Promise[Answer] = Promise()
        self.number = number
        self._peers = peers
        self._replicas = replicas
        self._node = node
        self._hosted: dict[int, _Hosted] = {}  # by number
        self._paused: dict[int, None] = {}  # those whose clients do not keep up
        self._crowded = False
        self._items: deque[Item] = deque()
        self._waiting_bytes = 0
        self._under_way_bytes = 0
        self._place = 0

    def attach(self, fields: list[Any]) -> Promise[Answer]:
        """Add a consumer to a partition; answered when that has it."""
        group, name, subscription, prefetch, lease_ms, paused, lease_id, offset = fields
        number = int(name.rsplit(".", 1)[1])
        consumer = Consumer(
            name,
            subscription,
            prefetch,
            lease_ms,
            partial(self._deliver, number),
            partial(self._gone, number),
            paused=paused or self._crowded,
        )
        answer: Promise[Answer] = Promise()
        message = Attach(consumer, (lease_id, offset))
        message.promise.then(partial(self._attached, answer, number, _Hosted(group, consumer), paused))
        post(self._replicas, group, message, message.promise)
        return answer

    def pause(self, number: int, paused: bool) -> None:
        """The client of a consumer does not keep up, or does again."""
        if number not in self._hosted:
            return
        if paused:
            self._paused[number] = None
        else:
            self._paused.pop(number, None)
        self._set_paused(number)

    def close(self) -> None:
        """The link is broken, or the other node has begun anew: its consumers are none here any more."""
        self.stop()
        self._items.clear()
        hosted, self._hosted = self._hosted, {}
        for each in hosted.values():
            partition = self._replicas.partition_of(each.group)
            name = each.consumer.consumer_id
            if partition is not None and partition.consumers.find(name) is each.consumer:
                partition.post(Leave([name]), always=True)
        self.over.reject(Unavailable("the session is over; attach again"))

    def handle(self, messages: list[Any]) -> None:
        """Send what was leased in this turn."""
        while self._items and (not self._under_way_bytes or self._under_way_bytes < DELIVERY_BYTES_UNDER_WAY):
            self._send()
        self._look_at_crowd()

    def _attached(
        self, answer: Promise[Answer], number: int, hosted: _Hosted, paused: bool, done: Promise[None]
    ) -> None:
        if done.error is not None:
            answer.reject(done.error)
            return
        self._hosted[number] = hosted
        if paused:
            self._paused[number] = None
        self._set_paused(number)
        answer.resolve(([], ()))

    def _deliver(self, number: int, runs: list[LeasedRun]) -> None:
        self._waiting_bytes += sum(len(leased.run.body) for leased in runs)
        self._items.append((number, runs))
        self._wake()

    def _gone(self, number: int, error: PlaitError) -> None:
        self._hosted.pop(number, None)
        self._paused.pop(number, None)
        self._items.append((number, error))
        self._wake()

    def _wake(self) -> None:
        if not self._scheduled:
            self.post(None, always=True)

    # sending

    def _send(self) -> None:
        rows: list[list[Any]] = []
        bodies: list[Buffer] = []
        size_bytes = 0
        for number, what in self._take():
            if isinstance(what, PlaitError):
                rows.append([number, what.code, what.message[:MESSAGE_CHARACTERS]])
            else:
                run = what.run
                rows.append(
                    [
                        number,
                        what.lease_id,
                        what.deliveries,
                        run.base_offset,
                        run.base_timestamp_ms,
                        run.append_time,
                        run.first_delta,
                        run.count,
                        len(run.body),
                    ]
                )
                bodies.append(run.body)
                size_bytes += len(run.body)
        self._waiting_bytes -= size_bytes
        self._under_way_bytes += size_bytes
        head = [self.number, self._place, rows]
        self._place += 1
        asked = self._peers.ask(self._node, DELIVERIES, head, bodies, DELIVERY_MS)
        asked.then(partial(self._taken, size_bytes))

    def _take(self) -> Iterator[tuple[int, LeasedRun | PlaitError]]:
        """What fits into one delivery, from the front; a rest stays there."""
        runs = size_bytes = 0
        while self._items and runs < DELIVERY_RUNS and size_bytes < DELIVERY_BYTES:
            number, what = self._items.popleft()
            if isinstance(what, PlaitError):
                runs += 8  # for its message
                yield number, what
                continue
            for at, leased in enumerate(what):
                if runs >= DELIVERY_RUNS or size_bytes >= DELIVERY_BYTES:
                    self._items.appendleft((number, what[at:]))
                    break
                runs += 1
                size_bytes += len(leased.run.body)
                yield number, leased

    def _taken(self, size_bytes: int, done: Promise[Heard]) -> None:
        self._under_way_bytes -= size_bytes
        if done.error is not None:  # what it held is lost on the way: the other side must begin anew
            self.close()
        elif self._items:
            self._wake()
        else:
            self._look_at_crowd()

    # when the node does not keep up

    def _look_at_crowd(self) -> None:
        crowded = self._waiting_bytes > (DELIVERY_BYTES_WAITING // 2 if self._crowded else DELIVERY_BYTES_WAITING)
        if crowded is not self._crowded:
            self._crowded = crowded
            for number in self._hosted:
                self._set_paused(number)

    def _set_paused(self, number: int) -> None:
        hosted = self._hosted[number]
        paused = self._crowded or number in self._paused
        if hosted.consumer.paused and not paused:
            partition = self._replicas.partition_of(hosted.group)
            if partition is not None:
                partition.post(Look(), always=True)
        hosted.consumer.paused = paused


class Hosting:
    """The sessions of all other nodes with this one."""

    def __init__(self, host: Host, peers: Peers, replicas: Replicas) -> None:
        self._host = host
        self._peers = peers
        self._replicas = replicas
        self._sessions: dict[int, Session] = {}  # by node
        peers.serve(CHANNEL, self._serve)
        peers.on_node.append(self._node_changed)

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        session = self._sessions.get(node)
        match head:
            case [1, int(number)]:
                return self._open(node, number)
            case [2, int(number), *fields]:
                if session is None or session.number != number or session.stopped:
                    return rejected(Unavailable("there is no such session; nothing was done: open one"))
                answer: Promise[Answer] = Promise()
                session.attach(fields).then(partial(self._attached, fields[0], answer))
                return answer
            case [3, int(number), int(consumer), bool(paused)]:
                if session is not None and session.number == number:
                    session.pause(consumer, paused)
                done: Promise[Answer] = Promise()
                done.resolve(([], ()))
                return done
        raise BadRequest(f"channel {CHANNEL} has no question {head!r:.60}; nothing was done")

    def _open(self, node: int, number: int) -> Promise[Answer]:
        before = self._sessions.get(node)
        if before is not None:
            before.close()
        session = self._sessions[node] = Session(self._host, self._peers, self._replicas, node, number)
        return session.over

    def _attached(self, group: int, answer: Promise[Answer], done: Promise[Answer]) -> None:
        if isinstance(done.error, NotLeader):
            own = self._replicas.group(group)
            leader, term = (own.leader_node, own.term) if own is not None else (0, 0)
            answer.reject(NotLeader(done.error.message, leader=leader, term=term))
        elif done.error is not None:
            answer.reject(done.error)
        else:
            answer.resolve(done.result())

    def _node_changed(self, node: int, up: bool) -> None:
        session = self._sessions.pop(node, None) if not up else None
        if session is not None:
            session.close()
