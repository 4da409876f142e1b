"""HTTP requests out of bytes: whole, in pieces, and what is none."""

from __future__ import annotations

import pytest

from gateways.http.limits import HttpLimits
from gateways.http.requests import Refusal, Request, RequestReader

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = HttpLimits(target_bytes_max=50, head_bytes_max=200, pipelined_max=3)


def reader() -> RequestReader:
    return RequestReader(LIMITS)


def give(one: RequestReader, data: bytes) -> list[Request]:
    """Byte by byte."""
    return [request for at in range(len(data)) for request in one.feed(data[at : at + 1])]


TABLE = [
    (GET % b"/healthz", Request("GET", "/healthz", True)),
    (GET % b"/metrics?name=a", Request("GET", "/metrics", True)),
    (GET % b"http://node:4152/readyz", Request("GET", "/readyz", True)),
    (GET % b"http://node:4152", Request("GET", "/", True)),
    (b"HEAD / HTTP/1.1\r\nHOST: x\r\nConnection: close\r\n\r\n", Request("HEAD", "/", False)),
    (b"GET / HTTP/1.0\r\n\r\n", Request("GET", "/", False)),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Request("GET", "/", True)),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", Request("POST", "/", True)),
    (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", Request("GET", "/", False)),
]


@pytest.mark.parametrize(("data", "request_"), TABLE)
def test_requests(data: bytes, request_: Request) -> None:
    assert reader().feed(data) == [request_]


@pytest.mark.parametrize(("data", "request_"), TABLE)
def test_requests_byte_by_byte(data: bytes, request_: Request) -> None:
    one = reader()
    assert give(one, data) == [request_]
    assert not one.begun


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),  # a TLS handshake
        (b"\0\0\0\x1d\0\x19\x87\x01", 400),  # Plait's own protocol
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (GET % (b"/" + b"x" * 50), 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 200, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    ],
)
def test_what_is_no_request_is_refused_for_good(data: bytes, status: int) -> None:
    one = reader()
    with pytest.raises(Refusal) as found:
        give(one, data)
    assert found.value.status == status
    with pytest.raises(Refusal):
        one.feed(GET % b"/")
    with pytest.raises(Refusal) as at_once:
        reader().feed(data)
    assert at_once.value.status == status


def test_what_came_whole_before_is_answered_first() -> None:
    one = reader()
    assert one.feed(GET % b"/" + b"nonsense\r\n\r\n") == [Request("GET", "/", True)]
    assert one.refusal is not None
    assert one.refusal.status == 400


def test_a_pipeline_has_a_bound() -> None:
    assert len(reader().feed(GET % b"/" * 3)) == 3
    one = reader()
    one.feed(GET % b"/" * 4)
    assert one.refusal is not None


def test_nothing_is_read_behind_an_upgrade() -> None:
    one = reader()
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert one.feed(upgrade + GET % b"/") == [Request("GET", "/", False)]
    assert one.feed(GET % b"/") == []
