"""Records by offset: from memory, from the last stretch read, from disk."""

from __future__ import annotations

from typing import cast

import pytest

from node import source as source_module
from node.source import RecordSource
from plait.wire.batch import iterate_run
from plait.wire.errors import StorageDamaged
from replication.storage.log import GroupLog
from tests.unit.node.memory_log import MemoryLog, batch_entry


def values(source: RecordSource, first: int, last: int) -> tuple[list[bytes | None], int]:
    runs, following = source.runs(first, last)
    return [record.value for run in runs for record in iterate_run(run)], following


def log_of_batches(compression: str = "none") -> MemoryLog:
    """Offsets 0 to 8 in three batches; the value is the offset."""
    return MemoryLog(
        [
            batch_entry(
                at // 3 + 1, at, *(b"%d" % offset for offset in range(at, at + 3)), compression=compression
            )
            for at in (0, 3, 6)
        ]
    )


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_any_stretch_comes_as_one_run_a_batch(compression: str) -> None:
    source = RecordSource(cast(GroupLog, log_of_batches(compression)))
    runs, following = source.runs(1, 7)
    assert [(run.first_offset, run.count) for run in runs] == [(1, 2), (3, 3), (6, 2)]
    assert following == 8
    assert values(source, 4, 4) == ([b"4"], 5)
    assert values(source, 0, 8)[0] == [b"%d" % offset for offset in range(9)]


async def test_what_is_on_disk_only_is_given_after_it_was_loaded() -> None:
    log = log_of_batches()
    log.hot_from = 6
    source = RecordSource(cast(GroupLog, log))
    assert values(source, 1, 8) == ([], 1)
    await source.load(1)
    assert values(source, 1, 8)[0] == [b"%d" % offset for offset in range(1, 9)]
    assert log.reads == 1
    source.forget()
    assert values(source, 1, 8) == ([], 1)
    assert values(source, 6, 6) == ([b"6"], 7)


async def test_a_record_that_is_gone_or_damaged_is_an_error_and_nothing_else_is_given_for_it() -> None:
    log = log_of_batches()
    log.hot_from = 9
    source = RecordSource(cast(GroupLog, log))
    del log.entries[1]
    with pytest.raises(StorageDamaged):
        await source.load(4)
    log.damaged = True
    with pytest.raises(StorageDamaged):
        await source.load(0)
    assert values(source, 0, 0) == ([], 0)


def test_opened_batches_are_few_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "OPEN_BATCHES", 2)
    source = RecordSource(cast(GroupLog, log_of_batches()))
    values(source, 0, 8)
    assert list(source._open) == [3, 6]
    values(source, 4, 4)
    assert list(source._open) == [6, 3], "the one used last goes last"
    monkeypatch.setattr(source_module, "OPEN_BATCHES_BYTES", 1)
    values(source, 0, 0)
    assert list(source._open) == [0], "the newest stays whatever its size"
    assert source._open_bytes == len(source._open[0].body)
