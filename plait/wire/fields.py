"""What a field of a head may be: functions that give the value back, or raise ValueError saying what it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Generic, TypeVar

from plait.wire.errors import BadRequest

T = TypeVar("T")
Check = Callable[[Any], Any]

U8_MAX = (1 << 8) - 1
I31_MAX = (1 << 31) - 1
U32_MAX = (1 << 32) - 1
I63_MAX = (1 << 63) - 1

TEXT_CHARACTERS_MAX = 1000
"""Longest text in a request's head (what names may be is decided later, and is less)."""
SETTINGS_MAX = 100
"""Entries of a map in a request's head."""


def integer(low: int, high: int) -> Check:
    """A whole number from low to high; a boolean is none."""

    def check(value: Any) -> Any:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def text(max_characters: int = TEXT_CHARACTERS_MAX) -> Check:
    """Text, possibly empty."""

    def check(value: Any) -> Any:
        if type(value) is not str or len(value) > max_characters:
            raise ValueError(f"must be text of at most {max_characters} characters")
        return value

    return check


def boolean(value: Any) -> Any:
    """True or false."""
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def choice(*words: str) -> Check:
    """One of some words."""

    def check(value: Any) -> Any:
        if type(value) is not str or value not in words:
            raise ValueError(f"must be one of {', '.join(repr(word) for word in words)}")
        return value

    return check


def place(value: Any) -> Any:
    """Where LOCATE looks: "start", "end" or a time in milliseconds."""
    if value in ("start", "end") or (type(value) is int and 0 <= value <= I63_MAX):
        return value
    raise ValueError("must be 'start', 'end' or a time in milliseconds since 1970")


def mapping(max_entries: int = SETTINGS_MAX) -> Check:
    """A map with text keys; what is in it is for others to judge."""

    def check(value: Any) -> Any:
        if type(value) is not dict or len(value) > max_entries or not all(type(key) is str for key in value):
            raise ValueError(f"must be a map with text keys and at most {max_entries} entries")
        return value

    return check


def maps(value: Any) -> Any:
    """A list of maps with text keys."""
    if type(value) is not list:
        raise ValueError("must be a list of maps")
    check = mapping(I31_MAX)
    return [check(item) for item in value]


def texts(max_items: int) -> Check:
    """A list of texts."""
    check_text = text()

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) > max_items:
            raise ValueError(f"must be a list of at most {max_items} texts")
        return [check_text(item) for item in value]

    return check


def shares(value: Any) -> Any:
    """Partitions by topic: a map of texts to lists of whole numbers."""
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise ValueError("must be a map with text keys")
    for numbers in value.values():
        if type(numbers) is not list or not all(type(n) is int and 0 <= n <= I31_MAX for n in numbers):
            raise ValueError(f"has a value that is no list of whole numbers from 0 to {I31_MAX}")
    return value


def tuples(names: str, max_items: int, low: int = 0) -> Check:
    """A list of lists of numbers from `low` to 2**63-1, each with the named numbers; becomes a list of tuples."""
    width = len(names.split())

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) > max_items:
            raise ValueError(f"must be a list of at most {max_items} items [{names}]")
        if not _are_numbers(value, width, low):
            raise ValueError(f"has an item that is not [{names}], whole numbers from {low} to {I63_MAX}")
        return list(map(tuple, value))

    return check


def _are_numbers(items: list[Any], width: int, low: int) -> bool:
    """In bulk: thousands of items come in one head."""
    if not items:
        return True
    if set(map(type, items)) != {list} or set(map(len, items)) != {width}:
        return False
    numbers = list(chain.from_iterable(items))
    return set(map(type, numbers)) == {int} and min(numbers) >= low and max(numbers) <= I63_MAX


def ranges(names: str, max_items: int) -> Check:
    """As `tuples`, where the last two numbers are a range: first and last, both included."""
    check_tuples = tuples(names, max_items)

    def check(value: Any) -> Any:
        items = check_tuples(value)
        for item in items:
            if item[-2] > item[-1]:
                raise ValueError(f"has an item [{names}] whose first is behind its last")
        return items

    return check


@dataclass(frozen=True, slots=True)
class Layout(Generic[T]):
    """A list of fields that becomes an object of a dataclass."""

    word: str
    """How people call it."""
    kind: type[T]
    checks: tuple[tuple[str, Check], ...]
    optional: int = 0
    """So many fields at the end may be missing: later versions of the code have added them, with defaults."""

    def read(self, values: Sequence[Any]) -> T:
        """The object. Raises BadRequest naming the field."""
        if not len(self.checks) - self.optional <= len(values) <= len(self.checks):
            names = ", ".join(name for name, _ in self.checks)
            raise BadRequest(
                f"{self.word} has {len(self.checks)} fields ({names}), not {len(values)}; nothing was done"
            )
        checked = []
        for (name, check), value in zip(self.checks, values, strict=not self.optional):
            try:
                checked.append(check(value))
            except ValueError as error:
                raise BadRequest(f"{self.word}: {name} {error}; nothing was done", field=name) from None
        return self.kind(*checked)


def layout(word: str, kind: type[T], *checks: Check, optional: int = 0) -> Layout[T]:
    """A layout whose fields have the names of the dataclass's fields, in order."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # kind is a dataclass
    return Layout(word, kind, tuple(zip(names, checks, strict=True)), optional)
