"""A client without a library: frames over a stream, as a test wants them."""

from __future__ import annotations

import trio

from plait.wire import messages
from plait.wire.frames import FrameReader
from tests.unit.gateways.native.scripted import frame


class RawClient:
    """One connection. What is read of it is in `heard` order; the end of the stream is None."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = FrameReader(64 << 20)

    async def send(self, *requests: messages.Request, payload: bytes = b"") -> None:
        """Send requests, all with the same payload, in one piece."""
        await self.stream.send_all(b"".join(frame(request, payload) for request in requests))

    async def hear(self) -> messages.Answer | None:
        """The next thing that the broker says; None when it has closed (or reset) the connection."""
        while True:
            for head, payload in self._reader.frames():
                return messages.parse_answer(head, payload)
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._reader.feed(bytes(data))

    async def ask(self, request: messages.Request, payload: bytes = b"") -> messages.Answer | None:
        """Send a request and hear the next thing that is said."""
        await self.send(request, payload=payload)
        return await self.hear()

    async def hello(self, namespace: str = "") -> RawClient:
        """Shake hands."""
        answer = await self.ask(messages.Hello(1, namespace=namespace))
        assert isinstance(answer, messages.Welcome), answer
        return self

    async def fails(self) -> tuple[int, str] | None:
        """(correlation, code) of the next thing said, which must be an ERROR; None when it is the end."""
        answer = await self.hear()
        if answer is None:
            return None
        assert isinstance(answer, messages.Failed), answer
        assert "Traceback" not in answer.message
        return answer.correlation, answer.code

    async def is_served(self) -> bool:
        """Whether a PING is answered."""
        return isinstance(await self.ask(messages.Ping(4_000_000_000)), messages.Ok)
