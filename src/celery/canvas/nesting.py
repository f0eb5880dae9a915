"""How deep signatures are inside each other.

Who reads one follows it downwards, three calls a level, and Python has a limit of 1,000 calls. So there is a limit of
levels (`MOST`), which is told before any of a workflow has left. It is low enough for a worker, which has a hundred
calls behind it when it reads what a producer sent.

A level is a chain, a group or a chord, and what it becomes when sent: groups that follow each other in a chain are
inside each other, each the header of a chord whose body is the rest; a list of members is a group; and a chord in a
header is sent from within the sending of the outer one, which takes as many calls as two levels more.
"""

from __future__ import annotations

import functools
from operator import itemgetter
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

    levels = 0

    @classmethod
    def of(cls, sig: Mapping[str, Any]) -> NestingError:
        """About the outermost signature."""
        levels = depth_of(sig)
        bound = f"at most {MOST} can be sent"
        if levels <= MOST:
            bound = f"too many for a call from so deep ({MOST} at the most)"
        error = cls(
            f"This workflow, a {sig.get('subtask_type')} that begins with {_first_task(sig)}, has chains, groups and "
            f"chords inside each other, {levels} levels of them; {bound}. Have a task in the middle send the rest."
        )
        error.levels = levels
        return error


def limits_depth(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate what composes signatures, or sends one: it raises NestingError when they are too deep for it."""

    @functools.wraps(call)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        levels, sig = max(((depth_of(each), each) for each in args if isinstance(each, dict)), key=itemgetter(0))
        if levels > MOST:
            raise NestingError.of(sig)
        try:
            return call(*args, **kwargs)
        except NestingError as error:
            if levels > error.levels:  # of a part: people know the whole
                raise NestingError.of(sig) from error.__cause__
            raise
        except Exception as error:
            # Called from deep inside something else. Serializers say it in the cause of their own errors.
            if levels > _SHALLOW and any(isinstance(one, RecursionError) for one in (error, error.__cause__)):
                raise NestingError.of(sig) from error
            raise

    return calling


def is_deep(sig: Mapping[str, Any]) -> bool:
    """Whether it is a reason to run out of stack."""
    return depth_of(sig) > _SHALLOW


def depth_of(sig: Mapping[str, Any]) -> int:
    """How many levels it has."""
    deepest, waiting = 0, [(sig, 1)]
    while waiting:
        found, levels = waiting.pop()
        kwargs = found.get("kwargs") or {}
        kind = found.get("subtask_type")
        members = _composed(kwargs.get("tasks"))
        if kind == "chain":
            levels += sum(step.get("subtask_type") == "group" for step in members)
        elif kind == "group":
            waiting += [(each, _sent_from(levels, each)) for each in members]
            members = []
        else:
            members += _composed(kwargs.get("body"))
            header = kwargs.get("header")
            if isinstance(header, dict):
                members += _composed(header)
            else:
                waiting += [(each, _sent_from(levels + 1, each)) for each in _composed(header)]
        deepest = max(deepest, levels)
        waiting += [(each, levels + 1) for each in members]
    return deepest


def _sent_from(levels: int, member: Mapping[str, Any]) -> int:
    """The level of a member of a group that is at this one."""
    return levels + (3 if member.get("subtask_type") == "chord" else 1)


def _first_task(sig: Mapping[str, Any]) -> Any:
    """Name of a task that is sent first."""
    while sig.get("subtask_type") and (kwargs := sig.get("kwargs")):
        inside = kwargs.get("tasks", kwargs.get("header"))
        if isinstance(inside, (list, tuple)):
            inside = inside[0] if inside else None
        if not isinstance(inside, dict):
            break
        sig = inside
    return sig.get("task")


def _composed(value: Any) -> list[dict[str, Any]]:
    """Those that contain others, of one or many; what is in a generator is not known."""
    given = value if isinstance(value, (list, tuple)) else (value,)
    return [each for each in given if isinstance(each, dict) and each.get("subtask_type")]
