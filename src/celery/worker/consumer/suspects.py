"""What a worker died with is not taken together again: one of them may be what kills workers.

A store counts against every message that a dead worker held, whether it ran or only waited beside the one that did it.
If all of them were taken together each time, those that only waited would be refused with the killer. So of messages
that are acknowledged late, as only they come back:

    failures against it   may be held beside
    none                  anything
    one                   others with one, as many as there are processes; with a small limit: no other with any
    more                  no other with any

A limit is small up to three. One death may count twice against a neighbour: when its own process goes first and it is
taken again before the whole worker is gone. With the one of the beginning, that makes three.

What has to wait is given back for a moment, which is not counted; only when that is settled the others begin.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.brokers.base import Delivery
    from celery.worker.request import Request

#: Seconds that it is given back for, for each failure; in random order.
_MOMENT = (0.05, 0.5)
#: Limits up to this are small.
_SMALL = 3


def moment_apart(delivery: Delivery, held: Iterable[Request], processes: int, limit: int) -> float:
    """Seconds that a delivery has to wait elsewhere; 0.0 when it can be taken.

    Args:
        delivery: of a task that is acknowledged late.
        held: what this worker has taken.
        processes: how many run tasks here.
        limit: `task_delivery_limit`; 0: none.
    """
    if not delivery.failures:
        return 0.0
    others = [request.delivery.failures for request in held if request.acks_late and request.delivery.failures]
    beside = 1 if 0 < limit <= _SMALL else processes
    together = not others or (max(delivery.failures, *others) == 1 and len(others) < beside)
    return 0.0 if together else delivery.failures * random.uniform(*_MOMENT)  # noqa: S311 - an order, no secret
