"""An answer that comes later, given once: what a caller waits for and a callback fills in.

One per request, per batch or per settlement; never one per record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Answer(Generic[T]):
    """Resolved with a value or rejected with an error, whichever comes first; later words are ignored."""

    __slots__ = ("_callbacks", "_event", "_value", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self._value: T | None = None
        self._event: anyio.Event | None = None
        self._callbacks: list[Callable[[Answer[T]], None]] | None = None

    def resolve(self, value: T) -> None:
        """Give the answer."""
        if not self.done:
            self._value = value
            self._finish()

    def reject(self, error: Exception) -> None:
        """Give an error as the answer."""
        if not self.done:
            self.error = error
            self._finish()

    def then(self, callback: Callable[[Answer[T]], None]) -> None:
        """Call back with this answer once it is given; at once if it is."""
        if self.done:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    async def settled(self) -> None:
        """Wait until the answer is given, whatever it is."""
        if not self.done:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()

    async def wait(self) -> T:
        """The value, or raises the error."""
        await self.settled()
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # resolve() stored a T

    def _finish(self) -> None:
        self.done = True
        if self._event is not None:
            self._event.set()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback(self)
