"""What a worker died with is not taken together again: one of them may be what kills workers.

A store counts against every message that a dead worker held, whether it ran or only waited beside the one that did it.
If all of them were taken together each time, those that only waited would be refused with the killer. So of messages
that are acknowledged late, as only they come back:

    failures against it   may be held beside
    none                  anything
    one                   others with one, as many as there are processes
    more                  no other with any

What has to wait is given back for a moment, which is not counted; only when that is settled the others begin. When one
with more than one failure has begun, the worker takes nothing for a moment, or until it is over: it may end the worker
at once, and those behind it in the queue, which come one by one, would be counted with it. It does not wait itself
until they have come and gone back: where workers die one after the other, it would be counted without having begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from celery.brokers.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.brokers.base import Delivery
    from celery.worker.consumer.consumer import Consumer
    from celery.worker.strategy import Decision

#: Seconds that it is given back for, for each failure; in random order.
_MOMENT = (0.05, 0.5)
#: Seconds in which nothing is taken behind one that has begun.
_FIRST = 0.1
#: Seconds that one waits at most until others are known to have been given back.
_GIVING_BACK = 5.0


class Suspects:
    """Those of one consumer."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._given_back = False
        #: The one that begins alone.
        self._alone: Delivery | None = None

    def may_begin(self, delivery: Delivery, decision: Decision, now: float) -> bool:
        """Whether a delivery that is to run may do so once `others_given_back`; else it is given back.

        Args:
            delivery: with failures.
            decision: on it.
            now: Unix time.
        """
        consumer = self._consumer
        assert consumer.receiver is not None
        # Where nobody records what started, the one that counts keeps them apart (RabbitMQ).
        if decision.task is None or not decision.task.acks_late or not consumer.receiver.capabilities.started_records:
            return True
        held = [request.delivery for request in consumer.requests.values() if request.acks_late]
        moment = moment_apart(delivery, held, consumer.worker.concurrency)
        if moment:
            consumer.settler.settlement(delivery, Verdict.DELAY, until=now + moment)
            self._given_back = True
        elif delivery.failures > 1:
            self._alone = delivery
        return not moment

    async def others_given_back(self) -> None:
        """Return when they are, before one that stayed can end us all."""
        if self._given_back:
            self._given_back = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._consumer.settler.drained(), _GIVING_BACK)

    async def begun(self) -> None:
        """Return when one that has begun alone is over, or after a moment: nothing is to be taken until then."""
        alone, self._alone = self._alone, None
        if alone is None:
            return
        loop, requests = asyncio.get_running_loop(), self._consumer.requests
        end = loop.time() + _FIRST
        while (left := end - loop.time()) > 0 and any(request.delivery is alone for request in requests.values()):
            await self._consumer.progress(left)


def moment_apart(delivery: Delivery, held: Iterable[Delivery], processes: int) -> float:
    """Seconds that a delivery has to wait elsewhere; 0.0 when it can be taken.

    Args:
        delivery: of a task that is acknowledged late.
        held: what this worker has taken, of such tasks.
        processes: how many run tasks here.
    """
    failures = delivery.failures
    if not failures:
        return 0.0
    others = [other.failures for other in held if other.failures]
    together = not others or (max(failures, *others) == 1 and len(others) < processes)
    return 0.0 if together else failures * random.uniform(*_MOMENT)  # noqa: S311 - an order, no secret
