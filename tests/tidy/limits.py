"""Every limit of the server is in docs/limits.md, with the value it has: the table is made from the code.

A limit is a number, or a tuple of numbers, that is a constant of a module, with a name in CAPITALS that ends
with a unit or with MAX, MIN or DEFAULT; the string under it says what it bounds. What follows from a format (the
size of a struct, the largest 32-bit number) is no limit.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PAGE = "docs/limits.md"
BEGIN = "<!-- limits: made by scripts/limits -->"
END = "<!-- end of limits -->"

UNITS = (
    *("BYTES", "MS", "S", "NS", "PERCENT", "CHARACTERS", "RECORDS", "BATCHES", "PUBLISHES", "MESSAGES"),
    *("FRAMES", "CONNECTIONS", "CONSUMERS", "PARTITIONS", "TOPICS", "NODES", "PRODUCERS", "SUBSCRIPTIONS"),
    *("ENTRIES", "FILES", "REQUESTS", "RANGES", "LEASES", "RUNS", "SEQUENCES", "ACTORS", "PARTS", "BLOCKS"),
    *("IDS", "LEVELS", "WAITERS", "MAX", "MIN", "DEFAULT"),
)
"""Last words of a limit's name."""

_NAME = re.compile(rf"[A-Z][A-Z0-9_]*_(?:{'|'.join(UNITS)})", re.ASCII)
_NO_LIMIT = re.compile(r"[A-Z]+_PER_[A-Z]+|[IU]\d+_(?:MAX|MIN)", re.ASCII)
"""Conversions between units, and the bounds of integer types."""
_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \|.*$", re.MULTILINE)
Number = int | float
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.LShift: operator.lshift,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Limit:
    """One limit, as the code has it."""

    name: str
    file: str
    value: str
    bounds: str
    """What it bounds, in one line; "" if the code does not say."""

    def row(self) -> str:
        """Its row in the table."""
        return f"| `{self.name}` | {self.value} | {self.bounds} | `{self.file}` |"


def limits_of(name: str, text: str) -> Iterator[Limit]:
    """The limits that a module sets itself."""
    body = ast.parse(text).body
    known: dict[str, Number] = {}
    for at, node in enumerate(body):
        target = _target(node)
        if target is None:
            continue
        variable, expression = target
        value = _value(expression, known)
        if isinstance(value, int | float):
            known[variable] = value
        if value is not None and _NAME.fullmatch(variable) and not _NO_LIMIT.fullmatch(variable):
            yield Limit(variable, name, _shown(value), _sentence(body[at + 1 : at + 2]))


def table(limits: list[Limit]) -> str:
    """The table of all limits, as the page has it."""
    rows = [limit.row() for limit in sorted(limits, key=lambda limit: (limit.file, limit.name))]
    head = ["| limit | value | what it bounds | where |", "| --- | --- | --- | --- |"]
    return "\n".join([BEGIN, *head, *rows, END])


def updated(page: str, limits: list[Limit]) -> str:
    """The page with its table made anew; a page without one gets it at its end."""
    if BEGIN in page and END in page:
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        return f"{before}{table(limits)}{after}"
    return f"{page.rstrip()}\n\n{table(limits)}\n"


def unexplained(limits: list[Limit]) -> Iterator[str]:
    """Complaints about limits that do not say what they bound."""
    for limit in limits:
        if not limit.bounds:
            yield f'{limit.file}: {limit.name} has no string under it: """What it bounds."""'


def unlisted(page: str, limits: list[Limit]) -> Iterator[str]:
    """Complaints about limits that the page does not have, or not as they are, and rows without a limit."""
    rows = {match.group(0): match.group(1) for match in _ROW.finditer(page)}
    wanted = {limit.row(): limit for limit in limits}
    for row, limit in wanted.items():
        if row not in rows:
            state = "is not in" if limit.name not in rows.values() else "is not up to date in"
            yield f"{limit.file}: {limit.name} {state} {PAGE}: run scripts/limits, which writes the row\n    {row}"
    for row, name in rows.items():
        if row not in wanted and name not in {limit.name for limit in limits}:
            yield f"{PAGE}: {name} is no limit (any more): run scripts/limits, which takes the row out"


def _target(node: ast.stmt) -> tuple[str, ast.expr] | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node.target.id, node.value
    return None


def _value(node: ast.expr, known: dict[str, Number]) -> Number | tuple[Number, ...] | None:
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) in (int, float) else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Tuple):
        parts = [_value(part, known) for part in node.elts]
        return tuple(part for part in parts if isinstance(part, int | float)) or None
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, known), _value(node.right, known)
        if isinstance(left, int | float) and isinstance(right, int | float):
            result: Number = _OPERATORS[type(node.op)](left, right)
            return result
    return None


def _shown(value: Number | tuple[Number, ...]) -> str:
    if isinstance(value, tuple):
        return "; ".join(_shown(part) for part in value)
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}"


def _sentence(following: list[ast.stmt]) -> str:
    if following and isinstance(following[0], ast.Expr) and isinstance(following[0].value, ast.Constant):
        said = following[0].value.value
        if isinstance(said, str):
            return " ".join(said.split()).replace("|", "or")
    return ""
