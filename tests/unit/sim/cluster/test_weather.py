"""Weather takes, doubles and delays whole frames of control connections, and leaves everything else alone."""

from __future__ import annotations

import struct
from random import Random

from tests.sim.cluster.weather import FAIR, Conditions, FrameStretch, FrameWeather

PORT = 7


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def stretches(weather: FrameWeather) -> tuple[FrameStretch, FrameStretch]:
    there, back = weather.stretches("a", "b", PORT)
    assert isinstance(there, FrameStretch)
    assert isinstance(back, FrameStretch)
    return there, back


def arriving(stretch: FrameStretch, data: bytes) -> bytes:
    return b"".join(piece for _, _, piece in stretch.judge(data))


def test_other_ports_are_left_alone() -> None:
    assert FrameWeather(Random(1), [PORT]).stretches("a", "b", 8) == (None, None)


def test_fair_weather_changes_nothing_however_the_bytes_come() -> None:
    weather = FrameWeather(Random(1), [PORT])
    there, _ = stretches(weather)
    sent = b"".join(frame(bytes([n]) * n) for n in range(40))
    assert b"".join(arriving(there, sent[at : at + 3]) for at in range(0, len(sent), 3)) == sent


def test_all_frames_behind_the_handshake_are_lost_in_one_direction() -> None:
    weather = FrameWeather(Random(1), [PORT])
    weather.set("a", "b", Conditions(loss=1.0))
    there, back = stretches(weather)
    handshake = frame(b"hello") + frame(b"confirm")
    assert arriving(there, handshake + frame(b"one") + frame(b"two")) == handshake
    assert arriving(back, frame(b"welcome") + frame(b"one")) == frame(b"welcome") + frame(b"one")
    assert weather.struck["frame lost"] == 2
    weather.set("a", "b", FAIR)
    assert arriving(there, frame(b"three")) == frame(b"three")


def test_frames_are_doubled_and_overtaken() -> None:
    weather = FrameWeather(Random(1), [PORT])
    there, _ = stretches(weather)
    arriving(there, frame(b"hello") + frame(b"confirm"))
    weather.set("a", "b", Conditions(double=1.0, late_s=0.5))
    first, second = there.judge(frame(b"one"))
    assert first[1:] == (False, frame(b"one"))
    assert second[1:] == (True, frame(b"one"))
    weather.set("a", "b", Conditions(late=1.0, late_s=0.5))
    ((delay_s, overtaken, _),) = there.judge(frame(b"two"))
    assert overtaken
    assert 0 < delay_s < 0.5


def test_bulk_connections_lose_nothing_in_either_direction() -> None:
    weather = FrameWeather(Random(1), [PORT])
    weather.set("a", "b", Conditions(loss=1.0))
    weather.set("b", "a", Conditions(loss=1.0))
    there, back = stretches(weather)
    hello = frame(b"...\x64bulk...")
    assert arriving(there, hello) == hello
    assert arriving(there, frame(b"confirm") + frame(b"one")) == frame(b"confirm") + frame(b"one")
    assert arriving(back, frame(b"welcome") + frame(b"one")) == frame(b"welcome") + frame(b"one")
