"""The handshake's words, what is refused and with which sentence, and the seal of frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.errors import BadRequest
from plait.wire.frames import FrameReader, encode_frame
from replication.crc import crc32c
from replication.peers.lives import Life
from replication.peers.protocol import (
    BULK,
    BULK_WORDS,
    CONTROL,
    HANDSHAKE_BYTES_MAX,
    Hearing,
    Hello,
    Identity,
    Refusal,
    Told,
    Welcome,
    confirm_word,
    encode_word,
    judge_hello,
    judge_welcome,
    read_confirm,
    read_hello,
    read_welcome,
    seal,
    unseal,
)

ONE = Identity("c1", 1, 7)
TWO = Identity("c1", 2, 3)
HELLO_WORDS: list[Any] = [1, "plait peer", 1, 1, "c1", 2, 3, 99, "control", 1, {}]


def heard(data: bytes) -> list[Any]:
    hearing = Hearing()
    hearing.feed(data)
    word = hearing.word()
    assert word is not None
    return word


def refusal_of(head: list[Any]) -> Refusal:
    with pytest.raises(Refusal) as found:
        read_hello(head)
    return found.value


def test_the_words_of_a_handshake_are_these() -> None:
    assert heard(encode_word(Hello(TWO, 99, CONTROL, 1).word())) == HELLO_WORDS
    assert Welcome(1, ONE, 5, {"nonce": b"n"}).word() == [2, 1, "c1", 1, 7, 5, {"nonce": b"n"}]
    assert confirm_word() == [4, {}]
    assert Refusal("cluster", "why").word() == [3, "cluster", "why", {}]


def test_what_was_said_is_read() -> None:
    hello = Hello(TWO, 99, BULK, 1, extras={"proof": b"p"})
    assert read_hello(heard(encode_word(hello.word()))) == hello
    welcome = Welcome(1, replace(ONE, past={6: 60, 7: 70}), 5)
    assert read_welcome(heard(encode_word(welcome.word()))) == welcome
    assert read_confirm([4, {"proof": b"q"}]) == {"proof": b"q"}


def test_a_handshake_byte_by_byte_and_frames_behind_it() -> None:
    hearing = Hearing()
    hello = encode_word(Hello(TWO, 99, CONTROL, 1).word())
    for at in range(len(hello) - 1):
        hearing.feed(hello[at : at + 1])
        assert hearing.word() is None
    hearing.feed(hello[-1:] + encode_word(confirm_word()) + bytes(seal(BULK_WORDS, ["behind"], [b"raw"])))
    assert hearing.word() == HELLO_WORDS
    assert hearing.word() == [4, {}]
    ((head, payload),) = hearing.reader.frames()
    kind, words, raw = unseal(head, payload)
    assert (kind, words, bytes(raw)) == (BULK_WORDS, ["behind"], b"raw")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 2),
        (0, "1"),
        (1, "plait"),
        (2, "1"),
        (2, -1),
        (4, ""),
        (4, "c" * 129),
        (4, b"c1"),
        (5, -1),
        (5, True),
        (6, 2**63),
        (7, None),
        (8, "other"),
        (9, 1.0),
        (10, []),
    ],
)
def test_a_hello_with_anything_wrong_is_refused(at: int, value: Any) -> None:
    head = list(HELLO_WORDS)
    head[at] = value
    assert refusal_of(head).code == "malformed"


def test_a_hello_that_is_too_short_or_too_long_is_refused() -> None:
    for head in ([], HELLO_WORDS[:-1], [*HELLO_WORDS, 1]):
        assert refusal_of(head).code == "malformed"


def test_versions_that_do_not_meet_are_refused_whatever_else_a_later_one_says() -> None:
    for least, most in ((2, 3), (0, 0)):
        refusal = refusal_of([1, "plait peer", least, most, {"anything": 1}])
        assert refusal.code == "version"
        assert refusal.sentence == f"you speak versions {least} to {most} of the peer protocol, I speak 1 to 1"


def test_the_highest_version_of_both_is_spoken() -> None:
    assert judge_hello(Hello(TWO, 99, CONTROL, 1, 0, 9), ONE, Life(0)) == 1


@pytest.mark.parametrize(
    ("hello", "code", "sentence"),
    [
        (Hello(TWO, 9, CONTROL, 3), "target", "you meant node 3, this is node 1: check the addresses"),
        (
            Hello(Identity("c2", 2, 3), 9, CONTROL, 1),
            "cluster",
            "you are of cluster 'c2', I am of 'c1': no node is part of both",
        ),
        (Hello(Identity("c1", 1, 3), 9, CONTROL, 1), "self", "you say that you are node 1, and so am I"),
        (Hello(Identity("c1", 2, 2), 9, CONTROL, 1), "older_life", "this node's disk is older than what it was"),
    ],
)
def test_whoever_does_not_fit_is_told_why(hello: Hello, code: str, sentence: str) -> None:
    with pytest.raises(Refusal) as found:
        judge_hello(hello, ONE, seen=Life(3))
    assert found.value.code == code
    assert sentence in found.value.sentence


@pytest.mark.parametrize(
    ("past", "code"),
    [
        ({2: 20, 3: 30}, ""),
        ({3: 30, 4: 40}, ""),
        ({}, ""),
        ({2: 20, 3: 31}, "older_life"),
        ({4: 40, 5: 50}, "older_life"),
    ],
)
def test_a_copy_that_has_counted_as_far_is_not_taken_for_the_disk(past: dict[int, int], code: str) -> None:
    hello = Hello(Identity("c1", 2, max(past, default=3), past), 9, CONTROL, 1)
    found = ""
    try:
        judge_hello(hello, ONE, seen=Life(3, 30))
    except Refusal as refusal:
        found = refusal.code
    assert found == code


@pytest.mark.parametrize("told", [[1], [1, "m"], {}, [1, -1], [0] * 1_000, 7, None])
def test_a_past_that_is_none_is_refused(told: Any) -> None:
    assert refusal_of([*HELLO_WORDS[:-1], {"past": told}]).code == "malformed"


def test_the_dialler_judges_as_well() -> None:
    judge_welcome(Welcome(1, TWO, 9), ONE, 2, seen=Life(3))
    for identity, code in (
        (Identity("c1", 3, 3), "target"),
        (Identity("c2", 2, 3), "cluster"),
        (Identity("c1", 2, 2), "older_life"),
    ):
        with pytest.raises(Refusal) as found:
            judge_welcome(Welcome(1, identity, 9), ONE, 2, seen=Life(3))
        assert found.value.code == code


def test_a_refusal_is_told_and_nonsense_is_refused() -> None:
    with pytest.raises(Told) as told:
        read_welcome([3, "cluster", "a sentence"])
    assert (told.value.code, told.value.sentence) == ("cluster", "a sentence")
    for head in ([], [2], [3], [2, 5, "c1", 1, 7, 5, {}], [2, 1, "c1", -1, 7, 5, {}], [4, {}]):
        with pytest.raises(Refusal):
            read_welcome(head)
    with pytest.raises(Told, match="a sentence"):
        read_confirm([3, "older_life", "a sentence"])
    for head in ([], [4], [4, 1], [4, {}, 1], [3, "code"]):
        with pytest.raises(Refusal):
            read_confirm(head)


def test_a_handshake_that_grows_and_grows_is_refused_before_it_is_held() -> None:
    hearing = Hearing()
    hearing.feed((1 << 20).to_bytes(4, "big"))
    assert hearing.word() is None

    def drip() -> None:
        for _ in range(HANDSHAKE_BYTES_MAX):
            hearing.feed(b"x")
            hearing.word()

    with pytest.raises(Refusal, match="at most"):
        drip()


def test_a_handshake_with_payload_is_refused() -> None:
    hearing = Hearing()
    hearing.feed(b"".join(encode_frame([4, {}], [b"payload"])))
    with pytest.raises(Refusal, match="no payload"):
        hearing.word()


# the seal


def test_the_bytes_of_a_sealed_frame_are_these() -> None:
    words, raw = b"\x82\x01\x61a", b"rest"
    crc = crc32c(words + raw, crc32c(b"\x0b" + len(words).to_bytes(4, "big")))
    head = b"\x82\x0b\x04"
    expected = (2 + 3 + 4 + 4 + 4).to_bytes(4, "big") + b"\0\3" + head + crc.to_bytes(4, "big") + words + raw
    assert bytes(seal(BULK_WORDS, [1, "a"], [b"re", b"st"])) == expected


@given(st.lists(st.integers(0, 9) | st.text(max_size=3), max_size=5), st.lists(st.binary(max_size=20), max_size=3))
def test_what_was_sealed_is_unsealed(words: list[Any], parts: list[bytes]) -> None:
    reader = FrameReader()
    reader.feed(bytes(seal(BULK_WORDS, words, parts)))
    ((head, payload),) = reader.frames()
    kind, found, raw = unseal(head, payload)
    assert (kind, found, bytes(raw)) == (BULK_WORDS, words, b"".join(parts))


@pytest.mark.parametrize(
    ("head", "payload"),
    [
        ([], b""),
        ([10], b"12345"),
        ([10, 0], b"12345"),
        ([10, -1], b"12345"),
        ([300, 1], b"12345"),
        ([10, 1 << 40], b"12345"),
        ([10, 2], b"12345"),
        ([10, 1], b"1234"),
        ([10, 1], b"12345"),
        (["10", 1], b"12345"),
    ],
)
def test_a_frame_that_is_not_sealed_is_refused(head: list[Any], payload: bytes) -> None:
    with pytest.raises(BadRequest, match="the connection ends"):
        unseal(head, memoryview(payload))


def test_sealed_words_that_are_no_list_are_refused() -> None:
    words = b"\x01"
    crc = crc32c(words, crc32c(b"\x0a\0\0\0\1"))
    with pytest.raises(BadRequest, match="no list"):
        unseal([10, 1], memoryview(crc.to_bytes(4, "big") + words))
