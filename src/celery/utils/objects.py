"""Tools around attributes and classes."""
from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container

__all__ = ("Bunch", "FallbackContext", "getitem_property", "mro_lookup")


class Bunch:
    """An object with the attributes given."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Container[type] | None = None, monkey_patched: Container[str] | None = None
) -> type | None:
    """Return the class, among ``cls`` and its bases, that defines ``attr``.

    Args:
        cls: Where to begin.
        attr: Name of the attribute.
        stop: Bases at which to give up.
        monkey_patched: Modules; if a class in ``stop`` has the attribute from another module, it counts as defined.
    """
    for base in cls.__mro__:
        if stop and base in stop:
            if monkey_patched is not None and attr in base.__dict__:
                patched = getattr(base.__dict__[attr], "__module__", None) not in monkey_patched
                return base if patched else None
            return None
        if attr in base.__dict__:
            return base
    return None


class FallbackContext:
    """Context manager around an object that was given, or one made for the block.

    Args:
        provided: The object, or None; it is left open.
        fallback: Returns a context manager to use instead.
        fb_args: Arguments for it.
        fb_kwargs: Arguments for it.
    """

    def __init__(self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = fb_args
        self.fb_kwargs = fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return self._context.__enter__()

    def __exit__(self, *exc_info: object) -> Any:
        context, self._context = self._context, None
        return None if context is None else context.__exit__(*exc_info)


class getitem_property:  # noqa: N801 - the documented name
    """Attribute stored as an item of the object, or of a dict in it: ``options.queue`` is ``obj["options"]["queue"]``.

    Reading an item that is missing gives None.
    """

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        path, _, self.key = keypath.rpartition(".")
        self.path = path.split(".") if path else []
        self.__doc__ = doc

    def _owner(self, obj: Any) -> Any:
        return reduce(lambda found, key: found[key], self.path, obj)

    def __get__(self, obj: Any, type: Any = None) -> Any:
        return self if obj is None else self._owner(obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._owner(obj)[self.key] = value
