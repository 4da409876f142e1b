"""This node's consumers, wherever what they consume is led.

    client ──> Attending ──Attach──> partition here          leadership goes, a link breaks
                   │  └──ATTACH──> session with the leader's node ──> Attending looks for the next leader,
                   └── what is leased, in order <───────────┘         attaches again under the same id, and says
                                                                      how far it was delivered to

What a consumer holds is in the partition's replicated state under its id, so it goes on holding it over a change
of leaders: the client sees a delay. It is told that it is gone when nobody serves the queue for REATTACH_MS, or
the queue is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.routing import SEARCH_MS, Rest, Search
from node.consumers import NOTHING_DELIVERED, Consumer, Delivered, LeasedRun
from node.hosting import ATTACH, CHANNEL, DELIVERIES, EVER_MS, OPEN, PAUSE
from node.partition import Attach, Look
from node.questions import ReturnLeases, post
from node.replicas import Replicas
from node.routes import ANSWER_MS, Routes, nobody, passes, told
from node.streams import Stream
from plait.wire.batch import RecordRun
from plait.wire.errors import BadRequest, NotFound, NotLeader, PlaitError, Unavailable, from_wire
from replication.actor import Promise, rejected
from replication.environment import Clock, Tasks
from replication.peers.channels import Answer, Heard
from replication.peers.peers import Peers

REATTACH_MS = 20_000
"""How long a consumer looks for who serves it after its leader is gone, before its client is told."""
NS_PER_MS = 1_000_000

_Delivery = tuple[list[list[Any]], memoryview]


class Attending:
    """One consumer of one partition."""

    def __init__(
        self,
        attendance: Attendance,
        group: int,
        consumer_id: str,
        subscription: str,
        prefetch: int,
        lease_ms: int,
        deliver: Callable[[list[LeasedRun]], None],
        gone: Callable[[PlaitError], None],
    ) -> None:
        self.group = group
        self.consumer_id = consumer_id
        self.number = int(consumer_id.rsplit(".", 1)[1])
        self.subscription = subscription
        self.prefetch = prefetch
        self.lease_ms = lease_ms
        self.paused = True
        """Nothing more is to be leased to it."""
        self.over = False
        self.delivered: Delivered = NOTHING_DELIVERED
        self.session: _Session | None = None
        """Where it is attached, or about to be, on another node."""
        self._attendance = attendance
        self._deliver = deliver
        self._gone = gone
        self._here: Consumer | None = None
        """As `session`, on this node."""
        self._looking = False

    async def attach(self) -> None:
        """Have it attached where the partition is led. Raises PlaitError."""
        await self._look(SEARCH_MS)

    def pause(self, paused: bool) -> None:
        """Lease nothing more to it, or do again."""
        if self.paused is paused:
            return
        self.paused = paused
        if self._here is not None:
            self._here.paused = paused
            partition = self._attendance.replicas.partition_of(self.group)
            if not paused and partition is not None:
                partition.post(Look(), always=True)
        elif self.session is not None:
            self.session.pause(self.number, paused)

    def end(self) -> Promise[None]:
        """It consumes no more; resolves when what it holds is given back, or somebody is charged with that."""
        self.over = True
        self._attendance.remove(self)
        self._leave()
        return self._attendance.depart(self)

    def take(self, runs: list[LeasedRun]) -> None:
        """What it was leased, in order; what it has had already is passed over."""
        fresh = [leased for leased in runs if (leased.lease_id, leased.run.last_offset) > self.delivered]
        if fresh and not self.over:
            self.delivered = fresh[-1].lease_id, fresh[-1].run.last_offset
            self._deliver(fresh)

    def lost(self, error: PlaitError) -> None:
        """Whoever served it does not any more."""
        self._leave()
        if self.over or self._looking or self._attendance.stopped:
            return
        if passes(error):
            self._looking = True  # from now on, though its task begins later
            self._attendance.tasks.spawn(f"attach {self.consumer_id}", self._look_again)
        else:
            self._attendance.remove(self)
            self._gone(error)

    # inside

    def _leave(self) -> None:
        if self.session is not None:
            self.session.attending.pop(self.number, None)
        self.session = self._here = None

    async def _look_again(self) -> None:
        try:
            await self._look(REATTACH_MS)
        except PlaitError as error:
            if not self.over:
                self._attendance.remove(self)
                self._gone(error)

    async def _look(self, search_ms: int) -> None:
        """Ask until somebody takes it. Raises what they refuse with for good; NotLeader when there is nobody."""
        self._looking = True
        try:
            await self._search(search_ms)
        finally:
            self._looking = False

    async def _search(self, search_ms: int) -> None:
        clock, search = self._attendance.clock, Search()
        deadline_ns = clock.monotonic_ns() + search_ms * NS_PER_MS
        error: PlaitError = nobody(self.group)
        while not self.over:
            step = search.next(*self._attendance.candidates(self.group))
            if isinstance(step, Rest):
                await clock.sleep_until(clock.monotonic_ns() + step.rest_ms * NS_PER_MS)
                if self._attendance.is_deleted(self.group):
                    raise NotFound("the queue was deleted; nothing more comes")
                if clock.monotonic_ns() >= deadline_ns:
                    raise told(error)
                continue
            try:
                if step.node == self._attendance.node_id:
                    await self._attach_here()
                else:
                    await self._attach_there(step.node)
            except PlaitError as refusal:
                self._leave()
                self._attendance.refused(self.group, step.node, refusal)
                if not passes(refusal):
                    raise
                error = refusal
                continue
            if self.session is not None or self._here is not None or self.over:
                return  # otherwise it was lost again in the meantime

    async def _attach_here(self) -> None:
        consumer = self._here = Consumer(
            self.consumer_id,
            self.subscription,
            self.prefetch,
            self.lease_ms,
            self.take,
            self.lost,
            paused=self.paused,
        )
        message = Attach(consumer, self.delivered)
        post(self._attendance.replicas, self.group, message, message.promise)
        await message.promise.wait()

    async def _attach_there(self, node: int) -> None:
        session = self.session = self._attendance.session_with(node)
        session.attending[self.number] = self
        paused = self.paused
        await session.attach(self)
        if paused is not self.paused:
            session.pause(self.number, self.paused)


class _Session:
    """One unbroken time of a link to a node that leads what is consumed here."""

    def __init__(self, peers: Peers, node: int, number: int) -> None:
        self.node = node
        self.number = number
        self.attending: dict[int, Attending] = {}  # by number
        self.over = False
        self.stream: Stream[_Delivery] = Stream()
        self.stream.begin((number, 0))
        self._peers = peers
        peers.ask(node, CHANNEL, [OPEN, number], timeout_ms=EVER_MS).then(self._ended)

    async def attach(self, consumer: Attending) -> None:
        """Raises PlaitError."""
        head = [
            ATTACH,
            self.number,
            consumer.group,
            consumer.consumer_id,
            consumer.subscription,
            consumer.prefetch,
            consumer.lease_ms,
            consumer.paused,
            *consumer.delivered,
        ]
        await self._peers.ask(self.node, CHANNEL, head, timeout_ms=ANSWER_MS).wait()

    def pause(self, number: int, paused: bool) -> None:
        """Should it get lost, the session is over anyhow."""
        self._peers.ask(self.node, CHANNEL, [PAUSE, self.number, number, paused], timeout_ms=ANSWER_MS)

    def take(self, place: int, delivery: _Delivery) -> None:
        """A delivery has come."""
        for rows, raw in self.stream.take(place, delivery):
            self._hand_out(rows, raw)

    def _hand_out(self, rows: list[list[Any]], raw: memoryview) -> None:
        at = 0
        runs: dict[int, list[LeasedRun]] = {}
        for number, *fields in rows:
            if len(fields) == 2:  # it is over, behind what it was given before
                self._give(number, runs.pop(number, []))
                consumer = self.attending.get(number)
                if consumer is not None:
                    consumer.lost(from_wire(fields[0], fields[1], {}))
                continue
            lease_id, deliveries, base, base_ms, append_time, first, count, length = fields
            run = RecordRun(base, base_ms, append_time, first, count, raw[at : at + length])
            at += length
            runs.setdefault(number, []).append(LeasedRun(lease_id, deliveries, run))
        for number, leased in runs.items():
            self._give(number, leased)

    def _give(self, number: int, runs: list[LeasedRun]) -> None:
        consumer = self.attending.get(number)
        if consumer is not None and runs:
            consumer.take(runs)

    def _ended(self, done: Promise[Heard]) -> None:
        self.over = True
        attending, self.attending = self.attending, {}
        for consumer in attending.values():
            consumer.lost(Unavailable(f"the link to node {self.node} is broken; nothing was done"))


class Attendance:
    """All consumers of this node's clients."""

    def __init__(
        self,
        routes: Routes,
        replicas: Replicas,
        is_deleted: Callable[[int], bool],
        departed: Callable[[int, list[str]], None],
        peers: Peers,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        """`departed`: see to it that somebody returns what these consumers of a group hold."""
        self.replicas = replicas
        self.is_deleted = is_deleted
        self.tasks = tasks
        self.clock = clock
        self.node_id = routes.leaders.node_id
        self._routes = routes
        self._departed = departed
        self._peers = peers
        self._sessions: dict[int, _Session] = {}  # by node
        self._numbers = 0
        peers.serve(DELIVERIES, self._serve)

    @property
    def stopped(self) -> bool:
        """The node ends."""
        return self._routes.stopped

    def candidates(self, group: int) -> tuple[int, list[int]]:
        """Who is said to lead, and who may be asked besides."""
        leaders = self._routes.leaders
        if self.replicas.leads(group):
            return self.node_id, leaders.replicas(group)
        known = leaders.node(group)
        return known if known != self.node_id else 0, leaders.replicas(group)

    def session_with(self, node: int) -> _Session:
        """The session that is open, or a new one."""
        session = self._sessions.get(node)
        if session is None or session.over:
            self._numbers += 1
            session = self._sessions[node] = _Session(self._peers, node, self._numbers)
        return session

    def refused(self, group: int, node: int, error: PlaitError) -> None:
        """A node did not take a consumer."""
        if node == self.node_id:
            return
        if isinstance(error, NotLeader):
            self._routes.leaders.refused(group, node, error)
        elif passes(error):
            self._routes.leaders.failed(group, node)

    def remove(self, consumer: Attending) -> None:
        """It is over."""
        session = consumer.session
        if session is not None:
            session.attending.pop(consumer.number, None)

    def depart(self, consumer: Attending) -> Promise[None]:
        """Have what it holds given back, by whoever leads; if nobody is found, later."""
        done: Promise[None] = Promise()

        def answered(asked: Promise[None]) -> None:
            if asked.error is not None:
                self._departed(consumer.group, [consumer.consumer_id])
            done.resolve(None)

        self._routes.ask(consumer.group, ReturnLeases([consumer.consumer_id])).then(answered)
        return done

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        match head:
            case [int(number), int(place), list(rows)]:
                session = self._sessions.get(node)
                if session is None or session.over or session.number != number:
                    return rejected(Unavailable("that session is over; nothing was taken"))
                if not session.stream.accepts((number, 0), place):
                    return rejected(Unavailable("that delivery came before; nothing was taken"))
                session.take(place, (rows, payload))
                done: Promise[Answer] = Promise()
                done.resolve(([], ()))
                return done
        raise BadRequest(f"channel {DELIVERIES} has no question {head!r:.60}; nothing was done")
