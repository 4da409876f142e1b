"""Whatever is sent to the HTTP port, it is a request or it is refused; nothing is raised, nothing grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateways.http.answers import REASONS
from gateways.http.limits import HttpLimits
from gateways.http.requests import Refusal, Request, RequestReader

LIMITS = HttpLimits(target_bytes_max=60, head_bytes_max=300, pipelined_max=4)
LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"HEAD /metrics?x=%00 HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X: \xff\xfe\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"5\r\nhello\r\n",
    ]
)
PIECES = st.lists(st.one_of(LINES, LINES, LINES, st.binary(max_size=40)), max_size=20)


@given(PIECES, st.integers(1, 64))
def test_any_bytes(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    reader = RequestReader(LIMITS)
    found: list[Request] = []
    for at in range(0, len(data), size):
        try:
            found += reader.feed(data[at : at + size])
        except Refusal:
            break
    assert all(len(request.path) <= LIMITS.target_bytes_max for request in found)
    assert len(found) <= data.count(b"HTTP/1.")
    assert reader.refusal is None or (reader.refusal.why and reader.refusal.status in REASONS)


@given(st.binary(max_size=200), st.integers(1, 5))
def test_a_request_that_never_ends_is_refused(filling: bytes, size: int) -> None:
    reader = RequestReader(LIMITS)
    try:
        reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(LIMITS.head_bytes_max):
            reader.feed(b"X: " + filling.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n")
    except Refusal:
        return
    raise AssertionError("it was never refused")
