"""Admission under random histories: nothing leaks, nothing is answered twice, every wait ends."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.admission import PartitionAdmission
from cluster.limits import Backlog, NodePressure, PartitionLimits
from cluster.outcomes import Admit, Answer, Evict, Permit, Refuse, Wait
from cluster.settings import OVERFLOWS

MS = 1_000_000
CAP_BYTES = 1_000
NODE_CAP_BYTES = 1_500
OWNERS = st.sampled_from(["one", "two", "three"])
MAYBE = st.sampled_from([None, None, 20])


class Histories(RuleBasedStateMachine):
    """A partition whose publishes are committed, fail, are cancelled, or lose their owner, in any order."""

    @initialize(
        overflow=st.sampled_from(OVERFLOWS),
        records=MAYBE,
        size_bytes=st.sampled_from([None, 2_000]),
        records_per_s=MAYBE,
        bytes_per_s=st.sampled_from([None, 5_000]),
    )
    def start(self, overflow, records, size_bytes, records_per_s, bytes_per_s):
        self.now_ns = 0
        self.node = NodePressure(in_flight_bytes_max=NODE_CAP_BYTES)
        self.limits = PartitionLimits(
            in_flight_bytes=CAP_BYTES,
            in_flight_publishes=5,
            backlog_records=records,
            backlog_bytes=size_bytes,
            records_per_s=records_per_s,
            bytes_per_s=bytes_per_s,
            overflow=overflow,
        )
        self.admission = PartitionAdmission(self.limits, self.node, 0)
        self.stored: list[tuple[int, int]] = []
        self.in_flight: list[Permit] = []
        self.waits: dict[int, tuple[str, int]] = {}

    def backlog(self) -> Backlog:
        return Backlog(sum(records for records, _ in self.stored), sum(size for _, size in self.stored))

    def take(self, outcome) -> None:
        """The final word about a publish."""
        if isinstance(outcome, Refuse):
            assert outcome.retry_after_ms > 0
            return
        assert isinstance(outcome, Admit | Evict)
        assert outcome.permit.held
        assert outcome.throttle_ms >= 0
        if isinstance(outcome, Evict):
            assert self.limits.overflow in ("drop-oldest", "dead-letter")
        self.in_flight.append(outcome.permit)

    def take_answers(self, answers: list[Answer]) -> None:
        for answer in answers:
            _, deadline_ns = self.waits.pop(answer.ticket)  # KeyError: answered twice, or after it was cancelled
            assert isinstance(answer.outcome, Refuse) or deadline_ns > self.now_ns
            self.take(answer.outcome)

    @rule(
        owner=OWNERS,
        producer=st.sampled_from(["p", "q", "r"]),
        records=st.sampled_from([1, 1, 5, 30]),
        size_bytes=st.sampled_from([1, 100, 400, CAP_BYTES, 3 * CAP_BYTES]),
        wait_ms=st.sampled_from([0, 50, 1_000]),
        twice=st.integers(1, 5),
        through=st.sampled_from([0, 2, 3]),
    )
    def publish(self, owner, producer, records, size_bytes, wait_ms, twice, through):
        for _ in range(twice):
            outcome = self.admission.request(
                self.now_ns, owner, producer, records, size_bytes, self.backlog(), wait_ms, through
            )
            if isinstance(outcome, Wait):
                assert wait_ms > 0
                assert self.now_ns < outcome.deadline_ns <= self.now_ns + wait_ms * MS
                self.waits[outcome.ticket] = (owner, outcome.deadline_ns)
            else:
                self.take(outcome)

    @rule(count=st.integers(1, 4), fails=st.booleans())
    def commit(self, count, fails):
        done, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        for permit in done:
            if permit.held and not fails:
                self.evict(permit.evict_records, permit.evict_bytes)
                self.stored.append((permit.records, permit.size_bytes))
        self.take_answers(self.admission.release(self.now_ns, done, self.backlog()))

    def evict(self, records: int, size_bytes: int) -> None:
        while (records > 0 or size_bytes > 0) and self.stored:
            had_records, had_bytes = self.stored.pop(0)
            records, size_bytes = records - had_records, size_bytes - had_bytes

    @rule(count=st.integers(1, 3))
    def consume(self, count):
        del self.stored[:count]
        self.take_answers(self.admission.tick(self.now_ns, self.backlog()))

    @rule(owner=OWNERS)
    def lose_owner(self, owner):
        self.waits = {ticket: wait for ticket, wait in self.waits.items() if wait[0] != owner}
        self.take_answers(self.admission.release_owner(self.now_ns, owner, self.backlog()))

    @rule(owner=OWNERS)
    def cancel_owner(self, owner):
        mine = [ticket for ticket, wait in self.waits.items() if wait[0] == owner]
        assert self.admission.cancel_owner(owner) == len(mine)
        for ticket in mine:
            del self.waits[ticket]

    @rule(data=st.data())
    def cancel(self, data):
        if self.waits:
            ticket = data.draw(st.sampled_from(sorted(self.waits)))
            assert self.admission.cancel(ticket)
            del self.waits[ticket]
            assert not self.admission.cancel(ticket)

    @rule(elapsed_ms=st.sampled_from([1, 10, 60, 500]))
    def time_passes(self, elapsed_ms):
        self.now_ns += elapsed_ms * MS
        self.take_answers(self.admission.tick(self.now_ns, self.backlog()))

    @rule(
        storage=st.sampled_from(["none", "none", "none", "busy", "low", "critical"]),
        memory_percent=st.sampled_from([0, 0, 85, 99, 100]),
    )
    def pressure(self, storage, memory_percent):
        self.node.storage = storage
        self.node.memory_percent = memory_percent

    @invariant()
    def nothing_is_over_its_limit(self):
        if not hasattr(self, "admission"):
            return
        assert 0 <= self.admission.in_flight_bytes <= CAP_BYTES
        assert self.admission.permits_held == sum(permit.held for permit in self.in_flight) <= 5
        real_bytes = [permit.size_bytes for permit in self.in_flight if permit.held]
        assert sum(real_bytes) <= CAP_BYTES or len(real_bytes) == 1
        assert self.node.in_flight_bytes <= NODE_CAP_BYTES

    @invariant()
    def whoever_waits_has_an_alarm(self):
        if not hasattr(self, "admission"):
            return
        deadline_ns = self.admission.next_deadline_ns()
        if self.waits:
            assert deadline_ns is not None
            assert deadline_ns <= min(wait[1] for wait in self.waits.values())

    def teardown(self):
        """When all goes quiet, nothing is held, and everybody has an answer."""
        if not hasattr(self, "admission"):
            return
        self.node.storage, self.node.memory_percent = "none", 0
        for _ in range(1_000):
            if not self.in_flight and not self.waits:
                break
            self.stored.clear()
            self.commit(len(self.in_flight), False)
            deadline_ns = self.admission.next_deadline_ns()
            if deadline_ns is not None:
                self.now_ns = max(self.now_ns, deadline_ns)
                self.take_answers(self.admission.tick(self.now_ns, self.backlog()))
        assert not self.waits
        assert (self.admission.permits_held, self.admission.waiting) == (0, 0)
        assert (self.admission.in_flight_bytes, self.node.in_flight_bytes, self.node.room.size_bytes) == (0, 0, 0)
        assert (self.node.room.nodes, self.node.room.clients) == ({}, {})


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
