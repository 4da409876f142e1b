"""What is measured, what it should be, and how it is shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from plait.cli.output import print_json, print_table

COLUMNS = ("what", "target", "measured", "unit", "ratio", "reached")


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure."""

    what: str
    measured: float
    unit: str
    target: float | None = None
    at_most: bool = False
    """The target is an upper bound; otherwise a lower one."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How good it is: 1 is the target, more is better."""
        if self.target is None or not self.measured:
            return None
        return self.target / self.measured if self.at_most else self.measured / self.target

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.ratio is None else self.ratio >= 1

    def row(self) -> dict[str, Any]:
        """For the table."""
        sign = "<=" if self.at_most else ">="
        return {
            "what": self.what,
            "target": "-" if self.target is None else f"{sign} {_short(self.target)}",
            "measured": _short(self.measured),
            "unit": self.unit,
            "ratio": "-" if self.ratio is None else f"{self.ratio:.2f}",
            "reached": self.reached,
        }


def show(figures: Sequence[Figure]) -> None:
    """A table for people, with notes below it."""
    print_table([figure.row() for figure in figures], COLUMNS)
    for figure in figures:
        if figure.note:
            print(f"  {figure.what}: {figure.note}")


def give(figures: Sequence[Figure], json: bool) -> None:
    """Print them, if there are any."""
    if figures and json:
        print_json(as_json(figures))
    elif figures:
        show(figures)


def as_json(figures: Sequence[Figure]) -> dict[str, Any]:
    """Everything, with the machine it was measured on."""
    items = [
        {**msgspec.to_builtins(figure), "ratio": figure.ratio, "reached": figure.reached} for figure in figures
    ]
    return {"machine": machine(), "figures": items}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory_kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"
