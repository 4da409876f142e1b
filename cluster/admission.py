"""Whether a partition's leader takes a publish, now, later or not at all; decided before it is proposed.

    publish ──> node's pressure? ──> rate? ──> backlog? ──> in flight? ──> Admit(permit) ... release([permit])
                      │                │           │            │
                      └────────────────┴─ Refuse ──┴── or Wait ─┘   (cluster/outcomes.py)

Nothing here knows a clock: time comes in as monotonic nanoseconds, the committed backlog as what the state
machine says. Whoever waits does so in fair turns per producer (cluster/waiting.py), and nobody overtakes.

A publish larger than a limit is taken when it has that limit to itself: a limit may delay anything, but a
budget that can never be met would wedge the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.in_flight import InFlight
from cluster.limits import Backlog, NodePressure, PartitionLimits, Storage
from cluster.outcomes import STORAGE_REASONS, Admit, Answer, Evict, Outcome, Permit, Reason, Refuse, Wait
from cluster.rates import NS_PER_MS, DrainMeter, TokenBucket
from cluster.waiting import FairLine, Waiter

WAIT_MS_MAX = 30_000
"""Longest that a publish waits for admission, whatever its client allows."""
NODE_RETRY_MS = 20
"""How often publishes that wait for the node (its disk, its memory) look again."""
STORAGE_FULL_RETRY_MS = 5_000
"""What a producer is told to wait when the disk is nearly full."""
BACKLOG_RETRY_MS = 500
"""What a producer is told to wait when the backlog is full, or memory is short."""
RETRY_MS_MIN = 10
"""Shortest wait that a producer is told."""
RETRY_MS_MAX = 60_000
"""Longest wait that a producer is told."""

_NODE_REASONS: tuple[Reason, ...] = ("storage_full", "storage_busy", "memory", "node_in_flight")
_QUEUE_REASONS: tuple[Reason, ...] = (
    "producer_queue",
    "partition_queue",
    "node_queue",
    "link_queue",
    "client_queue",
)
_LONG_REASONS: tuple[Reason, ...] = ("backlog", "rate", "memory", "storage_full")
"""Nobody knows how long that takes."""


class PartitionAdmission:
    """The admission of one partition, at its leader."""

    def __init__(
        self,
        limits: PartitionLimits,
        node: NodePressure,
        now_ns: int,
        group: int = 0,
        replicas_storage: Callable[[], Storage] = lambda: "none",
    ) -> None:
        """`replicas_storage`: what the disks take that a majority of the replicas are on (cluster/scarcity.py)."""
        self.limits = limits
        self._node = node
        self._group = group
        self._replicas_storage = replicas_storage
        self._records_bucket = _bucket(limits.records_per_s, now_ns)
        self._bytes_bucket = _bucket(limits.bytes_per_s, now_ns)
        self._limits_backlog = limits.backlog_records is not None or limits.backlog_bytes is not None
        self._line = FairLine()
        self._drain = DrainMeter()
        self._in_flight = InFlight(limits, node)
        self._next_ticket = 1
        self._shed: list[tuple[str, Answer]] = []
        """Answers that the next call brings along, with the owner of each."""
        self._reason: Reason = "in_flight"
        """Why the first in line waits."""
        self._retry_ns: int | None = None
        """When to look again though nothing was released."""

    @property
    def permits_held(self) -> int:
        """Publishes that are in flight: 0 when nothing is going on."""
        return len(self._in_flight)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that are in flight; one publish larger than the limit counts as the limit."""
        return self._in_flight.charged_bytes

    @property
    def waiting(self) -> int:
        """Publishes that wait."""
        return len(self._line)

    def next_deadline_ns(self) -> int | None:
        """When `tick` should be called if nothing else happens before (0: at once); None: not at all."""
        if self._shed:
            return 0
        first = self._line.next_deadline_ns()
        if first is None or self._retry_ns is None:
            return first
        return min(first, self._retry_ns)

    # publishes come

    def request(
        self,
        now_ns: int,
        owner: str,
        producer: str,
        records: int,
        size_bytes: int,
        backlog: Backlog,
        max_wait_ms: int,
        through: int = 0,
    ) -> Outcome:
        """Decide about a publish of that many records and bytes.

        `owner` is whose permits `release_owner` takes back, `producer` whose fair share this comes from, `through`
        the node that it came by way of (0: none).
        `max_wait_ms` 0 means: do not wait. After Wait, the answer comes from a later call; see to it that `tick`
        is called when `next_deadline_ns` says, and whenever a full backlog has shrunk.
        """
        assert records > 0, "a publish without records"
        assert size_bytes > 0, "a publish without bytes"
        blocked = self._blocked(now_ns, records, size_bytes, backlog)
        if blocked is None and not len(self._line):
            return self._admit(now_ns, owner, records, size_bytes, backlog)
        reason = blocked or self._reason
        if max_wait_ms <= 0 or self._never_waits(reason):
            return self._refuse(now_ns, reason, self._line.bytes_ahead(producer, size_bytes), size_bytes)
        waiter = Waiter(
            ticket=self._next_ticket,
            owner=owner,
            producer=producer,
            records=records,
            size_bytes=size_bytes,
            cost_bytes=min(size_bytes, self.limits.in_flight_bytes),
            deadline_ns=now_ns + min(max_wait_ms, WAIT_MS_MAX) * NS_PER_MS,
            through=through,
        )
        return self._queue(now_ns, waiter, reason)

    def _queue(self, now_ns: int, waiter: Waiter, reason: Reason) -> Outcome:
        refused = self._no_place(now_ns, waiter, reason)
        if refused is not None:
            return refused
        self._next_ticket += 1
        first = not len(self._line)
        self._line.add(waiter)
        self._node.room.enters(waiter)
        if first:
            self._blocked_by(now_ns, reason)
        return Wait(waiter.ticket, reason, waiter.deadline_ns)

    def _no_place(self, now_ns: int, waiter: Waiter, reason: Reason) -> Refuse | None:
        size_bytes = waiter.size_bytes
        ahead_bytes = self._line.bytes_ahead(waiter.producer, size_bytes)
        if self._line.producer_full(waiter.producer):
            return self._refuse(now_ns, "producer_queue", ahead_bytes, size_bytes, reason)
        if now_ns + self._estimate_ns(now_ns, reason, ahead_bytes, size_bytes) > waiter.deadline_ns:
            return self._refuse(now_ns, reason, ahead_bytes, size_bytes)
        full = self._node.room.refuses(waiter, long=reason in _LONG_REASONS)
        if full is not None:
            return self._refuse(now_ns, full, ahead_bytes, size_bytes, reason)
        if not self._make_place(now_ns, waiter):
            return self._refuse(now_ns, "partition_queue", ahead_bytes, size_bytes, reason)
        return None

    def _make_place(self, now_ns: int, waiter: Waiter) -> bool:
        """Room in a full line for a producer that has less waiting than another: the latter loses its newest."""
        while self._line.full_for(waiter.size_bytes):
            own_bytes = self._line.waiting_bytes_of(waiter.producer) + waiter.size_bytes
            newest = self._line.heaviest(own_bytes)
            if newest is None:
                return False
            self._take_out(newest.ticket)
            refusal = self._refuse(now_ns, "partition_queue", self._line.waiting_bytes, newest.size_bytes)
            self._shed.append((newest.owner, Answer(newest.ticket, refusal)))
        return True

    # what was admitted ends, and others get their turn

    def release(self, now_ns: int, permits: Iterable[Permit], backlog: Backlog) -> list[Answer]:
        """Those publishes are committed, or known to have failed; `backlog` is the one behind all of them.

        Permits of entries that were applied together are released together, or `give_back` one by one before
        one `tick`: a publish that the backlog has already and whose permit is still held would count twice.
        """
        for permit in permits:
            self.give_back(now_ns, permit)
        return self._serve(now_ns, backlog) if self._shed or len(self._line) else []

    def give_back(self, now_ns: int, permit: Permit) -> None:
        """The permit ends, and nobody is served yet: `next_deadline_ns` asks for a `tick` if somebody waits.

        A permit that is not held any more (`release_owner`) is passed over.
        """
        if permit.held:
            self._in_flight.give_back(permit)
            self._drain.drained(permit.charged_bytes, now_ns, busy=len(self._in_flight) > 0)
            self._retry_ns = 0

    def release_owner(self, now_ns: int, owner: str, backlog: Backlog) -> list[Answer]:
        """The owner is gone for good: its permits are given back, and its waiting publishes get no answer."""
        self.cancel_owner(owner)
        return self.release(now_ns, self._in_flight.of_owner(owner), backlog)

    def tick(self, now_ns: int, backlog: Backlog) -> list[Answer]:
        """Time has passed, or the backlog has shrunk: who may go ahead now, and who has waited too long."""
        return self._serve(now_ns, backlog)

    def cancel(self, ticket: int) -> bool:
        """Nobody waits for that ticket's answer any more; False if it was answered or cancelled before."""
        if self._take_out(ticket):
            self._retry_ns = 0  # whoever stood behind it may fit where it did not
            return True
        shed = len(self._shed)
        self._shed = [each for each in self._shed if each[1].ticket != ticket]
        return len(self._shed) < shed

    def cancel_owner(self, owner: str) -> int:
        """As `cancel` for all of the owner's; its permits stay, for its publishes may still be committed."""
        tickets = [*self._line.of_owner(owner), *(a.ticket for who, a in self._shed if who == owner)]
        return sum(self.cancel(ticket) for ticket in tickets)

    def close(self) -> list[int]:
        """This replica leads no more: all permits end here. Returns the tickets that still wait for an answer."""
        tickets = [*(answer.ticket for _, answer in self._shed), *self._line.all()]
        self._shed.clear()
        for ticket in self._line.all():
            self._take_out(ticket)
        for permit in self._in_flight.all():
            self._in_flight.give_back(permit)
        return tickets

    def _serve(self, now_ns: int, backlog: Backlog) -> list[Answer]:
        answers = [answer for _, answer in self._shed]
        self._shed.clear()
        for late in self._line.expired(now_ns):
            self._node.room.leaves(late)
            refusal = self._refuse(now_ns, self._reason, self._line.waiting_bytes, late.size_bytes)
            answers.append(Answer(late.ticket, refusal))
        while (waiter := self._line.next()) is not None:
            blocked = self._blocked(now_ns, waiter.records, waiter.size_bytes, backlog)
            if blocked is None:
                self._line.take(waiter)
                self._node.room.leaves(waiter)
                admitted = self._admit(now_ns, waiter.owner, waiter.records, waiter.size_bytes, backlog)
                answers.append(Answer(waiter.ticket, admitted))
            elif self._never_waits(blocked):
                self._take_out(waiter.ticket)
                answers.append(Answer(waiter.ticket, self._refuse(now_ns, blocked, 0, waiter.size_bytes)))
            else:
                self._blocked_by(now_ns, blocked)
                break
        return answers

    # the decision

    def _blocked(self, now_ns: int, records: int, size_bytes: int, backlog: Backlog) -> Reason | None:
        """Why that publish cannot be admitted now, turns aside; None if it can."""
        node = self._node
        if node.scarce and self._is_short(self._replicas_storage(), backlog):
            return "replicas_full"
        if node.storage != "none":
            if node.storage == "busy":
                return "storage_busy"
            if self._is_short(node.storage, backlog):
                return "storage_full"
        if node.memory_percent >= 100:
            return "memory"
        if self._rate_wait_ns(now_ns) > 0:
            return "rate"
        if (
            self._limits_backlog
            and not self.limits.evicts
            and self._excess(records, size_bytes, backlog) != (0, 0)
        ):
            return "backlog"
        return self._in_flight.blocks(size_bytes)

    def _is_short(self, storage: Storage, backlog: Backlog) -> bool:
        """Whether disks that are so take no more of this partition."""
        return storage == "critical" or (storage == "low" and not self._frees_space(backlog))

    def _never_waits(self, reason: Reason) -> bool:
        # waiting for a disk to get emptier, or for consumers when the queue says refuse, helps nobody
        if reason == "storage_full":
            return self._group not in self._node.leaving  # it waits for the leader that comes
        return reason == "replicas_full" or (reason == "backlog" and self.limits.overflow != "block")

    def _admit(self, now_ns: int, owner: str, records: int, size_bytes: int, backlog: Backlog) -> Admit | Evict:
        evict_records = evict_bytes = 0
        if self.limits.evicts:
            evict_records, evict_bytes = self._evictions(records, size_bytes, backlog)
        permit = self._in_flight.admit(owner, records, size_bytes, evict_records, evict_bytes)
        self._drain.admitted(now_ns)
        debt_ns = 0
        if self._records_bucket is not None:
            debt_ns = self._records_bucket.take(records, now_ns)
        if self._bytes_bucket is not None:
            debt_ns = max(debt_ns, self._bytes_bucket.take(size_bytes, now_ns))
        throttle_ms = _up_to_ms(debt_ns)
        if evict_records or evict_bytes:
            to_dead_letter = self.limits.overflow == "dead-letter"
            return Evict(evict_records, evict_bytes, to_dead_letter, permit, throttle_ms)
        return Admit(permit, throttle_ms)

    def _held(self, backlog: Backlog) -> Backlog:
        """The backlog once everything in flight is applied."""
        pending = self._in_flight
        return Backlog(
            max(backlog.records + pending.pending_records, 0), max(backlog.size_bytes + pending.pending_bytes, 0)
        )

    def _excess(self, records: int, size_bytes: int, backlog: Backlog) -> tuple[int, int]:
        """By how many records and bytes the backlog would be over its limits with that publish."""
        held = self._held(backlog)
        return (
            _over(held.records, records, self.limits.backlog_records),
            _over(held.size_bytes, size_bytes, self.limits.backlog_bytes),
        )

    def _evictions(self, records: int, size_bytes: int, backlog: Backlog) -> tuple[int, int]:
        excess_records, excess_bytes = self._excess(records, size_bytes, backlog)
        low = self._node.storage == "low" or (bool(self._node.scarce) and self._replicas_storage() == "low")
        if low:  # as much must go as comes
            held = self._held(backlog)
            excess_records = max(excess_records, min(records, held.records))
            excess_bytes = max(excess_bytes, min(size_bytes, held.size_bytes))
        return excess_records, excess_bytes

    def _frees_space(self, backlog: Backlog) -> bool:
        """Whether a publish takes no space in sum, since older records go for it."""
        return self.limits.overflow == "drop-oldest" and self._held(backlog).records > 0

    # how long it may take

    def _rate_wait_ns(self, now_ns: int) -> int:
        wait_ns = 0
        if self._records_bucket is not None:
            wait_ns = self._records_bucket.wait_ns(now_ns)
        if self._bytes_bucket is not None:
            wait_ns = max(wait_ns, self._bytes_bucket.wait_ns(now_ns))
        return wait_ns

    def _estimate_ns(self, now_ns: int, reason: Reason, ahead_bytes: int, size_bytes: int) -> int:
        """How long a publish of that size with so many bytes ahead will wait, as far as can be said."""
        if reason == "rate":
            wait_ns = self._rate_wait_ns(now_ns)
            if self._bytes_bucket is not None:
                wait_ns += self._bytes_bucket.time_ns(ahead_bytes)
            return wait_ns
        if reason == "in_flight":
            over_bytes = self._in_flight.charged_bytes + ahead_bytes + size_bytes - self.limits.in_flight_bytes
            return self._drain.estimate_ns(max(over_bytes, 0), now_ns)
        return 0

    def _refuse(
        self, now_ns: int, reason: Reason, ahead_bytes: int, size_bytes: int, blocked: Reason | None = None
    ) -> Refuse:
        """`blocked`: what it would have waited for, where that is another thing than what it is refused for."""
        refused = self._node.refused
        refused[reason] = refused.get(reason, 0) + 1
        if reason in STORAGE_REASONS:
            return Refuse(reason, STORAGE_FULL_RETRY_MS)
        waited_for = (blocked or self._reason) if reason in _QUEUE_REASONS else reason
        if waited_for in _LONG_REASONS and waited_for != "rate":
            return Refuse(reason, BACKLOG_RETRY_MS)
        retry_after_ms = _up_to_ms(self._estimate_ns(now_ns, waited_for, ahead_bytes, size_bytes))
        return Refuse(reason, min(max(retry_after_ms, RETRY_MS_MIN), RETRY_MS_MAX))

    def _blocked_by(self, now_ns: int, reason: Reason) -> None:
        """The first in line waits for that reason: note it, and when to look again."""
        self._reason = reason
        if reason == "rate":
            self._retry_ns = now_ns + self._rate_wait_ns(now_ns)
        elif reason in _NODE_REASONS:
            self._retry_ns = now_ns + NODE_RETRY_MS * NS_PER_MS
        else:  # a release, or a smaller backlog, will bring the next call
            self._retry_ns = None

    def _take_out(self, ticket: int) -> bool:
        waiter = self._line.remove(ticket)
        if waiter is None:
            return False
        self._node.room.leaves(waiter)
        return True


def _bucket(rate_per_s: int | None, now_ns: int) -> TokenBucket | None:
    return TokenBucket(rate_per_s, now_ns) if rate_per_s is not None else None


def _over(held: int, more: int, limit: int | None) -> int:
    """By how much `more` goes over the limit; what is larger than the limit needs all of it, and no more."""
    return 0 if limit is None else max(held + min(more, limit) - limit, 0)


def _up_to_ms(duration_ns: int) -> int:
    return -(-duration_ns // NS_PER_MS)
