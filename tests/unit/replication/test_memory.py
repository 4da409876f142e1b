"""How much memory this process may use: the machine's, or less in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication.real import memory_limit_bytes, real_memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/", {"memory.max": "2147483648"}, 2 * GIB),
        ("0::/", {"memory.max": "max"}, 0),
        ("0::/", {}, 0),
        ("0::/system.slice/plait.service", {"system.slice/plait.service/memory.max": f"{GIB}"}, GIB),
        ("0::/a/b", {"a/memory.max": f"{GIB}", "a/b/memory.max": f"{2 * GIB}"}, GIB),
        ("0::/not/seen/from/here", {"memory.max": f"{GIB}"}, GIB),
        ("9:memory:/docker/7\n1:name=systemd:/x", {"memory/memory.limit_in_bytes": f"{GIB}"}, GIB),
        ("9:memory:/", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}"}, 2**63 - 4096),
        ("4:cpu,cpuacct:/", {"memory.max": "1"}, 0),
        ("", {}, 0),
    ],
)
def test_the_tightest_limit_counts(own: str, files: dict[str, str], limit: int, tmp_path: Path) -> None:
    (tmp_path / "own").write_text(f"{own}\n" if own else "")
    for name, text in files.items():
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert memory_limit_bytes(str(tmp_path / "own"), str(tmp_path / "tree")) == limit


def test_where_nothing_is_known_there_is_no_limit() -> None:
    assert memory_limit_bytes("/nowhere", "/nowhere") == 0


def test_this_process_uses_some_of_what_there_is() -> None:
    memory = real_memory()
    assert 0 < memory.used_bytes < memory.machine_bytes
