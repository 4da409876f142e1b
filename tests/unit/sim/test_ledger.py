"""The model that crashes are judged by, and the histories that it is told."""

from __future__ import annotations

from replication.machine import Entry
from tests.sim.history import History, random_history, shrink
from tests.sim.ledger import (
    KIND_BATCH,
    KIND_SETTLE,
    GroupLedger,
    LogState,
    Machine,
    Told,
    ranges_of,
    settle_payload,
)


def batch(index: int, mark: int, span: int = 1, term: int = 1) -> Entry:
    return Entry(index, term, KIND_BATCH, mark, span, b"payload %d" % index)


def test_marks_become_ranges() -> None:
    assert ranges_of([]) == []
    assert ranges_of([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]


def test_a_batch_is_live_until_it_is_settled_and_a_checkpoint_brings_the_machine_back() -> None:
    machine = Machine()
    assert machine.checkpoint() is None
    machine.apply(batch(1, 0, 4))
    machine.apply(batch(2, 4, 2))
    machine.apply(Entry(3, 2, KIND_SETTLE, 6, 0, settle_payload([(1, 2), (5, 5)])))
    checkpoint = machine.checkpoint()
    assert checkpoint is not None
    assert checkpoint.live == [(0, 0), (3, 4)]
    assert (checkpoint.index, checkpoint.term) == (3, 2)
    again = Machine.restored(checkpoint.index, checkpoint.term, checkpoint.state)
    for one in (machine, again):
        one.apply(batch(4, 6))
    assert machine.checkpoint() == again.checkpoint()


def test_a_crash_may_leave_any_state_between_confirmed_and_told() -> None:
    ledger = GroupLedger()
    ledger.tell(Told("create"))
    ledger.confirm(ledger.tell(Told("append", (batch(1, 0),), (1, 2))))
    ledger.tell(Told("append", (batch(2, 1), batch(3, 2)), (2, 0)))
    ledger.tell(Told("truncate", index=1))
    ledger.tell(Told("delete"))
    states = ledger.possible(5, ledger.confirmed)
    assert [(len(state.entries), state.hard_state) for state in states] == [
        (1, (1, 2)),
        *[(1, (1, 2)), (1, (2, 0)), (2, (1, 2)), (2, (2, 0)), (3, (2, 0))],
        (1, (2, 0)),
        (0, (0, 0)),
    ]
    assert [state.exists for state in states] == [True] * 7 + [False]
    assert ledger.latest() == LogState()
    assert len(ledger.possible(2, 2)) == 1


def test_equal_seeds_give_equal_histories() -> None:
    assert random_history(3, 50) == random_history(3, 50)
    assert random_history(3, 50).steps != random_history(4, 50).steps


def test_a_failing_history_is_cut_down_to_what_it_takes() -> None:
    def fails(history: History) -> bool:
        actions = [step.action for step in history.steps]
        return actions.count("append") >= 2 and "drain" in actions

    history = random_history(1, 80)
    assert fails(history)
    assert sorted(step.action for step in shrink(history, fails).steps) == ["append", "append", "drain"]
