"""wire.md 1.9 (bodies) and 4.4 (results)."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.exceptions import DecodeError, ImproperlyConfigured
from celery.wire.compression import compress, content_type_of, decompress, pack_result, unpack_result

VECTORS = json.loads((Path(__file__).parents[2] / "data/wire_vectors/results_redis_compressed.json").read_text())
CONTENT_TYPES = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bz2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
}
ALIASES = ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd", *CONTENT_TYPES.values()]


@pytest.mark.parametrize("alias", ALIASES)
def test_what_was_compressed_comes_back(alias):
    body, content_type = compress(b"abc" * 100, alias)
    assert content_type == content_type_of(alias)
    assert content_type in CONTENT_TYPES.values()
    assert len(body) < 100
    assert decompress(body, content_type) == b"abc" * 100


def test_gzip_is_zlib_format():
    assert zlib.decompress(compress(b"abc", "gzip")[0]) == b"abc"


def test_a_streamed_zstd_frame_is_read():
    zstandard = pytest.importorskip("zstandard")
    stream = zstandard.ZstdCompressor().compressobj()
    assert decompress(stream.compress(b"abc") + stream.flush(), "application/zstd") == b"abc"


@pytest.mark.parametrize("content_type", sorted(set(CONTENT_TYPES.values())))
def test_broken_and_truncated_bodies_are_decode_errors(content_type):
    body, _ = compress(b"abc" * 100, content_type)
    for broken in (b"nonsense", body[:-5]):
        with pytest.raises(DecodeError, match=content_type):
            decompress(broken, content_type)


def test_an_unknown_method_is_named_with_the_known_ones():
    with pytest.raises(ImproperlyConfigured, match=r"'snappy'.*bzip2.*zlib"):
        compress(b"", "snappy")
    with pytest.raises(DecodeError, match=r"'x/snappy'.*zlib"):
        decompress(b"", "x/snappy")


def test_a_method_registered_with_kombu_is_used():
    from kombu import compression

    compression.register(lambda body: body[::-1], lambda body: body[::-1], "x/reverse-test", ["reverse-test"])
    assert compress(b"abc", "reverse-test") == (b"cba", "x/reverse-test")
    assert decompress(b"cba", "x/reverse-test") == b"abc"


@pytest.mark.parametrize(
    "vector", [vector for vector in VECTORS["vectors"] if "decoded" in vector], ids=lambda vector: vector["key"]
)
def test_a_captured_compressed_result_is_read(vector):
    assert json.loads(unpack_result(b64decode(vector["value_b64"]))) == vector["decoded"]


def test_a_result_is_framed_as_captured():
    captured = b64decode(VECTORS["vectors"][0]["value_b64"])
    framed = pack_result(unpack_result(captured), "zlib")
    assert framed.split(b"\x00")[:3] == captured.split(b"\x00")[:3]
    assert unpack_result(framed) == unpack_result(captured)


@given(st.binary().filter(lambda value: not value.startswith(b"\x00celery")))
def test_a_plain_result_is_left_alone(value):
    assert unpack_result(value) == value


def test_a_broken_marked_result_is_a_decode_error():
    with pytest.raises(DecodeError):
        unpack_result(b"\x00celery-compressed\x00application/x-gzip")
