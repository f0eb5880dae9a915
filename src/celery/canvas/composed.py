"""What chains, groups and chords share: they have members, and belong to the application of the first one.

Reading and copying follow signatures into each other, which `celery.canvas.nesting` bounds by the calls that it takes:
a level is three when it is read, two when it is copied, because what need not be a call of its own is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Self, TypeVar

from celery import _state
from celery.canvas.algebra import members_of, size_known
from celery.canvas.signature import Signature

if TYPE_CHECKING:
    from celery.app.base import Celery

R = TypeVar("R")
Sig = Signature[Any]


class Composed(Signature[R]):
    """Base of signatures that are made of others."""

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Self:
        """The composed signature of a dict form; what it is made of becomes signatures too."""
        made = cls.__new__(cls)
        Signature.__init__(made, d, app=app)
        made.setdefault("args", ())
        made["kwargs"] = dict(d.get("kwargs") or {})
        made._read_members()
        return made

    def _read_members(self) -> None:
        """Make signatures of what is in `kwargs`."""
        members = self.kwargs.get("tasks", [])
        if size_known(members):
            members = type(members)(map(as_signature, members, repeat(self._app)))
        self.kwargs["tasks"] = members

    @property
    def tasks(self) -> Any:
        """What it is made of."""
        return members_of(self)

    @property
    def app(self) -> Celery:
        """Its application, or that of its first member."""
        if self._app is None:
            members = self.tasks
            first = members[0] if size_known(members) and members else None
            return first.app if isinstance(first, Signature) else _state.get_current_app()
        return self._app

    def clone(self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any) -> Self:
        """A copy, its members copied too; these arguments and options merged in (CANVAS-006)."""
        copied = super().clone(args, kwargs, **opts)
        copied._clone_members()
        return copied

    partial = clone

    def _clone_members(self) -> None:
        members = self.kwargs["tasks"]
        if size_known(members):
            self.kwargs["tasks"] = type(members)(map(clone, members))


def as_signature(value: Any, app: Celery | None) -> Sig:
    """A signature, or the dict form of one. Raises TypeError for what is neither."""
    if not isinstance(value, Mapping):
        hint = " Make one of the task with its s() or si()." if hasattr(value, "apply_async") else ""
        raise TypeError(f"Workflows are made of signatures, not {value.__class__.__name__}: {value!r:.200}.{hint}")
    if isinstance(value, Signature):
        return value  # keeps the application that it has
    if value.get("subtask_type"):
        return Signature.class_of(value).from_dict(value, app=app)
    return Signature(value, app=app)


#: A copy, without a call of its own.
clone = methodcaller("clone")


def cloned(members: Any) -> Any:
    """Copies of members; a generator is not touched."""
    return type(members)(map(clone, members)) if size_known(members) else members


def eldest(result: Any) -> Any:
    """What came first of a result with parents."""
    while result.parent is not None:
        result = result.parent
    return result
