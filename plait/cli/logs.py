"""How the broker's log looks: lines for people, or one JSON object a line; always on standard error.

event ──level──> time, level, logger, node ──not too many of the same──> a line
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
SAME_LINES_MAX = 100
"""Lines with the same event in SAME_WINDOW_S; the next one that is written says how many were left out."""
SAME_WINDOW_S = 10
"""The time in which they are counted."""
EVENTS_MAX = 1_000
"""Different events that are counted; more would mean that events are not constant text."""

Event = MutableMapping[str, Any]


class Floods:
    """Leaves out lines of an event that comes too often; pure but for the time that it is told."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}  # event: [when the window began, lines in it, left out]

    def admits(self, event: str, now_s: float) -> tuple[bool, int]:
        """(whether to write it, how many like it were left out before)."""
        if event not in self._counts and len(self._counts) >= EVENTS_MAX:
            self._counts.clear()
        count = self._counts.setdefault(event, [now_s, 0, 0])
        if now_s - count[0] >= SAME_WINDOW_S:
            count[0], count[1] = now_s, 0
        if count[1] >= SAME_LINES_MAX:
            count[2] += 1
            return False, 0
        left_out, count[2] = int(count[2]), 0
        count[1] += 1
        return True, left_out


class _Named:
    """A logger that knows its name; what is written is a line already."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = msg


_node: dict[str, Any] = {}


def set_node(node_id: int) -> None:
    """Every line from now on says which node wrote it."""
    _node["node_id"] = node_id


def set_up(form: str, level: str) -> None:
    """Have everything that is logged from now on written in `form` ("console" or "json")."""
    floods = Floods()

    def leave_out_floods(_: Any, method: str, event: Event) -> Event:
        if method == "debug":
            return event
        written, left_out = floods.admits(str(event.get("event")), time.monotonic())
        if not written:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event

    processors: list[Any] = [leave_out_floods, structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")]
    if form == "json":
        processors += [_json_fields, structlog.processors.format_exc_info, _json_line]
    else:
        plain = structlog.dev.plain_traceback
        colors = sys.stderr.isatty()
        console = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=plain, pad_event_to=28, timestamp_key="time"
        )
        processors += [structlog.processors.add_log_level, console]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *names: _Named(sys.stderr, str(names[0]) if names else "plait"),
        cache_logger_on_first_use=True,
    )


def _json_fields(logger: Any, method: str, event: Event) -> Event:
    """What every line has, first and in this order; then what the event brings."""
    rest = dict(event)
    own = {"time": rest.pop("time"), "level": method, "logger": logger.name, "event": rest.pop("event"), **_node}
    return {**own, **rest}


def _json_line(_: Any, method: str, event: Event) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
