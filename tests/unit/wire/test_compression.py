"""Compression: every codec comes back, damage is an error, a bomb takes no memory, a flood no time."""

from __future__ import annotations

import random
import struct
import tracemalloc

import cramjam
import lz4.frame
import pytest
import zstandard
from isal import igzip

from plait.wire.compression import (
    FRAMES_MAX,
    SNAPPY_BLOCK_BYTES_MIN,
    ZSTD_WINDOW_BYTES_MAX,
    compress,
    decompress,
)
from plait.wire.errors import BatchInvalid
from plait.wire.header import CODECS

MIB = 1 << 20
REAL = CODECS[1:]
TEXT = b"".join(b"line %d of something that repeats\n" % (n % 1000) for n in range(20_000))
NOISE = random.Random(7).randbytes(300_000)
XERIAL = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)


def zstd_stream(data: bytes, **parameters: int) -> bytes:
    """As a streaming producer writes it: without the size in front."""
    settings = zstandard.ZstdCompressionParameters.from_level(3, write_content_size=False, **parameters)
    writer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return writer.compress(data) + writer.flush()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"a", TEXT, NOISE], ids=["empty", "one", "text", "noise"])
def test_what_was_compressed_comes_back(codec, data):
    assert decompress(codec, memoryview(compress(codec, data)), len(data)) == data


@pytest.mark.parametrize("codec", REAL)
def test_the_limit_is_exact(codec):
    packed = compress(codec, TEXT)
    assert decompress(codec, packed, len(TEXT)) == TEXT
    with pytest.raises(BatchInvalid, match="over"):
        decompress(codec, packed, len(TEXT) - 1)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4"])
def test_data_cut_short_is_refused(codec):
    packed = compress(codec, NOISE)
    for cut in (1, 5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BatchInvalid, match=codec):
            decompress(codec, packed[:-cut], MIB)


@pytest.mark.parametrize("codec", REAL)
@pytest.mark.parametrize("data", [b"", b"\1", b"garbage that is no stream at all", b"\xff" * 100])
def test_garbage_is_refused(codec, data):
    with pytest.raises(BatchInvalid, match=codec):
        decompress(codec, data, MIB)


ZEROS = bytes(256 * MIB)
BOMBS = {
    "gzip": [igzip.compress(ZEROS)],
    "snappy": [
        XERIAL + struct.pack(">i", len(block)) + block for block in [bytes(cramjam.snappy.compress_raw(ZEROS))]
    ],
    "lz4": [lz4.frame.compress(ZEROS, store_size=True), lz4.frame.compress(ZEROS, store_size=False)],
    "zstd": [zstandard.ZstdCompressor().compress(ZEROS), zstd_stream(ZEROS)],
}
del ZEROS


@pytest.mark.parametrize(
    ("codec", "bomb"),
    [(codec, bomb) for codec, bombs in BOMBS.items() for bomb in bombs],
    ids=lambda each: str(each)[:6],
)
def test_a_bomb_is_refused_without_its_memory(codec, bomb):
    decompress(codec, compress(codec, b"import the library first"), MIB)
    tracemalloc.start()
    try:
        with pytest.raises(BatchInvalid, match=str(MIB)):
            decompress(codec, bomb, MIB)
        assert tracemalloc.get_traced_memory()[1] < len(bomb) + 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_size_that_is_only_claimed_is_not_believed():
    raw = bytearray(zstandard.ZstdCompressor().compress(b"x" * 1000))
    assert zstandard.frame_content_size(bytes(raw)) == 1000
    raw[5:7] = b"\xff\xff"  # the size field: 65535 + 256
    with pytest.raises(BatchInvalid):
        decompress("zstd", bytes(raw), MIB)
    with pytest.raises(BatchInvalid):
        decompress("snappy", b"\xff\xff\xff\xff\x0f" + b"abc", MIB)


def test_zstd_streams_without_a_size_are_read():
    assert decompress("zstd", zstd_stream(TEXT), MIB) == TEXT


def test_a_zstd_window_may_be_as_large_as_its_limit():
    log = ZSTD_WINDOW_BYTES_MAX.bit_length() - 1
    assert decompress("zstd", zstd_stream(TEXT, window_log=log), MIB) == TEXT
    with pytest.raises(BatchInvalid, match="zstd"):
        decompress("zstd", zstd_stream(TEXT, window_log=log + 1), MIB)


def test_snappy_is_read_with_and_without_framing():
    raw = bytes(cramjam.snappy.compress_raw(TEXT))
    assert decompress("snappy", raw, MIB) == TEXT
    assert decompress("snappy", XERIAL + struct.pack(">i", len(raw)) + raw, MIB) == TEXT


@pytest.mark.parametrize("size", [0, -1, 1 << 30])
def test_a_snappy_block_of_impossible_size_is_refused(size):
    with pytest.raises(BatchInvalid, match="block"):
        decompress("snappy", XERIAL + struct.pack(">i", size) + b"abc", MIB)


@pytest.mark.parametrize("count", [FRAMES_MAX, FRAMES_MAX + 1])
@pytest.mark.parametrize("codec", ["gzip", "lz4"])
def test_frames_may_follow_each_other_up_to_their_limit(codec, count):
    packed = compress(codec, b"abc") * count
    if count <= FRAMES_MAX:
        assert decompress(codec, packed, MIB) == b"abc" * count
        return
    with pytest.raises(BatchInvalid, match="over 16"):
        decompress(codec, packed, MIB)


def test_a_flood_of_tiny_snappy_blocks_is_refused():
    block = bytes(cramjam.snappy.compress_raw(b"a"))
    framed = struct.pack(">i", len(block)) + block
    most = MIB // SNAPPY_BLOCK_BYTES_MIN + FRAMES_MAX
    assert decompress("snappy", XERIAL + framed * most, MIB) == b"a" * most
    with pytest.raises(BatchInvalid, match="blocks"):
        decompress("snappy", XERIAL + framed * (most + 1), MIB)
