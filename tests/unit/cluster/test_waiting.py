"""Fair turns among producers that wait, and the lines they wait in."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.waiting import QUANTUM_BYTES, WAITING_PUBLISHES_MAX, FairLine, Waiter

CAP_BYTES = 4 * QUANTUM_BYTES


def waiter(ticket: int, producer: str, size_bytes: int = 1, deadline_ns: int = 0, owner: str = "o") -> Waiter:
    return Waiter(ticket, owner, producer, 1, size_bytes, min(size_bytes, CAP_BYTES), deadline_ns)


def serve(line: FairLine) -> Waiter:
    first = line.next()
    assert first is not None
    assert line.next() is first
    line.take(first)
    return first


SIZES = st.lists(st.integers(1, 2 * CAP_BYTES), min_size=1, max_size=30)


@given(st.dictionaries(st.sampled_from("abcd"), SIZES, min_size=1))
@settings(deadline=None)
def test_each_producers_publishes_are_served_in_order_and_all_of_them(sizes):
    line = FairLine()
    asked = [(producer, size) for producer, of_one in sizes.items() for size in of_one]
    for ticket, (producer, size) in enumerate(asked):
        line.add(waiter(ticket, producer, size))
    served = [serve(line) for _ in asked]
    assert line.next() is None
    assert (len(line), line.waiting_bytes) == (0, 0)
    for producer in sizes:
        own = [each.ticket for each in served if each.producer == producer]
        assert own == sorted(own)
    assert sorted(each.ticket for each in served) == list(range(len(asked)))


@given(st.dictionaries(st.sampled_from("abcd"), SIZES, min_size=2))
@settings(deadline=None)
def test_while_two_wait_they_are_given_the_same_but_for_a_quantum_and_a_publish_each(sizes):
    line = FairLine()
    ticket = 0
    left = Counter({producer: len(of_one) for producer, of_one in sizes.items()})
    for producer, of_one in sizes.items():
        for size in of_one:
            line.add(waiter(ticket, producer, size))
            ticket += 1
    given_bytes = Counter(dict.fromkeys(sizes, 0))
    while all(left.values()):
        served = serve(line)
        left[served.producer] -= 1
        given_bytes[served.producer] += served.cost_bytes
        spread = max(given_bytes.values()) - min(given_bytes.values())
        assert spread <= QUANTUM_BYTES + 2 * CAP_BYTES


def test_many_small_publishes_of_one_do_not_starve_a_large_one_of_another():
    line = FairLine()
    for ticket in range(1_000):
        line.add(waiter(ticket, "small", 10_000))
    line.add(waiter(1_000, "large", CAP_BYTES))
    order = [serve(line).ticket for _ in range(50)]
    assert 1_000 in order


def test_what_was_saved_up_for_a_cancelled_publish_is_not_kept():
    line = FairLine()
    line.add(waiter(1, "a", CAP_BYTES))
    line.add(waiter(2, "b", CAP_BYTES))
    line.next()
    for ticket in range(3, 30):
        line.add(waiter(ticket, "a", QUANTUM_BYTES))
    line.remove(1)
    first_of_b = next(n for n in range(30) if serve(line).producer == "b")
    assert first_of_b <= 1


def test_who_left_is_not_found_again():
    line = FairLine()
    line.add(waiter(1, "a"))
    assert line.remove(1) is not None
    assert line.remove(1) is None
    assert line.next() is None
    assert line.next_deadline_ns() is None


def test_deadlines_are_kept_in_order_and_only_for_those_who_wait():
    line = FairLine()
    for ticket, deadline_ns in [(1, 30), (2, 10), (3, 20)]:
        line.add(waiter(ticket, "a", deadline_ns=deadline_ns))
    assert line.next_deadline_ns() == 10
    line.remove(2)
    assert line.next_deadline_ns() == 20
    assert [each.ticket for each in line.expired(25)] == [3]
    assert line.next_deadline_ns() == 30


def test_a_busy_line_does_not_remember_all_who_ever_stood_in_it():
    line = FairLine()
    for ticket in range(10 * WAITING_PUBLISHES_MAX):
        line.add(waiter(ticket, "a", deadline_ns=10**12 + ticket))
        serve(line)
    assert len(line._deadlines) <= 2 * WAITING_PUBLISHES_MAX + 1
