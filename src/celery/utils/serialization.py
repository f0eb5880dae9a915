"""Getting exceptions and plain data across process borders."""
from __future__ import annotations

import pickle
from base64 import b64decode as _b64decode
from base64 import b64encode as _b64encode
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = (
    "UnpickleableExceptionWrapper",
    "b64decode",
    "b64encode",
    "create_exception_cls",
    "ensure_serializable",
    "find_pickleable_exception",
    "get_pickleable_etype",
    "get_pickleable_exception",
    "get_pickled_exception",
    "jsonify",
    "maybe_reraise",
    "raise_with_context",
    "strtobool",
    "subclass_exception",
)

STRTOBOOL_DEFAULT_TABLE = {
    "false": False, "no": False, "0": False, "off": False, "true": True, "yes": True, "1": True, "on": True,
}  # fmt: skip

# Bases that every exception has; one of these says nothing about the failure.
_TOO_GENERAL = (Exception, BaseException, object)


def subclass_exception(name: str, parent: type[BaseException], module: str) -> type[BaseException]:
    """Make an exception class."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(
    name: str, module: str, parent: type[BaseException] | None = None
) -> type[BaseException]:
    """Make an exception class that stands for one that is not to be found here."""
    return subclass_exception(name, parent or Exception, module)


def _survives(exc: Any, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> bool:
    try:
        loads(dumps(exc))
    except Exception:  # noqa: BLE001 - constructors are user code and may raise anything
        return False
    return True


def find_pickleable_exception(
    exc: BaseException,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> BaseException | None:
    """Return the exception as the closest of its base classes that can be pickled, or None."""
    for base in type(exc).__mro__:
        if base in _TOO_GENERAL:
            return None
        try:
            candidate = base(*exc.args)
        except Exception:  # noqa: BLE001, S112 - constructors are user code and may raise anything
            continue
        if _survives(candidate, loads, dumps):
            return candidate  # type: ignore[no-any-return] # the bases of an exception up to Exception are exceptions
    return None


def get_pickleable_etype(
    cls: type[BaseException],
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> type[BaseException]:
    """Return the closest base class that can be pickled by name."""
    for base in cls.__mro__:
        if base in _TOO_GENERAL:
            break
        if _survives(base, loads, dumps):
            return base
    return Exception


class UnpickleableExceptionWrapper(Exception):  # noqa: N818 - the documented name
    """Stands for an exception that cannot be pickled.

    Args:
        exc_module: Module of its class.
        exc_cls_name: Name of its class.
        exc_args: Its arguments; what cannot be pickled is replaced by its repr.
        text: Its representation.
    """

    def __init__(
        self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None
    ) -> None:
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = tuple(ensure_serializable(exc_args, pickle.dumps))
        self.text = text
        super().__init__(exc_module, exc_cls_name, self.exc_args, text)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Wrap an exception."""
        return cls(type(exc).__module__, type(exc).__name__, getattr(exc, "args", ()), _repr(exc))

    def restore(self) -> BaseException:
        """Return an exception of a made-up class of the same name."""
        return create_exception_cls(self.exc_cls_name, self.exc_module)(*self.exc_args)

    def __str__(self) -> str:
        return self.text or ""


def _repr(obj: Any) -> str:
    try:
        return repr(obj)
    except Exception as exc:  # noqa: BLE001 - a repr is user code and may raise anything
        return f"<{type(obj).__name__} whose repr raised {type(exc).__name__}>"


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Return the exception, or what can be pickled in its place: a base class of it, or a wrapper."""
    if _survives(exc, pickle.loads, pickle.dumps):
        return exc
    return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)


def get_pickled_exception(exc: BaseException) -> BaseException:
    """Undo `get_pickleable_exception`, as far as possible."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Replace by its repr whatever ``encoder`` cannot encode."""

    def safe(item: Any) -> Any:
        try:
            encoder(item)
        except Exception:  # noqa: BLE001 - any failure means the same
            return _repr(item)
        return item

    return tuple(safe(item) for item in items)


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise ``exc``, caused by the exception being handled, if any."""
    import sys

    current = sys.exc_info()[1]
    if current is None or current is exc or exc.__cause__ is not None:
        raise exc
    raise exc from current


def maybe_reraise() -> None:
    """Raise the exception being handled again, if any."""
    import sys

    current = sys.exc_info()[1]
    if current is not None:
        raise current


def b64encode(s: bytes | str) -> str:
    """Encode bytes, or text as UTF-8, as base 64."""
    return _b64encode(s.encode() if isinstance(s, str) else s).decode()


def b64decode(s: bytes | str) -> bytes:
    """Undo `b64encode`."""
    return _b64decode(s)


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """Return the truth that text such as ``yes``, ``off`` or ``1`` stands for; leave other types alone.

    Raises:
        TypeError: The text is none of those.
    """
    if not isinstance(term, str):
        return term
    table = STRTOBOOL_DEFAULT_TABLE if table is None else table
    try:
        return table[term.lower()]
    except KeyError:
        raise TypeError(f"{term!r} does not stand for true or false; use one of {', '.join(table)}") from None


def jsonify(
    obj: Any,
    builtin_types: tuple[type, ...] = (int, float, str),
    key: Any = None,
    keyfilter: Callable[[Any], bool] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """Return nested data with nothing in it but what JSON has.

    Args:
        obj: The data.
        builtin_types: Types left as they are.
        key: Where in its parent ``obj`` is, for the error.
        keyfilter: Tells which keys of dicts to keep.
        unknown_type_filter: Converts what has another type.

    Raises:
        ValueError: A type that JSON lacks, without ``unknown_type_filter``.
    """
    if hasattr(obj, "__json__"):
        obj = obj.__json__()
    if obj is None or isinstance(obj, builtin_types):
        return obj
    options: Any = {"builtin_types": builtin_types, "keyfilter": keyfilter, "unknown_type_filter": unknown_type_filter}
    if isinstance(obj, tuple | list):
        return [jsonify(item, key=key, **options) for item in obj]
    if isinstance(obj, dict):
        kept = ((name, value) for name, value in obj.items() if keyfilter is None or keyfilter(name))
        return {name: jsonify(value, key=name, **options) for name, value in kept}
    if isinstance(obj, datetime | date):
        return obj.isoformat()
    if isinstance(obj, time):
        return obj.isoformat(timespec="milliseconds")
    if isinstance(obj, timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"{obj!r} of type {type(obj).__name__} (key: {key!r}) has no form in JSON")
    return unknown_type_filter(obj)
