"""The leader's side of publishing: duplicates, admission, offsets.

    batch ──duplicate?──> answered    ──admission──> refused | waits | admitted ──offset──> proposed ──> committed

Soft state: what is proposed and not committed. It begins empty with every term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cluster.admission import PartitionAdmission
from cluster.limits import NO_BACKLOG, Backlog
from cluster.outcomes import Admit, Answer, Evict, Permit, Refuse
from cluster.settings import QueueSettings, Settings
from node.entries import KIND_BATCH, encode_batch
from node.origins import NO_ORIGIN, Forgotten, Origin, Stored
from node.producers import Duplicate, InFlight, SpeculativeProducers
from node.state import PartitionState
from node.traffic import Traffic
from plait.wire.batch import BatchHeader, assigned
from plait.wire.errors import Closed, OutcomeUnknown, PlaitError
from replication.actor import Promise
from replication.environment import Buffer
from replication.machine import Proposal

PUBLISH_WAIT_MS = 25_000
"""How long a publish may wait for admission before it is refused, at the most and where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Published:
    """A batch that is on disk on a majority."""

    partition: int
    base_offset: int
    timestamp_ms: int
    """When the leader took it."""
    throttle_ms: int
    """How long the producer should keep quiet now."""
    duplicate: bool
    """It was stored by an earlier request of the same producer; this one stored nothing."""


@dataclass(slots=True)
class Publish:
    """A request to store one validated batch."""

    batch: Buffer
    header: BatchHeader
    client: str
    """Whose fair share and whose permits: the connection, with its node if that is another one."""
    origin: Origin = NO_ORIGIN
    """Of a publish that may be sent again: it is stored once."""
    promise: Promise[Published] = field(default_factory=Promise)
    through: int = 0
    """The node that it came by way of; 0: it is a client's of this one."""
    wait_ms: int = PUBLISH_WAIT_MS
    """How long it may wait for admission."""
    permit: Permit | None = None
    throttle_ms: int = 0
    followers: list[tuple[Promise[Published], bool]] = field(default_factory=list)
    """Repetitions of it that came while it was under way; whether they are to be told that they are some."""


class Publishing:
    """The publishes of one partition that are under way."""

    def __init__(
        self, name: str, partition: int, settings: Settings, state: PartitionState, admission: PartitionAdmission
    ) -> None:
        self._name = name
        self._partition = partition
        self._state = state
        self._admission = admission
        self._producers = SpeculativeProducers(state.producers)
        self._waiting: dict[int, Publish] = {}  # by admission's ticket
        self._in_flight: dict[tuple[int, int, int], Publish] = {}  # by (producer, epoch, first sequence)
        self._by_origin: dict[Origin, Publish] = {}  # of those that wait or are proposed
        self._bounded = isinstance(settings, QueueSettings) and (
            settings.max_backlog_records is not None or settings.max_backlog_bytes is not None
        )
        self.evict: Callable[[Evict], None] = lambda outcome: None
        self.proposed_next = state.next_offset  # the offset behind everything proposed; >= state.next_offset
        self.proposals: list[tuple[Proposal, Publish]] = []
        self.stamp_ms = 0
        self.traffic = Traffic()

    def begin(self, stamp_ms: int) -> None:
        """A term begins: everything that is in the log is applied."""
        self.stamp_ms = stamp_ms
        self._producers = SpeculativeProducers(self._state.producers)
        self.proposed_next = self._state.next_offset

    def offer(self, publish: Publish, now_ns: int) -> None:
        """Take up one publish: answered, waiting, or among `proposals` when this returns."""
        if self._was_taken(publish) or self._is_repetition(publish):
            return
        header = publish.header
        outcome = self._admission.request(
            now_ns,
            publish.client,
            publish.client,
            header.count,
            len(publish.batch),
            self.backlog(),
            publish.wait_ms,
            publish.through,
        )
        if isinstance(outcome, (Admit, Evict, Refuse)):
            self._decide(publish, outcome, now_ns)
        else:
            self._waiting[outcome.ticket] = publish
            if publish.origin != NO_ORIGIN:
                self._by_origin[publish.origin] = publish

    def tick(self, now_ns: int) -> None:
        """Take up what waited and may go on now, or has waited long enough."""
        self._answer(self._admission.tick(now_ns, self.backlog()), now_ns)

    def committed(self, publish: Publish, base_offset: int, stamp_ms: int, now_ns: int) -> None:
        """The batch is on disk on a majority and applied. `tick` when all that were applied with it are told."""
        traffic = self.traffic
        traffic.batches += 1
        traffic.records += publish.header.count
        traffic.size_bytes += len(publish.batch)
        self._forget(publish)
        published = Published(self._partition, base_offset, stamp_ms, publish.throttle_ms, False)
        publish.promise.resolve(published)
        for follower, duplicate in publish.followers:
            follower.resolve(Published(self._partition, base_offset, stamp_ms, publish.throttle_ms, duplicate))
        self._give_back(publish, now_ns)

    def release_client(self, client: str) -> None:
        """A connection is gone: what waits for it is dropped; what is proposed goes on to be committed."""
        self._admission.cancel_owner(client)
        gone = Closed("the client is gone; its publish was not stored")
        for ticket in [ticket for ticket, publish in self._waiting.items() if publish.client == client]:
            self._drop(self._waiting.pop(ticket), gone)

    def release_clients(self, prefix: str) -> None:
        """As `release_client` for everyone whose name begins so: a node is gone with its clients."""
        for client in dict.fromkeys(publish.client for publish in self._waiting.values()):
            if client.startswith(prefix):
                self.release_client(client)

    def reset(self, error: PlaitError, now_ns: int) -> None:
        """This replica leads no more: what waited, or was about to be proposed, is answered with the error."""
        waiting, self._waiting = self._waiting, {}
        for ticket, publish in waiting.items():
            self._admission.cancel(ticket)
            self._drop(publish, error)
        proposals, self.proposals = self.proposals, []
        for _, publish in proposals:
            self.lost(publish, error, now_ns)

    def withdraw(self) -> None:
        """What is among `proposals` will not be proposed: the offsets and sequences that it was given are free."""
        for _, publish in reversed(self.proposals):
            self.proposed_next -= publish.header.count
            if publish.header.producer_id >= 0:
                self._producers.withdraw()
        self.proposals.clear()

    def lost(self, publish: Publish, error: PlaitError, now_ns: int) -> None:
        """An admitted batch will not be heard of again."""
        self._drop(publish, error)
        self._give_back(publish, now_ns)

    def backlog(self) -> Backlog:
        """What the limits of a queue are about; not counted where there are none."""
        if not self._bounded:
            return NO_BACKLOG
        return Backlog(self._state.backlog_records(), self._state.backlog_bytes())

    def _was_taken(self, publish: Publish) -> bool:
        """Whether its node sends it again, and the first one was taken: then that one's answer is for both."""
        origin = publish.origin
        if origin == NO_ORIGIN:
            return False
        first = self._by_origin.get(origin)
        if first is not None:
            first.followers.append((publish.promise, False))
            return True
        found = self._state.origins.find(origin)
        if isinstance(found, Stored):
            stored = Published(self._partition, found.base_offset, found.stamp_ms, 0, False)
            publish.promise.resolve(stored)
        elif isinstance(found, Forgotten):
            publish.promise.reject(
                OutcomeUnknown(
                    f"{self._name} was sent a publish again so late that it does not know any more whether the "
                    "first one was stored; this one was not: an idempotent producer may send it again",
                    forgotten=True,
                )
            )
        return found is not None

    def _is_repetition(self, publish: Publish) -> bool:
        header = publish.header
        if header.producer_id < 0:
            return False
        found = self._producers.find(header)
        if isinstance(found, Duplicate):
            publish.promise.resolve(
                Published(self._partition, found.base_offset, self._state.log_time_ms, 0, True)
            )
            return True
        if isinstance(found, InFlight):
            self._in_flight[found.key].followers.append((publish.promise, True))
            return True
        return False

    def _give_back(self, publish: Publish, now_ns: int) -> None:
        """Its permit ends; whoever waits is served by the next `tick`, which admission asks for."""
        if publish.permit is not None:
            self._admission.give_back(now_ns, publish.permit)

    def _answer(self, answers: list[Answer], now_ns: int) -> None:
        for answer in answers:
            self._decide(self._waiting.pop(answer.ticket), answer.outcome, now_ns)

    def _decide(self, publish: Publish, outcome: Admit | Evict | Refuse, now_ns: int) -> None:
        if isinstance(outcome, Refuse):
            self._drop(publish, outcome.error(self._name, self._partition))
            return
        publish.permit, publish.throttle_ms = outcome.permit, outcome.throttle_ms
        if publish.promise.abandoned and not publish.followers:
            self._drop(publish, Closed("nobody waits for the publish any more; it was not stored"))
            self._give_back(publish, now_ns)
            return
        if not self._begin_sequence(publish):
            self._give_back(publish, now_ns)
            return
        if isinstance(outcome, Evict):
            self.evict(outcome)
        self._propose(publish)

    def _begin_sequence(self, publish: Publish) -> bool:
        """Whether the batch follows its producer's last one; if not, it is answered."""
        if publish.header.producer_id < 0:
            return True
        if self._is_repetition(publish):  # it waited, and the first of the two went ahead meanwhile
            self._forget(publish)
            for follower, _ in publish.followers:
                publish.promise.then(partial(_pass_on, follower))
            return False
        try:
            self._producers.begin(publish.header, self.proposed_next)
        except PlaitError as error:
            self._drop(publish, error)
            return False
        self._in_flight[_key(publish.header)] = publish
        return True

    def _propose(self, publish: Publish) -> None:
        header = publish.header
        parts = assigned(publish.batch, self.proposed_next, 0)
        payload = encode_batch(self.stamp_ms, publish.origin, parts)
        if publish.origin != NO_ORIGIN:
            self._by_origin[publish.origin] = publish
        self.proposals.append((Proposal(KIND_BATCH, self.proposed_next, header.count, payload), publish))
        self.proposed_next += header.count

    def _drop(self, publish: Publish, error: PlaitError) -> None:
        """It ends with an error, for everyone who waits for it."""
        self._forget(publish)
        for promise in (publish.promise, *(follower for follower, _ in publish.followers)):
            promise.reject(error)

    def _forget(self, publish: Publish) -> None:
        if publish.header.producer_id >= 0 and self._in_flight.get(_key(publish.header)) is publish:
            del self._in_flight[_key(publish.header)]
        if self._by_origin.get(publish.origin) is publish:
            del self._by_origin[publish.origin]


def _pass_on(follower: Promise[Published], first: Promise[Published]) -> None:
    if first.error is not None:
        follower.reject(first.error)
    else:
        follower.resolve(first.result())


def _key(header: BatchHeader) -> tuple[int, int, int]:
    return header.producer_id, header.producer_epoch, header.base_sequence


def unknown(name: str) -> OutcomeUnknown:
    """What a proposer is told whose entry may or may not be committed."""
    return OutcomeUnknown(
        f"{name} lost its leadership while the request was under way: it may or may not be done; "
        "an idempotent producer may send it again"
    )
