"""A broker of one's own, as a child process: started, watched, stopped or killed.

The benchmark and the kill soak use it; what it knows of the broker is what any user can know.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 60.0
"""A broker that is not ready then never will be."""
STOP_TIMEOUT_S = 30.0
"""A broker that was told to stop and has not done so by then is killed."""
POLL_S = 0.001
"""Time between two looks for the ready file; the error of the measured start-up time."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class BrokerFailed(Exception):
    """The broker did not start, or did not end as it should. The text has what it said."""


class BrokerProcess:
    """`plait serve` on a data folder; may be started again and again on the same one."""

    def __init__(
        self, folder: Path, flags: Sequence[str] = (), variables: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        self.folder = folder
        self.address = ""
        self.http = ""
        """Where its pages are; empty: it has none."""
        self.node_id = 0
        self.flags = list(flags)
        self.variables = dict(variables or {})
        self._port = port
        """0 until the first start; then always the one that it got, so that clients find it again."""
        self._ready_file = folder / "ready.json"
        self._log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0.0

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "plait", "serve", "--native", f"127.0.0.1:{self._port}"]
        command += ["--data", str(self.folder / "data"), "--ready-file", str(self._ready_file), *self.flags]
        with self._log.open("ab") as log:
            self._begun = time.perf_counter()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self.variables)
            )

    def wait_ready(self) -> float:
        """Wait until it is ready. Returns the seconds since its launch. Raises BrokerFailed."""
        assert self._process is not None, "not launched"
        while not self._ready_file.exists():
            if self._process.poll() is not None or time.perf_counter() - self._begun > START_TIMEOUT_S:
                self.kill()
                raise BrokerFailed(f"the broker did not start; it said:\n{self.said()}")
            time.sleep(POLL_S)
        seconds = time.perf_counter() - self._begun
        facts = json.loads(self._ready_file.read_bytes())
        self.address, self.http, self.node_id = facts["native"], facts["http"], facts["node_id"]
        self._port = int(self.address.rpartition(":")[2])
        return seconds

    def start(self) -> float:
        """Start it and wait until it is ready. Returns the seconds that took. Raises BrokerFailed."""
        self.launch()
        return self.wait_ready()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and wait. Raises BrokerFailed if it does not end cleanly."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailed(f"the broker did not stop within {STOP_TIMEOUT_S:g} s; it said:\n{self.said()}")
        self._process = None
        if code != 0:
            raise BrokerFailed(f"the broker ended with code {code}; it said:\n{self.said()}")

    def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def said(self) -> str:
        """The end of what it wrote to its output and log."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def __enter__(self) -> BrokerProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()


def memory_bytes(pid: int) -> int:
    """Resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used since its start (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's variables without Plait's own, and with those that were asked for.

    Python may keep its compiled files, as it does for an installed Plait: else a start takes twice as long.
    """
    dropped = ("PLAIT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    root = str(Path(__file__).resolve().parents[3])  # a checkout that is not installed
    paths = [root, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | dict(more)
