"""A running broker for tests: pytest loads this by itself when Plait is installed. See docs/testing-with-plait.md.

    def test_something(plait_broker): ...     plait_broker.address, .namespace, .connect(), .connect_blocking()

One broker process a test session (with xdist: a worker), started when a test first asks for it and gone with the
session, however that ends. Every test has a namespace of its own. Nothing is imported before it is used, so that
projects that do not use the fixtures pay nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    import plait
    import plait.blocking

READY_S = 20.0
"""Longest that a broker may take to be ready, on a machine that does much else."""
READY_LOOK_S = 0.005
"""Time between two looks for its ready file."""
CLEAN_UP_S = 10.0
"""Longest that taking away what a test has made may wait for the broker."""
LOG_TAIL_BYTES = 4_000
"""How much of a broker's log is shown when it does not start."""

_CHILD = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(OSError, AttributeError):  # Linux: the broker ends when the tests' process does
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the tests are over already")
from plait.cli.main import main
sys.exit(main())
"""


class BrokerProcess:
    """The broker of a test session."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process = process
        self.address = address
        """"host:port" of the native protocol."""
        self._log = log

    def assert_runs(self) -> None:
        """Fail with the end of its log when the broker is gone."""
        if self.process.poll() is not None:
            pytest.fail(f"the broker ended with code {self.process.returncode}\n{_tail(self._log)}")


class PlaitBroker:
    """What a test gets: a broker, and a namespace in it that is empty."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        """"host:port" of the native protocol."""
        self.namespace = namespace
        """Of this test alone; everything in it is deleted after the test."""

    def connect(self, **options: Any) -> plait.connect:
        """`async with plait_broker.connect() as client:`, on asyncio and trio. Options as of `plait.connect`."""
        import plait

        return plait.connect(self.address, namespace=self.namespace, **options)

    def connect_blocking(self, **options: Any) -> plait.blocking.connect:
        """`with plait_broker.connect_blocking() as client:` for tests that are not async."""
        import plait.blocking

        return plait.blocking.connect(self.address, namespace=self.namespace, **options)


@pytest.fixture(scope="session")
def plait_broker_process() -> Iterator[BrokerProcess]:
    """The broker process of this session; tests want `plait_broker`."""
    import shutil
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp(prefix="plait-tests-"))
    broker = _start(folder)
    try:
        yield broker
    finally:
        broker.process.kill()
        broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def plait_broker(plait_broker_process: BrokerProcess) -> Iterator[PlaitBroker]:
    """A running broker with an empty namespace for this test."""
    plait_broker_process.assert_runs()
    namespace = f"test-{os.urandom(6).hex()}"
    yield PlaitBroker(plait_broker_process.address, namespace)
    plait_broker_process.assert_runs()
    _clean_up(plait_broker_process.address, namespace)


def _start(folder: Path) -> BrokerProcess:
    import json
    import subprocess
    import time

    import plait

    ready, log = folder / "ready.json", folder / "broker.log"
    home = os.path.dirname(os.path.dirname(os.path.abspath(plait.__file__)))
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
    options = ["--native", "127.0.0.1:0", "--data", str(folder / "data"), "--ready-file", str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(os.getpid()), "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_environment(), "PYTHONPATH": path},
        )
    deadline_s = time.monotonic() + READY_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            process.kill()
            code = process.wait()
            raise RuntimeError(f"the broker for the tests did not start (code {code}):\n{_tail(log)}")
        time.sleep(READY_LOOK_S)
    return BrokerProcess(process, json.loads(ready.read_text())["native"], log)


def _environment() -> dict[str, str]:
    """The environment without settings for the developer's own broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PLAIT_")}


def _tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _clean_up(address: str, namespace: str) -> None:
    """Delete whatever the namespace has, over a plain socket: no event loop, half a millisecond."""
    import socket

    from plait.client.address import parse_addresses
    from plait.client.core import Answered, ConnectionCore, Ended
    from plait.wire.errors import PlaitError
    from plait.wire.messages import Delete, Listed, ListNames, Ok, read_result

    core: ConnectionCore[str] = ConnectionCore("pytest", namespace)
    [target] = parse_addresses(address)

    def converse(connection: socket.socket) -> list[Ok]:
        """Send what waits, and receive until everything is answered."""
        answers: list[Ok] = []
        connection.sendall(core.outgoing() or b"")
        while core.pending or core.welcome is None:
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionError(f"the broker at {address} closed the connection of the clean-up")
            for event in core.feed(data):
                if isinstance(event, Ended):
                    raise event.error
                if isinstance(event, Answered) and isinstance(event.result, PlaitError):
                    raise event.result
                if isinstance(event, Answered) and isinstance(event.result, Ok):
                    answers.append(event.result)
        return answers

    with socket.create_connection(target, CLEAN_UP_S) as connection:
        converse(connection)
        core.request(ListNames(0, ""), "list")
        [listed] = converse(connection)
        for item in read_result(Listed, listed).items:
            core.request(Delete(0, item["name"]), "delete")
        if core.pending:
            converse(connection)
