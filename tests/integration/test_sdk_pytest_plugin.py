"""The pytest fixtures: a namespace for every test, nothing left behind, no broker left over."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import plait
from plait.pytest_plugin import PlaitBroker

ROOT = Path(__file__).resolve().parents[2]
GONE_LIMIT_MS = 10_000
"""A broker that is there by then has survived its tests."""

CRASH = """
import os, signal

def test_crashes(plait_broker_process, plait_broker):
    with plait_broker.connect_blocking() as client:
        client.queue("orders").publish(b"one")
    with open("pid", "w") as file:
        file.write(str(plait_broker_process.process.pid))
    {end}
"""


def test_a_namespace_is_empty_and_the_name_is_ones_own(plait_broker: PlaitBroker) -> None:
    with plait_broker.connect_blocking() as client:
        assert client.list() == []
        client.queue("orders").publish(b"one")


def test_the_same_name_means_another_queue_in_the_next_test(plait_broker: PlaitBroker) -> None:
    with plait_broker.connect_blocking() as client:
        assert client.list() == []
        assert client.queue("orders").backlog().records == 0


def test_what_a_test_made_is_deleted_behind_it(tmp_path: Path) -> None:
    made = tmp_path / "test_made.py"
    made.write_text(
        """
import plait.blocking
import pytest

@pytest.fixture
def after(plait_broker_process):
    seen = {}
    yield seen
    with plait.blocking.connect(seen["address"], namespace=seen["namespace"]) as client:
        assert client.list() == []

def test_makes(after, plait_broker):
    after.update(address=plait_broker.address, namespace=plait_broker.namespace)
    with plait_broker.connect_blocking() as client:
        client.topic("events", partitions=2)
        client.queue("orders")
""",
        encoding="utf-8",
    )
    finished = run_pytest(tmp_path)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "raise KeyboardInterrupt", "assert False"]
)
def test_the_broker_ends_with_its_tests_however_they_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "test_crash.py").write_text(CRASH.format(end=end), encoding="utf-8")
    assert run_pytest(tmp_path).returncode != 0
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_importing_plait_loads_nothing_of_it() -> None:
    program = "import plait, sys; print([name for name in sys.modules if name.startswith(('plait.', 'anyio'))])"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['plait.version']"
    assert plait.__version__


def run_pytest(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    installed = any(entry.value == "plait.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "plait.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, str(folder)],
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child any more."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(GONE_LIMIT_MS), f"the broker {pid} is still there"
    os.close(watch)
