"""The parts of a benchmark that the command line asks for."""

from __future__ import annotations

from collections.abc import Sequence


def chosen(only: Sequence[str] | None, parts: Sequence[str]) -> list[str] | str:
    """What is to be measured of these parts, or what is wrong with what was asked for (None: everything)."""
    asked = [part for given in only or [",".join(parts)] for part in given.split(",") if part]
    unknown = [part for part in asked if part not in parts]
    if unknown or not asked:
        return f"--only: {', '.join(unknown) or 'nothing'} cannot be measured; choose of {', '.join(parts)}"
    return asked
