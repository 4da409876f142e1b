"""A wall clock can be set wrong while a process runs; the monotonic one stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.boxes import CLOCKS
from tests.chaos.clocks.sitecustomize import OFFSET

ASK = "import time; print(time.time(), time.time_ns(), time.monotonic())"
HOUR_S = 3_600


def test_a_process_has_the_wrong_time_of_day_that_it_is_told(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(OFFSET.pack(HOUR_S * 10**9))
    variables = {**os.environ, "PYTHONPATH": str(CLOCKS), "CHAOS_CLOCK": str(clock)}
    said = subprocess.run([sys.executable, "-c", ASK], env=variables, capture_output=True, text=True, check=True)
    seconds, nanoseconds, monotonic = map(float, said.stdout.split())
    assert seconds - time.time() > HOUR_S / 2
    assert nanoseconds / 1e9 - time.time() > HOUR_S / 2
    assert monotonic - time.monotonic() < HOUR_S / 2
