"""What happened in a run: a line per event in a file, the last ones for people, and what was found to be wrong."""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path

import trio

LAST_EVENTS = 60
"""Shown when something is wrong."""


class Events:
    """Of one run."""

    def __init__(self, file: Path, quiet: bool = False) -> None:
        self.faults: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        """What clients were told, and how often."""
        self.broken: list[str] = []
        self.ended = trio.Event()
        """Set with the first thing that is found to be wrong."""
        self.last: deque[str] = deque(maxlen=LAST_EVENTS)
        self._file = file.open("w", buffering=1)
        self._quiet = quiet
        self._begun_s = trio.current_time()

    @property
    def now_s(self) -> float:
        """Since the beginning."""
        return trio.current_time() - self._begun_s

    def note(self, what: str, *about: object) -> None:
        """Something happened; only what is rare is kept for people."""
        line = f"{self.now_s:9.3f} {what:<10} {' '.join(map(str, about))}"
        self._file.write(line + "\n")
        if what not in ("stored", "flushed"):
            self.last.append(line)

    def say(self, text: str) -> None:
        """Progress."""
        self.note("progress", text)
        if not self._quiet:
            print(f"{self.now_s:7.0f} s  {text}", flush=True)

    def reached(self, state: str) -> None:
        """Something that is counted."""
        self.states[state] += 1

    def break_promise(self, what: str) -> None:
        """Something that must be true is not."""
        self.note("BROKEN", what)
        self.broken.append(what)
        self.ended.set()

    def close(self) -> None:
        """No more."""
        self._file.close()
