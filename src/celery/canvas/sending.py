"""Members of a group or a header, on their way to the broker.

Inside a worker's attempt they become messages of its Outcome. A producer sends them in batches (`celery.app.bulk`):
all messages are made before the first one leaves, but those of a generator, which leave as it is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    if producer is not None or any(options.get(way) for way in ("publisher", "connection")):
        _send_each(members, before_last, {**options, "producer": producer})
    else:
        _send_in_batches(app, members, before_last, options)
    return members.results


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
