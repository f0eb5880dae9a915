"""What counts as a task and as a signature, for code that only asks."""
from __future__ import annotations

from abc import ABCMeta
from typing import Any

__all__ = ("CallableSignature", "CallableTask")


def _has_all(subclass: type, names: frozenset[str]) -> bool:
    return all(any(name in base.__dict__ for base in subclass.__mro__) for name in names)


class _ByShape(ABCMeta):
    """Metaclass of classes whose subclasses are all those with the methods named in ``required``."""

    required: frozenset[str]

    def __subclasscheck__(cls, subclass: type) -> bool:
        return super().__subclasscheck__(subclass) or _has_all(subclass, cls.required)

    def __instancecheck__(cls, instance: Any) -> bool:
        return cls.__subclasscheck__(type(instance)) or cls.__subclasscheck__(instance.__class__)


class CallableTask(metaclass=_ByShape):
    """Anything that is called, delayed and applied like a task."""

    required = frozenset({"__call__", "delay", "apply_async", "apply"})


class CallableSignature(CallableTask):
    """Anything that behaves like a signature."""

    required = CallableTask.required | {"clone", "freeze", "set", "link", "link_error", "__or__", "__invert__"}
