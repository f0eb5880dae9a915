"""Finishing a chord: what the last member's part leads to (CANVAS-046..061; wire.md 4.5, steps 3 to 7).

    all members succeeded   the body is sent, with the list of their values in front of its arguments
    one did not             the body never runs: ChordError is its result, what would come after it fails too, its error
                            callbacks are told, and a chord that counts the body counts a failure

What comes of it is data, as an attempt's Outcome is (`Completion`), so that sending it and closing the chord can be one
step: `celery.worker.chording` settles it; `apply` does so in place, for backends that store blockingly.

Values are in the order of the header. Where a member is a group itself its values are a list of their own: the shape is
that of the header's result, which the sender has saved then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery import _state, exceptions, states
from celery.app import following
from celery.app.context import Context
from celery.app.outcome import Outbox
from celery.backends.chords import body_from_json
from celery.exceptions import ChordError
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from celery.app.base import Celery
    from celery.backends.chords import Member
    from celery.brokers.base import ChordClaim, ChordPart, ChordStart, Publish, ResultWrite
    from celery.canvas.signature import Signature

logger = get_logger(__name__)


class Completion(NamedTuple):
    """What the end of a header leads to."""

    begins: Sequence[ChordStart] = ()
    follow: Sequence[Publish] = ()
    writes: Sequence[ResultWrite] = ()
    parts: Sequence[ChordPart] = ()
    #: The exception of all `writes` and `parts`.
    error: BaseException | None = None
    #: Error callbacks to be called, in a process that runs tasks (`call_errback`).
    calls: Sequence[tuple[Any, ...]] = ()


class Finisher(NamedTuple):
    """The member that was counted last: who sends the body."""

    task_id: str
    root_id: str | None = None
    reply_to: str | None = None


def complete(app: Celery, group_id: str, body: Mapping[str, Any], last: Finisher) -> Completion:
    """What comes of a chord whose members have all finished. Blocks.

    Args:
        app: the application; its backend counts.
        group_id: of the header.
        body: as it travels.
        last: sends it.

    Raises:
        OperationalError: the store cannot be reached.
    """
    backend = app.backend
    assert backend.chords is not None, "the backend counts"
    try:
        members = backend.chords.members(group_id)
        shape = backend.restore_group(group_id, cache=False)
    except Exception as exc:
        if isinstance(exc, exceptions.OperationalError):
            raise
        return fail(app, body, ChordError(f"Join error: {exc!r}"), last)
    return finish(app, members, shape, body, last)


def finish(app: Celery, members: Sequence[Member], shape: Any, body: Mapping[str, Any], last: Finisher) -> Completion:
    """Send the body, or fail it.

    Args:
        app: the application.
        members: of the header, in order.
        shape: the header's GroupResult where values are nested, else None.
        body: as it travels.
        last: sends it.
    """
    for member in members:
        if member.state in states.PROPAGATE_STATES:
            cause = app.backend.exception_to_python(member.value)
            error = ChordError(f"Dependency {member.task_id} raised {cause!r}")
            error.__cause__ = cause
            return fail(app, body, error, last)
    if shape is None:
        values = [member.value for member in members]
    else:
        by_id = {member.task_id: member.value for member in members}
        values = _nested(shape, by_id)
    outbox = Outbox()
    try:
        callback = app.signature(body)
        callback.apply_async((values,), producer=outbox, root_id=last.root_id or last.task_id, parent_id=last.task_id)
    except Exception as exc:
        logger.exception("The body %s of chord %s cannot be sent", body.get("task"), _id_of(body))
        return fail(app, body, ChordError(f"Callback error: {exc!r}"), last)
    return Completion(outbox.begins, outbox.messages)


def _nested(shape: Any, values: Mapping[str, Any]) -> list[Any]:
    return [_nested(result, values) if hasattr(result, "results") else values[result.id] for result in shape.results]


def fail(app: Celery, body: Mapping[str, Any], error: BaseException, last: Finisher) -> Completion:
    """The body will never run.

    Each member of a body that is a group gets the cause itself as its exception (CANVAS-059).
    """
    logger.error("Chord %s fails: %s", _id_of(body) or body.get("task"), error)
    cause = error.__cause__ if body.get("subtask_type") == "group" and error.__cause__ is not None else error
    losses = following.losses_of(app.backend, [body], cause, states.FAILURE, None, last.reply_to)
    outbox, calls = Outbox(), _Calls(app)
    for signature in _firsts(body):
        request = Context(
            id=_id_of(signature) or last.task_id,
            task=signature.get("task"),
            args=signature.get("args"),
            kwargs=signature.get("kwargs"),
            errbacks=_links(signature),
            root_id=last.root_id or last.task_id,
            parent_id=last.task_id,
            called_directly=False,
            delivery_info={},
        )
        try:
            following.send_after_failure(app, _links(signature), request, cause, None, outbox, calls.add)
        except Exception:
            logger.exception("An error callback of chord body %s cannot be sent", request.id)
    return Completion(outbox.begins, outbox.messages, losses.writes, losses.parts, cause, calls.kept)


class _Calls:
    """Keeps calls of error callbacks as arguments of `call_errback`, which any process of the worker can read."""

    def __init__(self, app: Celery) -> None:
        self.kept: list[tuple[Any, ...]] = []
        self._app = app

    def add(self, errback: Signature[Any], request: Context, exc: BaseException, _traceback: Any) -> None:
        encode = self._app.backend.prepare_exception
        cause = exc.__cause__ and encode(exc.__cause__, "json")
        fields = {name: value for name, value in request.__dict__.items() if name != "errbacks"}
        self.kept.append((dict(errback), fields, encode(exc, "json"), cause))


def call_errback(
    errback: dict[str, Any], request: dict[str, Any], error: Any, cause: Any, app: Celery | None = None
) -> None:
    """Call an error callback of a body that never ran, as (request, exception, None).

    Args:
        errback: as it travels.
        request: of the body.
        error: the exception, as it is stored.
        cause: the one that led to it.
        app: the application; default that of this process.
    """
    app = app or _state.get_current_app()
    decode = app.backend.exception_to_python
    exc = decode(error)
    assert exc is not None
    exc.__cause__ = decode(cause)
    following.call_in_place(app.signature(errback), Context(request, errbacks=[errback]), exc, None)


def _firsts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those whose error callbacks are told: the body, each member of a group and the group, the first of a chain."""
    kind, kwargs = body.get("subtask_type"), body.get("kwargs") or {}
    if kind == "chain":
        for step in (kwargs.get("tasks") or ())[:1]:
            yield from _firsts(step)
    elif kind == "group":
        for member in kwargs.get("tasks") or ():
            yield from _firsts(member)
    elif kind == "chord" and kwargs.get("body"):
        yield from _firsts(kwargs["body"])
    if _links(body) or kind is None:
        yield body


def _links(signature: Mapping[str, Any]) -> list[Any]:
    links = (signature.get("options") or {}).get("link_error")
    if not links:
        return []
    return list(links) if isinstance(links, (list, tuple)) else [links]


def _id_of(signature: Mapping[str, Any]) -> str | None:
    found: str | None = (signature.get("options") or {}).get("task_id")
    return found


def end(
    app: Celery,
    claim: ChordClaim,
    body: Mapping[str, Any],
    last: Finisher,
    failure: ChordError | None = None,
    settled: Callable[[Completion], Completion] = lambda completion: completion,
) -> None:
    """From a claim to a closed chord in place, blocking: for backends that store blockingly.

    Args:
        app: the application; its backend counts.
        claim: void, it leads to nothing.
        body: as it travels.
        last: sends it.
        failure: why the body cannot run; None: all members have finished.
        settled: does a part of what comes of it elsewhere, and gives the rest.

    Raises:
        OperationalError: broker or store cannot be reached.
    """
    book = app.backend.chords
    assert book is not None, "the backend counts"
    group_id = claim.part.group_id
    completion = complete(app, group_id, body, last) if failure is None else fail(app, body, failure, last)
    if not book.hold(claim):
        return
    try:
        apply(app, settled(completion))
    except exceptions.OperationalError:
        raise
    except Exception as exc:
        logger.exception("What comes of chord %s cannot be sent", group_id)
        apply(app, settled(fail(app, body, ChordError(f"Callback error: {exc!r}"), last)))
    book.close(claim)


def apply(app: Celery, completion: Completion) -> None:
    """Settle in place, blocking: send, store, tell. For backends whose documented hooks count."""
    backend, error = app.backend, completion.error
    if completion.begins and backend.chords is not None:
        backend.chords.begin(completion.begins)
    if completion.follow:
        app.publisher.publish(completion.follow, confirm=True)
    for write in completion.writes:
        backend.store_result(write.task_id, error, write.state, None)
    for part in completion.parts:
        tell(app, part, error)
    for errback, request, exc, cause in completion.calls:
        call_errback(errback, request, exc, cause, app)


def tell(app: Celery, part: ChordPart, value: Any) -> None:
    """Tell a backend's hook of a part that brings its body along."""
    assert part.body is not None
    chord = body_from_json(part.body)
    request = Context(id=part.task_id, group=part.group_id, group_index=part.index, chord=chord)
    app.backend.on_chord_part_return(request, part.state, value)
