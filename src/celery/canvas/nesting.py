"""How deep signatures are inside each other.

A worker that opens one follows it downwards, four calls a level, and Python has a limit of 1,000 calls. So there is a
limit of levels (`MOST`), which is told before any of a workflow has left. Groups that follow each other in a chain are
inside each other too: each is the header of a chord whose body is the rest.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")

#: Levels of a workflow.
MOST = 230
#: Levels that are no reason to run out of stack: there is another one.
_SHALLOW = 50


class NestingError(RecursionError):
    """A workflow is nested too deep."""

    def __init__(self, levels: int) -> None:
        super().__init__(
            f"This workflow has chains, groups and chords inside each other, {levels} levels of them; at most {MOST} "
            "can be sent. Have a task in the middle send the rest."
        )


def limits_depth(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate what composes signatures, or sends one: it raises NestingError when they are too deep for it."""

    @functools.wraps(call)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        signatures = [each for each in args if isinstance(each, dict)]
        levels = max(map(depth_of, signatures))
        if levels > MOST:
            raise NestingError(levels)
        try:
            return call(*args, **kwargs)
        except NestingError:
            raise
        except Exception as error:
            # Called from deep inside something else. Serializers say it in the cause of their own errors.
            if levels > _SHALLOW and any(isinstance(one, RecursionError) for one in (error, error.__cause__)):
                raise NestingError(levels) from error
            raise

    return calling


def depth_of(sig: Mapping[str, Any]) -> int:
    """How many signatures are inside each other, at most, when it is sent."""
    deepest, waiting = 0, [(sig, 1)]
    while waiting:
        found, levels = waiting.pop()
        kwargs = found.get("kwargs") or {}
        if found.get("subtask_type") == "chain":
            steps = _composed(kwargs.get("tasks"))
            levels += sum(step.get("subtask_type") == "group" for step in steps)
        else:
            steps = [each for name in ("body", "header", "tasks") for each in _composed(kwargs.get(name))]
        deepest = max(deepest, levels)
        waiting += [(each, levels + 1) for each in steps]
    return deepest


def _composed(value: Any) -> list[dict[str, Any]]:
    """Those that contain others, of one or many; what is in a generator is not known."""
    given = value if isinstance(value, (list, tuple)) else (value,)
    return [each for each in given if isinstance(each, dict) and each.get("subtask_type")]
