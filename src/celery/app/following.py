"""What follows an attempt, and what will now never run (CANVAS-008..013, 026..031; wire.md 1.6).

After success   callbacks, then the next step of the chain, with the value in front of their arguments.
After failure   error callbacks; and whatever would have come later fails too: its records, and its parts of the chords
                that count it, so that nobody waits for what cannot come.
A member of a chord's header tells its chord how it ended, with a *part* (`celery.backends.chords`).

Nothing is sent here: an outbox takes it. A worker's (`celery.app.outcome.Outbox`) makes messages of the Outcome of it,
an eager one (`celery.app.apply.EagerOutbox`) keeps it to be applied in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from celery import states
from celery.app.attempt import takes_many
from celery.app.context import Context
from celery.brokers.base import ChordPart
from celery.utils.log import get_logger
from celery.wire.protocol import next_step
from celery.wire.results import success_part_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from celery.app.base import Celery
    from celery.backends.base import Backend
    from celery.brokers.base import ResultWrite
    from celery.canvas.signature import Signature

logger = get_logger(__name__)

#: Where `encode` is of backends that do not bring their own.
_OUR_ENCODE = "celery.backends.base"


class Outgoing(Protocol):
    """Takes what is to be sent."""

    def send(self, signature: Signature[Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A call, with arguments that come before its own, and options."""


def send_after_success(app: Celery, request: Context, value: Any, outbox: Outgoing) -> None:
    """Callbacks and the next step.

    Several callbacks are sent as one group, but groups among them on their own (CANVAS-008). Raises whatever sending
    a signature does.
    """
    where: dict[str, Any] = {"root_id": request.root_id, "parent_id": request.id}
    priority = (request.delivery_info or {}).get("priority") if app.conf.task_inherit_parent_priority else None
    if priority is not None:
        where["priority"] = priority
    callbacks = [app.signature(callback) for callback in request.callbacks or ()]
    if len(callbacks) > 1:
        alone = [callback for callback in callbacks if callback.subtask_type == "group"]
        together = [callback for callback in callbacks if callback.subtask_type != "group"]
        callbacks = [*alone, group_of(app, together)] if together else alone
    for callback in callbacks:
        outbox.send(callback, (value,), where)
    step = next_step(request.chain)
    if step is not None:
        signature, rest = step
        outbox.send(app.signature(signature), (value,), {**where, "chain": rest})


def send_after_failure(
    app: Celery,
    errbacks: Iterable[Any],
    request: Context,
    exc: BaseException,
    traceback: Any,
    outbox: Outgoing,
    call: Callable[..., Any] | None = None,
) -> None:
    """Error callbacks (CANVAS-010): one that is registered here and takes more than one argument is called in place, as
    (request, exc, traceback); all others are sent as a group, the failed task's id in front of their arguments.

    Args:
        app: the application.
        errbacks: as they travel.
        request: of the task that failed.
        exc: its exception.
        traceback: of it, None for a body that never ran.
        outbox: takes what is sent.
        call: takes (error callback, request, exc, traceback) instead of calling in place.
    """
    sent = []
    for item in errbacks:
        errback = app.signature(item)
        known = app.tasks.get(errback.task)
        if known is None or not takes_many(known):
            sent.append(errback)
        else:
            (call or call_in_place)(errback, request, exc, traceback)
    if sent:
        where = {"parent_id": request.id, "root_id": request.root_id or request.id}
        outbox.send(group_of(app, sent), (request.id,), where)


def call_in_place(errback: Signature[Any], request: Context, exc: BaseException, traceback: Any) -> None:
    """Call an error callback; what it raises is logged."""
    try:
        errback(request, exc, traceback)
    except Exception:
        logger.exception("Error callback %s of task %s[%s] raised", errback.task, request.task, request.id)


def group_of(app: Celery, signatures: list[Signature[Any]]) -> Signature[Any]:
    """A group of these."""
    made: Signature[Any] = app._load("celery.canvas:group")(signatures, app=app)
    return made


# -- chords


def part_of(backend: Backend, place: Place, state: str, value: Any, body: bytes | None = None) -> ChordPart:
    """How a member of a header ended.

    Args:
        backend: encodes the value.
        place: of the member.
        state: SUCCESS, FAILURE or REVOKED.
        value: its value or exception.
        body: of the chord, as JSON; None: it is in the message of the attempt that this belongs to.
    """
    form = backend.encode_result(value, state)
    payload = _success(backend, place.task_id, form) if state == states.SUCCESS else None
    if payload is None:
        payload = backend.encode([1, place.task_id, state, form])
    return ChordPart(place.group_id, place.task_id, place.position, state, payload, body)


def _success(backend: Backend, task_id: str, form: Any) -> bytes | None:
    """The payload of a success, straight to bytes; None: it has another form, or cannot be written."""
    if backend.serializer != "json" or backend.compression or not backend.async_writer:
        return None
    if backend.encode.__module__ != _OUR_ENCODE:
        return None
    try:
        return success_part_json(task_id, form)
    except (TypeError, ValueError):
        return None


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a member is in a header. A struct, as each member makes one: a named tuple takes four times as long."""

    group_id: str
    task_id: str
    position: int | None


# -- what will never run


class Losses(NamedTuple):
    """What the failure of one means for others."""

    writes: list[ResultWrite]
    parts: list[ChordPart]


class Unreached(NamedTuple):
    """A task that will not run."""

    task_id: str
    options: Mapping[str, Any]
    #: Body of the chord that waits for it.
    chord: Mapping[str, Any] | None


def losses_of(
    backend: Backend,
    signatures: Iterable[Mapping[str, Any]],
    exc: BaseException,
    state: str,
    traceback: str | None = None,
    reply_to: str | None = None,
) -> Losses:
    """Records and parts of all that these signatures would have run.

    Args:
        backend: encodes.
        signatures: what will now never run, as they travel.
        exc: why.
        state: FAILURE or REVOKED.
        traceback: of the failure.
        reply_to: whom to tell (rpc).
    """
    losses = Losses([], [])
    for lost in unreached(signatures):
        group_id = lost.options.get("group_id")
        request = Context(id=lost.task_id, reply_to=reply_to, group=group_id)
        losses.writes.append(backend.prepare_write(lost.task_id, exc, state, traceback, request))
        if lost.chord is not None and group_id:
            place = Place(group_id, lost.task_id, lost.options.get("group_index"))
            losses.parts.append(part_of(backend, place, state, exc, msgspec.json.encode(lost.chord)))
    return losses


def unreached(signatures: Iterable[Mapping[str, Any]], chord: Any = None) -> Iterator[Unreached]:
    """The tasks below signatures, with frozen ids, in the order in which they would have run.

    Args:
        signatures: of any kind, as they travel; what follows a body is in its option `chain`.
        chord: of the group that the signatures are members of, which keeps it once for all of them.
    """
    for signature in signatures:
        options, kwargs = signature.get("options") or {}, signature.get("kwargs") or {}
        waiting = options.get("chord") or chord
        kind = signature.get("subtask_type")
        if kind in ("chain", "group"):
            yield from unreached(kwargs.get("tasks") or (), waiting if kind == "group" else None)
        elif kind == "chord":
            # Members of a header that is never sent have nobody who counts them.
            yield from (lost._replace(chord=None) for lost in unreached(_members(kwargs.get("header"))))
            yield from unreached([kwargs["body"]] if kwargs.get("body") else ())
        elif options.get("task_id"):
            yield Unreached(options["task_id"], options, waiting)
        yield from unreached(reversed(options.get("chain") or ()))


def _members(header: Any) -> Iterable[Mapping[str, Any]]:
    if header is None:
        return ()
    return [header] if isinstance(header, dict) else header
