"""What commands print: tables for people, JSON for programs, progress on standard error.

A terminal gets rich's tables; a file or a pipe gets plain aligned columns, and rich is not even imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

RIGHT = "right"
LEFT = "left"


def print_json(value: Any) -> None:
    """One JSON document on one line."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
    """The rows, one line each; numbers stand flush right, with separators for thousands."""
    texts = [[shown(row.get(column)) for column in columns] for row in rows]
    sides = [RIGHT if rows and all(_is_number(row.get(column)) for row in rows) else LEFT for column in columns]
    heads = [column.replace("_", " ") for column in columns]
    if sys.stdout.isatty():
        _print_rich(texts, heads, sides, title)
    else:
        sys.stdout.write(plain_table(texts, heads, sides, title))


def plain_table(texts: Sequence[Sequence[str]], heads: Sequence[str], sides: Sequence[str], title: str) -> str:
    """Aligned columns, two blanks between them, no colours."""
    lines = [[head.upper() for head in heads], *texts]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    out = [title] if title else []
    for line in lines:
        cells = [
            text.rjust(width) if side == RIGHT else text.ljust(width)
            for text, width, side in zip(line, widths, sides, strict=True)
        ]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out) + "\n"


def _print_rich(texts: Sequence[Sequence[str]], heads: Sequence[str], sides: Sequence[Any], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for head, side in zip(heads, sides, strict=True):
        table.add_column(head, justify=side, overflow="fold")
    for line in texts:
        table.add_row(*(Text(text) for text in line))  # Text: a name with [brackets] is no mark-up
    Console().print(table)


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


class Progress:
    """A bar on standard error while something long goes on; nothing at all when that is no terminal."""

    def __init__(self, label: str, total: int | None, unit: str = "records", quiet: bool = False) -> None:
        self._bar: Any = None
        self._task: Any = None
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), done, TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(label, total=total)
        self._bar.start()

    def advance(self, count: int) -> None:
        """`count` more are done."""
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
