"""The peer protocol: how two nodes of a cluster get to know each other, and the frames that they exchange then.

    dialler ── HELLO ──> acceptor        who I am, whom I mean, which kind of connection
            <── WELCOME ──               who I am, the version that we speak      (or REFUSED, with a sentence)
            ── CONFIRM ──>               from now on this connection counts
            <── sealed frames ──>

Three steps and not two: an acceptor gives up nothing for a connection whose dialler may have left it already,
and both sides can prove that they know the cluster's secret, with what is said now (proof.py; the `extras`).

    frame  = length u32 | head length u16 | head: CBOR array | payload               (plait/wire/frames.py)
    sealed = head [kind, size of the words]; payload: crc32c u32 | words: CBOR array | raw bytes

The checksum covers kind, size, words and raw bytes: a flipped bit in a commit index is as bad as one in a payload.
Pure. docs/peer-protocol.md has the layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from plait.wire.errors import BadRequest
from plait.wire.frames import FrameReader, decode_plain, encode_frame, encode_plain
from replication.crc import crc32c
from replication.environment import Buffer
from replication.peers.lives import Life, decode_past, encode_past

VERSION_MIN = 1
"""Oldest version of the peer protocol that this node speaks."""
VERSION_MAX = 1
"""Newest one."""
MAGIC = "plait peer"
"""Opens a HELLO: whoever says anything else has come to the wrong door."""
HANDSHAKE_BYTES_MAX = 4_096
"""Largest frame of a handshake."""
FRAME_BYTES_MAX = 80 << 20
"""Largest frame that is taken from a peer: the largest record, what is around it, and the words."""
WORDS_BYTES_MAX = 1 << 20
"""Largest CBOR part of a sealed frame."""
CLUSTER_ID_LENGTH_MAX = 128
"""Characters of a cluster's id."""
NUMBER_MAX = (1 << 63) - 1
"""Largest number that any field holds."""

PAST = "past"
"""The extra of HELLO and WELCOME that has the marks of the node's lives: number, mark, number, mark..."""
OLDER_LIFE = "older_life"
"""Code of the refusal of a node whose disk was put back to an older state."""
FORGOTTEN = "forgotten"
"""Code of the refusal of a node that was removed from the cluster."""

HELLO = 1
WELCOME = 2
REFUSED = 3
CONFIRM = 4
CONTROL_WORDS = 10
BULK_WORDS = 11

CONTROL = "control"
"""The connection for Raft messages and beats, which never waits behind anything large."""
BULK = "bulk"
"""The connection for questions and answers, in pieces."""
KINDS = (CONTROL, BULK)

_SEAL = Struct(">BI")
_CRC = Struct(">I")
_FRAME = Struct(">IH")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is."""

    cluster_id: str
    node_id: int
    """From 1; never given to another node of the cluster."""
    store_life: int
    """How often this node's store was opened: never falls, unless its disk was put back to an older state."""
    past: Mapping[int, int] = field(default_factory=dict, hash=False)
    """The marks of its latest lives by their numbers; empty: it draws none."""

    @property
    def life(self) -> Life:
        """This start of it."""
        return Life(self.store_life, self.past.get(self.store_life, 0))


@dataclass(frozen=True, slots=True)
class Hello:
    """What a dialler says first."""

    identity: Identity
    process: int
    """Drawn once when a process starts: two lives of equal number are told apart by it."""
    kind: str
    target: int
    """The node that the dialler believes to have reached."""
    min_version: int = VERSION_MIN
    max_version: int = VERSION_MAX
    extras: dict[str, Any] = field(default_factory=dict)

    def word(self) -> list[Any]:
        """As the head of a frame."""
        who = self.identity
        head: list[Any] = [HELLO, MAGIC, self.min_version, self.max_version]
        extras = {**self.extras, PAST: encode_past(who.past)} if who.past else self.extras
        return [*head, who.cluster_id, who.node_id, who.store_life, self.process, self.kind, self.target, extras]


@dataclass(frozen=True, slots=True)
class Welcome:
    """The acceptor's answer."""

    version: int
    identity: Identity
    process: int
    extras: dict[str, Any] = field(default_factory=dict)

    def word(self) -> list[Any]:
        """As the head of a frame."""
        who = self.identity
        extras = {**self.extras, PAST: encode_past(who.past)} if who.past else self.extras
        return [WELCOME, self.version, who.cluster_id, who.node_id, who.store_life, self.process, extras]


class Refusal(Exception):
    """A handshake that does not come about: a stable code, and a sentence for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    def word(self) -> list[Any]:
        """As the head of a frame."""
        return [REFUSED, self.code, self.sentence, {}]


class Told(Refusal):
    """The other side refused."""

    believed = True
    """Whether it is known to be one of the cluster's, as far as such can be known."""


def confirm_word() -> list[Any]:
    """The dialler's last word of the handshake, as the head of a frame."""
    return [CONFIRM, {}]


def encode_word(word: list[Any]) -> bytes:
    """A word of a handshake as a frame."""
    return b"".join(encode_frame(word))


# reading what the other side says


class Hearing:
    """Takes what arrives during a handshake; its reader goes on with the frames behind it."""

    def __init__(self) -> None:
        self.reader = FrameReader(FRAME_BYTES_MAX)

    def feed(self, data: Buffer) -> None:
        """Take what arrived."""
        self.reader.feed(data)

    def word(self) -> list[Any] | None:
        """The next frame's head once it is whole. Raises Refusal for bytes that can never be a handshake's."""
        try:
            for head, payload in self.reader.frames():
                if payload:
                    raise _malformed("a handshake's frames have no payload")
                return head
        except BadRequest as error:
            raise Refusal("malformed", error.message) from None
        if self.reader.pending_bytes >= HANDSHAKE_BYTES_MAX:
            raise _malformed(f"a handshake's frames have at most {HANDSHAKE_BYTES_MAX} bytes")
        return None


def read_hello(head: list[Any]) -> Hello:
    """The HELLO in a head. Raises Refusal."""
    match head:
        case [int(word), str(magic), *_] if word == HELLO and magic == MAGIC:
            pass
        case _:
            raise _malformed("this port is for the nodes of a cluster, and what came is not their HELLO")
    match head[2:]:
        case [int(least), int(most), *_] if least > VERSION_MAX or most < VERSION_MIN:
            mine = f"{VERSION_MIN} to {VERSION_MAX}"
            raise Refusal("version", f"you speak versions {least} to {most} of the peer protocol, I speak {mine}")
        case [
            int(least),
            int(most),
            str(cluster),
            int(node),
            int(life),
            int(process),
            str(name),
            int(target),
            ext,
        ]:
            if type(ext) is dict and name in KINDS and _sound(cluster, node, life, process, target, least, most):
                who = Identity(cluster, node, life, _past(ext))
                return Hello(who, process, name, target, least, most, _rest(ext))
    raise _malformed("a HELLO has versions, cluster, node, life, process, kind, target and extras")


def read_welcome(head: list[Any]) -> Welcome:
    """The WELCOME in a head. Raises Told when it is a REFUSED, Refusal when it is anything else."""
    match head:
        case [int(kind), str(code), str(sentence), *_] if kind == REFUSED:
            raise Told(code, sentence)
        case [int(kind), int(version), str(cluster), int(node), int(life), int(process), extras] if (
            kind == WELCOME
        ):
            if type(extras) is dict and _sound(cluster, node, life, process):
                if not VERSION_MIN <= version <= VERSION_MAX:
                    raise Refusal(
                        "version", f"you chose version {version} of the peer protocol, which I did not offer"
                    )
                return Welcome(version, Identity(cluster, node, life, _past(extras)), process, _rest(extras))
    raise _malformed("a WELCOME was to come, and what came is none")


def read_confirm(head: list[Any]) -> dict[str, Any]:
    """The extras of a CONFIRM. Raises Told when it is a REFUSED, Refusal when it is anything else."""
    match head:
        case [int(kind), str(code), str(sentence), *_] if kind == REFUSED:
            raise Told(code, sentence)
        case [int(kind), dict(extras)] if kind == CONFIRM:
            return extras
    raise _malformed("a CONFIRM was to come, and what came is none")


def _sound(cluster: str, *numbers: int) -> bool:
    whole = all(type(number) is int and 0 <= number <= NUMBER_MAX for number in numbers)
    return whole and 0 < len(cluster) <= CLUSTER_ID_LENGTH_MAX


def _past(extras: dict[str, Any]) -> dict[int, int]:
    """The past among the extras. Raises Refusal."""
    past = decode_past(extras.get(PAST, []))
    if past is None:
        raise _malformed("the marks of former lives are pairs of numbers")
    return past


def _rest(extras: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extras.items() if name != PAST}


def _malformed(what: str) -> Refusal:
    return Refusal("malformed", f"the handshake cannot be read: {what}; the connection ends")


# judging it


def judge_hello(hello: Hello, mine: Identity, seen: Life) -> int:
    """The version to speak with this dialler. Raises Refusal. `seen`: the last life of that node that was seen."""
    if hello.target != mine.node_id:
        raise Refusal("target", f"you meant node {hello.target}, this is node {mine.node_id}: check the addresses")
    _judge_identity(hello.identity, mine, seen)
    return min(hello.max_version, VERSION_MAX)


def judge_welcome(welcome: Welcome, mine: Identity, target: int, seen: Life) -> None:
    """Raises Refusal where the one who answered is not the one who was meant."""
    if welcome.identity.node_id != target:
        found = welcome.identity.node_id
        raise Refusal("target", f"I meant node {target}, but node {found} answered: check the addresses")
    _judge_identity(welcome.identity, mine, seen)


def _judge_identity(theirs: Identity, mine: Identity, seen: Life) -> None:
    if theirs.cluster_id != mine.cluster_id:
        raise Refusal(
            "cluster",
            f"you are of cluster {theirs.cluster_id!r}, I am of {mine.cluster_id!r}: no node is part of both",
        )
    if theirs.node_id == mine.node_id:
        raise Refusal("self", f"you say that you are node {mine.node_id}, and so am I: a node's id is its own")
    judge_life(theirs, seen)


def judge_life(theirs: Identity, seen: Life) -> None:
    """Raises Refusal for a node that comes with another disk than that on which it was seen in that life."""
    if not seen.is_of(theirs.store_life, theirs.past):
        raise Refusal(
            OLDER_LIFE,
            f"this node's disk is older than what it was, or another one: node {theirs.node_id} comes in life"
            f" {theirs.store_life}, and its life {seen.number} was seen, of which this disk does not know;"
            " what it acknowledged then is not on it: bring the later disk back",
        )


# sealed frames


def seal(kind: int, words: Sequence[Any], parts: Sequence[Buffer] = ()) -> bytearray:
    """A sealed frame, ready to be sent: the parts are copied once, here."""
    encoded = encode_plain(list(words))
    (head,) = encode_frame([kind, len(encoded)])
    assert isinstance(head, bytes)
    frame = bytearray().join((head, b"\0\0\0\0", encoded, *parts))
    start = len(head)
    crc = crc32c(memoryview(frame)[start + _CRC.size :], crc32c(_SEAL.pack(kind, len(encoded))))
    _CRC.pack_into(frame, start, crc)
    head_length = start - _FRAME.size
    _FRAME.pack_into(frame, 0, len(frame) - 4, head_length)
    return frame


def unseal(head: list[Any], payload: memoryview) -> tuple[int, list[Any], memoryview]:
    """Kind, words and raw bytes of a sealed frame. Raises BadRequest: nothing of it is to be believed."""
    match head:
        case [int(kind), int(size)] if 0 <= kind <= 255 and 0 < size <= WORDS_BYTES_MAX:
            pass
        case _:
            raise BadRequest("a peer's frame has a head that says nothing; the connection ends")
    if len(payload) < _CRC.size + size:
        raise BadRequest("a peer's frame is shorter than its words; the connection ends")
    body = payload[_CRC.size :]
    if crc32c(body, crc32c(_SEAL.pack(kind, size))) != _CRC.unpack_from(payload)[0]:
        raise BadRequest("a peer's frame was damaged on its way (checksum); the connection ends")
    words = decode_plain(bytes(body[:size]))
    if type(words) is not list:
        raise BadRequest("a peer's frame has words that are no list; the connection ends")
    return kind, words, body[size:]
