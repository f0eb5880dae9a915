"""Compressed bodies and compressed results (wire.md 1.9 and 4.4).

A method has one content type, which is what travels, and aliases, which are what users write in settings.
`application/x-gzip` is zlib format on the wire, whatever its name says. The libraries are loaded on first use.
A method that is not in the table is looked up where users register their own, in kombu.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from celery import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable

    Transform = Callable[[bytes], bytes]

#: What a compressed result starts with; the content type, a NUL and the compressed bytes follow.
_RESULT_MARK = b"\x00celery-compressed\x00"


class Method(NamedTuple):
    """One way to compress."""

    content_type: str
    #: Has the functions `compress` and `decompress`, of bytes to bytes.
    module: str
    #: Which optional dependency of ours brings the module; None when Python has it.
    extra: str | None = None
    #: Replaces the module's `decompress`.
    expand: Transform | None = None


def _expand_zstd(body: bytes) -> bytes:
    """Accept frames without a content size too, which other languages stream and `zstandard.decompress` refuses."""
    frame = import_module("zstandard").ZstdDecompressor().decompressobj()
    expanded: bytes = frame.decompress(body)
    if not frame.eof:
        raise ValueError("the frame is cut short")
    return expanded


_METHODS = (
    (Method("application/x-gzip", "zlib"), ("gzip", "zlib")),
    (Method("application/x-bz2", "bz2"), ("bzip2", "bzip")),
    (Method("application/x-lzma", "lzma"), ("lzma", "xz")),
    (Method("application/x-brotli", "brotli", "brotli"), ("brotli",)),
    (Method("application/zstd", "zstandard", "zstd", _expand_zstd), ("zstd", "zstandard")),
)
_BY_NAME = {name: method for method, aliases in _METHODS for name in (method.content_type, *aliases)}


def content_type_of(name: str) -> str:
    """Resolve an alias, and check that its library is there.

    Args:
        name: alias (`zlib`) or content type (`application/x-gzip`).

    Raises:
        ImproperlyConfigured: the method is unknown or its library not installed.
    """
    return _transforms(name)[0]


def compress(body: bytes, name: str) -> tuple[bytes, str]:
    """Compress.

    Args:
        body: the serialized body.
        name: alias or content type of a method, as in the `task_compression` setting (SET-169).

    Returns:
        The compressed bytes and the content type for the `compression` header.

    Raises:
        ImproperlyConfigured: the method is unknown or its library not installed.
    """
    content_type, squeeze, _ = _transforms(name)
    return squeeze(body), content_type


def decompress(body: bytes, name: str) -> bytes:
    """Undo `compress`. The result is as large as the sender made it.

    Args:
        body: the compressed bytes.
        name: the content type from the `compression` header; an alias is taken too.

    Raises:
        DecodeError: the bytes are broken, or this process cannot undo the method.
    """
    try:
        return _transforms(name)[2](body)
    except exceptions.ImproperlyConfigured as exc:
        raise exceptions.DecodeError(f"cannot decompress the body: {exc}") from exc
    except Exception as exc:  # every library has its own error class
        raise exceptions.DecodeError(f"the body is not valid {name}: {exc}") from exc


def pack_result(payload: bytes, name: str) -> bytes:
    """Compress and mark a stored result, so that any reader knows it for one (`result_compression`, SET-141)."""
    body, content_type = compress(payload, name)
    return b"".join((_RESULT_MARK, content_type.encode(), b"\x00", body))


def unpack_result(value: bytes) -> bytes:
    """Undo `pack_result`; a value without the mark comes back as it is.

    Raises:
        DecodeError: marked, but broken or of a method this process cannot undo.
    """
    if not value.startswith(_RESULT_MARK):
        return value
    content_type, _, body = value[len(_RESULT_MARK) :].partition(b"\x00")
    return decompress(body, content_type.decode("ascii", "replace"))


def _transforms(name: str) -> tuple[str, Transform, Transform]:
    """Find content type, compressor and decompressor."""
    method = _BY_NAME.get(name)
    if method is None:
        return _kombu_transforms(name)
    try:
        module = import_module(method.module)
    except ImportError as exc:
        cure = (
            f"pip install 'celeriac[{method.extra}]'" if method.extra else f"this Python was built without {exc.name}"
        )
        raise exceptions.ImproperlyConfigured(f"the compression {name!r} is not available: {cure}") from exc
    return method.content_type, module.compress, method.expand or module.decompress


def _kombu_transforms(name: str) -> tuple[str, Transform, Transform]:
    from kombu import compression

    try:
        squeeze, content_type = compression.get_encoder(name)  # type: ignore[no-untyped-call] # kombu's is untyped
        return content_type, squeeze, compression.get_decoder(content_type)  # type: ignore[no-untyped-call] # same
    except KeyError:
        raise exceptions.ImproperlyConfigured(
            f"there is no compression named {name!r}: use one of {', '.join(sorted(_BY_NAME))}"
        ) from None
