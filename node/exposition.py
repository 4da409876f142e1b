"""Prometheus' text exposition format 0.0.4, written from plain numbers. Pure.

page.put(METRIC, value, "label", ...) ... ──> encode() ──> # HELP, # TYPE, a line for each value
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge"]
PREFIX = "plait_"
"""What every name begins with."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: counters only rise and end with _total, gauges go up and down."""

    name: str
    """Without PREFIX; the unit comes last, as in _bytes, _seconds."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.name.endswith("_total") == (self.kind == "counter"), f"{self.name} is misnamed"


class Page:
    """The values of one scrape."""

    def __init__(self) -> None:
        self._values: dict[Metric, dict[tuple[str, ...], int | float]] = {}

    def put(self, metric: Metric, value: int | float, *labels: str) -> None:
        """Say one value; `labels` in the order of the metric's."""
        assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
        self._values.setdefault(metric, {})[labels] = value

    def encode(self) -> bytes:
        """The whole page, metrics and labels in order."""
        lines: list[str] = []
        for metric in sorted(self._values, key=lambda metric: metric.name):
            name = PREFIX + metric.name
            lines.append(f"# HELP {name} {_escaped(metric.help, _IN_HELP)}")
            lines.append(f"# TYPE {name} {metric.kind}")
            for labels, value in sorted(self._values[metric].items()):
                lines.append(f"{name}{_braces(metric.labels, labels)} {value!r}")
        return ("\n".join(lines) + "\n").encode() if lines else b""


Source = Callable[[Page], None]
"""Puts values on a page, at once."""


def _braces(names: Iterable[str], values: tuple[str, ...]) -> str:
    if not values:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(value, _IN_VALUE)}"' for name, value in pairs) + "}"


def _escaped(text: str, table: dict[int, str]) -> str:
    return text.translate(table)


_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_VALUE = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
