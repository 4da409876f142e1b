"""The native protocol's frames: cutting a stream of bytes into messages, and back.

    | total length u32 | head length u16 | head: a CBOR array | payload, raw |
                       |<──────────────── total length ─────────────────────>|

Big-endian. Heads are small and typed by `messages`; payloads (record batches) never pass through CBOR.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from struct import Struct
from typing import Any

import cbor2

from plait.wire import Buffer
from plait.wire.errors import BadRequest

HEAD_BYTES_MAX = 0xFFFF
"""Largest head, as encoded."""
HEAD_DEPTH_MAX = 8
"""How deep lists and maps of a head may be nested."""
FRAME_BYTES_MAX = 16 << 20
"""Default of the largest frame that is taken (its total length field)."""

_LENGTHS = Struct(">IH")
_LENGTH = Struct(">I")
_SCALARS = frozenset((int, str, bytes, bool, type(None), float))
_LISTS = frozenset((list, tuple))
_END = b"\x48 the end"


def encode_frame(head: Sequence[Any], payload_parts: Sequence[Buffer] = ()) -> list[Buffer]:
    """A frame as buffers to be sent one behind the other; payload parts are not copied.

    Raises TypeError for anything in the head that is not plain data, ValueError when the head is too large.
    """
    encoded = encode_plain(list(head))
    if len(encoded) > HEAD_BYTES_MAX:
        raise ValueError(f"a frame's head has at most {HEAD_BYTES_MAX} bytes, this one {len(encoded)}")
    length = 2 + len(encoded) + sum(map(len, payload_parts))
    return [_LENGTHS.pack(length, len(encoded)) + encoded, *payload_parts]


def encode_plain(value: Any) -> bytes:
    """CBOR of plain data. Raises TypeError for anything else: a memoryview would become a list of numbers."""
    if not is_plain(value):
        raise TypeError("a head holds numbers, text, bytes, lists and maps with text keys only")
    return cbor2.dumps(value)


def decode_plain(data: bytes) -> Any:
    """Plain data from exactly one CBOR item. Raises BadRequest."""
    try:
        # The mark behind the item shows whether the item ends where the bytes do.
        value, end = cbor2.loads(
            b"\x82" + data + _END,
            max_depth=HEAD_DEPTH_MAX + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_NO_TAGS,
        )
    except (cbor2.CBORError, ValueError) as error:
        raise _malformed(f"its head is not CBOR that is accepted ({error})") from None
    if end != _END[1:]:
        raise _malformed("bytes follow its head's last item")
    if not is_plain(value):
        raise _malformed("its head has values other than numbers, text, bytes, lists and maps with text keys")
    return value


def is_plain(value: Any) -> bool:
    """Whether the value has only what heads may have (a tuple is sent as a list)."""
    kind = type(value)
    if kind is list or kind is tuple:
        kinds = set(map(type, value))
        if kinds and kinds <= _LISTS:  # thousands of short lists: judged together
            return is_plain(list(chain.from_iterable(value)))
        return kinds <= _SCALARS or all(map(is_plain, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(is_plain, value.values()))
    return kind in _SCALARS


class _NoTags(dict[int, Callable[..., Any]]):
    """Refuses every CBOR tag: dates, bignums, shared references, patterns, ... are traps in a head."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        return _refuse


def _refuse(*_: Any) -> Any:
    raise ValueError("tags are not accepted")


_NO_TAGS: Mapping[int, Callable[..., Any]] = _NoTags()


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"the frame cannot be read: {what}; nothing was done, the connection ends")


class FrameReader:
    """Cuts what arrives into frames. Cost is linear in the bytes, however they are cut.

    A payload is a view of the chunk that it came in (of the joined chunks, if in several): whoever keeps it
    for long keeps the chunk, and copies it if that is a loss.
    """

    __slots__ = ("_at", "_chunks", "_data", "_have", "_max_bytes", "_need")

    def __init__(self, max_frame_bytes: int = FRAME_BYTES_MAX) -> None:
        self._max_bytes = max_frame_bytes
        self._data = b""
        self._at = 0
        self._chunks: deque[bytes] = deque()
        self._have = 0  # bytes not yet given out, in _data from _at and in _chunks
        self._need = _LENGTH.size  # bytes without which nothing can be done

    @property
    def pending_bytes(self) -> int:
        """Bytes that arrived and are not yet part of a whole frame."""
        return self._have

    def feed(self, data: Buffer) -> None:
        """Take what arrived."""
        if data:
            self._chunks.append(data if type(data) is bytes else bytes(data))
            self._have += len(data)

    def frames(self) -> Iterator[tuple[list[Any], memoryview]]:
        """The frames that are whole by now: head and payload. Raises BadRequest, then and ever after."""
        while self._have >= self._need:
            if len(self._data) - self._at < self._need:
                self._refill()
            if self._need == _LENGTH.size:
                self._need += self._length()
                continue
            yield self._take()
        if not self._have:
            self._data = b""  # a view may live on; the reader does not hold the chunk
            self._at = 0

    def _take(self) -> tuple[list[Any], memoryview]:
        data = self._data
        start = self._at + _LENGTHS.size
        end = self._at + self._need
        middle = start + int.from_bytes(data[start - 2 : start], "big")
        if middle > end:
            raise _malformed("its head is longer than itself")
        head = decode_plain(data[start:middle])
        if type(head) is not list:
            raise _malformed("its head is not a list")
        self._at = end
        self._have -= self._need
        self._need = _LENGTH.size
        return head, memoryview(data)[middle:end]

    def _refill(self) -> None:
        rest = self._data[self._at :]
        self._at = 0
        if not rest and len(self._chunks[0]) >= self._need:
            self._data = self._chunks.popleft()
        else:
            self._data = b"".join((rest, *self._chunks))
            self._chunks.clear()

    def _length(self) -> int:
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        if length > self._max_bytes:
            raise _malformed(f"it has {length} bytes, the limit is {self._max_bytes} (max_frame_bytes)")
        if length < 3:
            raise _malformed(f"it has {length} bytes, the least is 3")
        return int(length)
