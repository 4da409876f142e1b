"""What a snapshot file says of a group: read back as it was written, also by an older version."""

from __future__ import annotations

from struct import Struct

from hypothesis import given
from hypothesis import strategies as st

from replication.storage.damage import INDEX_UNKNOWN, Damage
from replication.storage.format import HardState
from replication.storage.snapshots import Cut, SnapshotRow, decode_rows, encode_row

NUMBER = st.integers(0, INDEX_UNKNOWN)
FLAG = st.booleans()
DAMAGES = st.builds(Damage, st.text(), NUMBER, st.text(), NUMBER, NUMBER, FLAG, FLAG, NUMBER, NUMBER)
ROWS = st.builds(
    SnapshotRow,
    NUMBER,
    st.builds(HardState, NUMBER, NUMBER),
    st.booleans(),
    st.booleans(),
    NUMBER,
    NUMBER,
    last_mark=NUMBER,
    last_index=NUMBER,
    last_term=NUMBER,
    cuts=st.lists(st.builds(Cut, NUMBER, NUMBER, NUMBER), max_size=3).map(tuple),
    damages=st.lists(DAMAGES, max_size=3).map(tuple),
    repaired=st.lists(NUMBER, max_size=3).map(tuple),
    number=st.just(7),
)


@given(st.lists(ROWS, max_size=5))
def test_rows_are_read_as_they_were_written(rows: list[SnapshotRow]) -> None:
    assert decode_rows(memoryview(b"".join(map(encode_row, rows))), len(rows), 7) == rows


def test_rows_of_the_first_version_are_read_too() -> None:
    what = b"something was wrong"
    old = Struct("<QIQQQQqQQIII").pack(5, 2, 9, 3, 40, 8, 123, 64, 10, 77, 1, len(what))
    old += Struct("<QQ").pack(4, 30) + what
    whole = SnapshotRow(1, HardState(1, 1), index=3, last_index=4, number=6)
    first, second = decode_rows(memoryview(old + encode_row(whole)), 2, 6)
    assert (first.group, first.hard_state, first.has_state) == (5, HardState(9, 3), True)
    assert (first.index, first.term) == (40, 8)
    assert first.cuts == (Cut(4, 30, INDEX_UNKNOWN),)
    assert [(damage.what, damage.lost) for damage in first.damages] == [("something was wrong", True)]
    assert second == whole
