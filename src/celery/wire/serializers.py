"""Python values to bodies and back (wire.md 1.8).

Vocabulary: a *serializer* is known by a name (`json`) and writes one *content type* (`application/json`)
in one *content encoding* (`utf-8`, or `binary` when the payload is not text). A receiver has an
*accept set* of content types, resolved once from the `accept_content` setting.

Rules:

1. What is not accepted is refused before a byte of it is decoded. `application/data` and `application/text`
   always pass (as they do at 5.7 peers) because they decode to plain bytes and text, unless `auth` took the
   first over, which verifies what it decodes.
2. A message without a content type is refused: guessing one is how it kills a 5.7 worker.
3. JSON is written by the standard library's C encoder. msgspec writes plain data six times faster, but it has
   native forms for datetimes, UUIDs, sets, NaN and others that peers cannot read, and the scan that would find those
   costs more than it saves. JSON is read by msgspec (five times faster on a small body); the standard library reads
   again what it rejects (NaN, lone surrogates), and what holds the marker of an extension type.
4. A name or type that is not ours is looked up in kombu's registry, where users register their own.
"""

from __future__ import annotations

import json.encoder
import pickle
import sys
from base64 import b64decode, b64encode
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from celery import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

JSON = "application/json"
RAW = "application/data"
TEXT = "application/text"

#: Content types that decode to what they are and need no permission.
_ALWAYS_ACCEPTED = frozenset({RAW, TEXT})
#: Installed with the extra of the same name.
_OPTIONAL = frozenset({"yaml"})
#: Steps of the way to what cannot be encoded that its error says.
_STEPS_SHOWN = 8
_PICKLE_PROTOCOL = 4  # what 5.7 writes; readable by every supported Python
_TYPE, _VALUE = "__type__", "__value__"
_TYPE_MARK = b'"__type__"'
_UTF8_NAMES = frozenset({"utf-8", "utf8", "ascii", "us-ascii", "binary", None})


class Serializer(NamedTuple):
    """One entry of the registry."""

    name: str
    content_type: str
    content_encoding: str
    encode: Callable[[Any], bytes]
    #: Takes the payload and the content encoding of the message.
    decode: Callable[[bytes, str | None], Any]


# --- JSON -------------------------------------------------------------------------------------------------------------


def _bytes_form(value: bytes) -> tuple[str, str]:
    try:
        return "bytes", value.decode()
    except UnicodeDecodeError:
        return "base64", b64encode(value).decode()


#: Extension types by class, most derived first: a datetime is a date too.
_EXTENSIONS: tuple[tuple[type, Callable[[Any], tuple[str, Any]]], ...] = (
    (datetime, lambda value: ("datetime", value.isoformat())),
    (date, lambda value: ("date", value.isoformat())),
    (time, lambda value: ("time", value.isoformat())),
    (Decimal, lambda value: ("decimal", str(value))),
    (UUID, lambda value: ("uuid", {"hex": value.hex})),
    (bytes, _bytes_form),
)

#: The way back, by the name on the wire.
_REVIVERS: Mapping[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: UUID(**value),
    "bytes": lambda value: value.encode(),
    "base64": b64decode,
}


def _extend(value: Any) -> Any:
    """Give the JSON form of a value that JSON does not know, or raise TypeError."""
    custom = getattr(value, "__json__", None)
    if custom is not None:
        return custom()
    for cls, form in _EXTENSIONS:
        if isinstance(value, cls):
            name, content = form(value)
            return {_TYPE: name, _VALUE: content}
    kombu_json = sys.modules.get("kombu.utils.json")
    if kombu_json is not None:  # the user may have registered the type there
        return kombu_json.JSONEncoder().default(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _revive(mapping: dict[str, Any]) -> Any:
    """Turn one decoded mapping back into the extension value it stands for, if it does."""
    if len(mapping) != 2 or _TYPE not in mapping or _VALUE not in mapping:
        return mapping
    reviver = _REVIVERS.get(mapping[_TYPE])
    if reviver is not None:
        return reviver(mapping[_VALUE])
    kombu_json = sys.modules.get("kombu.utils.json")
    if kombu_json is not None:
        return kombu_json.object_hook(mapping)
    raise ValueError(f"unknown extension type {mapping[_TYPE]!r}")


def _json_chunks() -> Callable[[Any, int], Iterable[str]]:
    """Make the encoder once: json.dumps builds a new one for every call, which is half its cost.

    No memory of visited containers is kept (a cycle ends in RecursionError), so that threads can share it.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the accelerator
        return json.JSONEncoder(default=_extend, check_circular=False).iterencode  # type: ignore[return-value] # second argument is a flag
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None, _extend, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True
    )
    return chunks


_encode_chunks = _json_chunks()
_decode_plain_json = msgspec.json.Decoder().decode


def _encode_json(value: Any) -> bytes:
    return "".join(_encode_chunks(value, 0)).encode()


def _marked(payload: bytes) -> bool:
    """Whether there may be extension types inside. One character is looked for in a fiftieth of the time of more, and
    more from the end in a sixth of the time that Python takes from the beginning.
    """
    return b"_" in payload and payload.rfind(_TYPE_MARK) >= 0


def _decode_json(payload: bytes, encoding: str | None) -> Any:
    if encoding not in _UTF8_NAMES:
        payload = payload.decode(encoding or "utf-8").encode()
    if _marked(payload):
        return json.loads(payload.decode(), object_hook=_revive)
    try:
        return _decode_plain_json(payload)
    except msgspec.MsgspecError:
        return json.loads(payload.decode())


# --- JSON with a few long strings -------------------------------------------------------------------------------------
#
# These are cut out before the rest is parsed. A parser goes through a string byte by byte, as it may have escapes.
# Where there are none, its end is looked for, and it is decoded, by what takes many bytes at once: 100 KB of ASCII in
# 15 us, not 38.
#
# Rules
#     1. Only a text without any backslash, in which each quotation mark begins or ends a string.
#     2. Only where the strings are few and next to nothing is left beside the long ones: going through the rest here
#        must cost less than the parser does.
#     3. What stands for a string is U+0000 and a number: no string of such a text begins so, as JSON has it escaped.
#     4. Keys stay. A value is followed by a comma or a bracket; what is not, as others may write it, stays too.
#     5. A control character in a long string, which JSON does not allow there, is taken as it is.

#: Bytes of a string from which on it is cut out, and of all of the rest.
_LONG, _REST = 1 << 12, 1 << 12
#: Strings of a text, at most.
_FEW = 64
#: Begins what stands for a string, in JSON and when it was read.
LONG_MARK, _READ = b'"\\u0000', "\0"
_VALUE_ENDS = (b",", b"]", b"}")


def cut_long_strings(text: bytes) -> tuple[bytes, list[str]] | None:
    """The text with marks in place of long strings, and these; None where it is not worth it.

    Raises:
        UnicodeDecodeError: a string is no UTF-8.
    """
    if len(text) < _LONG or b"\\" in text:
        return None
    pieces: list[bytes] = []
    strings: list[str] = []
    done = rest = end = 0
    with memoryview(text) as view:
        for _ in range(_FEW):
            begin = text.find(b'"', end)
            if begin < 0:
                break
            rest += begin - end
            end = text.find(b'"', begin + 1) + 1
            if not end:
                return None
            if end - begin > _LONG and text.startswith(_VALUE_ENDS, end):
                pieces += (text[done:begin], b'%b%d"' % (LONG_MARK, len(strings)))
                strings.append(str(view[begin + 1 : end - 1], "utf-8"))
                done = end
            else:
                rest += end - begin
            if rest > _REST:
                return None
        else:
            return None
    if not strings or rest + len(text) - end > _REST:
        return None
    pieces.append(text[done:])
    return b"".join(pieces), strings


def put_long_strings_back(read: list[Any] | dict[str, Any], strings: list[str]) -> None:
    """Put strings in place of their marks, in what was read of the text."""
    todo: list[Any] = [read]
    while todo:
        box = todo.pop()
        for place, value in enumerate(box) if type(box) is list else box.items():
            if type(value) is str:
                if value.startswith(_READ):
                    box[place] = strings[int(value[1:])]
            elif type(value) is list or type(value) is dict:
                todo.append(value)


# --- the others -------------------------------------------------------------------------------------------------------


def _encode_pickle(value: Any) -> bytes:
    return pickle.dumps(value, _PICKLE_PROTOCOL)


def _decode_pickle(payload: bytes, _encoding: str | None) -> Any:
    return pickle.loads(payload)  # noqa: S301 - only where the user accepts pickle


def _encode_yaml(value: Any) -> bytes:
    import yaml

    text: str = yaml.safe_dump(value)
    return text.encode()


def _decode_yaml(payload: bytes, encoding: str | None) -> Any:
    import yaml

    return yaml.safe_load(_text(payload, encoding))


def _require_plain(value: Any) -> None:
    """Refuse what msgspec would silently turn into something else (a set into a list, a UUID into text)."""
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(key)
            _require_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_plain(item)
    elif value is not None and not isinstance(value, (str, int, float, bytes, bytearray, memoryview)):
        raise TypeError(f"Object of type {type(value).__name__} is not MessagePack serializable")


def _encode_msgpack(value: Any) -> bytes:
    _require_plain(value)
    return msgspec.msgpack.encode(value)


def _decode_msgpack(payload: bytes, _encoding: str | None) -> Any:
    return msgspec.msgpack.decode(payload)


def _encode_raw(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"Object of type {type(value).__name__} is neither bytes nor text")


def _text(payload: bytes, encoding: str | None) -> str:
    return payload.decode("utf-8" if encoding in _UTF8_NAMES else encoding or "utf-8")


def _decode_raw(payload: bytes, encoding: str | None) -> bytes | str:
    return payload if encoding in {"binary", None} else _text(payload, encoding)


# --- the registry -----------------------------------------------------------------------------------------------------

_by_name: dict[str, Serializer] = {}
_by_type: dict[str, Serializer] = {}


def register(serializer: Serializer) -> None:
    """Add a serializer, or replace the one of that name and content type."""
    _by_name[serializer.name] = serializer
    _by_type[serializer.content_type] = serializer


for _entry in (
    Serializer("json", JSON, "utf-8", _encode_json, _decode_json),
    Serializer("pickle", "application/x-python-serialize", "binary", _encode_pickle, _decode_pickle),
    Serializer("yaml", "application/x-yaml", "utf-8", _encode_yaml, _decode_yaml),
    Serializer("msgpack", "application/x-msgpack", "binary", _encode_msgpack, _decode_msgpack),
    Serializer("raw", RAW, "binary", _encode_raw, _decode_raw),
    Serializer("text", "text/plain", "utf-8", _encode_raw, _text),
):
    register(_entry)
_by_type[TEXT] = _by_name["text"]


def known_names() -> list[str]:
    """Give the names that `dumps` takes, kombu's included when it is imported; for error texts."""
    kombu = sys.modules.get("kombu.serialization")
    return sorted(_by_name.keys() | (kombu.registry.name_to_type.keys() if kombu else ()))


def resolve_accept(names: Iterable[str]) -> frozenset[str]:
    """Turn the names and content types of an `accept_content` setting (SET-001) into an accept set.

    Args:
        names: serializer names (`json`) and content types (`application/json`), mixed.

    Raises:
        ImproperlyConfigured: a name is unknown, or its library is not installed.
    """
    if isinstance(names, str):
        raise exceptions.ImproperlyConfigured(
            f"accept_content is the text {names!r}, but must be a list of names: write [{names!r}]"
        )
    return frozenset(name if "/" in name else content_of(name)[0] for name in names)


def content_of(name: str) -> tuple[str, str | None]:
    """Give the content type and encoding that a serializer writes; the encoding is None where only kombu knows it.

    Raises:
        ImproperlyConfigured: the name is unknown, or its library is not installed.
    """
    entry = _by_name.get(name)
    if entry is None:
        from kombu.serialization import registry

        content_type: str | None = registry.name_to_type.get(name)
        if content_type is None:
            raise _unknown(name)
        return content_type, None
    if name in _OPTIONAL:
        try:
            entry.encode(None)
        except ImportError as exc:
            raise _missing_library(name, exc) from exc
    return entry.content_type, entry.content_encoding


def _missing_library(name: str, error: ImportError) -> Exception:
    return exceptions.ImproperlyConfigured(
        f"the serializer {name!r} needs a library that is not installed ({error}): pip install 'celeriac[{name}]'"
    )


def _unknown(name: str) -> Exception:
    return exceptions.ImproperlyConfigured(
        f"there is no serializer named {name!r}: use one of {', '.join(known_names())}, "
        "or register yours with kombu.serialization.register() before it is used"
    )


# --- encoding ---------------------------------------------------------------------------------------------------------


def dumps(obj: Any, serializer: str = "json", *, names: tuple[str, ...] = ()) -> tuple[str, str, bytes]:
    """Serialize a value.

    Args:
        obj: the value.
        serializer: name of a serializer.
        names: what to call the items of `obj` in an error text, if it is a sequence.

    Returns:
        Content type, content encoding and payload.

    Raises:
        EncodeError: the serializer cannot express the value; says where inside it.
        ImproperlyConfigured: the serializer is unknown or its library not installed.
    """
    entry = _by_name.get(serializer)
    if entry is None:
        return _dumps_by_kombu(obj, serializer)
    try:
        return entry.content_type, entry.content_encoding, entry.encode(obj)
    except Exception as exc:
        if serializer in _OPTIONAL and isinstance(exc, ImportError):
            raise _missing_library(serializer, exc) from exc
        raise exceptions.EncodeError(_complaint(obj, entry, names, exc)) from exc


def _dumps_by_kombu(obj: Any, name: str) -> tuple[str, str, bytes]:
    from kombu import serialization

    if name not in serialization.registry.name_to_type:
        raise _unknown(name)
    content_type, content_encoding, payload = serialization.dumps(obj, serializer=name)  # type: ignore[no-untyped-call] # kombu's is untyped
    return content_type, content_encoding, payload.encode() if isinstance(payload, str) else bytes(payload)


def _complaint(obj: Any, entry: Serializer, names: tuple[str, ...], error: Exception) -> str:
    """Say which part of a value a serializer cannot express, and what to do."""
    path, culprit = _find_unencodable(obj, entry.encode)
    whole = "value"
    if path and names and isinstance(path[0], int) and path[0] < len(names):
        whole = names[path.pop(0)]
    steps = [f"[{step!r}]" for step in path]
    if len(steps) > _STEPS_SHOWN:
        half = _STEPS_SHOWN // 2
        steps[half:-half] = [f"...({len(steps) - _STEPS_SHOWN} more)..."]
    where = whole + "".join(steps)
    return (
        f"the serializer {entry.name!r} cannot encode {where}, of type {type(culprit).__name__}: {error}. "
        "Pass plain data instead, or use another serializer"
    )


def _find_unencodable(obj: Any, encode: Callable[[Any], bytes]) -> tuple[list[Any], Any]:
    """Walk down to the smallest part that fails by itself. Slow, and only for errors."""
    path: list[Any] = []
    above: set[int] = set()
    while id(obj) not in above:  # a cycle has no smallest part
        above.add(id(obj))
        for step, item in _items(obj):
            if not _encodes(item, encode):
                path.append(step)
                obj = item
                break
        else:
            break
    return path, obj


def _items(obj: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(obj, dict):
        return obj.items()
    return enumerate(obj) if isinstance(obj, (list, tuple)) else ()


def _encodes(item: Any, encode: Callable[[Any], bytes]) -> bool:
    try:
        encode(item)
    except Exception:  # noqa: BLE001 - users' objects may raise anything
        return False
    return True


def can_encode(obj: Any, serializer: str = "json") -> bool:
    """Tell whether `dumps` would succeed."""
    try:
        dumps(obj, serializer)
    except exceptions.EncodeError:
        return False
    return True


# --- decoding ---------------------------------------------------------------------------------------------------------


def loads(
    payload: bytes | str,
    content_type: str | None,
    content_encoding: str | None,
    accept: frozenset[str],
) -> Any:
    """Deserialize a payload, if its type is accepted.

    Args:
        payload: as it came, decompressed.
        content_type: of the message.
        content_encoding: of the message; None means what the serializer writes.
        accept: content types, from `resolve_accept`.

    Raises:
        ContentDisallowed: the type is missing or not accepted; nothing was decoded.
        DecodeError: the payload is broken, or nobody knows the type.
    """
    if content_type not in accept and content_type not in _ALWAYS_ACCEPTED:
        raise _refusal(content_type, accept)
    entry = _by_type.get(content_type)
    try:
        if isinstance(payload, str):
            payload = payload.encode()
        if entry is None:
            return _loads_by_kombu(payload, content_type, content_encoding)
        return entry.decode(payload, content_encoding)
    except exceptions.DecodeError:
        raise
    except Exception as exc:
        raise exceptions.DecodeError(f"the body is not valid {content_type}: {exc}") from exc


def is_plain_json(
    payload: bytes, content_type: str | None, content_encoding: str | None, accept: frozenset[str]
) -> bool:
    """Whether `loads` would read a payload as JSON without extension types, which any JSON parser can."""
    return (
        content_type == JSON
        and content_type in accept
        and content_encoding in _UTF8_NAMES
        and _by_type[JSON].decode is _decode_json
        and not _marked(payload)
    )


def _refusal(content_type: str | None, accept: frozenset[str]) -> Exception:
    if content_type is None:
        return exceptions.ContentDisallowed("the message has no content type: its producer must set one")
    name = _by_type[content_type].name if content_type in _by_type else content_type
    return exceptions.ContentDisallowed(
        f"content of type {content_type} is not accepted (accepted: {', '.join(sorted(accept)) or 'nothing'}): "
        f"if you trust whoever can publish, add {name!r} to accept_content"
    )


def _loads_by_kombu(payload: bytes, content_type: str, content_encoding: str | None) -> Any:
    from kombu import serialization

    if content_type not in serialization.registry.type_to_name:
        raise exceptions.DecodeError(
            f"no serializer is registered for content of type {content_type} (known: {', '.join(known_names())})"
        )
    return serialization.loads(payload, content_type, content_encoding or "utf-8", force=True)  # type: ignore[no-untyped-call] # same
