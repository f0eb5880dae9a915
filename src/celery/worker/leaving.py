"""What a worker that is told to stop does about a store or a broker that stays away.

Rules
    1. What runs is waited for without a bound. When nothing runs any more, outcomes may still wait to be settled: they
       have ten seconds, anew with each batch that gets through, and it is said what they wait for.
    2. After that, a message that the broker still keeps goes back to its queue: its task runs again, elsewhere. What
       can be done without the store is done. Of what was acknowledged early the result is lost; a broker that keeps it
       as started has its next worker tell so (`WorkerLostError`), as if this one had died.
    3. TERM said again: what is known to be away is not waited for, and what does not answer for five seconds only. The
       same holds for a cold stop. The broker has as much time to hear first that nothing is consumed any more.
    4. A backend that only stores blockingly does so in children, which keep the same rules (`celery.app.settling`): the
       pool tells them (`Pool.leave`).
    5. A worker that left something so ends with status 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.app.settling import PATIENCES
from celery.brokers.base import Settlement, Verdict
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from celery.brokers.base import Delivery
    from celery.worker.request import Settler

logger = get_logger(__name__)

#: Seconds without a settlement that a store or a broker is given; where there is no connection, the broker.
_PATIENCE, _PATIENCE_BROKER = PATIENCES[1], 5.0
#: The same where somebody is in a hurry: while nothing is known to be away, and without a connection.
_HURRY, _HURRY_BROKER = 5.0, 1.0
#: Seconds after which it is said what is waited for, where nothing tells why.
_SILENT = 1.0
#: Tasks that are named in the log at most.
_NAMED = 20


class Remains(NamedTuple):
    """What is left of settlements that wait in vain."""

    kept: list[Settlement]
    #: They run again.
    returned: list[Delivery]
    #: Nobody will see their results.
    lost: list[Delivery]


def part_with(settlements: Iterable[Settlement], *, store_away: bool, shared: bool, started_records: bool) -> Remains:
    """Rule 2.

    Args:
        settlements: in their order.
        store_away: it is the store that is waited for, else the broker.
        shared: the broker is the store: all of a settlement is one step.
        started_records: the broker keeps who has started what.
    """
    remains = Remains([], [], [])
    for settlement in settlements:
        stores = bool(settlement.results or settlement.parts or settlement.begins or settlement.closes)
        if not stores and (store_away or not settlement.follow):
            remains.kept.append(settlement)
        elif settlement.delivery.receipt is not None and not settlement.after_start:
            remains.returned.append(settlement.delivery)
            remains.kept.append(Settlement(settlement.delivery, Verdict.RETURN))
        else:
            remains.lost.append(settlement.delivery)
            if shared:
                remains.kept.append(settlement)
            elif not started_records and settlement.closes is None:
                settlement.results = settlement.parts = settlement.begins = ()
                remains.kept.append(settlement)
    return remains


class Leaving:
    """Waits for the last settlements of a worker that stops."""

    def __init__(self, settler: Settler, connected: asyncio.Event) -> None:
        """Wait for nothing yet.

        Args:
            settler: of the worker.
            connected: there is a broker.
        """
        self._settler = settler
        self._connected = connected
        #: Rule 3.
        self.hurried = False
        self._parted = False

    async def told(self, pausing: Coroutine[Any, Any, None]) -> None:
        """Tell the broker that nothing is consumed any more, if it listens."""
        task, began = asyncio.ensure_future(pausing), time.monotonic()
        # Whatever is known of the store, which is another matter.
        while not task.done() and (left := began + (_HURRY if self.hurried else _PATIENCE) - time.monotonic()) > 0:
            await asyncio.wait([task], timeout=min(0.1, left))
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settled(self, consuming: asyncio.Future[None]) -> bool:
        """Return when all is settled, or after rule 2: at once if the consumer has ended. Gives whether that was so."""
        if await self._wait(consuming):
            return self._settler.left
        away = f"the broker: {consuming.exception()}" if consuming.done() else self._away()
        remains = Remains([], [], [])
        with contextlib.suppress(TimeoutError):  # the connection may have ended just now
            remains = await asyncio.wait_for(self._settler.part(), _HURRY)
        self._tell(remains, away)
        # What is kept may still need a moment.
        self.hurried = self._parted = True
        await self._wait(consuming)
        return True

    def _patience(self) -> float:
        if self.hurried:
            if not self._connected.is_set():
                return _HURRY_BROKER
            return 0.0 if self._settler.away and not self._parted else _HURRY
        return _PATIENCE if self._connected.is_set() else _PATIENCE_BROKER

    def _away(self) -> str:
        if not self._connected.is_set():
            return "the broker, to which there is no connection"
        return self._settler.away or "a broker or a result store that does not answer"

    async def _wait(self, consuming: asyncio.Future[None]) -> bool:
        """Whether all is settled."""
        settler = self._settler
        drained = asyncio.ensure_future(settler.drained())
        began = since = time.monotonic()
        applied, told = settler.applied, self.hurried
        try:
            while True:
                now = time.monotonic()
                if applied != settler.applied:
                    applied, since = settler.applied, now
                left = since + self._patience() - now
                await asyncio.wait(
                    [drained, consuming], timeout=max(0.0, min(0.1, left)), return_when=asyncio.FIRST_COMPLETED
                )
                if drained.done() or consuming.done() or left <= 0:
                    return drained.done()
                if not told and (settler.away or now - began > _SILENT):
                    told = True
                    logger.warning(
                        "Stopping, but outcomes wait to be settled, for %s. They have %.0f more seconds, "
                        "and less after another TERM.", self._away(), left,
                    )  # fmt: skip
        finally:
            drained.cancel()

    def _tell(self, remains: Remains, away: str) -> None:
        _, returned, lost = remains
        if returned:
            logger.error(
                "Not waiting any longer for %s. These are given back to their queues, and run again: %s",
                away, _names(returned),
            )  # fmt: skip
        if lost:
            logger.error(
                "Not waiting any longer for %s. These were acknowledged before, and their results are lost: %s",
                away, _names(lost),
            )  # fmt: skip
        if not returned and not lost:
            logger.error("Not waiting any longer for %s: what is not settled comes back when it can.", away)


def _names(deliveries: list[Delivery]) -> str:
    headers = [delivery.envelope.headers for delivery in deliveries[:_NAMED]]
    more = f" and {len(deliveries) - _NAMED} more" if len(deliveries) > _NAMED else ""
    return ", ".join(f"{each.get('task')}[{each.get('id')}]" for each in headers) + more
