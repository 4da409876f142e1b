"""Proofs of the cluster's secret: right ones are let in, and a table of all that is wrong is not."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from plait.wire.frames import encode_plain
from replication.peers.proof import ACCEPTOR, DIALLER, NONCE, PROOF, ClusterKey, Proofs
from replication.peers.protocol import CONTROL, Hello, Identity, Refusal, Welcome, confirm_word

SECRET = b"the secret of this cluster"
KEY = ClusterKey(SECRET)
OTHER = ClusterKey(b"the secret of that cluster")
ONE = Identity("c1", 1, 7)
TWO = Identity("c1", 2, 3)
HELLO = Hello(TWO, 99, CONTROL, 1)
WELCOME = Welcome(1, ONE, 5)
Word = list[Any]


def dialler(seed: int = 1, key: ClusterKey | None = KEY) -> Proofs:
    return Proofs(key, DIALLER, Random(seed))


def acceptor(seed: int = 2, key: ClusterKey | None = KEY) -> Proofs:
    return Proofs(key, ACCEPTOR, Random(seed))


def changed(word: Word, **extras: Any) -> Word:
    """With other extras; None takes one out."""
    whole = {**word[-1], **extras}
    return [*word[:-1], {name: value for name, value in whole.items() if value is not None}]


def handshake(dialling: Proofs, answering: Proofs) -> tuple[Word, Word, Word]:
    """All of one, as it was said."""
    hello = dialling.say(HELLO.word())
    answering.hear(hello)
    welcome = answering.say(WELCOME.word())
    dialling.hear(welcome)
    confirm = dialling.say(confirm_word())
    answering.hear(confirm)
    return hello, welcome, confirm


HELLO_SAID, WELCOME_SAID, CONFIRM_SAID = handshake(dialler(), acceptor())


def test_two_that_know_the_secret_believe_each_other() -> None:
    hello, welcome, confirm = HELLO_SAID, WELCOME_SAID, CONFIRM_SAID
    assert [sorted(word[-1]) for word in (hello, welcome, confirm)] == [[NONCE, PROOF], [NONCE, PROOF], [PROOF]]
    assert [changed(word, nonce=None, proof=None) for word in (hello, welcome, confirm)] == [
        HELLO.word(),
        WELCOME.word(),
        confirm_word(),
    ]


def test_a_proof_is_made_as_the_page_says() -> None:
    key = hashlib.scrypt(SECRET, salt=b"plait: cluster secret, version 1", n=16_384, r=8, p=1, dklen=32)
    bare = encode_plain(changed(WELCOME_SAID, proof=None))
    told = b"acceptor\0" + encode_plain(HELLO_SAID) + bare
    assert WELCOME_SAID[-1][PROOF] == hmac.new(key, told, "sha256").digest()


def test_no_two_proofs_and_nonces_are_equal() -> None:
    said = [word for seed in (1, 3, 5) for word in handshake(dialler(seed), acceptor(seed + 1))]
    assert len({word[-1][PROOF] for word in said}) == len(said)
    assert len({word[-1].get(NONCE) for word in said}) == 7  # CONFIRM has none


def test_without_a_secret_nothing_is_added() -> None:
    assert handshake(dialler(key=None), acceptor(key=None)) == (HELLO.word(), WELCOME.word(), confirm_word())


PROOF_SAID = HELLO_SAID[-1][PROOF]
WRONG_HELLOS: dict[str, Word] = {
    "no proof": changed(HELLO_SAID, proof=None),
    "a nonce alone is none": changed(HELLO_SAID, proof=b""),
    "cut": changed(HELLO_SAID, proof=PROOF_SAID[:-1]),
    "longer": changed(HELLO_SAID, proof=PROOF_SAID + b"\0"),
    "text": changed(HELLO_SAID, proof=PROOF_SAID.hex()),
    "a number": changed(HELLO_SAID, proof=7),
    "nothing": changed(HELLO_SAID, proof=[]),
    "a bit is another": changed(HELLO_SAID, proof=bytes([PROOF_SAID[0] ^ 1]) + PROOF_SAID[1:]),
    "another nonce": changed(HELLO_SAID, nonce=bytes(32)),
    "no nonce": changed(HELLO_SAID, nonce=None),
    "another extra": changed(HELLO_SAID, past=[1, 2]),
    "another secret": dialler(key=OTHER).say(HELLO.word()),
    "the acceptor's proof": changed(HELLO_SAID, proof=WELCOME_SAID[-1][PROOF]),
    "the last word's proof": changed(HELLO_SAID, proof=CONFIRM_SAID[-1][PROOF]),
    "another node": [*HELLO_SAID[:5], 3, *HELLO_SAID[6:]],
    "another life": [*HELLO_SAID[:6], 4, *HELLO_SAID[7:]],
    "for another node": [*HELLO_SAID[:9], 3, HELLO_SAID[-1]],
    "of another cluster": [*HELLO_SAID[:4], "c2", *HELLO_SAID[5:]],
    "another kind": [*HELLO_SAID[:8], "bulk", *HELLO_SAID[9:]],
    "other versions": [*HELLO_SAID[:2], 0, *HELLO_SAID[3:]],
    "made as an acceptor": changed(
        HELLO_SAID, proof=KEY.proof(ACCEPTOR, encode_plain(changed(HELLO_SAID, proof=None)))
    ),
    "no extras": [1, "plait peer"],
    "empty": [],
}


@pytest.mark.parametrize("what", WRONG_HELLOS)
def test_a_hello_with_a_wrong_proof_is_refused_and_gets_no_proof_to_try_secrets_on(what: str) -> None:
    answering = acceptor()
    with pytest.raises(Refusal) as found:
        answering.hear(WRONG_HELLOS[what])
    assert found.value.code == "secret"
    assert answering.say(found.value.word()) == found.value.word()
    assert answering.say(WELCOME.word()) == WELCOME.word()


def say_welcome(key: ClusterKey = KEY, hello: Word = HELLO_SAID, seed: int = 9) -> Word:
    answering = acceptor(seed, key)
    answering.believes(hello)
    return answering.say(WELCOME.word())


WRONG_WELCOMES: dict[str, Callable[[], Word]] = {
    "one of another connection": lambda: handshake(dialler(5), acceptor(6))[1],
    "an old one, for the same node": lambda: handshake(dialler(7), acceptor())[1],
    "another secret": lambda: Proofs(OTHER, DIALLER, Random(9)).say(WELCOME.word()),
    "no proof": lambda: WELCOME.word(),
    "the HELLO's own proof": lambda: [*WELCOME.word()[:-1], HELLO_SAID[-1]],
    "of another node": lambda: [*WELCOME_SAID[:3], 3, *WELCOME_SAID[4:]],
    "in another life": lambda: [*WELCOME_SAID[:4], 8, *WELCOME_SAID[5:]],
    "with another version": lambda: [2, 0, *WELCOME_SAID[2:]],
    "made as a dialler": lambda: Proofs(KEY, DIALLER, Random(9)).say(WELCOME.word()),
    "the dialler's HELLO, sent back": lambda: HELLO_SAID,
    "without the HELLO before it": lambda: [
        *WELCOME_SAID[:-1],
        {
            NONCE: WELCOME_SAID[-1][NONCE],
            PROOF: KEY.proof(ACCEPTOR, encode_plain(changed(WELCOME_SAID, proof=None))),
        },
    ],
}


@pytest.mark.parametrize("what", WRONG_WELCOMES)
def test_a_welcome_with_a_wrong_proof_is_refused(what: str) -> None:
    dialling = dialler()
    assert dialling.say(HELLO.word()) == HELLO_SAID
    with pytest.raises(Refusal) as found:
        dialling.hear(WRONG_WELCOMES[what]())
    assert found.value.code == "secret"
    dialling.hear(say_welcome())  # the right one would have done


def test_a_copy_of_a_whole_handshake_is_not_let_in() -> None:
    answering = acceptor(seed=10)
    answering.hear(HELLO_SAID)  # a first word may be a copy
    answering.say(WELCOME.word())
    with pytest.raises(Refusal, match="another one than mine"):
        answering.hear(CONFIRM_SAID)


@pytest.mark.parametrize(
    "confirm",
    [
        confirm_word(),
        [4, {PROOF: WELCOME_SAID[-1][PROOF]}],
        [4, {PROOF: HELLO_SAID[-1][PROOF]}],
        [4, {PROOF: CONFIRM_SAID[-1][PROOF][:31]}],
        [5, CONFIRM_SAID[-1]],
        changed(CONFIRM_SAID, more=1),
    ],
)
def test_a_confirm_with_a_wrong_proof_is_refused(confirm: Word) -> None:
    answering = acceptor()
    answering.hear(HELLO_SAID)
    assert answering.say(WELCOME.word()) == WELCOME_SAID
    with pytest.raises(Refusal) as found:
        answering.hear(confirm)
    assert found.value.code == "secret"


def test_a_refusal_is_believed_when_it_is_proven() -> None:
    dialling, answering = dialler(), acceptor()
    answering.hear(dialling.say(HELLO.word()))
    no = answering.say(Refusal("older_life", "why").word())
    for made_up in ([3, "older_life", "why"], [3, "older_life", "why", {}], [*no[:1], "self", *no[2:]]):
        assert not dialling.believes(made_up)
    assert dialling.believes(no)
    assert dialler(key=None).believes([3, "older_life", "why", {}])


@pytest.mark.parametrize(
    ("theirs", "mine", "sentence"),
    [
        (None, KEY, "I have a cluster secret, and you showed none"),
        (KEY, None, "you have a cluster secret, and I have none"),
        (OTHER, KEY, "your cluster secret is another one than mine"),
    ],
)
def test_whoever_is_refused_is_told_what_to_do(
    theirs: ClusterKey | None, mine: ClusterKey | None, sentence: str
) -> None:
    with pytest.raises(Refusal) as found:
        acceptor(key=mine).hear(dialler(key=theirs).say(HELLO.word()))
    assert found.value.sentence.startswith(sentence)
    assert "give all nodes of the cluster the same --cluster-secret-file" in found.value.sentence


def test_a_key_shows_nothing_of_its_secret() -> None:
    assert SECRET.decode() not in repr(KEY) + str(vars(KEY))


def test_words_of_any_handshake_can_be_proven() -> None:
    """A node that has no id yet: it asks in its third word, when the other side's is known to be new."""
    joining, answering = dialler(), acceptor()
    answering.hear(joining.say([5, "plait join", {}]))
    joining.hear(answering.say([6, {}]))
    ask = joining.say([7, "rack-1", {}])
    answering.hear(ask)
    told = answering.say([8, 4, ["n1", "n2"], {}])
    joining.hear(told)
    assert told[:2] == [8, 4]
    with pytest.raises(Refusal):
        acceptor(seed=11).hear(ask)
