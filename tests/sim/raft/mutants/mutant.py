"""A deliberate bug: some words of some functions, put in the place of others while it is switched on.

    Edit(function, (old, new), ...) ──> its source with the new words ──> its code, for as long as `on` lasts

The code of a function is what is replaced, so that everybody who has the function by any name gets the mutant. The
old words must stand in the source exactly once: a mutant that no longer fits what it mutates says so.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import CodeType, FunctionType
from typing import Any


class Layer(Enum):
    """Where a mutant is to be caught."""

    SCRIPTS = "scripts"
    """tests/sim/raft/scenarios alone: what it needs comes about rarely, or never, in worlds."""
    CORES = "cores"
    """tests/sim/raft: cores alone."""
    NODES = "nodes"
    """tests/sim/cluster: whole nodes, layer of groups."""
    BROKERS = "brokers"
    """tests/sim/cluster: whole nodes, layer of brokers."""
    FLEETS = "fleets"
    """tests/sim/cluster: whole nodes that come and go, layer of fleets."""


@dataclass(frozen=True)
class Edit:
    """What one function has instead of what."""

    where: Any
    """A function, a property, a class method, or something that wraps a function."""
    words: tuple[tuple[str, str], ...]
    """(old, new)."""

    def function(self) -> FunctionType:
        """Whose code it is."""
        where: Any = self.where.fget if isinstance(self.where, property) else self.where
        found: Any = inspect.unwrap(getattr(where, "__func__", where))
        assert inspect.isfunction(found), f"{found} is no function"
        return found


def edit(where: Any, *words: tuple[str, str]) -> Edit:
    """One function's part in a mutant."""
    return Edit(where, words)


@dataclass(frozen=True)
class Mutant:
    """One bug."""

    name: str
    bugs: tuple[int, ...]
    """Numbers in the list of bugs that real implementations had (tests/sim/README.md); (): an obvious one."""
    does: str
    """In a sentence."""
    edits: tuple[Edit, ...]
    layer: Layer = Layer.CORES
    kinds: tuple[str, ...] = ()
    """Of faults, in whole nodes; (): as the seed says."""


@contextmanager
def on(mutant: Mutant) -> Iterator[None]:
    """Switch a mutant on."""
    former: list[tuple[FunctionType, CodeType]] = []
    changed = [(one.function(), _mutated(one)) for one in mutant.edits]
    try:
        for function, code in changed:
            former.append((function, function.__code__))
            function.__code__ = code
        yield
    finally:
        for function, code in former:
            function.__code__ = code


@cache
def _mutated(one: Edit) -> CodeType:
    function = one.function()
    source = inspect.getsource(function)
    for old, new in one.words:
        if source.count(old) != 1:
            raise ValueError(f"{function.__qualname__} has {old!r} {source.count(old)} times, not once")
        source = source.replace(old, new)
    tree = ast.parse(textwrap.dedent(source))
    (made,) = tree.body
    assert isinstance(made, (ast.FunctionDef, ast.AsyncFunctionDef))
    made.decorator_list.clear()
    namespace: dict[str, Any] = {}
    exec(compile(tree, f"<mutant of {function.__qualname__}>", "exec"), function.__globals__, namespace)
    code: CodeType = namespace[function.__name__].__code__
    return code
