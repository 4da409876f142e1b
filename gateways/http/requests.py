"""HTTP/1.1 requests out of bytes (RFC 9112), without a socket: what is asked, or why that is no request.

    feed(bytes) ──httptools──> [Request, ...]      raises Refusal: answer it and close

Only what a page needs to know is kept: method and path. Bodies are refused, headers are counted and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import httptools

from gateways.http.limits import HttpLimits

VERSIONS = ("1.0", "1.1")
"""Versions of HTTP that are spoken."""


class Refusal(Exception):
    """What came is no request that is served, and nothing behind it can be understood."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    """Without its query."""
    keep_alive: bool
    """The client may ask again on this connection."""


class RequestReader:
    """The requests of one connection."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._found: list[Request] = []
        self._refusal: Refusal | None = None
        self._upgraded = False
        self.begun = False
        """A part of a request has come, and its end has not."""
        self._head_bytes = 0
        self._begin()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Request]:
        """The requests that are whole now, in order. Raises Refusal, for good."""
        if self._refusal is not None:
            raise self._refusal
        if self._upgraded:
            return []  # whatever protocol the client wanted, it is not served
        self._found = []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is no HTTP request: {error}")
        if self.begun:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes_max:
                self._refuse(431, f"a request may have at most {self._limits.head_bytes_max} bytes of headers")
        if len(self._found) > self._limits.pipelined_max:
            self._refuse(400, f"at most {self._limits.pipelined_max} requests may wait for their answers")
        refusal = self.refusal
        if refusal is not None and not self._found:
            raise refusal
        return self._found

    @property
    def refusal(self) -> Refusal | None:
        """What is to be answered behind the requests that `feed` gave last, before the connection ends."""
        return self._refusal

    # what httptools calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self.begun = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes_max:
            self._refuse(414, f"a target may have at most {self._limits.target_bytes_max} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, whole."""
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            self._refuse(413, "requests with a body are not served here")

    def on_headers_complete(self) -> None:
        """All that matters is there."""
        version = self._parser.get_http_version()
        if version not in VERSIONS:
            self._refuse(505, f"HTTP/{version} is not spoken here: use HTTP/1.1")
        elif version == "1.1" and self._hosts != 1:
            self._refuse(400, "a request of HTTP/1.1 has one Host header")

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.begun = False
        self._head_bytes = 0
        if self._refusal is None:
            method = self._parser.get_method().decode("latin-1")
            self._found.append(Request(method, _path(self._target), self._parser.should_keep_alive()))

    # inside

    def _begin(self) -> None:
        self._target = b""
        self._hosts = 0

    def _refuse(self, status: int, why: str) -> None:
        if self._refusal is None:
            self._refusal = Refusal(status, why)

    def _upgrade(self) -> None:
        """The client would rather speak something else: it is answered in HTTP, and the connection ends."""
        self._upgraded = True
        if self._found:
            last = self._found[-1]
            self._found[-1] = Request(last.method, last.path, keep_alive=False)


def _path(target: bytes) -> str:
    """The path of a target in origin or absolute form (RFC 9112, 3.2)."""
    text = target.decode("latin-1")
    if not text.startswith("/") and "://" in text:
        _, slash, rest = text.partition("://")[2].partition("/")
        text = slash + rest or "/"
    return text.partition("?")[0].partition("#")[0]
