"""The checkers of simulated brokers see what is wrong, each on its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.history.book import Book
from tests.sim.cluster.brokers.leases import LeaseChecker


class Told:
    """A book, a lease checker, and what they found."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.book = Book("topic", self.broken.append)
        self.leases = LeaseChecker(self.broken.append)

    def store(self, name: str, offset: int | None = None, *, stream: str = "s", number: int = 1) -> None:
        """Publish a value that is acknowledged."""
        self.book.begin(name.encode(), stream, number)
        self.book.stored(name.encode(), None if offset is None else (0, offset))

    def lease(self, consumer: str, lease_id: int, deliveries: int, stamp_ms: int = 0, until_ms: int = 100) -> None:
        """Offset 5 is handed out."""
        self.leases.granted("jobs/0", consumer, lease_id, stamp_ms, until_ms, [(5, 5, deliveries)])


@pytest.fixture
def told() -> Told:
    return Told()


def test_what_is_as_it_should_be_is_not_noted(told: Told) -> None:
    told.store("a", 0)
    told.store("b", 1, number=2)
    told.book.begin(b"c", "s", 3)
    told.book.refused(b"c")
    told.book.read_to({0: 1}, {0: 2})
    told.book.finish({0: [(0, b"a"), (1, b"b")]})
    assert told.broken == []


def test_values_are_found_once_where_they_were_said_to_be(told: Told) -> None:
    told.store("a", 0)
    told.book.seen(b"a", (0, 1))
    told.book.seen(b"b", (0, 0))
    told.book.seen(b"c", (0, 7))
    assert [found.split(": ")[1] for found in told.broken] == [
        "a stands at (0, 0) and at (0, 1)",
        "(0, 0) holds a for one and b for another",
        "(0, 7) holds c, which nobody published",
    ]


@pytest.mark.parametrize("first", ["refused", "seen"])
def test_what_was_refused_never_appears(told: Told, first: str) -> None:
    told.book.begin(b"a", "s", 1)
    acts: dict[str, Callable[[], None]] = {
        "refused": lambda: told.book.refused(b"a"),
        "seen": lambda: told.book.seen(b"a", (0, 0)),
    }
    acts.pop(first)()
    next(iter(acts.values()))()
    assert len(told.broken) == 1
    assert "refused" in told.broken[0]


def test_nothing_stands_before_what_was_known_before_it_was_begun(told: Told) -> None:
    told.store("a", 3)
    told.store("b", 2, number=2)
    assert "3 was known before" in told.broken[0]


def test_a_read_shows_what_was_known_when_it_was_begun(told: Told) -> None:
    told.store("a", 3)
    told.book.read_to({0: 3}, {0: 3})
    assert len(told.broken) == 1


def test_at_the_end_everything_is_there_in_the_order_of_its_stream_and_without_a_gap(told: Told) -> None:
    for number, name in enumerate("abc", 1):
        told.store(name, number=number)
    told.book.finish({0: [(0, b"b"), (1, b"a")], 1: [(1, b"c")]})
    told.book.finish({0: [(0, b"b"), (1, b"a")]})
    assert any("behind 2" in found for found in told.broken)
    assert any("offset 0 of partition 1 is missing" in found for found in told.broken)
    assert any("c was acknowledged and is lost" in found for found in told.broken)


def test_a_message_is_handed_to_one_consumer_at_a_time_until_somebody_has_done_it(told: Told) -> None:
    told.book.handed((0, 1), 1, "x")
    told.book.handed((0, 1), 2, "y")
    assert told.broken == []
    told.book.handed((0, 1), 2, "z")
    told.book.done((0, 1), 2)
    told.book.handed((0, 1), 3, "z")
    told.book.done((0, 1), 3)
    assert len(told.broken) == 3


def test_a_queue_is_not_empty_before_everything_was_acknowledged_or_tried(told: Told) -> None:
    told.store("a", 0)
    assert told.book.left() == [b"a"]
    told.book.acknowledging((0, 0))
    assert told.book.left() == [], "nobody knows"
    told.book.not_done((0, 0))
    told.book.finish_queue()
    assert "nobody has acknowledged it" in told.broken[0]


def test_a_lease_ends_with_its_consumer_its_return_its_time_or_its_node(told: Told) -> None:
    told.lease("1.1.1", 10, 1)
    told.leases.ended("1.1.1")
    told.lease("1.1.2", 11, 2)
    told.leases.returned("jobs/0", 11, 5, 5)
    told.lease("1.1.3", 12, 3)
    told.lease("2.1.4", 13, 4, stamp_ms=100, until_ms=200)
    told.leases.died(2, 1)
    told.lease("1.1.5", 14, 5, stamp_ms=110)
    assert told.broken == []


def test_a_message_that_somebody_holds_is_leased_to_nobody_else(told: Told) -> None:
    told.lease("1.1.1", 10, 1)
    told.leases.extended("jobs/0", 50, 10, 5, 5, 300)
    told.lease("2.1.1", 11, 2, stamp_ms=299)
    assert told.broken == ["jobs/0 offset 5 is leased to 2.1.1 while 1.1.1 holds it"]


def test_a_message_that_was_acknowledged_is_leased_to_nobody(told: Told) -> None:
    told.lease("1.1.1", 10, 1)
    told.leases.acknowledged("jobs/0", 50, 10, 5, 5)
    told.leases.ended("1.1.1")
    told.lease("2.1.1", 11, 2)
    assert told.broken == ["jobs/0 offset 5 is leased to 2.1.1, and was acknowledged before"]


def test_an_acknowledgement_that_comes_late_may_or_may_not_be_heard(told: Told) -> None:
    told.lease("1.1.1", 10, 1)
    told.leases.acknowledged("jobs/0", 100, 10, 5, 5)
    told.lease("2.1.1", 11, 2, stamp_ms=100)
    assert told.broken == []


def test_what_a_full_queue_lets_go_need_not_come_any_more(told: Told) -> None:
    told.store("a", 0)
    told.store("b", 1, number=2)
    told.book.let_go((0, 0), dead=False)
    assert told.book.left() == [b"b"]
    told.book.let_go((0, 1), dead=True)
    assert told.book.left() == []
    told.book.finish_dead([b"b"])
    assert told.broken == []


def test_what_was_acknowledged_is_not_let_go(told: Told) -> None:
    told.store("a", 0)
    told.book.done((0, 0), 1)
    told.book.let_go((0, 0), dead=False)
    assert "is let go behind that" in told.broken[0]


@pytest.mark.parametrize(("arrived", "says"), [([], "['a'] are lost"), ([b"a", b"a"], "are there too often")])
def test_dead_letters_arrive_once(told: Told, arrived: list[bytes], says: str) -> None:
    told.store("a", 0)
    told.book.let_go((0, 0), dead=True)
    told.book.finish_dead(arrived)
    assert says in told.broken[0]
