"""The partition actor: one replica of one partition, and, while its group leads, everything that its clients ask.

    mailbox ──> publishing, readers, consumers ──one proposal a turn──> group ──> apply ──> answers

A turn handles all that waits: what it leads to is proposed together, batches first, then one entry with every
command, so that the leases of new records commit in the same round as the records.

A replica that follows applies, and points whoever asks to the leader; a fetch may do with what is applied here.
What is asked about the present (where the log ends, where something is) is answered when the group has confirmed
that this replica still leads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import structlog
import trio

from cluster.admission import PartitionAdmission
from cluster.catalogue import Topic
from cluster.limits import NodePressure, limits_of
from cluster.outcomes import Evict
from cluster.rates import NS_PER_MS
from node.clock import StampClock
from node.consumers import NOTHING_DELIVERED, Consumer, Consumers, Delivered, Grant
from node.deadletters import DeadLetters, Send
from node.entries import KIND_COMMANDS, Command, encode_commands
from node.outbox import Letter
from node.publishing import Publish, Publishing, unknown
from node.readers import Fetch, Locate, Readers
from node.shared import Settled
from node.source import RecordSource
from node.spaces import replicas_storage
from node.state import QUEUE_SUBSCRIPTION, PartitionState
from node.traffic import Traffic
from node.whereabouts import Whereabouts
from plait.wire.errors import InternalError, NotFound, NotLeader, PlaitError
from replication.actor import Actor, Host, Promise
from replication.environment import Clock, Tasks
from replication.group import Group
from replication.machine import Entry, Proposal, Range, Role, RoleChange
from replication.storage.log import GroupLog

_logger = structlog.get_logger("plait.partition")

COMMANDS_PER_ENTRY = 4_096
"""Commands that share one log entry; more waiting go into further entries of the same proposal."""
RELEASE_INTERVAL_MS = 2_000
"""How often a partition tells the log what it no longer needs, while that changes."""
RETENTION_INTERVAL_MS = 5_000
"""How often a topic's partition looks for records that are too old or too many, while it has any."""

Waiter = Callable[[Any], None]
"""Called with what a proposed part came to, or with a PlaitError."""


@dataclass(slots=True)
class Attach:
    """A consumer comes, perhaps again: it has had what was leased to it up to `delivered`."""

    consumer: Consumer
    delivered: Delivered = NOTHING_DELIVERED
    promise: Promise[None] = field(default_factory=Promise)


@dataclass(slots=True)
class Leave:
    """These consumers are none here any more; what they hold stays theirs until somebody says more of them."""

    consumers: list[str]


@dataclass(slots=True)
class Settle:
    """A consumer says what became of leased records."""

    command: list[Any]
    promise: Promise[Settled] = field(default_factory=Promise)


@dataclass(slots=True)
class ClientGone:
    """A connection has ended: what waits for it is dropped."""

    client: str


@dataclass(slots=True)
class ClientsGone:
    """A node is gone with all its clients, whose names begin so."""

    prefix: str


@dataclass(slots=True)
class DeadLettered:
    """These records of the outbox are in the dead-letter queue."""

    moved: Range
    promise: Promise[None] = field(default_factory=Promise)


@dataclass(slots=True)
class ConsumersGone:
    """Consumers are gone, and what they hold comes back: the node that they were clients of says so."""

    consumers: list[str]
    promise: Promise[None] = field(default_factory=Promise)


@dataclass(slots=True)
class NodeStarted:
    """A node has started anew: consumers of its earlier incarnations are gone."""

    node: int
    incarnation: int


@dataclass(slots=True)
class Look:
    """Something may be possible now that was not before: grant, or retry what waits."""


@dataclass(slots=True)
class Alarm:
    """The time has come that the partition asked to be woken at."""


@dataclass(slots=True)
class PartitionContext:
    """What the partitions of a node share."""

    host: Host
    clock: Clock
    tasks: Tasks
    pressure: NodePressure
    alone: Callable[[], bool]
    """Whether groups have no replicas but those of this node."""
    whereabouts: Whereabouts
    send_dead_letters: Send
    standing: Callable[[Group, bool], None] = lambda group, leads: None
    """A group is led here, and served; or it is not."""
    past: Traffic = field(default_factory=Traffic)
    """What went through partitions that are closed by now."""


class Partition(Actor):
    """One partition's replica on this node."""

    group: Group

    def __init__(self, context: PartitionContext, topic: Topic, number: int, log: GroupLog) -> None:
        super().__init__(context.host, f"{topic.name}/{number}")
        self.topic = topic
        self.number = number
        self.failure: PlaitError | None = NotLeader(f"{self.name} is starting; nothing was done; try again")
        self.settled = trio.Event()  # it is served, or it is known why not
        self._context = context
        self._term = 0
        self._led = False
        self._follows = False
        """It applies what a leader commits: whoever is content with that may read of it."""
        self._stamps = StampClock()
        self.state = PartitionState(topic.kind == "queue")
        self.admission = PartitionAdmission(
            limits_of(topic.settings),
            context.pressure,
            context.clock.monotonic_ns(),
            topic.groups[number],
            lambda: replicas_storage(self.group, context.pressure),
        )
        self.publishing = Publishing(self.name, number, topic.settings, self.state, self.admission)
        self.publishing.evict = self._evict
        self.readers = Readers(self.name, self.state, log, context.tasks)
        self.consumers = Consumers(self.name, RecordSource(log), context.tasks)
        self._dead_letters = self._make_dead_letters(context, log)
        # proposed in this term and not applied: (index, what is told of each of its parts), in order of index
        self._proposed: deque[tuple[int, list[Waiter]]] = deque()
        self._commands: list[tuple[list[Any], Waiter]] = []  # of this turn
        self._due_proposed = False
        self._release_ns = 0  # not before; likewise below
        self._retention_ns = 0
        self._release_due = False  # commands were applied since, which may have ended records

    def _make_dead_letters(self, context: PartitionContext, log: GroupLog) -> DeadLetters | None:
        target = self.topic.settings.dead_letter
        if target is None or self.topic.kind != "queue":
            return None
        return DeadLetters(
            Letter(self.topic.name, self.topic.groups[self.number], "overflow"),
            target,
            self.state,
            RecordSource(log),
            context.tasks,
            context.clock,
            context.send_dead_letters,
            self._dead_lettered,
        )

    def driven_by(self, group: Group) -> None:
        """See Groups."""
        self.group = group

    # the mailbox

    def handle(self, messages: list[Any]) -> None:
        """Act on everything that waits, and propose what it led to."""
        now_ns = self._context.clock.monotonic_ns()
        if self.failure is not None:
            self._turn_away(self._read_here(messages, now_ns), self.refusal())
            self._keep_house_as_follower(now_ns)
            return
        self.publishing.stamp_ms = self._stamp(now_ns)
        try:
            for message in messages:
                self._act(message, now_ns)
            self._propose()
            self._set_alarm(now_ns)
        except Exception:  # the host fences the replica for it, but nobody else knows these askers any more
            self._turn_away(messages, InternalError(f"{self.name} failed at this; it may or may not be done"))
            raise

    def _act(self, message: Any, now_ns: int) -> None:
        match message:
            case Publish():
                self.publishing.offer(message, now_ns)
            case Settle():
                self._commands.append((message.command, partial(_answer, message.promise)))
            case Fetch():
                if self.readers.is_certain(message):
                    self.readers.fetch(message, now_ns)
                else:
                    self._when_confirmed(message, lambda: self.readers.fetch(message, now_ns))
            case Locate():
                self._when_confirmed(message, lambda: self.readers.locate(message))
            case Attach():
                self._attach(message)
            case Leave():
                self._leave(message.consumers)
            case ConsumersGone():
                self._return_leases(message)
            case NodeStarted():
                self._return_leases_of({message.node: message.incarnation})
            case ClientGone():
                self.publishing.release_client(message.client)
            case ClientsGone():
                self.publishing.release_clients(message.prefix)
            case Alarm():
                self._wake(now_ns)
            case DeadLettered():
                command = [Command.DEAD_LETTERED, QUEUE_SUBSCRIPTION, *message.moved]
                self._commands.append((command, partial(_answer, message.promise)))
            case Look():
                pass

    @property
    def holds_leases(self) -> bool:
        """It serves, and somebody holds records."""
        return self._led and any(shared.leased_count for shared in self.state.shared.values())

    def refusal(self) -> PlaitError:
        """What somebody is told who asks a replica that does not serve."""
        if self.failure is None or isinstance(self.failure, NotLeader):
            return self._context.whereabouts.refusal(self.name, self.group)
        return self.failure

    def confirmed(self) -> Promise[int]:
        """Resolves when the state shows everything that was committed before this was asked.

        Rejects with NotLeader, and what else a group says to reads.
        """
        answer: Promise[int] = Promise()
        if self.failure is not None:
            answer.reject(self.refusal())
            return answer

        def heard(done: Promise[int]) -> None:
            if done.error is None:
                answer.resolve(done.result())
            else:
                answer.reject(self.refusal() if isinstance(done.error, NotLeader) else done.error)

        self.group.read_index().then(heard)
        return answer

    def _when_confirmed(self, message: Fetch | Locate, answer: Callable[[], None]) -> None:
        """Answer when this replica is known to have led when it was asked."""

        def heard(done: Promise[int]) -> None:
            if done.error is not None:
                message.promise.reject(done.error)
            elif self.failure is not None:  # it led then, but waits for nobody any more
                message.promise.reject(self.refusal())
            else:
                try:
                    answer()
                    self._set_alarm(self._context.clock.monotonic_ns())
                except Exception:  # it is logged where this returns to, and the asker needs an answer
                    message.promise.reject(InternalError(f"{self.name} failed at this; nothing was read"))
                    raise

        self.confirmed().then(heard)

    def _read_here(self, messages: list[Any], now_ns: int) -> list[Any]:
        """Let those read of a replica that follows whom that is enough; the others' messages.

        Not of one that hears of no leader: it may be cut off, and would stay behind for ever.
        """
        for request in self.readers.expired(now_ns):
            self.readers.give_up(request)
        if not self._follows or not self.group.leader_node:
            return messages
        others = []
        for message in messages:
            if isinstance(message, Fetch) and message.nearest:
                self.readers.fetch(message, now_ns)
            else:
                others.append(message)
        return others

    def _turn_away(self, messages: list[Any], error: PlaitError) -> None:
        for message in messages:
            promise = getattr(message, "promise", None)
            if promise is not None:
                promise.reject(error)

    def _attach(self, message: Attach) -> None:
        consumer = message.consumer
        shared = self.state.shared.get(consumer.subscription)
        if shared is None:
            message.promise.reject(
                NotFound(
                    f"{self.topic.name} has no shared subscription {consumer.subscription!r}; nothing was done"
                )
            )
            return
        self.consumers.add(consumer, shared, message.delivered)
        message.promise.resolve(None)

    def _leave(self, consumers: Iterable[str]) -> None:
        for name in consumers:
            consumer = self.consumers.find(name)
            if consumer is not None:
                self.consumers.remove(consumer)

    def _return_leases(self, message: ConsumersGone) -> None:
        holding = {consumer for shared in self.state.shared.values() for consumer in shared.consumers()}
        holding.update(self.consumers.ids())
        promised = bool(self._proposed or self._commands)  # perhaps to those who left already
        left = [consumer for consumer in message.consumers if promised or consumer in holding]
        self._leave(message.consumers)
        for consumer in left[:-1]:
            self._commands.append(([Command.CONSUMER_GONE, consumer], _ignore))
        if left:  # they share an entry, or the last one's comes last
            self._commands.append(([Command.CONSUMER_GONE, left[-1]], partial(_answer, message.promise)))
        else:
            message.promise.resolve(None)

    def _return_leases_of(self, incarnations: Mapping[int, int]) -> None:
        """Consumers of earlier lives of these nodes hold nothing any more."""
        owners = {
            tuple(int(part) for part in consumer.split(".")[:2])
            for shared in self.state.shared.values()
            for consumer in shared.consumers()
        }
        for node in sorted({node for node, life in owners if life < incarnations.get(node, 0)}):
            self._commands.append(([Command.NODE_RESTARTED, node, incarnations[node]], _ignore))

    # proposing

    def _propose(self) -> None:
        publishing = self.publishing
        proposals: list[Proposal] = []
        waiters: list[list[Waiter]] = []
        self._grant()
        for proposal, publish in publishing.proposals:
            proposals.append(proposal)
            waiters.append([partial(self._published, publish)])
        for start in range(0, len(self._commands), COMMANDS_PER_ENTRY):
            part = self._commands[start : start + COMMANDS_PER_ENTRY]
            payload = encode_commands(publishing.stamp_ms, [command for command, _ in part])
            proposals.append(Proposal(KIND_COMMANDS, publishing.proposed_next, 0, payload))
            waiters.append([waiter for _, waiter in part])
        self._commands.clear()
        if proposals:
            try:
                first = self.group.propose(proposals, self._term)
            except PlaitError as error:  # leadership went within this turn, or a majority: nothing was appended
                publishing.withdraw()
                self._tell((waiter, error) for waiter in chain.from_iterable(waiters))
            else:
                self._proposed.extend(enumerate(waiters, first))
            publishing.proposals.clear()

    def _grant(self) -> None:
        if not self.consumers:
            return
        for grant in self.consumers.choose(self.publishing.proposed_next, self.state.mean_record_bytes()):
            consumer = grant.consumer
            command = [Command.LEASE, consumer.subscription, consumer.consumer_id, consumer.lease_ms, grant.ranges]
            self._commands.append((command, partial(self._leased, grant)))

    def _evict(self, outcome: Evict) -> None:
        """Make place in a full queue: the oldest records go, or move to the dead-letter queue.

        Never the new ones themselves: when all others are held, the queue is over its limit until they are not.
        """
        by_bytes = -(-outcome.size_bytes // max(1, self.state.mean_record_bytes()))
        what = Command.DEAD_LETTER if outcome.to_dead_letter else Command.DROP
        records, before = max(outcome.records, by_bytes), self.publishing.proposed_next
        self._commands.append(([what, QUEUE_SUBSCRIPTION, records, before], _ignore))

    @property
    def traffic(self) -> Traffic:
        """What went through it."""
        traffic = self.publishing.traffic
        traffic.redelivered_records = self.consumers.redelivered_records
        return traffic

    def _dead_lettered(self, moved: Range) -> Promise[None]:
        self.publishing.traffic.dead_lettered_records += moved[1] - moved[0] + 1
        message = DeadLettered(moved)
        self.post(message, always=True)
        return message.promise

    # what became of proposals

    def apply(self, entries: Sequence[Entry]) -> None:
        """StateMachine."""
        before = self.state.next_offset
        answers: list[tuple[Waiter, Any]] = []
        for entry in entries:
            results = self.state.apply(entry)
            self._release_due |= entry.kind == KIND_COMMANDS
            if self._proposed and self._proposed[0][0] == entry.index and entry.term == self._term:
                answers.extend(zip(self._proposed.popleft()[1], results, strict=True))
        self._tell(answers)
        if self.failure is None:
            self._after_apply(self.state.next_offset > before)
            return
        if self.state.next_offset > before:
            self.readers.wake()
        if self._release_due and self.alarm_ns is None and not self.stopped:
            now_ns = self._context.clock.monotonic_ns()
            self.host.alarm(max(now_ns, self._release_ns), self, Alarm())

    def _tell(self, answers: Iterable[tuple[Waiter, Any]]) -> None:
        """Answer those who wait. The entries are applied, whatever goes wrong in telling somebody so."""
        for waiter, result in answers:
            try:
                waiter(result)
            except Exception as error:  # a replica is not fenced for it, and the others are told
                _logger.error("answer failed", partition=self.name, exc_info=error)

    def _after_apply(self, has_new_records: bool) -> None:
        now_ns = self._context.clock.monotonic_ns()
        if has_new_records:
            self.readers.wake()
        if self.admission.waiting:
            self.publishing.tick(now_ns)
        if self._dead_letters is not None:
            self._dead_letters.look()
        if self.publishing.proposals or self._commands or self.consumers:
            self._look()
        else:
            self._set_alarm(now_ns)

    def _published(self, publish: Publish, result: Any) -> None:
        now_ns = self._context.clock.monotonic_ns()
        if isinstance(result, PlaitError):
            self.publishing.lost(publish, result, now_ns)
        else:
            base_offset, stamp_ms = result
            self.publishing.committed(publish, base_offset, stamp_ms, now_ns)

    def _leased(self, grant: Grant, result: Any) -> None:
        if isinstance(result, PlaitError):
            self.consumers.not_leased(grant)
        else:
            self.consumers.leased(grant, *result)

    # time

    def _wake(self, now_ns: int) -> None:
        for request in self.readers.expired(now_ns):
            self._when_confirmed(request, partial(self.readers.give_up, request))
        self.publishing.tick(now_ns)
        self._propose_due()
        self._keep_house(now_ns)

    def _propose_due(self) -> None:
        stamp = self.publishing.stamp_ms
        if not self._due_proposed and any(
            (deadline := shared.next_deadline_ms()) is not None and deadline <= stamp
            for shared in self.state.shared.values()
        ):
            self._due_proposed = True
            self._commands.append(([Command.DUE], self._due_done))

    def _due_done(self, _: Any) -> None:
        self._due_proposed = False

    def _keep_house(self, now_ns: int) -> None:
        """Retention, and word to the log of what is no longer needed."""
        if self._release_due and now_ns >= self._release_ns:
            self._release_ns = now_ns + RELEASE_INTERVAL_MS * NS_PER_MS
            self._release_due = False
            self.consumers.rest()
            self.group.release()
        self._trim(now_ns)

    def _trim(self, now_ns: int) -> None:
        if now_ns >= self._retention_ns and self.topic.kind == "topic":
            self._retention_ns = now_ns + RETENTION_INTERVAL_MS * NS_PER_MS
            offset = self.state.retention_point(self.topic.settings, self.publishing.stamp_ms)
            if offset > self.state.start_offset:
                self._commands.append(([Command.TRIM, offset], _ignore))

    def _keep_house_as_follower(self, now_ns: int) -> None:
        """The files of a replica that only follows must not pile up either, and who reads of it is answered."""
        if self.stopped:
            return
        if self._release_due and now_ns >= self._release_ns:
            self._release_ns = now_ns + RELEASE_INTERVAL_MS * NS_PER_MS
            self._release_due = False
            self.group.release()
        release_ns = self._release_ns if self._release_due else None
        due_ns = [each for each in (release_ns, self.readers.next_deadline_ns) if each is not None]
        if due_ns and (self.alarm_ns is None or min(due_ns) < self.alarm_ns):
            self.host.alarm(min(due_ns), self, Alarm())

    def _set_alarm(self, now_ns: int) -> None:
        deadlines = [self.readers.next_deadline_ns, self.admission.next_deadline_ns(), self._house_ns()]
        if not self._due_proposed:
            for shared in self.state.shared.values():
                due_ms = shared.next_deadline_ms()
                deadlines.append(None if due_ms is None else self._stamps.monotonic_ns_at(due_ms) + NS_PER_MS)
        wanted = min((deadline for deadline in deadlines if deadline is not None), default=None)
        if wanted is not None and (self.alarm_ns is None or wanted < self.alarm_ns):
            self.host.alarm(max(wanted, now_ns), self, Alarm())

    def _house_ns(self) -> int | None:
        """When there is housekeeping to do; None for a partition that has none ahead."""
        if self._release_due:
            return self._release_ns
        due_ms = self.state.retention_due_ms(self.topic.settings)
        return None if due_ms is None else max(self._retention_ns, self._stamps.monotonic_ns_at(due_ms))

    def _stamp(self, now_ns: int) -> int:
        return self._stamps.stamp_ms(now_ns, self._context.clock.wall_ms(), self.state.log_time_ms)

    # the state machine's other calls

    def snapshot(self) -> bytes:
        """StateMachine."""
        return self.state.snapshot()

    def restore(self, state: bytes) -> None:
        """StateMachine."""
        assert not self._led, "a leader has everything: nobody sends it a snapshot"
        self.state.restore(state)
        self.consumers.rest()  # what was opened of the former state may not be what is kept now
        self.readers.fail(NotLeader(f"{self.name} is behind here; nothing was read; ask its leader"))
        self._release_due = True

    def live_entries(self) -> Sequence[Range]:
        """StateMachine."""
        return self.state.live_entries()

    def role_changed(self, change: RoleChange) -> None:
        """StateMachine: begin a term with empty soft state, or end all service."""
        now_ns = self._context.clock.monotonic_ns()
        if self._led:  # whatever came, that term is over
            self._led = False
            self.failure = self._why_not(change)
            self._end_term(self.refusal(), now_ns)
        self._term = change.term
        self._follows = change.role is Role.FOLLOWER
        if change.role is Role.LEADER and change.ready:
            self.failure, self._led = None, True
            self._begin_term(now_ns)
        else:
            self.failure = self._why_not(change)
        if change.role is Role.FENCED:
            self.readers.fail(self.refusal())
        self._context.standing(self.group, self._led)
        if change.ready or change.role is Role.FENCED:
            self.settled.set()

    def _why_not(self, change: RoleChange) -> PlaitError:
        """Why this replica does not serve."""
        if change.role is not Role.FENCED:
            return NotLeader(f"{self.name} is not led here; nothing was done; try again")
        return self._context.whereabouts.refusal(self.name, self.group)

    def _begin_term(self, now_ns: int) -> None:
        self._stamps.reset()
        self.publishing.begin(self._stamp(now_ns))
        self._due_proposed = False
        self._release_ns = now_ns + RELEASE_INTERVAL_MS * NS_PER_MS
        self._return_leases_of(self._context.whereabouts.incarnations())
        if self._dead_letters is not None:
            self._dead_letters.begin(self._term)
        self._look()

    def _end_term(self, error: PlaitError, now_ns: int) -> None:
        """Answer everyone: what was not proposed failed, what was proposed is unknown."""
        self.publishing.reset(error, now_ns)
        commands, self._commands = self._commands, []
        self._tell((waiter, error) for _, waiter in commands)
        proposed, self._proposed = self._proposed, deque()
        lost = unknown(self.name)
        self._tell((waiter, lost) for waiter in chain.from_iterable(waiters for _, waiters in proposed))
        self.readers.fail(error)
        self.consumers.fail(error)
        if self._dead_letters is not None:
            self._dead_letters.begin(0)

    def close(self, error: PlaitError) -> None:
        """End the partition: everyone who waits is answered with the error."""
        messages, self._mailbox = self._mailbox, []
        self.failure = error
        self.stop()  # first: what those who are told now post in turn is refused, not left lying
        self._turn_away(messages, error)
        self._end_term(error, self._context.clock.monotonic_ns())
        self._context.standing(self.group, False)
        self.group.stop()
        self.settled.set()

    def summary(self) -> dict[str, Any]:
        """Facts for the log."""
        return {"start": self.state.start_offset, "next": self.state.next_offset, "proposed": len(self._proposed)}

    def _look(self) -> None:
        if not self._scheduled:
            self.post(Look())


def _answer(promise: Promise[Any], result: Any) -> None:
    if isinstance(result, PlaitError):
        promise.reject(result)
    else:
        promise.resolve(result)


def _ignore(_: Any) -> None:
    """Nobody waits for this one."""
