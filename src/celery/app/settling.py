"""Settling in the child, for a result backend that only stores blockingly (see `celery.app.outcome`).

Rules
    1. What follows is sent, confirmed, before the result is stored; then the chord that counts the task is told, by the
       documented hook of the backend. The worker does the rest. RETRY is stored before the retry is sent: few of these
       stores compare as they write, and it must not replace what the next attempt has come to.
    2. A broker or a store that is away is waited for, as the worker does: the attempt is over, and must not be made
       again for that. Time limits and a cold shutdown still end the process.
    3. When the worker stops that has a bound: the outcome is left (`Disposition.LEFT`). What is acknowledged late goes
       back to its queue, and runs again (`celery.worker.leaving`).
    4. What no waiting mends (the store refuses the record) is logged and given up. The process lives on: other tasks
       are not to die of it.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.app import chords
from celery.app.outcome import Disposition
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.attempt import Attempt
    from celery.app.base import Celery
    from celery.brokers.base import ChordPart, ResultWrite

logger = get_logger(__name__)

#: Seconds between two tries to reach what is away, at first and at most.
_PAUSES = (0.1, 5.0)
#: Between two looks whether the worker stops.
_LOOK = 0.1
#: What may be waited for so long: while the worker works, when it stops, and when it is in a hurry.
PATIENCES = (math.inf, 10.0, 0.0)


class _LeftError(Exception):
    """The worker stops, and what is away stays away."""


def settle(app: Celery, attempt: Attempt, patience: Callable[[], float]) -> None:
    """Send what follows an attempt and store its records; its outcome is left without them.

    Args:
        app: sends, with connections of this process.
        attempt: finished.
        patience: says how many seconds a store that is away is waited for, as of now.
    """
    outcome = attempt.outcome
    try:
        _settle(app, attempt, patience)
    except _LeftError:
        outcome.disposition = Disposition.LEFT
    outcome.begins, outcome.follow, outcome.writes, outcome.parts, outcome.settled = (), (), (), (), True
    attempt.plan.task.backend.process_cleanup()


def _settle(app: Celery, attempt: Attempt, patience: Callable[[], float]) -> None:
    outcome, backend = attempt.outcome, attempt.plan.task.backend
    book = app.backend.chords
    insist = partial(_insist, attempt, patience)
    if outcome.begins and book is not None:
        insist("the size of a chord", lambda: book.begin(outcome.begins))
    steps = [_store_all, _send_all] if outcome.state == states.RETRY else [_send_all, _store_all]
    for step in steps:
        step(app, attempt, insist)
    for part in outcome.parts:
        insist("its chord", partial(_tell, app, attempt, part), backend.exception_safe_to_retry)


def _send_all(app: Celery, attempt: Attempt, insist: Callable[..., None]) -> None:
    if follow := attempt.outcome.follow:
        policy = dict(app.conf.task_publish_retry_policy)
        insist("what follows", lambda: app.publisher.publish(follow, confirm=True, policy=policy))


def _store_all(_app: Celery, attempt: Attempt, insist: Callable[..., None]) -> None:
    backend = attempt.plan.task.backend
    for write in attempt.outcome.writes:
        insist("its result", partial(_store, attempt, write), backend.exception_safe_to_retry)


def _store(attempt: Attempt, write: ResultWrite) -> None:
    outcome, request, backend = attempt.outcome, attempt.request, attempt.plan.task.backend
    if write.task_id == request.id:
        value = attempt.exc if attempt.exc is not None else attempt.retval
        backend.store_result(write.task_id, value, outcome.state, outcome.traceback, request)
    else:
        backend.store_result(write.task_id, attempt.exc, outcome.state, outcome.traceback)


def _tell(app: Celery, attempt: Attempt, part: ChordPart) -> None:
    if part.body is not None:
        chords.tell(app, part, attempt.exc)
        return
    value = attempt.exc if attempt.exc is not None else attempt.retval
    attempt.plan.task.backend.on_chord_part_return(attempt.request, attempt.outcome.state, value)


def _insist(
    attempt: Attempt,
    patience: Callable[[], float],
    what: str,
    action: Callable[[], Any],
    mends: Callable[[BaseException], bool] = lambda _: False,
) -> None:
    """Do it, again and again while it fails for a reason that may pass (rules 2 to 4)."""
    pause, longest = _PAUSES
    waits: float | None = None
    while True:
        try:
            action()
        except Exception as exc:
            if not isinstance(exc, exceptions.OperationalError) and not mends(exc):
                logger.exception("Task %s[%s]: %s is lost", attempt.request.task, attempt.request.id, what)
                return
            logger.error(  # noqa: TRY400 - the reason is the text
                "Task %s[%s]: %s cannot be settled: %s. Trying again in %.1f seconds.",
                attempt.request.task, attempt.request.id, what, exc, pause,
            )  # fmt: skip
            waits = _wait(attempt, patience, what, pause, waits)
            pause = min(2 * pause, longest)
        else:
            return


def _wait(
    attempt: Attempt, patience: Callable[[], float], what: str, seconds: float, since: float | None
) -> float | None:
    """Until the next try (rule 3): since when the worker's stop waits for it, None while it does not stop."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        granted = patience()
        if granted < math.inf:
            since = now if since is None else since
            if now - since >= granted:
                logger.error(
                    "Task %s[%s]: %s is not waited for any longer. If it is acknowledged late it runs again; else its "
                    "result is lost.", attempt.request.task, attempt.request.id, what,
                )  # fmt: skip
                raise _LeftError
        time.sleep(min(_LOOK, end - now))
    return since
