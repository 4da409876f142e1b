"""`plait bench cluster` with small sizes: every part starts its brokers, measures, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from plait.cli import exits
from plait.cli.main import main

SIZES = {"producers": 2, "records": 4000, "rounds": 1, "kills": 2, "join-s": 0.2, "queues": 20, "idle-s": 0.2}
SMALL = ["--json", *(word for name, size in SIZES.items() for word in (f"--{name}", str(size)))]
LOOK_S = 0.05
FIGURES = {
    "batched": ["publish, 2 producers, 100 bytes", "publish, 2 producers, 1,000 bytes"],
    "through": [
        "one partition, to its leader",
        "one partition, through another node",
        "through another node / to the leader",
    ],
    "failover": ["publishing again after SIGKILL, median of 2", "publishing again after SIGKILL, longest"],
    "join": [
        "publish, before a node joins",
        "publish while it joins / before",
        "its share of replicas there, from its start",
    ],
    "queues": ["make 20 queues", "20 queues, memory", "20 queues, idle processor"],
}


@pytest.mark.parametrize("part", FIGURES)
def test_a_part(part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["bench", "cluster", "--only", part, "--data", str(tmp_path), *SMALL])
    out, said = capfd.readouterr()
    assert code == exits.DONE, said
    figures = {figure["what"]: figure for figure in json.loads(out)["figures"]}
    assert list(figures) == FIGURES[part]
    idle = {"20 queues, idle processor"}  # which may be nothing at all
    assert all(figure["measured"] > 0 for what, figure in figures.items() if what not in idle)
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "cluster", "--only", "everything"]) == exits.USAGE
    assert "choose of batched, through, failover, join, queues" in capfd.readouterr().err
    assert main(["bench", "cluster", "--kills", "0"]) == exits.USAGE


def test_sigterm_ends_its_brokers_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plait", "bench", "cluster", "--only", "queues", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while _processes_of(tmp_path) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(LOOK_S)
        process.terminate()
        process.communicate()
    assert process.returncode == exits.INTERRUPTED
    assert list(tmp_path.iterdir()) == []
    assert _processes_of(tmp_path) == 0


def _processes_of(folder: Path) -> int:
    """How many brokers have their data there."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            count += b"serve" in words and any(word.startswith(bytes(folder)) for word in words)
    return count
