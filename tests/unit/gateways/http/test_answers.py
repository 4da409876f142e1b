"""HTTP answers as bytes, read back by the standard library."""

from __future__ import annotations

import io
from email.utils import formatdate
from http.client import HTTPResponse
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.http.answers import Answer, encode, http_date, json_answer


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read(data: bytes, method: str = "GET") -> HTTPResponse:
    response = HTTPResponse(cast("object", _Socket(data)), method=method)  # type: ignore[arg-type]  # as a socket
    response.begin()
    return response


def test_an_answer_is_read_back() -> None:
    found = read(encode(json_answer(405, {"a": 1}, {"Allow": "GET"}), 0, keep_alive=True))
    assert (found.status, found.reason, found.read()) == (405, "Method Not Allowed", b'{"a":1}\n')
    assert found.getheader("Allow") == "GET"
    assert found.getheader("Connection") == "keep-alive"
    assert found.getheader("Date") == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_head_has_everything_but_the_body() -> None:
    answer = Answer(200, "text/plain", b"hello")
    data = encode(answer, 0, keep_alive=False, with_body=False)
    assert data.endswith(b"\r\n\r\n")
    assert read(data, "HEAD").getheader("Content-Length") == "5"


@given(st.integers(0, 4_000_000_000_000))
def test_dates_are_those_of_the_standard_library(now_ms: int) -> None:
    assert http_date(now_ms) == formatdate(now_ms // 1_000, usegmt=True)


@pytest.mark.parametrize("now_ms", [951_782_400_000, 1_709_164_800_000, 4_107_542_399_000])
def test_leap_days(now_ms: int) -> None:
    assert http_date(now_ms) == formatdate(now_ms // 1_000, usegmt=True)
