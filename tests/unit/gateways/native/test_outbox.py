"""The outbox keeps order, joins what is small, never copies what is large, and knows when it is crowded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateways.native.outbox import JOIN_BYTES_MAX, SEND_BYTES, Outbox


class Watched(Outbox):
    def __init__(self, high_bytes: int = 1000, low_bytes: int = 100) -> None:
        self.events: list[str] = []
        super().__init__(
            high_bytes,
            low_bytes,
            lambda: self.events.append("first"),
            lambda: self.events.append("crowded"),
            lambda: self.events.append("relieved"),
        )


def test_many_small_frames_leave_as_one() -> None:
    outbox = Watched()
    for number in range(10):
        outbox.append([b"head%d" % number, b"body"])
    assert outbox.take() == b"".join(b"head%dbody" % number for number in range(10))
    assert outbox.take() == b""
    assert outbox.size_bytes == 0


def test_it_says_once_that_something_waits_until_it_was_emptied() -> None:
    outbox = Watched()
    outbox.append([b"a"])
    outbox.append([b"b"])
    outbox.take()
    outbox.append([b"c"])
    assert outbox.events == ["first", "first"]


def test_a_large_buffer_is_sent_in_slices_of_itself() -> None:
    outbox = Watched()
    large = bytes(SEND_BYTES + 10)
    outbox.append([b"head", large])
    assert outbox.take() == b"head"
    first = outbox.take()
    assert isinstance(first, memoryview)
    assert first.obj is large
    assert len(first) == SEND_BYTES
    assert len(outbox.take()) == 10


def test_it_is_crowded_above_the_high_mark_until_below_the_low_one() -> None:
    outbox = Watched(high_bytes=JOIN_BYTES_MAX * 3, low_bytes=JOIN_BYTES_MAX)
    piece = bytes(JOIN_BYTES_MAX + 1)
    for _ in range(2):
        outbox.append([piece])
    assert not outbox.crowded
    outbox.append([piece])
    assert outbox.crowded
    outbox.take()
    outbox.take()
    assert outbox.crowded
    outbox.take()
    assert not outbox.crowded
    assert outbox.events == ["first", "crowded", "relieved"]


@given(
    st.lists(
        st.lists(st.sampled_from([0, 1, 100, 65_536, 65_537, 90_000, 300_000]), min_size=1, max_size=3), max_size=8
    ),
    st.data(),
)
def test_bytes_come_out_in_order_and_are_counted(frames: list[list[int]], data: st.DataObject) -> None:
    outbox = Watched(high_bytes=100_000, low_bytes=50_000)
    put, got = bytearray(), bytearray()
    for number, sizes in enumerate(frames):
        buffers = [bytes([number]) * size for size in sizes]
        outbox.append(buffers)
        put += b"".join(buffers)
        if data.draw(st.booleans()):
            got += outbox.take()
        assert outbox.size_bytes == len(put) - len(got)
    while piece := outbox.take():
        assert len(piece) <= SEND_BYTES
        got += piece
    assert got == put
    assert outbox.size_bytes == 0
    assert not outbox.crowded
