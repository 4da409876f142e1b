"""What was sent once is stored once, and what is too old to tell is called unknown."""

from __future__ import annotations

import cbor2
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from node.origins import (
    FORGOTTEN,
    ORIGIN_QUIET_MS_MAX,
    ORIGIN_WINDOW,
    ORIGINS_MAX,
    OriginTable,
    Stored,
    incarnation_of,
)
from node.state import PartitionState
from tests.unit.node.memory_log import batch_entry


def test_a_request_is_found_until_it_falls_out_of_the_window() -> None:
    table = OriginTable()
    for request in range(1, ORIGIN_WINDOW + 11):
        assert table.find((7, request)) is None
        table.record((7, request), request * 2, 1_000)
        assert table.find((7, request)) == Stored(request * 2, 1_000)
    assert table.find((7, 10)) is FORGOTTEN
    assert table.find((7, 11)) == Stored(22, 1_000)
    assert table.find((8, 1)) is None, "another life of a node counts by itself"


def test_requests_may_be_applied_out_of_order_and_with_gaps() -> None:
    table = OriginTable()
    table.record((7, 40), 0, 1_000)
    table.record((7, 20), 1, 1_000)
    assert table.find((7, 20)) == Stored(1, 1_000)
    assert table.find((7, 30)) is None, "never applied: it may be taken"
    table.record((7, 10 * ORIGIN_WINDOW), 2, 1_000)
    assert table.find((7, 30)) is FORGOTTEN
    assert table.find((7, 40)) is FORGOTTEN


def test_those_that_were_quiet_for_longest_are_forgotten() -> None:
    table = OriginTable()
    for life in range(1, ORIGINS_MAX + 2):
        table.record((life, 1), life, 1_000)
    assert len(table) == ORIGINS_MAX
    assert table.find((1, 1)) is None
    table.record((2, 2), 0, 1_000 + ORIGIN_QUIET_MS_MAX)
    assert len(table) == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3 * ORIGIN_WINDOW)), max_size=60))
def test_a_snapshot_brings_back_the_same_table(origins: list[tuple[int, int]]) -> None:
    table = OriginTable()
    for number, origin in enumerate(origins):
        table.record(origin, number, 1_000 + number)
    snapshot = table.snapshot()
    back = OriginTable.restored(cbor2.loads(cbor2.dumps(snapshot)))
    assert back.snapshot() == snapshot
    for origin in origins:
        assert back.find(origin) == table.find(origin)


def test_the_state_of_a_partition_has_it_and_one_of_the_version_before_has_none() -> None:
    state = PartitionState(is_queue=False)
    entry = batch_entry(1, 0, b"a")
    envelope = bytearray(entry.payload)
    envelope[10:26] = incarnation_of(3, 1).to_bytes(8) + (5).to_bytes(8)
    state.apply(structs.replace(entry, payload=bytes(envelope)))
    back = PartitionState(is_queue=False)
    back.restore(state.snapshot())
    assert back.origins.find((incarnation_of(3, 1), 5)) == Stored(0, back.log_time_ms)
    version, *fields = cbor2.loads(state.snapshot())
    assert version == 2
    back.restore(cbor2.dumps([1, *fields[:-1]]))
    assert (back.next_offset, len(back.origins)) == (1, 0)


def test_no_two_lives_of_any_nodes_have_one_number() -> None:
    assert len({incarnation_of(node, start) for node in range(1, 9) for start in range(1, 9)}) == 64
