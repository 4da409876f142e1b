"""Namespaces: a client that named one in its HELLO sees only names that begin with it, and sees them without it.

client's "orders"  <──>  broker's "tests-7.orders"
"""

from __future__ import annotations

import re
from typing import Any

from plait.wire.errors import NameInvalid, PlaitError

NAMESPACE_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""What a namespace looks like."""
NAMESPACE_RESERVED = "plait"
"""Names that begin with it and a dot are the broker's own."""
NAMES_CACHED = 1_024
"""Names of one connection whose full form is remembered."""
NAME_SETTINGS = ("dead_letter",)
"""Settings whose value is a name."""
ERROR_MESSAGE_CHARACTERS = 2_000
"""Characters of a message in an ERROR frame; the rest is cut."""


class Namespace:
    """The translation of names for one connection. Raises NameInvalid for what no namespace may be called."""

    __slots__ = ("_cache", "_pattern", "prefix")

    def __init__(self, name: str) -> None:
        if name and (not NAMESPACE_PATTERN.fullmatch(name) or name == NAMESPACE_RESERVED):
            raise NameInvalid(
                f"{name[:100]!r} cannot be a namespace; the connection ends: "
                f"use 1 to 40 of A-Z a-z 0-9 _ - (and not {NAMESPACE_RESERVED!r})"
            )
        self.prefix = f"{name}." if name else ""
        self._pattern = re.compile(rf"(?<![A-Za-z0-9._-]){re.escape(self.prefix)}(?=[A-Za-z0-9._-])")
        self._cache: dict[str, str] = {}

    def full(self, name: str) -> str:
        """The broker's name for the client's `name`; the broker judges whether it is a legal one."""
        if not self.prefix:
            return name
        found = self._cache.get(name)
        if found is None:
            if len(self._cache) >= NAMES_CACHED:
                self._cache.clear()
            found = self._cache[name] = self.prefix + name
        return found

    def short(self, name: str) -> str:
        """The client's name for the broker's `name`."""
        return name.removeprefix(self.prefix)

    def has(self, name: str) -> bool:
        """Whether the client sees the broker's `name`."""
        return name.startswith(self.prefix)

    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The client's settings with the names in them made full."""
        return self._with_names(settings, self.full) if self.prefix else settings

    def description(self, description: dict[str, Any]) -> dict[str, Any]:
        """A description as the client should see it."""
        if not self.prefix:
            return description
        seen = dict(description)
        seen["name"] = self.short(str(seen.get("name", "")))
        if isinstance(seen.get("settings"), dict):
            seen["settings"] = self._with_names(seen["settings"], self.short)
        return seen

    def text(self, text: str) -> str:
        """A message for people, with the names in it as the client knows them."""
        if self.prefix and self.prefix in text:
            text = self._pattern.sub("", text)
        return text[:ERROR_MESSAGE_CHARACTERS]

    def error(self, error: PlaitError) -> PlaitError:
        """An error as the client should see it, with details in the plain values that travel."""
        details = {key: self._plain(value) for key, value in error.details.items()}
        return type(error)(self.text(error.message), **details)

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        return self.text(str(value))

    @staticmethod
    def _with_names(settings: dict[str, Any], translate: Any) -> dict[str, Any]:
        changed = dict(settings)
        for key in NAME_SETTINGS:
            if isinstance(changed.get(key), str) and changed[key]:
                changed[key] = translate(changed[key])
        return changed
