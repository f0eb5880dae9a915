"""A task that is run by another one in its place (`Task.replace`), or brings its chord another member.

The replacement has the id of the task that it replaces, its place (group, chord), what follows it (callbacks, error
callbacks, the rest of its chain) and its stamps. It leaves with the outcome of the attempt, so that there is always one
of the two, and never both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas.algebra import CHAIN, GROUP, completions, ends_in_group, is_nothing, kind_of, link_steps
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celery.app.context import Context
    from celery.app.task import Task
    from celery.canvas.signature import Signature

    Sig = Signature[Any]


def replace(task: Task[..., Any], sig: Sig) -> Any:
    """See `Task.replace`."""
    request = task.request
    if sig.options.get("chord"):
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if kind_of(sig) == CHAIN and is_nothing(sig):
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    if kind_of(sig) == GROUP or ends_in_group(sig):
        # One id has one value: the list of what its members return.
        sig = sig | task.app.tasks["celery.accumulate"].s(index=0)
    nesting = request.replaced_task_nesting + 1
    if request.is_eager:
        # What follows is applied with the value that this gives.
        return task.on_replace(sig.set(replaced_task_nesting=nesting))
    sig.freeze(
        request.id,
        group_id=request.group,
        chord=request.chord,
        root_id=request.root_id,
        group_index=request.group_index,
    )
    _inherit(sig, request)
    return task.on_replace(sig.set(replaced_task_nesting=nesting))


def _inherit(sig: Sig, request: Context) -> None:
    """Give a frozen signature what follows the task that it replaces."""
    links = {"link": request.callbacks, "link_error": request.errbacks}
    link_steps(sig.kwargs["tasks"] if kind_of(sig) == CHAIN else [sig], links)
    if request.chain:
        sig.options["chain"] = request.chain
    given = sig.options.get("stamped_headers") or ()
    stamps = {name: value for name, value in (request.stamps or {}).items() if name not in given}
    if stamps:
        sig.stamp(**stamps)


def add_to_chord(task: Task[..., Any], sig: Sig, lazy: bool) -> Any:
    """See `Task.add_to_chord`."""
    request = task.request
    if not request.chord:
        raise ValueError(f"Task {task.name} is not a member of any chord now, so it cannot add to one.")
    result = sig.freeze(
        group_id=request.group, chord=request.chord, root_id=request.root_id, group_index=request.group_index
    )
    for _ in range(completions(sig)):
        task.backend.add_to_chord(request.group, result)
    return sig if lazy else sig.delay()
