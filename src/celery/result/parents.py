"""What the parents of a result have to do with a wait for it (API-053).

Rules
    1. Where parents are followed, what a parent raised is raised in place of what the result itself would raise: of a
       chord it is the member's own exception, and not the ChordError that its body ends with.
    2. Parents are looked at before the wait, and again when it ends in a failure: a member's record is stored before
       its chord fails. A success asks for nothing.
    3. Who has waited for an interval watches the parents as well. From then on a parent's failure ends the wait,
       whatever becomes of what comes after it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result.sets import ResultSet
from celery.result.waiting import ResultBase, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.backends.asynchronous import Meta
    from celery.result.single import AsyncResult

#: Seconds after which a coroutine watches parents (rule 3); a thread says it with the `interval` of `get`.
INTERVAL = 0.5


def raise_failure(result: AsyncResult[Any]) -> None:
    """Raise what a parent raised, that of the first step first; return if none did."""
    for node in reversed(list(_above(result))):
        node.maybe_throw()


def wait(
    result: AsyncResult[Any],
    timeout: float | None,
    interval: float,
    on_interval: Callable[[], Any] | None,
    on_message: Callable[[Meta], Any] | None,
) -> None:
    """Wait until a result learns its final record, or raise what a parent raised.

    Args:
        result: it has not learnt it yet.
        timeout: as of `AsyncResult.get`, like the rest.
        interval: seconds; rule 3 goes by it, too.
        on_interval: called while waiting.
        on_message: called with every record of the result itself.

    Raises:
        TimeoutError: neither came in time.
    """
    raise_failure(result)
    backend, short = result.backend, timeout is not None and timeout <= interval
    try:
        result._learn(backend.wait_for(result.id, timeout if short else interval, interval, on_message=on_message))
    except ResultTimeoutError:
        if short:
            raise
    else:
        return
    if on_interval is not None:
        on_interval()
    watched = _undecided(result)

    def own(meta: Meta) -> None:
        if on_message is not None and meta["task_id"] == result.id:
            on_message(meta)

    left = None if timeout is None else timeout - interval
    for meta in backend.wait_for_many([result.id, *watched], left, interval, on_interval, own):
        if meta["task_id"] == result.id:
            result._learn(meta)
            return
        if meta["status"] in states.PROPAGATE_STATES:
            watched[meta["task_id"]]._learn(meta)
            raise_failure(result)


async def await_record(
    result: AsyncResult[Any], timeout: float | None, on_message: Callable[[Meta], Any] | None
) -> None:
    """`wait` for coroutines."""
    await in_thread(partial(raise_failure, result))
    if timeout is not None and timeout <= INTERVAL:
        await result._await_record(timeout, on_message)
        return
    watched: dict[str, AsyncResult[Any]] = {}
    meta = await result.backend.hub.wait(result.id, INTERVAL, on_message)
    if meta is None:
        watched = _undecided(result)
        left = None if timeout is None else timeout - INTERVAL
        meta = await result.backend.hub.wait(result.id, left, on_message, watched)
    if meta is None:
        raise result._late(timeout)
    watched.get(meta["task_id"], result)._learn(meta)
    if meta["task_id"] != result.id:
        await in_thread(partial(raise_failure, result))


def _above(result: ResultBase) -> Iterator[Any]:
    node = result.parent
    while node is not None:
        yield node
        node = node.parent


def _undecided(result: AsyncResult[Any]) -> dict[str, AsyncResult[Any]]:
    """The parents, and the members of those that are groups, of which no final record is known."""
    found, nodes = {}, list(_above(result))
    for node in nodes:
        if isinstance(node, ResultSet):
            nodes.extend(node.results)
        elif node._record is None:
            found[node.id] = node
    return found
