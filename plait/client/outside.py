"""What the client needs of the world, in one place, so that a simulation can hand in another world."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import anyio


class Stream(Protocol):
    """A connection. anyio's byte streams are such."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """At least one byte. Raises anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError."""

    async def send(self, item: bytes, /) -> None:
        """All of it. Raises anyio.BrokenResourceError, anyio.ClosedResourceError."""

    async def aclose(self) -> None: ...


async def connect_tcp(host: str, port: int) -> Stream:
    """A TCP connection (anyio turns off Nagle's algorithm). Raises OSError."""
    return await anyio.connect_tcp(host, port)


def wall_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Outside:
    """The network, chance, and the time on the wall. Waits and deadlines go by the event loop's own clock."""

    connect: Callable[[str, int], Awaitable[Stream]] = connect_tcp
    random: Random = field(default_factory=random.Random)
    wall_ms: Callable[[], int] = wall_ms
