"""A node of the fleet: its process, its disk, its clock, its door to the others, and what may be done to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from plait.cli.bench.broker import environment
from tests.chaos.clocks.sitecustomize import OFFSET
from tests.chaos.disks import Disk

CLOCKS = Path(__file__).parent / "clocks"
"""On the path of a broker: its wall clock can be set wrong. (libfaketime makes brokers too slow to be of use.)"""
LOOK_S = 0.02
"""Time between two looks at a process."""
READY_S = 60.0
"""A node that is not ready by then does not start."""
STOP_S = 30.0
"""A node that was asked to end and has not done so by then never does."""
SAID_BYTES = 4_000
"""Of a log that is shown."""


class BoxFailed(Exception):
    """A node did not start, or did not end, as it should. The text has what it said."""


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on, side by side in no way."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Box:
    """One machine of the fleet."""

    def __init__(self, name: str, folder: Path, disk: Disk) -> None:
        self.name = name
        self.folder = folder
        self.disk = disk
        self.node_id = 0
        """0: it has not been told yet."""
        self.native, self.peer, self.http = (f"127.0.0.1:{port}" for port in free_ports(3))
        self.door = ""
        """Where the others reach it: see Wires."""
        self.busy = False
        """A fault has it in hand."""
        self.in_fleet = False
        """It should be up, when no fault has it in hand."""
        self.may_end = False
        """It may end by itself: its disk is full or broken."""
        self.log = folder / "broker.log"
        self.clock = folder / "clock"
        self._ready_file = folder / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        self.step_clock(0)

    def __str__(self) -> str:
        return self.name

    @property
    def is_up(self) -> bool:
        """Its process runs, or is stopped for a while."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> int | None:
        """The code with which its process ended by itself."""
        return None if self._process is None else self._process.poll()

    def launch(self, flags: Sequence[str]) -> None:
        """Start it, and do not wait."""
        assert not self.is_up, f"{self.name} runs"
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "plait", "serve", "--native", self.native, "--peer", self.peer]
        command += ["--advertise-peer", self.door, "--data", str(self.disk.folder / "data"), "--name", self.name]
        command += ["--ready-file", str(self._ready_file), *flags]
        variables = environment({"CHAOS_CLOCK": str(self.clock)})
        variables["PYTHONPATH"] = os.pathsep.join((str(CLOCKS), variables["PYTHONPATH"]))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables
            )
        self.disk.hold(self._process.pid)

    async def ready(self) -> None:
        """Wait until clients are welcome. Raises BoxFailed."""
        with trio.move_on_after(READY_S):
            while not self._ready_file.exists():
                if self._process is None or self._process.poll() is not None:
                    raise BoxFailed(f"{self.name} did not start: {self.said()}")
                await trio.sleep(LOOK_S)
            self.node_id = int(json.loads(self._ready_file.read_bytes())["node_id"])
            return
        raise BoxFailed(f"{self.name} is not ready {READY_S:g} s after its start: {self.said()}")

    def kill(self) -> None:
        """SIGKILL; it gets no chance to do anything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM, and wait for its end. Raises BoxFailed when it does not end, or not well."""
        process = self._process
        assert process is not None, f"{self.name} does not run"
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_S):
            await until(lambda: process.poll() is not None)
        code = process.poll()
        if self._process is not process:
            return  # somebody has killed it meanwhile
        if code is None:
            self.kill()
            raise BoxFailed(f"{self.name} did not end within {STOP_S:g} s of SIGTERM: {self.said()}")
        self._process = None
        if code:
            raise BoxFailed(f"{self.name} ended with code {code} when asked to end: {self.said()}")

    def pause(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def step_clock(self, seconds: float) -> None:
        """Its wall clock is wrong by so much."""
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(OFFSET.pack(round(seconds * 1e9)))  # in place: the broker has mapped it

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-SAID_BYTES:] if self.log.exists() else "nothing"

    def complaints(self) -> list[str]:
        """Lines of its log that no fault explains: Python's tracebacks."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if line.lstrip(" |+").startswith("Traceback (most recent call last)")]


async def until(true: Callable[[], bool]) -> None:
    """Look again and again."""
    while not true():  # noqa: ASYNC110 - processes set no events
        await trio.sleep(LOOK_S)
