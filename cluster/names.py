"""Which names things may have, and how a namespace goes in front of a name.

A name is what users type, what files and metrics show, and what other protocols carry, so it keeps to the
characters that all of them take. Names that begin with "plait." are the broker's own.
"""

from __future__ import annotations

import re

from plait.wire.errors import NameInvalid

NAME_CHARACTERS_MAX = 200
"""Characters of a topic's, queue's or subscription's name, with its namespace in front."""
NAMESPACE_CHARACTERS_MAX = 40
"""Characters of a namespace."""
NODE_NAME_CHARACTERS_MAX = 200
"""Characters of the name that a node gives itself."""

INTERNAL_PREFIX = "plait."
"""What the names of the broker's own topics begin with; users cannot create or delete those."""

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def check_topic_name(name: str) -> str:
    """The name, if a user's topic may have it. Raises NameInvalid."""
    return _check_users_name("topic", name)


def check_queue_name(name: str) -> str:
    """The name, if a user's queue may have it. Raises NameInvalid."""
    return _check_users_name("queue", name)


def check_subscription_name(name: str) -> str:
    """The name, if a subscription may have it. Raises NameInvalid."""
    return _check_users_name("subscription", name)


def check_node_name(name: str) -> str:
    """The name, if a node may have it. Raises NameInvalid."""
    return _check("node", name, _NAME, "letters, digits, '.', '_' and '-'", NODE_NAME_CHARACTERS_MAX)


def check_namespace(namespace: str) -> str:
    """The namespace, if a client may have it; "" means none. Raises NameInvalid."""
    if namespace == "":
        return namespace
    _check("namespace", namespace, _NAMESPACE, "letters, digits, '_' and '-'", NAMESPACE_CHARACTERS_MAX)
    if qualified(namespace, "").startswith(INTERNAL_PREFIX):
        raise NameInvalid(f"namespace {namespace!r} is the broker's own; choose another one")
    return namespace


def is_internal(name: str) -> bool:
    """Whether the name is one of the broker's own."""
    return name.startswith(INTERNAL_PREFIX)


def qualified(namespace: str, name: str) -> str:
    """The name as the broker knows it: with the client's namespace in front."""
    return f"{namespace}.{name}" if namespace else name


def unqualified(namespace: str, name: str) -> str | None:
    """The name as a client of the namespace knows it; None if it is not one of that namespace's."""
    if not namespace:
        return name
    prefix = f"{namespace}."
    return name[len(prefix) :] if name.startswith(prefix) else None


def _check_users_name(what: str, name: str) -> str:
    _check(what, name, _NAME, "letters, digits, '.', '_' and '-'", NAME_CHARACTERS_MAX)
    if name in (".", ".."):
        raise NameInvalid(f"{what} name {name!r} would be a folder; choose another one")
    if is_internal(name):
        raise NameInvalid(f"{what} name {name!r}: names that begin with {INTERNAL_PREFIX!r} are the broker's own")
    return name


def _check(what: str, name: str, allowed: re.Pattern[str], words: str, characters_max: int) -> str:
    if not isinstance(name, str) or not name:
        raise NameInvalid(f"a {what} needs a name that is a text of 1 to {characters_max} characters")
    if len(name) > characters_max:
        raise NameInvalid(
            f"{what} name of {len(name)} characters ({name[:20]!r}...): at most {characters_max} are allowed"
        )
    if allowed.fullmatch(name) is None:
        raise NameInvalid(f"{what} name {name!r}: only {words} are allowed")
    return name
