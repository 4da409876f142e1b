"""Admission of one partition: what is let in, what waits, what is refused, and in whose favour."""

from __future__ import annotations

import pytest

from cluster import admission, limits, waiting, waiting_room
from cluster.admission import PartitionAdmission
from cluster.limits import NO_BACKLOG, Backlog, NodePressure, PartitionLimits, limits_of
from cluster.outcomes import Admit, Answer, Evict, Refuse, Wait
from cluster.settings import settings_from
from plait.wire.errors import Overloaded, StorageFull

MS = 1_000_000
S = 1_000 * MS
GROUP = 7


class Partition:
    """A partition's admission with a clock and a backlog of its own."""

    def __init__(self, node: NodePressure | None = None, **figures) -> None:
        self.node = node or NodePressure()
        self.replicas_storage = "none"
        self.now_ns = 0
        self.backlog = NO_BACKLOG
        self.admission = PartitionAdmission(
            PartitionLimits(**figures), self.node, 0, GROUP, lambda: self.replicas_storage
        )

    def publish(self, size_bytes=1, records=1, producer="p", owner=None, wait_ms=0, through=0):
        owner = producer if owner is None else owner
        return self.admission.request(
            self.now_ns, owner, producer, records, size_bytes, self.backlog, wait_ms, through
        )

    def release(self, *outcomes):
        return self.admission.release(self.now_ns, [each.permit for each in outcomes], self.backlog)

    def tick(self, later_ns=0):
        self.now_ns += later_ns
        return self.admission.tick(self.now_ns, self.backlog)


def reason_of(outcome) -> str:
    assert isinstance(outcome, Refuse), outcome
    assert outcome.retry_after_ms > 0
    return outcome.reason


def tickets(answers: list[Answer], kind=Admit) -> list[int]:
    assert all(isinstance(answer.outcome, kind) for answer in answers), answers
    return [answer.ticket for answer in answers]


# bytes and publishes in flight


def test_a_publish_is_admitted_and_its_permit_comes_back():
    partition = Partition()
    outcome = partition.publish(100)
    assert isinstance(outcome, Admit)
    assert outcome.throttle_ms == 0
    assert (partition.admission.permits_held, partition.admission.in_flight_bytes) == (1, 100)
    assert partition.release(outcome) == []
    assert (partition.admission.permits_held, partition.admission.in_flight_bytes) == (0, 0)
    assert partition.node.in_flight_bytes == 0


def test_bytes_in_flight_are_limited():
    partition = Partition(in_flight_bytes=100)
    partition.publish(60)
    assert isinstance(partition.publish(40), Admit)
    assert reason_of(partition.publish(1)) == "in_flight"


def test_publishes_in_flight_are_limited():
    partition = Partition(in_flight_publishes=2)
    first = partition.publish()
    partition.publish()
    assert reason_of(partition.publish()) == "in_flight"
    partition.release(first)
    assert isinstance(partition.publish(), Admit)


def test_a_publish_larger_than_the_limit_is_let_in_alone():
    partition = Partition(in_flight_bytes=100)
    small = partition.publish(1)
    assert reason_of(partition.publish(1_000)) == "in_flight"
    partition.release(small)
    large = partition.publish(1_000)
    assert isinstance(large, Admit)
    assert partition.admission.in_flight_bytes == 100
    assert reason_of(partition.publish(1)) == "in_flight"
    partition.release(large)
    assert partition.admission.in_flight_bytes == 0


def test_who_waits_is_admitted_when_something_is_released():
    partition = Partition(in_flight_bytes=100)
    first = partition.publish(100)
    wait = partition.publish(50, wait_ms=1_000)
    assert isinstance(wait, Wait)
    assert wait.deadline_ns == 1 * S
    answers = partition.release(first)
    assert tickets(answers) == [wait.ticket]
    assert partition.admission.permits_held == 1


def test_permits_given_back_one_by_one_serve_nobody_before_the_next_tick():
    partition = Partition(backlog_records=10, overflow="drop-oldest", in_flight_publishes=2)
    partition.backlog = Backlog(4, 4)
    first, second = partition.publish(records=3), partition.publish(records=3)
    wait = partition.publish(records=1, wait_ms=1_000)
    partition.backlog = Backlog(10, 10)  # both are applied
    partition.admission.give_back(0, first.permit)
    partition.admission.give_back(0, second.permit)
    assert partition.admission.next_deadline_ns() == 0
    (answer,) = partition.tick()
    assert answer.ticket == wait.ticket
    assert answer.outcome.records == 1  # not 4: neither of them counts twice


def test_nobody_overtakes_who_waits():
    partition = Partition(in_flight_bytes=100)
    first = partition.publish(60)
    large = partition.publish(100, wait_ms=1_000)
    small = partition.publish(1, producer="q", wait_ms=1_000)  # would fit
    assert isinstance(small, Wait)
    assert reason_of(partition.publish(1)) == "in_flight"
    (answer,) = partition.release(first)
    assert answer.ticket == large.ticket
    assert tickets(partition.release(answer.outcome)) == [small.ticket]


def test_who_waits_too_long_is_refused():
    partition = Partition(in_flight_bytes=100)
    partition.publish(100)
    wait = partition.publish(wait_ms=20)
    assert partition.admission.next_deadline_ns() == 20 * MS
    assert partition.tick(19 * MS) == []
    (answer,) = partition.tick(1 * MS)
    assert answer.ticket == wait.ticket
    assert reason_of(answer.outcome) == "in_flight"
    assert partition.admission.next_deadline_ns() is None


def test_nobody_waits_longer_than_the_broker_allows():
    partition = Partition(in_flight_bytes=100)
    partition.publish(100)
    assert partition.publish(wait_ms=10**9).deadline_ns == admission.WAIT_MS_MAX * MS


def test_who_would_wait_too_long_is_refused_at_once():
    partition = Partition(in_flight_bytes=1_000)
    first = partition.publish(1_000)
    partition.now_ns = 1 * S
    partition.release(first)  # 1,000 bytes a second, it has shown
    partition.publish(1_000)
    refusal = partition.publish(1_000, wait_ms=500)
    assert reason_of(refusal) == "in_flight"
    assert refusal.retry_after_ms == 1_000
    assert isinstance(partition.publish(1_000, wait_ms=2_000), Wait)


# owners and cancellation


def test_a_lost_owner_leaves_nothing_behind():
    partition = Partition(in_flight_bytes=100)
    first = partition.publish(50, owner="gone")
    partition.publish(50, owner="gone")
    partition.publish(10, owner="gone", wait_ms=1_000)
    other = partition.publish(10, producer="q", owner="here", wait_ms=1_000)
    answers = partition.admission.release_owner(0, "gone", NO_BACKLOG)
    assert tickets(answers) == [other.ticket]
    assert partition.admission.permits_held == 1
    assert partition.release(first) == []  # too late, and harmless
    assert partition.admission.in_flight_bytes == 10


def test_a_cancelled_publish_gets_no_answer_and_makes_way():
    partition = Partition(in_flight_bytes=100)
    first = partition.publish(50)
    large = partition.publish(90, wait_ms=1_000)
    small = partition.publish(10, wait_ms=1_000)
    assert partition.admission.cancel(large.ticket)
    assert not partition.admission.cancel(large.ticket)
    assert partition.admission.next_deadline_ns() == 0
    assert tickets(partition.tick()) == [small.ticket]
    partition.release(first)


def test_cancelling_an_owners_waits_keeps_its_permits():
    partition = Partition(in_flight_bytes=100)
    partition.publish(100, owner="o")
    partition.publish(10, owner="o", wait_ms=1_000)
    partition.publish(10, owner="o", wait_ms=1_000)
    assert partition.admission.cancel_owner("o") == 2
    assert (partition.admission.waiting, partition.admission.permits_held) == (0, 1)


def test_the_end_of_leadership_frees_everything_and_names_who_waited():
    partition = Partition(in_flight_bytes=100)
    partition.publish(100)
    wait = partition.publish(wait_ms=1_000)
    assert partition.admission.close() == [wait.ticket]
    assert (partition.admission.permits_held, partition.admission.waiting) == (0, 0)
    assert (partition.node.in_flight_bytes, partition.node.room.size_bytes) == (0, 0)


# rates


def test_a_rate_lets_a_burst_through_and_then_throttles():
    partition = Partition(bytes_per_s=1_000)
    assert partition.publish(1_000).throttle_ms == 0
    partition.now_ns = 1 * MS  # one byte more has come
    debt = partition.publish(501)
    assert isinstance(debt, Admit)
    assert debt.throttle_ms == 500
    refusal = partition.publish()
    assert reason_of(refusal) == "rate"
    assert refusal.retry_after_ms in (500, 501)
    partition.now_ns += refusal.retry_after_ms * MS
    assert isinstance(partition.publish(), Admit)


def test_records_have_a_rate_too():
    partition = Partition(records_per_s=10)
    assert isinstance(partition.publish(records=10), Admit)
    assert reason_of(partition.publish()) == "rate"
    partition.now_ns = 101 * MS
    assert isinstance(partition.publish(), Admit)


def test_who_waits_for_the_rate_is_woken_when_it_allows():
    partition = Partition(bytes_per_s=1_000)
    partition.publish(1_100)
    wait = partition.publish(wait_ms=5_000)
    assert isinstance(wait, Wait)
    deadline_ns = partition.admission.next_deadline_ns()
    assert 100 * MS < deadline_ns <= 101 * MS
    assert partition.tick(deadline_ns - 1) == []
    assert tickets(partition.tick(1)) == [wait.ticket]


def test_who_would_wait_too_long_for_the_rate_is_refused_at_once():
    partition = Partition(bytes_per_s=1_000)
    partition.publish(3_000)
    assert reason_of(partition.publish(wait_ms=1_900)) == "rate"
    assert isinstance(partition.publish(100, wait_ms=2_100), Wait)
    # 100 bytes ahead and a line of its own: a tenth of a second more
    assert reason_of(partition.publish(producer="q", wait_ms=2_050)) == "rate"


# backlog


def test_a_full_backlog_refuses():
    partition = Partition(backlog_records=10)
    partition.backlog = Backlog(9, 900)
    last = partition.publish()
    assert isinstance(last, Admit)
    assert reason_of(partition.publish(wait_ms=1_000)) == "backlog"  # what is in flight counts
    partition.backlog = Backlog(10, 1_000)
    partition.release(last)
    assert reason_of(partition.publish()) == "backlog"
    partition.backlog = Backlog(5, 500)
    assert isinstance(partition.publish(records=5), Admit)


def test_backlog_bytes_are_limited_too():
    partition = Partition(backlog_bytes=100)
    partition.backlog = Backlog(1, 90)
    assert reason_of(partition.publish(11)) == "backlog"
    assert isinstance(partition.publish(10), Admit)


def test_a_batch_larger_than_the_backlog_limit_is_taken_by_an_empty_queue():
    partition = Partition(backlog_records=10)
    partition.backlog = Backlog(1, 1)
    assert reason_of(partition.publish(records=50)) == "backlog"
    partition.backlog = NO_BACKLOG
    assert isinstance(partition.publish(records=50), Admit)


def test_block_waits_until_the_backlog_shrinks():
    partition = Partition(backlog_records=10, overflow="block")
    partition.backlog = Backlog(10, 10)
    wait = partition.publish(wait_ms=1_000)
    assert isinstance(wait, Wait)
    assert wait.reason == "backlog"
    assert partition.tick(5) == []
    partition.backlog = Backlog(9, 9)
    assert tickets(partition.tick(5)) == [wait.ticket]


def test_block_refuses_in_the_end():
    partition = Partition(backlog_records=10, overflow="block")
    partition.backlog = Backlog(10, 10)
    assert reason_of(partition.publish()) == "backlog"
    partition.publish(wait_ms=100)
    (answer,) = partition.tick(100 * MS)
    assert reason_of(answer.outcome) == "backlog"


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
def test_the_oldest_make_room(overflow):
    partition = Partition(backlog_records=10, backlog_bytes=1_000, overflow=overflow)
    partition.backlog = Backlog(10, 500)
    outcome = partition.publish(600, records=2)
    assert isinstance(outcome, Evict)
    assert (outcome.records, outcome.size_bytes) == (2, 100)
    assert outcome.to_dead_letter == (overflow == "dead-letter")
    second = partition.publish(10, records=1)  # the first one's eviction is on its way
    assert (second.records, second.size_bytes) == (1, 10)
    partition.backlog = Backlog(10, 1_000)
    partition.release(outcome, second)
    assert partition.admission.permits_held == 0


def test_a_batch_larger_than_the_limit_makes_all_others_go():
    partition = Partition(backlog_records=10, overflow="drop-oldest")
    partition.backlog = Backlog(7, 70)
    outcome = partition.publish(records=50)
    assert isinstance(outcome, Evict)
    assert outcome.records == 7


def test_a_backlog_below_its_limit_evicts_nothing():
    partition = Partition(backlog_records=10, overflow="drop-oldest")
    partition.backlog = Backlog(9, 9)
    assert isinstance(partition.publish(), Admit)


# producers


def test_a_light_producer_is_not_held_up_by_a_heavy_one():
    partition = Partition(in_flight_bytes=100_000)
    outstanding = [partition.publish(100_000, producer="heavy")]
    for _ in range(waiting.WAITING_PUBLISHES_PER_PRODUCER_MAX):
        partition.publish(50_000, producer="heavy", wait_ms=30_000)
    light = partition.publish(50_000, producer="light", wait_ms=30_000)
    served = []
    while light.ticket not in served:
        answers = partition.release(outstanding.pop(0))
        served += tickets(answers)
        outstanding += [answer.outcome for answer in answers]
    assert len(served) <= 3


def test_a_producer_may_have_so_many_waiting_and_no_more():
    partition = Partition(in_flight_publishes=1)
    partition.publish()
    for _ in range(waiting.WAITING_PUBLISHES_PER_PRODUCER_MAX):
        assert isinstance(partition.publish(wait_ms=100), Wait)
    assert reason_of(partition.publish(wait_ms=100)) == "producer_queue"
    assert isinstance(partition.publish(producer="q", wait_ms=100), Wait)


def test_in_a_full_line_the_heaviest_producer_makes_way_for_a_lighter_one(monkeypatch):
    monkeypatch.setattr(waiting, "WAITING_BYTES_MAX", 1_000)
    partition = Partition(in_flight_publishes=1)
    partition.publish(owner="first")
    tickets_of_heavy = [partition.publish(250, producer="heavy", wait_ms=100).ticket for _ in range(4)]
    assert reason_of(partition.publish(250, producer="heavy", wait_ms=100)) == "partition_queue"
    assert isinstance(partition.publish(250, producer="light", wait_ms=100), Wait)
    assert partition.admission.next_deadline_ns() == 0
    (answer,) = partition.tick()
    assert answer.ticket == tickets_of_heavy[-1]
    assert reason_of(answer.outcome) == "partition_queue"


def test_a_shed_publish_that_is_cancelled_gets_no_answer(monkeypatch):
    monkeypatch.setattr(waiting, "WAITING_BYTES_MAX", 1_000)
    partition = Partition(in_flight_publishes=1)
    partition.publish()
    heavy = [partition.publish(500, producer="heavy", wait_ms=100) for _ in range(2)]
    partition.publish(100, producer="light", wait_ms=100)
    assert partition.admission.cancel(heavy[1].ticket)
    assert partition.tick() == []


# the node's pressure


@pytest.mark.parametrize("storage", ["low", "critical"])
def test_a_full_disk_refuses_at_once(storage):
    partition = Partition(overflow="block")
    partition.node.storage = storage
    refusal = partition.publish(wait_ms=10_000)
    assert reason_of(refusal) == "storage_full"
    assert isinstance(refusal.error("q", 0), StorageFull)


def test_a_disk_that_is_nearly_full_takes_from_a_dropping_queue_as_much_as_comes():
    partition = Partition(overflow="drop-oldest")
    partition.node.storage = "low"
    assert reason_of(partition.publish()) == "storage_full"
    partition.backlog = Backlog(100, 10_000)
    outcome = partition.publish(200, records=2)
    assert (outcome.records, outcome.size_bytes) == (2, 200)
    partition.node.storage = "critical"
    assert reason_of(partition.publish()) == "storage_full"


def test_a_disk_that_is_behind_makes_publishes_wait_and_look_again():
    partition = Partition()
    partition.node.storage = "busy"
    assert reason_of(partition.publish()) == "storage_busy"
    wait = partition.publish(wait_ms=1_000)
    assert partition.admission.next_deadline_ns() == admission.NODE_RETRY_MS * MS
    assert partition.tick(admission.NODE_RETRY_MS * MS) == []
    assert partition.admission.next_deadline_ns() == 2 * admission.NODE_RETRY_MS * MS
    partition.node.storage = "none"
    assert tickets(partition.tick(admission.NODE_RETRY_MS * MS)) == [wait.ticket]


def test_who_waits_is_refused_when_the_disk_is_full():
    partition = Partition(in_flight_publishes=1)
    first = partition.publish()
    wait = partition.publish(wait_ms=1_000)
    partition.node.storage = "critical"
    (answer,) = partition.release(first)
    assert (answer.ticket, reason_of(answer.outcome)) == (wait.ticket, "storage_full")


def test_memory_tightens_the_limits_and_then_shuts_the_door():
    partition = Partition(in_flight_bytes=1_000)
    partition.node.memory_percent = limits.MEMORY_TIGHT_PERCENT
    outcome = partition.publish(1_000)
    partition.release(outcome)
    partition.node.memory_percent = 90
    assert isinstance(partition.publish(400), Admit)
    assert reason_of(partition.publish(101)) == "in_flight"
    partition.node.memory_percent = 100
    assert reason_of(partition.publish()) == "memory"


@pytest.mark.parametrize("percent", [0, 80, 81, 90, 99, 100, 200])
def test_a_tightened_limit_is_never_nothing_and_never_more(percent):
    node = NodePressure()
    node.memory_percent = percent
    for cap in (1, 7, 8, 10_000):
        assert 1 <= node.tightened(cap) <= cap


def test_partitions_share_the_nodes_limit():
    node = NodePressure(in_flight_bytes_max=100)
    one, other = Partition(node), Partition(node)
    held = one.publish(80)
    assert reason_of(other.publish(30)) == "node_in_flight"
    wait = other.publish(30, wait_ms=1_000)
    one.release(held)
    assert tickets(other.tick(admission.NODE_RETRY_MS * MS)) == [wait.ticket]


def test_partitions_share_the_nodes_waiting_room():
    node = NodePressure(waiting_bytes_max=100)
    one, other = Partition(node, in_flight_publishes=1), Partition(node, in_flight_publishes=1)
    one.publish()
    other.publish()
    assert isinstance(one.publish(80, wait_ms=1_000), Wait)
    assert reason_of(other.publish(30, wait_ms=1_000)) == "node_queue"


def full_partitions(node: NodePressure, count: int) -> list[Partition]:
    found = [Partition(node, backlog_records=1, overflow="block") for _ in range(count)]
    for partition in found:
        partition.backlog = Backlog(1, 1)
    return found


def test_publishes_that_wait_for_consumers_leave_half_of_the_waiting_room_to_others():
    node = NodePressure(waiting_bytes_max=100)
    full, other = full_partitions(node, 2)
    assert isinstance(full.publish(50, wait_ms=1_000), Wait)
    assert reason_of(other.publish(1, wait_ms=1_000)) == "node_queue"
    busy = Partition(node, in_flight_publishes=1)
    busy.publish()
    assert isinstance(busy.publish(50, wait_ms=1_000), Wait)


def test_publishes_by_way_of_one_node_have_a_share_of_what_waits(monkeypatch):
    monkeypatch.setattr(waiting_room, "THROUGH_PUBLISHES_MAX", 4)
    node = NodePressure()
    full, other = full_partitions(node, 2)
    waits = [full.publish(wait_ms=1_000, through=2) for _ in range(2)]
    assert all(isinstance(each, Wait) for each in waits)
    refused = other.publish(wait_ms=1_000, through=2)
    assert (reason_of(refused), refused.retry_after_ms) == ("link_queue", admission.BACKLOG_RETRY_MS)
    assert isinstance(other.publish(wait_ms=1_000, through=3), Wait)
    assert isinstance(other.publish(wait_ms=1_000), Wait)
    busy = Partition(node, in_flight_publishes=1)
    held = busy.publish()
    behind = [busy.publish(wait_ms=1_000, through=2) for _ in range(2)]
    assert all(isinstance(each, Wait) for each in behind)
    assert reason_of(busy.publish(wait_ms=1_000, through=2)) == "link_queue"
    assert tickets(busy.release(held)) == [behind[0].ticket]
    busy.admission.close()
    full.tick(1_000 * MS)
    assert node.room.nodes.keys() == {3}
    other.admission.close()
    assert (node.room.nodes, node.room.size_bytes) == ({}, 0)


def test_a_client_has_a_share_of_what_waits_for_consumers(monkeypatch):
    monkeypatch.setattr(waiting_room, "CLIENT_PUBLISHES_MAX", 2)
    node = NodePressure()
    full, other = full_partitions(node, 2)
    assert all(isinstance(each.publish(wait_ms=1_000), Wait) for each in (full, other))
    assert reason_of(full.publish(wait_ms=1_000)) == "client_queue"
    assert isinstance(full.publish(wait_ms=1_000, producer="q"), Wait)
    busy = Partition(node, in_flight_publishes=1)
    busy.publish()
    assert isinstance(busy.publish(wait_ms=1_000), Wait)
    for partition in (full, other, busy):
        partition.admission.close()
    assert (node.room.clients, node.room.size_bytes) == ({}, 0)


def test_what_waits_for_memory_is_as_long_as_what_waits_for_consumers(monkeypatch):
    monkeypatch.setattr(waiting_room, "CLIENT_PUBLISHES_MAX", 1)
    partition = Partition()
    partition.node.memory_percent = 100
    assert isinstance(partition.publish(wait_ms=1_000), Wait)
    refused = partition.publish(wait_ms=1_000)
    assert (reason_of(refused), refused.retry_after_ms) == ("client_queue", admission.BACKLOG_RETRY_MS)


def test_a_clients_share_is_of_bytes_too_and_a_large_publish_may_wait_alone(monkeypatch):
    monkeypatch.setattr(waiting_room, "CLIENT_BYTES_MAX", 100)
    (full,) = full_partitions(NodePressure(), 1)
    assert isinstance(full.publish(200, wait_ms=1_000), Wait)
    assert reason_of(full.publish(1, wait_ms=1_000)) == "client_queue"


def test_their_bytes_have_a_share_too(monkeypatch):
    monkeypatch.setattr(waiting_room, "THROUGH_BYTES_MAX", 100)
    (full,) = full_partitions(NodePressure(), 1)
    assert isinstance(full.publish(60, wait_ms=1_000, through=2), Wait)
    assert reason_of(full.publish(1, wait_ms=1_000, through=2)) == "link_queue"


# disks of other nodes


def test_a_majority_without_space_refuses_at_once():
    partition = Partition()
    partition.node.scarce[2] = "low"
    assert isinstance(partition.publish(), Admit)
    partition.replicas_storage = "low"
    refused = partition.publish(wait_ms=1_000)
    assert (reason_of(refused), refused.retry_after_ms) == ("replicas_full", admission.STORAGE_FULL_RETRY_MS)
    error = refused.error("jobs", 0)
    assert isinstance(error, StorageFull)
    assert error.details["reason"] == "replicas_full"


def test_a_queue_that_drops_its_oldest_goes_on_where_a_majority_is_low_and_drops_as_much_as_comes():
    partition = Partition(overflow="drop-oldest")
    partition.node.scarce[2], partition.replicas_storage = "low", "low"
    assert reason_of(partition.publish()) == "replicas_full"
    partition.backlog = Backlog(10, 1_000)
    evicting = partition.publish(100, 2)
    assert isinstance(evicting, Evict)
    assert (evicting.records, evicting.size_bytes) == (2, 100)
    partition.replicas_storage = "critical"
    assert reason_of(partition.publish()) == "replicas_full"


def test_on_a_full_disk_a_publish_waits_while_its_partition_is_about_to_be_led_elsewhere():
    partition = Partition()
    partition.node.storage = "critical"
    assert reason_of(partition.publish(wait_ms=1_000)) == "storage_full"
    partition.node.leaving[GROUP] = None
    assert reason_of(partition.publish()) == "storage_full"
    waits = [partition.publish(wait_ms=1_000) for _ in range(2)]
    assert all(isinstance(each, Wait) for each in waits)
    assert partition.tick(admission.NODE_RETRY_MS * MS) == []
    partition.node.leaving.clear()  # nobody can lead it after all
    answers = partition.tick(admission.NODE_RETRY_MS * MS)
    assert tickets(answers, Refuse) == [each.ticket for each in waits]
    assert {reason_of(answer.outcome) for answer in answers} == {"storage_full"}


# what it is made of


def test_limits_come_from_settings():
    queue = settings_from(
        "queue",
        {"max_backlog_records": 1, "max_backlog_bytes": 2, "max_publish_bytes_per_s": 3, "overflow": "block"},
    )
    assert limits_of(queue) == PartitionLimits(backlog_records=1, backlog_bytes=2, bytes_per_s=3, overflow="block")
    assert limits_of(settings_from("topic", {"max_publish_records_per_s": 4})) == PartitionLimits(records_per_s=4)


def test_a_refusal_is_an_error_with_a_reason_and_a_time():
    error = Refuse("rate", 250).error("orders", 3)
    assert isinstance(error, Overloaded)
    assert error.details == {"reason": "rate", "retry_after_ms": 250}
    assert error.retry_after_s == 0.25
    assert "orders, partition 3, has reached its publish rate; nothing was stored" in error.message
