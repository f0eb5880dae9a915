"""Settlements that do not wait: those that pass others which are stuck, and the few that nothing is in front of.

A settlement is *stuck* when what follows from it cannot be sent (RabbitMQ blocks who publishes while it is short of
memory or disk), or its record finds no store. Those behind it wait, as settlements are applied in their order.

Rules
    1. *Bare* is a settlement that only lets go of its message: nothing follows, nothing is stored. It goes first of its
       batch, and passes a batch that is stuck: else every message that the worker may hold would soon be one that is
       over and waits, and the worker would stand still though there is work that it can do.
    2. What ends an attempt that was acknowledged early does not pass: its start may still be in front of it.
    3. Where all of a settlement is one step of its broker, that step has its own order, and nothing passes.
    4. Few settlements that come while none is waiting or being applied are applied where they come, if their broker
       answers none of it: whoever waits for a lone task does not wait for two turns of the loop. Many are as fast in
       batches, and cost their broker less.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from celery import exceptions
from celery.brokers.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Self

    from celery.brokers.base import Receiver, Settlement

#: Seconds after which a batch counts as stuck.
_STUCK = 0.2
#: Settlements that are few (rule 4).
_FEW = 4


def bare(settlement: Settlement) -> bool:
    """Whether it only lets go of its message."""
    return not (
        settlement.follow
        or settlement.results
        or settlement.parts
        or settlement.begins
        or settlement.closes
        or settlement.claims
        or settlement.after_start
        or (settlement.verdict is not Verdict.ACK and settlement.verdict is not Verdict.START)
    )


def weight_of(settlement: Settlement) -> int:
    """Bytes that it has to move."""
    # Twice for each task: loops that are mostly empty cost a fifth of sums.
    weight = 0
    for write in settlement.results:
        weight += len(write.payload)
    for message in settlement.follow:
        weight += len(message.envelope.body)
    return weight


def settle_now(receiver: Receiver | None, batch: Sequence[Settlement], *, shared: bool) -> bool:
    """Apply few settlements by rule 4. False: they have to wait their turn.

    Args:
        receiver: settles them; None: there is no connection.
        batch: all of them, or none.
        shared: the receiver stores results too.
    """
    if receiver is None or not receiver.settles_now or not 0 < len(batch) <= _FEW:
        return False
    for each in batch:
        if each.follow or each.parts or each.begins or each.closes or each.claims or (each.results and not shared):
            return False
    return receiver.settle_now(batch)


class Passing:
    """While it is entered, what is bare passes the batch that is being applied, once that is stuck."""

    __slots__ = ("_over", "_settle", "_take", "_task", "_timer", "_woken")

    def __init__(
        self, take: Callable[[], list[Settlement]], settle: Callable[[list[Settlement]], Awaitable[None]],
        woken: asyncio.Event,
    ) -> None:  # fmt: skip
        """Nothing passes yet.

        Args:
            take: takes from what waits all that is bare.
            settle: settles it; what it raises OperationalError for it has put back.
            woken: set whenever there is more; nobody else waits for it meanwhile.
        """
        self._take = take
        self._settle = settle
        self._woken = woken
        self._over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(_STUCK, self._begin)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._task is None:
            return
        if kind is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            return
        self._over = True
        self._woken.set()
        await self._task

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._pass(), name="settlements that pass others")

    async def _pass(self) -> None:
        while not self._over:
            self._woken.clear()
            if settlements := self._take():
                try:
                    await self._settle(settlements)
                except exceptions.OperationalError:
                    return  # whoever receives learns of a lost connection too, and ends us all
            else:
                await self._woken.wait()
