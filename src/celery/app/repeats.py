"""Attempts that need not be made: a message came again though its task has ended well (ROUTE-052).

Rules
    1. Where `worker_deduplicate_successful_tasks` is on, a redelivered message of a task that is acknowledged late is
       looked up before it runs, in the process that would run it. A stored SUCCESS stands in for the attempt: its body,
       hooks and signals are left out, nothing is stored, the message is acknowledged.
    2. What follows is sent, with the stored value, where the record tells of no children: whoever stored it may have
       died before it sent. Workers of ours send first, and record what they sent.
    3. A chord counts the member again where it keeps books: those count each member once. Hooks of other stores would
       count it twice.
    4. What this worker itself has settled it knows without asking, setting or not (`celery.worker.consumer.orphans`).
    5. Who cannot be asked is not believed: without the store, the task runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import _state, states
from celery.app import following, settling
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.app.attempt import Attempt
    from celery.app.base import Celery

logger = get_logger(__name__)

#: Celery's words.
DONE = "Task already completed successfully."


def stored_success(attempt: Attempt) -> Mapping[str, Any] | None:
    """The record that stands in for a redelivered attempt; None: make it. Blocks while the store is asked."""
    request = attempt.request
    if not (request.delivery_info or {}).get("redelivered"):
        return None
    try:
        record = attempt.plan.task.backend.get_task_meta(request.id, cache=False)
    except Exception as exc:  # noqa: BLE001 - rule 5, whatever a store of others raises
        logger.warning("Task %s[%s] runs again: its record cannot be read: %r", request.task, request.id, exc)
        return None
    return record if record.get("status") == states.SUCCESS else None


async def stored_success_async(attempt: Attempt) -> Mapping[str, Any] | None:
    """The same, on a loop that goes on meanwhile."""
    import asyncio  # here a loop runs already; whoever only sends does without

    return await asyncio.to_thread(stored_success, attempt)


def stand_in(app: Celery, attempt: Attempt, value: Any, patience: Callable[[], float], *, sent: bool) -> None:
    """Conclude an attempt whose success is stored.

    Args:
        app: the application.
        attempt: has its part of a chord already, if that is to count it.
        value: as stored.
        patience: as for `settling.settle`.
        sent: what follows was sent then.

    Raises:
        Exception: what follows cannot be sent.
    """
    plan, request, outcome = attempt.plan, attempt.request, attempt.outcome
    outcome.started = time.time()
    attempt.retval = value
    _state.push_frame(plan.task, request)  # what is sent has this task for its parent
    try:
        if not sent and (request.callbacks or request.chain):
            following.send_after_success(app, request, value, request.outbox)
    finally:
        _state.pop_frame()
    outcome.follow, outcome.begins = tuple(request.outbox.messages), tuple(request.outbox.begins)
    if plan.settles_here:
        settling.settle(app, attempt, patience)
