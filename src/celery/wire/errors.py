"""Exceptions to data and back (wire.md 4.2, API-062).

An exception travels as `{"exc_type": qualified name, "exc_message": [constructor arguments], "exc_module": module}`.
Its cause, context, attributes and traceback stay behind (the traceback text has a field of its own in the record).
With the pickle serializer the exception object itself travels.

The reader trusts nothing: it looks the class up in modules that are already imported, takes only exception classes,
and makes up a class of that name where there is none to find. So a result can be read anywhere, and reading one
imports nothing and calls nothing but an exception's constructor.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from celery.exceptions import SecurityError
from celery.utils.serialization import (
    UnpickleableExceptionWrapper,
    get_pickleable_exception,
    get_pickled_exception,
)
from celery.wire.serializers import can_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Peers write these classes of theirs under billiard's name; ours have the same names.
_MODULE_OF_PEERS = {"billiard.exceptions": "celery.exceptions"}
#: Where made-up classes claim to live: when the writer named no module, and when the named class is not here.
_NO_MODULE, _NOT_FOUND = "celery.backends.base", "celery.exceptions"


def encode_exception(exc: BaseException, serializer: str = "json") -> Any:
    """Give the form of an exception that a result record holds.

    Args:
        exc: the exception.
        serializer: the name of the one that will write the record.

    Returns:
        The mapping of wire.md 4.2, in which arguments that do not serialize are replaced by their repr; with pickle,
        the exception itself or, if it cannot be pickled and read again, the nearest that can.
    """
    if serializer == "pickle":
        return get_pickleable_exception(exc)
    cls = type(exc)
    return {
        "exc_type": cls.__qualname__,
        "exc_message": [arg if can_encode(arg, serializer) else _safe_repr(arg) for arg in exc.args],
        "exc_module": cls.__module__,
    }


def decode_exception(value: Any) -> BaseException | None:
    """Rebuild what `encode_exception` gave.

    Args:
        value: from a record: the mapping, an exception (pickle), or None (some failures have no exception).

    Raises:
        SecurityError: the name belongs to something that is not an exception class.
        TypeError: the value is neither an exception nor a mapping.
        ValueError: the mapping names no type.
    """
    if value is None:
        return None
    if isinstance(value, BaseException):
        return get_pickled_exception(value)
    if not isinstance(value, dict):
        raise TypeError(
            f"a stored exception must be a mapping with exc_type, exc_message and exc_module, not {value!r}"
        )
    if not value.get("exc_type"):
        raise ValueError(f"a stored exception must name its exc_type, but this does not: {value!r}")
    cls = _find_class(value)
    message = value.get("exc_message")
    args = message if isinstance(message, (list, tuple)) else (message,)
    try:
        return cls(*args)
    except Exception:  # noqa: BLE001 - constructors of users may want other arguments than they kept
        return _nearest(cls, args)


def _nearest(cls: type[BaseException], args: Any) -> BaseException:
    """What stands for an exception that its class cannot be made of: what `except` clauses for a base of it catch."""
    for base in cls.__mro__[1:]:
        if base in (Exception, BaseException):
            break
        with contextlib.suppress(Exception):  # as above
            return base(*args)  # type: ignore[no-any-return]  # what comes before Exception is one
    text = f"{cls.__name__}({', '.join(map(repr, args))})"
    return UnpickleableExceptionWrapper(cls.__module__, cls.__name__, args, text)


def _find_class(value: Mapping[str, Any]) -> type[BaseException]:
    name, module_name = str(value["exc_type"]), value.get("exc_module")
    if module_name is None:
        return _made_up_class(name, _NO_MODULE)
    try:
        found: Any = sys.modules[_MODULE_OF_PEERS.get(module_name, module_name)]
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except (KeyError, AttributeError, TypeError):
        return _made_up_class(name, _NOT_FOUND)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    raise SecurityError(f"a stored result names {module_name}.{name} as its exception, which is not an exception class")


def _made_up_class(name: str, module: str) -> type[Exception]:
    return type(name, (Exception,), {"__module__": module})


def _safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - nothing that a user's repr does may hide the task's own error
        return f"<{type(value).__name__} whose repr failed: {type(exc).__name__}>"
