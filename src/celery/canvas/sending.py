"""Members of a group or a header, on their way to the broker.

They are made in batches (`celery.app.bulk`), which work out once what members have in common: the rest of a workflow,
which each of them carries, is encoded once. Inside a worker's attempt the messages become those of its Outcome. A
producer makes all before the first one leaves, but of a generator, whose members leave as it is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.app.outcome import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.app.base import Celery
    from celery.canvas.groups import Placed
    from celery.canvas.signature import Signature


def send_members(
    app: Celery, members: Placed, *, before_last: Callable[[], Any] | None = None, producer: Any = None, **options: Any
) -> list[Any]:
    """Send all; their results.

    Args:
        app: the application.
        members: to be drawn.
        before_last: called when all have been drawn and the last one has not left yet.
        producer: an outbox, or kombu's.
        options: of `apply_async`, for each.

    Raises:
        Exception: what a member that cannot be sent raises. Of a list nothing is sent then.
    """
    if isinstance(producer, Outbox):
        _keep(app, members, before_last, producer, options)
    elif producer is not None or any(options.get(way) for way in ("publisher", "connection")):
        _send_each(members, before_last, {**options, "producer": producer})
    else:
        _send_in_batches(app, members, before_last, options)
    return members.results


def _keep(
    app: Celery, members: Placed, before_last: Callable[[], Any] | None, outbox: Outbox, options: dict[str, Any]
) -> None:
    draw = app._load("celery.app.bulk:Batching")(app, 1, "send_nothing", options)
    for member in _to_end(members, before_last):
        draw.add(member)
        sent = draw.batch.items[-1]
        if sent.error is not None:
            raise sent.error
        _sent(members, sent.number, sent.result)
    batch = draw.batch
    for start in batch.begins:
        outbox.begin(start)
    for entry in batch.entries:
        outbox.publish(
            entry.publish, name=entry.name, policy=entry.policy, timeout=entry.timeout, declare=batch.declare
        )
        batch.declare = []
        if not outbox.tells_when_sent:
            app.amqp.sent(entry.name, entry.publish)


def _send_each(members: Placed, before_last: Callable[[], Any] | None, options: dict[str, Any]) -> None:
    for number, member in enumerate(_up_to_last(members, before_last)):
        _sent(members, number, member.apply_async(**options))


def _sent(members: Placed, number: int, result: Any) -> None:
    """Keep the result of a task; of anything else it is known since its place was."""
    if isinstance(members.results[number], str):
        members.results[number] = result


def _send_in_batches(
    app: Celery, members: Placed, before_last: Callable[[], Any] | None, options: dict[str, Any]
) -> None:
    send_in_batches = app._load("celery.app.bulk:send_in_batches")
    lazy = members.lazy
    drawn = _up_to_last(members, before_last) if lazy else _to_end(members, before_last)
    for batch in send_in_batches(app, drawn, on_error="stop" if lazy else "send_nothing", **options):
        for sent in batch:
            if sent.error is not None:
                raise sent.error
            _sent(members, sent.number, sent.result)


def _up_to_last(members: Placed, before_last: Callable[[], Any] | None) -> Iterator[Signature[Any]]:
    """The members; the hook is called while the last one is still in our hands."""
    waiting: Signature[Any] | None = None
    for member in members:
        if waiting is not None:
            yield waiting
        waiting = member
    if before_last is not None:
        before_last()
    if waiting is not None:
        yield waiting


def _to_end(members: Placed, before_last: Callable[[], Any] | None) -> Iterator[Signature[Any]]:
    """The members; the hook is called when the messages of all are made."""
    yield from members
    if before_last is not None:
        before_last()
