"""HTTP/1.1 answers as bytes (RFC 9110, RFC 9112), pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

JSON = "application/json"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
"""The statuses that are used."""
DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
"""Of the week, beginning with that of the first of January 1970."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Answer:
    """A page, or what stands in its place."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(status: int, value: Any, headers: dict[str, str] | None = None) -> Answer:
    """A JSON document, for programs and for people with curl."""
    return Answer(status, JSON, msgspec.json.encode(value) + b"\n", headers or {})


def encode(answer: Answer, now_ms: int, *, keep_alive: bool, with_body: bool = True) -> bytes:
    """The bytes to send. `now_ms`: wall time. Without its body an answer still says how long that is."""
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
        f"Date: {http_date(now_ms)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head + answer.body if with_body else head


def http_date(now_ms: int) -> str:
    """Wall time as HTTP writes it (RFC 9110, 5.6.7): Sun, 06 Nov 1994 08:49:37 GMT."""
    days, seconds = divmod(now_ms // 1_000, 86_400)
    year, month, day = _civil(days)
    hours, rest = divmod(seconds, 3_600)
    return (
        f"{DAYS[days % 7]}, {day:02d} {MONTHS[month - 1]} {year:04d} "
        f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d} GMT"
    )


def _civil(days: int) -> tuple[int, int, int]:
    """(year, month, day) of a day since 1970, by the Gregorian calendar in eras of 400 years."""
    days += 719_468  # since the first of March of the year 0
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    months = (5 * day_of_year + 2) // 153  # since March
    month = months + 3 if months < 10 else months - 9
    return era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * months + 2) // 5 + 1
