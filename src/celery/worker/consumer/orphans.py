"""Attempts whose delivery died with its connection (rule 3 of `consumer`).

*Running*: its message will come again, and takes it over. *Finished*: its outcome waits for its message. *Over*: it was
settled, and its message comes again only if the broker did not hear of that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery.brokers.base import Settlement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.brokers.base import Delivery, Over
    from celery.worker.request import Request, Settler
    from celery.worker.strategy import Decision

#: Outcomes kept for the return of their messages, and for how long (seconds).
_ORPHANS, _ORPHAN_LIFE = 10_000, 300.0


class Orphans:
    """They are known by task id and retry."""

    def __init__(self) -> None:
        self._running: dict[tuple[Any, Any], Request] = {}
        self._finished: dict[tuple[Any, Any], tuple[float, Settlement]] = {}
        self._over: dict[tuple[Any, Any], Over] = {}
        self._over_until = 0.0

    @staticmethod
    def _key(headers: Any) -> tuple[Any, Any]:
        return headers.get("id"), headers.get("retries") or 0

    def add_running(self, request: Request) -> None:
        """Its connection ended while it ran."""
        self._running[self._key(request.headers)] = request

    def add_finished(self, settlement: Settlement) -> None:
        """It was over, and not settled."""
        now = time.monotonic()
        if len(self._finished) >= _ORPHANS:
            self._finished = {key: item for key, item in self._finished.items() if now - item[0] < _ORPHAN_LIFE}
        if len(self._finished) < _ORPHANS:
            self._finished[self._key(settlement.delivery.envelope.headers)] = (now, settlement)

    def add_over(self, attempts: Iterable[Over]) -> None:
        """They were settled just before the connection ended."""
        self._over.update(((each.task_id, each.retries), each) for each in attempts)
        self._over_until = time.monotonic() + _ORPHAN_LIFE

    def has(self, request: Request) -> bool:
        """Whether its message has not come again yet."""
        return bool(self._running) and self._running.get(self._key(request.headers)) is request

    def forget(self, request: Request) -> bool:
        """It is not going to run: when its message comes again it is a new one. False: it was no orphan."""
        return self.has(request) and self._running.pop(self._key(request.headers), None) is request

    def finish(self, request: Request, settlement: Settlement) -> bool:
        """An attempt ended; True when its message has not come again yet, so that its outcome waits here."""
        if not self.has(request):
            return False
        del self._running[self._key(request.headers)]
        elsewhere = settlement.delivery.receipt is None
        self.add_finished(_over(settlement) if elsewhere else settlement)
        return not elsewhere

    def release(self) -> list[Settlement]:
        """The outcomes that wait here, to be applied without their messages; that they are over stays known."""
        released = [settlement for _, settlement in self._finished.values()]
        self._finished = {key: (since, _over(settlement)) for key, (since, settlement) in self._finished.items()}
        for settlement in released:
            settlement.delivery.receipt = None
        return released

    def adopt(self, delivery: Delivery, decision: Decision, settler: Settler) -> bool:
        """A message came (again): True when it takes over an attempt of ours instead of being run."""
        if not self._running and not self._finished and not self._over:
            return False
        key = self._key(decision.headers)
        if delivery.uncounted and key in self._over:
            settler.settlement(delivery, Verdict.ACK, results=self._over.pop(key).results)
            return True
        if self._over and time.monotonic() > self._over_until:
            self._over.clear()
        finished = self._finished.pop(key, None)
        if finished is not None:
            settlement = finished[1]
            settlement.delivery = delivery
            settler.add([settlement])
            return True
        request = self._running.pop(key, None)
        if request is not None:
            request.delivery = delivery
            return True
        return False


def _over(settlement: Settlement) -> Settlement:
    """What is left to do for a message whose effects are applied already."""
    return Settlement(settlement.delivery, settlement.verdict, settlement.until, settlement.reason)
