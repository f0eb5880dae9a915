"""Workflows in place: the same values as real runs, one task after the other (CANVAS-074..077)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.canvas.algebra import kind_of, laid_out, link_steps
from celery.canvas.composed import as_signature, cloned
from celery.canvas.groups import flat
from celery.exceptions import Reject
from celery.result import EagerResult, allow_join_result
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Options that mean nothing to a task that runs here, or are a workflow's own.
_NOT_FOR_TASKS = frozenset(("task_id", "link", "link_error", "chain", "chord", "group_id", "group_index", "producer"))
#: After a step that ended so, nothing follows.
_LAST = frozenset((states.IGNORED, states.REJECTED))


def apply_chain(chain: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
    """Run the steps; the result of the last one that ran, with its parents.

    Raises:
        Exception: what a step raised whose value the next one needs.
    """
    options = {**chain.options, **options}
    following = [as_signature(step, chain._app) for step in reversed(options.get("chain") or ())]
    steps = laid_out([*cloned(chain.tasks), *following], app=chain._app)
    link_steps(steps, options)
    of_steps = _for_tasks(options)
    result: Any = None
    for position, step in enumerate(steps):
        if position:
            args, kwargs = (_value_of(result),), None
        given = dict(of_steps)
        if position == len(steps) - 1:
            given.update((name, options[name]) for name in ("task_id",) if options.get(name))
        following_result = step.apply(args, kwargs, **given)
        _eldest(following_result).parent = result
        result = following_result
        if _ends_chain(result):
            break
    return result


def apply_group(group: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
    """Run the members; a GroupResult of EagerResults."""
    applied = _members_applied(group, args, kwargs, options)
    if len(applied.results) == 1 and hasattr(applied.results[0], "results"):
        return applied.results[0]  # CANVAS-040
    return applied


def _members_applied(group: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
    options = {**group.options, **options}
    gid = options.get("task_id") or uuid()
    of_members = _for_tasks(options)
    results: list[Any] = []
    for position, member in enumerate(flat(group.tasks, group._app)):
        place = {"group_id": gid, "group_index": position} if kind_of(member) == "task" else {}
        results.append(member.apply(args, kwargs, **of_members, **place))
    return group.app.GroupResult(gid, results)


def apply_chord(chord: Any, args: Any, kwargs: Any, propagate: bool, body: Any, options: Mapping[str, Any]) -> Any:
    """Run the header and, with the list of its values, the body.

    Raises:
        Exception: what a member of the header raised; with `propagate` False it is one of the values.
    """
    chord = chord.clone()
    if body is not None:
        chord.body = as_signature(body, chord._app).clone()
    options = {**chord.options, **options}
    body = chord._body()
    link_steps([body], options)
    kwargs = {**chord.kwargs["kwargs"], **(kwargs or {})}
    header_result = _members_applied(chord._header(), args, kwargs, _for_tasks(options))
    with allow_join_result():
        values = header_result.get(propagate=propagate)
    given = _for_tasks(options)
    given.update((name, options[name]) for name in ("task_id", "chain") if options.get(name))
    if body.id is not None:
        given["task_id"] = body.id
    result = body.apply((values,), **given)
    _eldest(result).parent = header_result
    return result


def _for_tasks(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _NOT_FOR_TASKS}


def _ends_chain(result: Any) -> bool:
    """Whether nothing follows: the task was ignored, or refused its message."""
    state = getattr(result, "state", None)
    return state in _LAST or (state == states.FAILURE and isinstance(result.result, Reject))


def _value_of(result: EagerResult[Any]) -> Any:
    with allow_join_result():
        return result.get()


def _eldest(result: Any) -> Any:
    while result.parent is not None:
        result = result.parent
    return result
