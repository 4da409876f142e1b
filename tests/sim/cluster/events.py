"""What happened in a run: one line per event for people, a fingerprint over all of them, counts by kind."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
import trio

from tests.sim.pauses import NODE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Events:
    """Of one run. Cheap: lines are made of what they say only when somebody reads them."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        """States that a batch of runs must reach (sometimes.py), each with how often it was."""
        self.broken: list[str] = []
        self.ended = trio.Event()
        """Set with the first thing that is found to be wrong: the rest of the run means nothing."""
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def note(self, what: str, *about: object) -> None:
        """Something happened. What it is about must print the same in every process."""
        self._lines.append((trio.current_time(), what, about))

    def fault(self, kind: str, *about: object) -> None:
        """A fault struck."""
        self.faults[kind] += 1
        self.note("fault", kind, *about)

    def reached(self, state: str) -> None:
        """See sometimes.py."""
        self.states[state] += 1

    def break_promise(self, what: str) -> None:
        """Something that must be true is not."""
        self.note("BROKEN", what)
        self.broken.append(what)
        self.ended.set()

    def lines(self) -> Iterator[str]:
        """One for each event, with simulated seconds."""
        for at_s, what, about in self._lines:
            yield f"{at_s:10.6f} {what:<10} {' '.join(str(one) for one in about)}"

    def digest(self, *more: object) -> str:
        """Equal for equal runs."""
        found = hashlib.sha256("\n".join(self.lines()).encode())
        found.update(repr(more).encode())
        return found.hexdigest()[:16]


@contextmanager
def logs_to(events: Events) -> Iterator[None]:
    """What the code under test logs becomes events meanwhile."""

    def take(_: object, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        failure = line.pop("exc_info", None)
        if level in ("error", "critical") and isinstance(failure, Exception):
            line["failure"] = f"{type(failure).__name__}: {failure}"
        about = [f"{key}={value}" for key, value in sorted(line.items()) if key != "event"]
        events.note("log", NODE.get() or "-", line["event"], *about)
        for said in (str(line["event"]), str(line.get("code"))):
            if said in LOGGED_STATES:
                events.reached(LOGGED_STATES[said])
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[take], wrapper_class=structlog.make_filtering_bound_logger(0))
    try:
        yield
    finally:
        structlog.configure(**before)


LOGGED_STATES = {
    "a torn write at the end of the log was cut off": "torn tail cut",
    "older_life": "older disk refused",
    "node is dead": "node declared dead",
    "node is back": "dead node came back",
    "replica is lost and asks for another in its place": "lost replica renewed",
}
"""Lines of the log, and codes in them, that say that a state was reached."""
