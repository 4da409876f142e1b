"""The disks of the chaos suite are full, broken and mended as they are told, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos.disks import Disk, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path, 1)
    yield shelf
    shelf.close()
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.fixture
def disk(shelf: Shelf) -> Disk:
    if shelf.why_not:
        pytest.skip(shelf.why_not)
    return shelf.new_disk("n1")


def test_a_shelf_without_real_disks_has_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    shelf = Shelf(tmp_path, 1)
    assert shelf.why_not == shelf.why_not_slow == "only root can mount disks"
    disk = shelf.new_disk("n1")
    (disk.folder / "file").write_bytes(b"x")
    disk.erase()
    assert list(disk.folder.iterdir()) == []
    shelf.close()


def test_a_full_disk_has_room_again_when_it_is_freed(disk: Disk) -> None:
    before = disk.free_bytes()
    assert disk.fill(Random(1)) < 24 << 20
    disk.free()
    assert disk.free_bytes() == pytest.approx(before, rel=0.05)


def test_a_broken_disk_takes_nothing_and_keeps_what_was_synced(disk: Disk) -> None:
    with (disk.folder / "file").open("wb", buffering=0) as file:
        file.write(b"before")
        os.fsync(file.fileno())
        disk.break_down()
        with pytest.raises(OSError, match="Read-only"):
            (disk.folder / "other").write_bytes(b"x")
    disk.mend()
    assert (disk.folder / "file").read_bytes() == b"before"
    (disk.folder / "other").write_bytes(b"x")
