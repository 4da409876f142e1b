"""The codecs of record batches: gzip, snappy, lz4, zstd; each library is imported when first met.

Decompression is bounded: what would become larger than `max_bytes` is refused before it takes that memory.
Libraries chosen by measurement (isal is 12 times zlib; cramjam for snappy only).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from plait.wire import Buffer
from plait.wire.errors import BatchInvalid

ZSTD_WINDOW_BYTES_MAX = 8 << 20
"""Largest zstd window that is taken; every decoder should support that much (RFC 8878, 3.1.1.1.2)."""
SNAPPY_BLOCK_BYTES = 32 << 10
"""Input that one block of a snappy stream holds, as Kafka's Java client cuts it."""

FRAMES_MAX = 16
"""Gzip members or lz4 frames in one batch (producers write one): each costs a copy of what follows it."""
SNAPPY_BLOCK_BYTES_MIN = 1 << 10
"""What a snappy block must hold on average, so that a flood of tiny blocks is refused."""
ZSTD_READ_BYTES = 256 << 10
"""Output taken at once from a zstd stream of unknown size."""

_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEAD = _XERIAL + struct.pack(">ii", 1, 1)
_SIZE = struct.Struct(">i")


def compress(codec: str, data: bytes) -> bytes:
    """The data, compressed. `codec` is one of header.CODECS."""
    return _COMPRESS[codec](data)


def decompress(codec: str, data: Buffer, max_bytes: int) -> bytes:
    """The data, decompressed. Raises BatchInvalid when it is damaged or would have over `max_bytes`."""
    return _DECOMPRESS[codec](bytes(data), max_bytes)


def _too_much(max_bytes: int) -> BatchInvalid:
    return BatchInvalid(
        f"decompressed, the batch has over {max_bytes} bytes, which is the limit; send smaller ones"
    )


def _damaged(codec: str, error: Exception | str) -> BatchInvalid:
    return BatchInvalid(f"the batch's {codec} data is damaged: {error}")


def _copy(data: bytes) -> bytes:
    return data


def _take(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise _too_much(max_bytes)
    return data


def _gzip(data: bytes) -> bytes:
    from isal import igzip

    return igzip.compress(data, compresslevel=1, mtime=0)


def _gunzip(data: bytes, max_bytes: int) -> bytes:
    from isal import isal_zlib

    out = []
    room = max_bytes + 1
    for _ in range(FRAMES_MAX):
        stream = isal_zlib.decompressobj(31)  # 31: gzip framing
        try:
            out.append(stream.decompress(data, room))
        except isal_zlib.error as error:  # type: ignore[misc]  # its stubs call it no exception
            raise _damaged("gzip", error) from None
        room -= len(out[-1])
        if room <= 0:
            raise _too_much(max_bytes)
        if not stream.eof:
            raise _damaged("gzip", "it ends too early")
        data = stream.unused_data
        if not data:
            return b"".join(out)
    raise _damaged("gzip", f"it has over {FRAMES_MAX} members")


def _snap(data: bytes) -> bytes:
    from cramjam import snappy

    out = [_XERIAL_HEAD]
    for at in range(0, len(data), SNAPPY_BLOCK_BYTES):
        block = bytes(snappy.compress_raw(data[at : at + SNAPPY_BLOCK_BYTES]))
        out += (_SIZE.pack(len(block)), block)
    return b"".join(out)


def _unsnap(data: bytes, max_bytes: int) -> bytes:
    if not data.startswith(_XERIAL):
        return _unsnap_block(data, max_bytes)
    out: list[bytes] = []
    room = max_bytes
    at = len(_XERIAL_HEAD)
    blocks_max = max_bytes // SNAPPY_BLOCK_BYTES_MIN + FRAMES_MAX
    while at != len(data):
        if at + _SIZE.size > len(data):
            raise _damaged("snappy", "it ends too early")
        if len(out) == blocks_max:
            raise _damaged("snappy", f"it has over {blocks_max} blocks")
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if not 0 < size <= len(data) - at:
            raise _damaged("snappy", f"a block of {size} bytes")
        block = _unsnap_block(data[at : at + size], room)
        room -= len(block)
        out.append(block)
        at += size
    return b"".join(out)


def _unsnap_block(data: bytes, max_bytes: int) -> bytes:
    import cramjam

    try:
        if cramjam.snappy.decompress_raw_len(data) > max_bytes:
            raise _too_much(max_bytes)
        return bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise _damaged("snappy", str(error)) from None


def _lz4(data: bytes) -> bytes:
    import lz4.frame

    return bytes(lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False))


def _unlz4(data: bytes, max_bytes: int) -> bytes:
    import lz4.frame

    out = []
    room = max_bytes + 1
    for _ in range(FRAMES_MAX):
        stream = lz4.frame.LZ4FrameDecompressor()
        try:
            out.append(stream.decompress(data, room))
        except RuntimeError as error:
            raise _damaged("lz4", error) from None
        room -= len(out[-1])
        if room <= 0:
            raise _too_much(max_bytes)
        if not stream.eof:
            raise _damaged("lz4", "it ends too early")
        data = stream.unused_data or b""
        if not data:
            return b"".join(out)
    raise _damaged("lz4", f"it has over {FRAMES_MAX} frames")


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(data)


def _unzstd(data: bytes, max_bytes: int) -> bytes:
    import zstandard

    opener = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    out = []
    room = max_bytes + 1
    try:
        size = zstandard.frame_content_size(data)
        if size > max_bytes:
            raise _too_much(max_bytes)
        if size >= 0:
            return opener.decompress(data, allow_extra_data=False)
        # A stream that was cut short just ends here; the records in it then do not add up.
        with opener.stream_reader(data) as stream:
            while piece := stream.read(min(room, ZSTD_READ_BYTES)):
                out.append(piece)
                room -= len(piece)
                if room <= 0:
                    raise _too_much(max_bytes)
    except zstandard.ZstdError as error:
        raise _damaged("zstd", error) from None
    return b"".join(out)


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": _copy,
    "gzip": _gzip,
    "snappy": _snap,
    "lz4": _lz4,
    "zstd": _zstd,
}
_DECOMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    "none": _take,
    "gzip": _gunzip,
    "snappy": _unsnap,
    "lz4": _unlz4,
    "zstd": _unzstd,
}
