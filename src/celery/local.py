"""Stand-ins for objects that are found, or made, when first used (API-008, SIG-003).

`Proxy` asks a function for its object at every use: ``current_app`` and ``current_task`` are such, since the answer
depends on thread and moment. `PromiseProxy` asks once and keeps the answer: what ``@app.task`` returns is a promise
of a task, made when the application is finalised or the task is first used.

A stand-in delegates every operation to the object, including ``__class__``, so that ``isinstance`` sees the object's
class. ``type(x) is PromiseProxy`` and ``isinstance(x, PromiseProxy)`` still see the promise without evaluating it.
"""
from __future__ import annotations

import copy
import operator
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ("PromiseProxy", "Proxy", "class_property", "maybe_evaluate", "try_import")

T = TypeVar("T")
_UNSET: Any = object()
_get = object.__getattribute__
_set = object.__setattr__


def try_import(module: str, default: Any = None) -> Any:
    """Import ``module``; return ``default`` if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return default


def maybe_evaluate(obj: Any) -> Any:
    """Return the object behind a promise (making it if need be), and anything else as it is."""
    return obj.__maybe_evaluate__() if isinstance(obj, PromiseProxy) else obj


class class_property:  # noqa: N801 - the documented name
    """A property of the class itself, readable (and, given a setter, writable) through class instances too."""

    def __init__(self, getter: Callable[[Any], Any], setter: Callable[[Any, Any], None] | None = None) -> None:
        self._getter = getter
        self._setter = setter

    def __get__(self, obj: Any, cls: type | None = None) -> Any:
        return self._getter(type(obj) if cls is None else cls)

    def __set__(self, obj: Any, value: Any) -> None:
        if self._setter is None:
            raise AttributeError("this class property has no setter")
        self._setter(type(obj), value)

    def setter(self, setter: Callable[[Any, Any], None]) -> class_property:
        """Return a property with the same getter and this setter."""
        return class_property(self._getter, setter)


class _OwnOrDelegated(str):
    """Value of an attribute such as ``__doc__`` on a class whose instances give that of their object.

    A str, because Python reads ``__module__`` of a class from its dictionary without asking descriptors.
    """

    __slots__ = ("attribute",)
    attribute: str

    @classmethod
    def make(cls, of_class: str, attribute: str) -> _OwnOrDelegated:
        made = cls(of_class)
        made.attribute = attribute
        return made

    def __get__(self, obj: Any, cls: type | None = None) -> Any:
        return str(self) if obj is None else obj._describe(self.attribute)


def _itself(obj: T) -> T:
    return obj


class Proxy:
    """Stand-in for whatever a function returns at the moment of use.

    Args:
        local: Returns the object.
        args: Positional arguments for ``local``.
        kwargs: Keyword arguments for ``local``.
        name: ``__name__`` of the stand-in; the object's own if None.
        __doc__: Docstring of the stand-in; the object's own if None.
    """

    __slots__ = ("_args", "_kwargs", "_local", "_own")

    def __init__(
        self,
        local: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        _set(self, "_local", local)
        _set(self, "_args", args or ())
        _set(self, "_kwargs", kwargs or {})
        _set(self, "_own", {"__name__": name, "__doc__": __doc__})

    @property  # type: ignore[misc] # assigning a class is not delegated
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @property
    def __dict__(self) -> Any:  # type: ignore[override] # replacing the dict is not delegated
        return self._get_current_object().__dict__

    @property
    def __name__(self) -> Any:
        return self._describe("__name__")

    def _describe(self, attribute: str) -> Any:
        own = _get(self, "_own").get(attribute)
        return getattr(self._get_current_object(), attribute) if own is None else own

    def _get_current_object(self) -> Any:
        """Return the object behind the stand-in, for code that wants it bare or uses it often."""
        return _get(self, "_local")(*_get(self, "_args"), **_get(self, "_kwargs"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is pickled is the object: the place where it is unpickled has no use for the function.
        return _itself, (self._get_current_object(),)

    def __copy__(self) -> Any:
        return copy.copy(self._get_current_object())

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())


class PromiseProxy(Proxy):
    """Stand-in for an object that is made once, at first use.

    If making it raises, the promise stays open and the next use tries again.
    """

    __slots__ = ("__weakref__", "_callbacks", "_thing")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _set(self, "_thing", _UNSET)
        _set(self, "_callbacks", [])

    def _get_current_object(self) -> Any:
        thing = _get(self, "_thing")
        return self.__evaluate__() if thing is _UNSET else thing

    def __evaluate__(self) -> Any:
        """Make the object unless that is done, run what waits for it, and return it."""
        if not self.__evaluated__():
            thing = Proxy._get_current_object(self)
            if not self.__evaluated__():  # of threads that get here together, the first has made it
                _set(self, "_thing", thing)
        callbacks = _get(self, "_callbacks")
        _set(self, "_callbacks", [])
        for fun, args, kwargs in callbacks:
            fun(*args, **kwargs)
        return _get(self, "_thing")

    def __evaluated__(self) -> bool:
        """Tell whether the object has been made."""
        return _get(self, "_thing") is not _UNSET

    def __maybe_evaluate__(self) -> Any:
        """Return the object, making it if need be."""
        return self._get_current_object()

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call ``fun(*args, **kwargs)`` once the object has been made: now, if it has."""
        if self.__evaluated__():
            fun(*args, **kwargs)
        else:
            _get(self, "_callbacks").append((fun, args, kwargs))


def _forward(fun: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: fun(self._get_current_object(), *args, **kwargs)


def _reflect(fun: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: fun(other, self._get_current_object())


# Python looks special methods up on the type, so each needs an entry here.
_UNARY: Mapping[str, Callable[[Any], Any]] = {
    "repr": repr, "str": str, "bytes": bytes, "bool": bool, "hash": hash, "len": len, "iter": iter, "next": next,
    "reversed": reversed, "int": int, "float": float, "complex": complex, "index": operator.index,
    "neg": operator.neg, "pos": operator.pos, "abs": abs, "invert": operator.invert,
}  # fmt: skip
_COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "matmul": operator.matmul,
    "truediv": operator.truediv, "floordiv": operator.floordiv, "mod": operator.mod, "divmod": divmod,
    "pow": pow, "lshift": operator.lshift, "rshift": operator.rshift, "and": operator.and_, "or": operator.or_,
    "xor": operator.xor,
}  # fmt: skip
_ITEMS: Mapping[str, Callable[..., Any]] = {
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
}  # fmt: skip


def _special_methods() -> Iterator[tuple[str, Any]]:
    for name, unary in _UNARY.items():
        yield f"__{name}__", _forward(unary)
    for name in _COMPARISONS:
        yield f"__{name}__", _forward(getattr(operator, name))
    for name, item in _ITEMS.items():
        yield f"__{name}__", _forward(item)
    for name, binary in _BINARY.items():
        yield f"__{name}__", _forward(binary)
        yield f"__r{name}__", _reflect(binary)
    yield "__contains__", _forward(operator.contains)
    yield "__format__", _forward(format)
    yield "__round__", _forward(round)
    yield "__call__", _forward(lambda obj, *args, **kwargs: obj(*args, **kwargs))
    yield "__enter__", _forward(lambda obj: obj.__enter__())
    yield "__exit__", _forward(lambda obj, *exc: obj.__exit__(*exc))


for _name, _method in _special_methods():
    setattr(Proxy, _name, _method)
for _class in (Proxy, PromiseProxy):
    for _attribute in ("__doc__", "__module__"):
        setattr(_class, _attribute, _OwnOrDelegated.make(getattr(_class, _attribute), _attribute))
