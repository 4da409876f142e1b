"""What every command that talks to a broker takes, and the values that people write with units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

from plait.settings import parse_size

CONNECTION = Group("Broker and output", sort_key=100)
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@Parameter(name="*", group=CONNECTION)
@dataclass(frozen=True)
class Options:
    """Global options."""

    server: Annotated[str, Parameter(env_var="PLAIT_SERVER", help="The broker's HOST:PORT.")] = "127.0.0.1:4150"
    namespace: Annotated[
        str, Parameter(env_var="PLAIT_NAMESPACE", help="Names are looked up within it; none by default.")
    ] = ""
    timeout: Annotated[
        float | None, Parameter(help="Seconds after which the command gives up with exit code 4.")
    ] = None
    json: Annotated[bool, Parameter(negative="", show_default=False, help="JSON for programs.")] = False


def duration_ms(type_: Any, tokens: Sequence[Any]) -> int | None:
    """Milliseconds from "250ms", "30s", "15m", "12h", "7d", "2w"; None from "none". Raises ValueError."""
    text = tokens[0].value
    if text == "none":
        return None
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError("expected a duration such as 250ms, 30s, 15m, 12h, 7d, or none")
    return round(float(match[1]) * DURATION_MS[match[2]])


def format_duration(milliseconds: int) -> str:
    """The shortest exact spelling that `duration_ms` takes: "30d"."""
    for unit in ("w", "d", "h", "m", "s"):
        if milliseconds and milliseconds % DURATION_MS[unit] == 0:
            return f"{milliseconds // DURATION_MS[unit]}{unit}"
    return f"{milliseconds}ms"


def size_bytes(type_: Any, tokens: Sequence[Any]) -> int | None:
    """Bytes from "65536", "64KiB", "1MB"; None from "none". Raises ValueError."""
    text = tokens[0].value
    return None if text == "none" else parse_size(text)


def header_pair(text: str) -> tuple[str, bytes]:
    """(name, value) from "name=value". Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"a header is written name=value, not {text!r}")
    return name, value.encode()


NOT_GIVEN = -1
"""Default of durations and sizes, where None is a value: "none"."""
Duration = Annotated[int | None, Parameter(converter=duration_ms, show_default=False)]
Size = Annotated[int | None, Parameter(converter=size_bytes, show_default=False)]
