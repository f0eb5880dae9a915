"""How deep signatures are inside each other.

They may be as deep as the interpreter can follow: each level is two calls or more, and two levels of JSON, which a
worker has to follow too. That is 400 chords in bodies of chords, as in Celery 5.7; groups that follow each other are
such chords. What is deeper is told when it is composed or sent, before any of it has left.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

#: Levels that are no reason for an error: it has another one.
_SHALLOW = 50


class NestingError(RecursionError):
    """A workflow is nested deeper than the interpreter can follow."""


def says_how_deep(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate what is called with a signature first: when it runs out of stack, the error says that it is too deep."""

    @functools.wraps(call)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if isinstance(error, NestingError) or not _out_of_stack(error):
                raise
            levels = max(depth_of(cast("Mapping[str, Any]", each)) for each in args if isinstance(each, Mapping))
            if levels < _SHALLOW:
                raise
        raise NestingError(
            f"This workflow has chains, groups and chords inside each other, {levels} levels of them, which is deeper "
            f"than Python can follow ({sys.getrecursionlimit()} calls). Have a task in the middle send the rest."
        )

    return calling


def _out_of_stack(error: Exception) -> bool:
    """Serializers say it in the cause of their own errors."""
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def depth_of(sig: Mapping[str, Any]) -> int:
    """How many signatures are inside each other, at most, when it is sent."""
    deepest = 0
    waiting = [(sig, 1)]
    while waiting:
        found, levels = waiting.pop()
        kind, kwargs = found.get("subtask_type"), found.get("kwargs") or {}
        members = [each for name in ("body", "header", "tasks") for each in _signatures(kwargs.get(name)) if kind]
        if kind == "chain":  # what follows a group is the body of its chord
            levels += sum(each.get("subtask_type") == "group" for each in members)
        deepest = max(deepest, levels)
        waiting += [(each, levels + 1) for each in members]
    return deepest


def _signatures(value: Any) -> list[Mapping[str, Any]]:
    """One, or many; those in a generator are not known."""
    given = value if isinstance(value, (list, tuple)) else (value,)
    return [each for each in given if isinstance(each, Mapping)]
