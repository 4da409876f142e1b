"""The checkers of simulated clusters see what is wrong, each on its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replication.machine import Entry
from replication.raft.messages import Append
from tests.sim.cluster.checkers import GroupChecker, Operation
from tests.sim.cluster.machine import ChainMachine, encode
from tests.sim.ledger import KIND_BATCH


class Group:
    """A checker and machines that tell it what they apply."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.checker = GroupChecker(1, self.broken.append)

    def machine(self) -> ChainMachine:
        """A replica's."""
        return ChainMachine(self.checker.applied, self.checker.restored, lambda _: None)

    def operation(self, client: int = 1, sequence: int = 1) -> Operation:
        """One that was begun and attempted once."""
        operation = self.checker.begin(client, sequence)
        self.checker.attempt(operation)
        return operation


def entry(index: int, client: int = 1, sequence: int = 1, attempt: int = 1, *, term: int = 1) -> Entry:
    """What that attempt writes."""
    return Entry(index, term, KIND_BATCH, index, 1, encode(client, sequence, attempt, (), b"x"))


@pytest.fixture
def group() -> Group:
    return Group()


def test_what_is_right_is_not_complained_of(group: Group) -> None:
    one, two = group.machine(), group.machine()
    first = group.operation()
    one.apply([entry(2)])
    group.checker.acknowledge(first, 2)
    second = group.operation(2)
    one.apply([entry(3, 2)])
    group.checker.acknowledge(second, 3)
    group.checker.read(2, 3)
    two.apply([entry(2), entry(3, 2)])
    restored = group.machine()
    restored.restore(two.snapshot())
    group.checker.finish({"one": one, "two": two, "three": restored})
    assert group.broken == []


def test_two_entries_at_one_index(group: Group) -> None:
    group.operation()
    group.operation(2)
    group.machine().apply([entry(2)])
    group.machine().apply([entry(2, 2)])
    assert "two states at index 2" in group.broken[0]


def test_an_entry_that_others_went_past(group: Group) -> None:
    group.operation()
    group.operation(2)
    group.machine().apply([entry(3)])
    group.machine().apply([entry(2, 2)])
    assert "others that applied 3 know none there" in group.broken[0]


def test_an_entry_that_nobody_wrote_and_one_that_was_refused(group: Group) -> None:
    group.machine().apply([entry(2)])
    refused = group.operation(2)
    group.checker.refused(refused, 1)
    group.machine().apply([entry(3, 2)])
    assert "nobody has written" in group.broken[0]
    assert "was refused" in group.broken[1]


def test_an_acknowledgement_of_what_is_not_there(group: Group) -> None:
    group.checker.acknowledge(group.operation(), 5)
    assert "stands at None" in group.broken[0]


def test_an_operation_that_stands_before_one_that_was_known_when_it_began(group: Group) -> None:
    machine = group.machine()
    early = group.operation()
    machine.apply([entry(2)])
    group.checker.acknowledge(early, 2)
    late = group.operation(2)
    late.floor = 7
    machine.apply([entry(3, 2)])
    group.checker.acknowledge(late, 3)
    assert "7 was known before it was begun" in group.broken[0]


def test_an_operation_that_counts_twice(group: Group) -> None:
    group.operation()
    group.machine().apply([entry(2)])
    forgetful = group.machine()
    forgetful.apply([entry(2)])
    forgetful.clients.clear()
    forgetful.apply([entry(3)])
    assert any("counts at 3 and at 2" in broken for broken in group.broken)


def test_an_attempt_that_is_tried_again_counts_once(group: Group) -> None:
    operation = group.operation()
    group.checker.attempt(operation)
    group.machine().apply([entry(2), entry(3, attempt=2)])
    group.checker.acknowledge(operation, 2)
    assert group.broken == []
    assert group.checker.doubled == 1


def test_a_stale_read(group: Group) -> None:
    group.checker.read(5, 4)
    assert "a read shows index 4, and 5 had been acknowledged" in group.broken[0]


def test_two_leaders_of_a_term(group: Group) -> None:
    group.checker.leads(3, 1)
    group.checker.leads(4, 2)
    group.checker.leads(3, 2)
    assert group.broken == ["group 1: replicas 1 and 2 lead term 3"]


def append(previous: tuple[int, int], entries: Sequence[Entry]) -> Append:
    """A leader's."""
    return Append(1, 2, 9, previous[0], previous[1], entries, 0, 1)


def test_one_index_and_term_and_two_entries(group: Group) -> None:
    group.checker.sent(append((1, 1), [entry(2), entry(3, 2)]))
    group.checker.sent(append((2, 1), [entry(3, 2)]))
    assert group.broken == []
    group.checker.sent(append((2, 1), [entry(3, 3)]))
    group.checker.sent(append((1, 2), [entry(2)]))
    assert len(group.broken) == 2


def test_an_append_with_a_gap(group: Group) -> None:
    group.checker.sent(append((1, 1), [entry(3)]))
    assert "has entry 3 at place 1" in group.broken[0]


def test_a_snapshot_of_a_state_that_nobody_was_in(group: Group) -> None:
    group.operation()
    machine = group.machine()
    machine.apply([entry(2)])
    machine.chain = bytes(16)
    group.machine().restore(machine.snapshot())
    assert "a snapshot of index 2" in group.broken[0]


def test_what_was_acknowledged_and_is_lost_at_the_end(group: Group) -> None:
    operation = group.operation()
    machine = group.machine()
    machine.apply([entry(2)])
    group.checker.acknowledge(operation, 2)
    group.checker.finish({"one": machine, "two": group.machine()})
    assert any("differ at the end" in broken for broken in group.broken)
    assert any("(1, 1), acknowledged at 2, is lost" in broken for broken in group.broken)
