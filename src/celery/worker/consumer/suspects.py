"""What a worker died with is not taken together again: one of them may be what kills workers.

A store counts against every message that a dead worker held, whether it ran or only waited beside the one that did it.
If all of them were taken together each time, those that only waited would be refused with the killer. So of messages
that are acknowledged late, as only they come back:

    failures against it   may be held beside
    none                  anything
    one                   others with one, as many as there are processes
    more                  no other with any

What has to wait is given back for a moment, which is not counted; only when that is settled the others begin. One with
more than one failure is held for a moment before it begins, as those behind it in the queue may come only then, one by
one: they are given back, and come again when it runs. It may end the worker at once, and they would be counted with it.
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

#: Seconds that it is given back for, for each failure; in random order. The least is longer than `_FIRST`, for what
#: comes as soon as another one is held to stay away until that has begun.
_MOMENT = (0.2, 0.5)
#: Seconds that it is held for before it begins.
_FIRST = 0.1
#: Seconds that one waits at most until others are known to have been given back.
_GIVING_BACK = 5.0


class Suspects:
    """Those of one consumer."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._given_back = False

    def may_begin(self, delivery: Delivery, decision: Decision, now: float) -> bool:
        """Whether a delivery that is to run may do so once `others_given_back`; else it is given back, or comes later.

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
        held += consumer.waiting()
        stays, moment = place_of(delivery, held, consumer.worker.concurrency)
        if not stays:
            consumer.settler.settlement(delivery, Verdict.DELAY, until=now + moment)
            self._given_back = True
        elif moment:
            consumer.wait_here(delivery, moment, self._begin_soon)
        return stays and not moment

    async def others_given_back(self) -> None:
        """Return when they are, before one that stayed can end us all."""
        if self._given_back:
            self._given_back = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._consumer.settler.drained(), _GIVING_BACK)

    def _begin_soon(self, delivery: Delivery) -> None:
        self._consumer.worker.spawn(self._begin(delivery))

    async def _begin(self, delivery: Delivery) -> None:
        await self.others_given_back()
        self._consumer.due(delivery)


def place_of(delivery: Delivery, held: Iterable[Delivery], processes: int) -> tuple[bool, float]:
    """Whether a delivery may stay, and the seconds that it waits, here or elsewhere.

    Args:
        delivery: of a task that is acknowledged late.
        held: what this worker has taken, of such tasks.
        processes: how many run tasks here.
    """
    failures = delivery.failures
    if not failures:
        return True, 0.0
    others = [other.failures for other in held if other.failures]
    if not others or (max(failures, *others) == 1 and len(others) < processes):
        return True, _FIRST if failures > 1 else 0.0
    return False, failures * random.uniform(*_MOMENT)  # noqa: S311 - an order, no secret
