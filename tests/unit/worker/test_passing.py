"""Which settlements pass a batch that is stuck, and when."""

import asyncio

import pytest

from celery import exceptions
from celery.brokers.base import Delivery, Publish, ResultWrite, Settlement, Verdict
from celery.wire.envelope import Envelope
from celery.worker.passing import Passing, bare

MESSAGE = Envelope({"id": "an-id"}, b"")


def settlement(verdict=Verdict.ACK, **kwargs):
    return Settlement(Delivery(MESSAGE, object(), "q", "", "q"), verdict, **kwargs)


@pytest.mark.parametrize("verdict", Verdict)
def test_what_only_lets_go_of_its_message_is_bare(verdict):
    assert bare(settlement(verdict)) == (verdict in {Verdict.ACK, Verdict.START})


@pytest.mark.parametrize(
    "more",
    [
        {"follow": (Publish(MESSAGE, "", "q"),)},
        {"results": (ResultWrite("an-id", "SUCCESS", b"{}"),)},
        {"after_start": True},
        {"begins": (object(),)},
        {"parts": (object(),)},
        {"closes": object()},
        {"claims": [object()]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_does_more_or_comes_after_a_start_is_not(more):
    assert not bare(settlement(**more))


class Queue:
    """What waits, and what was settled; `lost`: the connection is."""

    def __init__(self):
        self.waiting, self.settled = [], []
        self.woken, self.progress = asyncio.Event(), asyncio.Event()
        self.lost = False

    def add(self, name):
        self.waiting.append(name)
        self.woken.set()

    def take(self):
        taken, self.waiting = self.waiting, []
        return taken

    async def settle(self, names):
        self.progress.set()
        if self.lost:
            self.waiting = [*names, *self.waiting]
            raise exceptions.OperationalError("lost")
        self.settled += names

    async def more(self):
        await asyncio.wait_for(self.progress.wait(), 20)
        self.progress.clear()

    def passing(self):
        return Passing(self.take, self.settle, self.woken)


def test_what_waits_and_what_comes_passes_a_batch_that_is_stuck():
    async def scenario():
        queue = Queue()
        queue.add("waits")
        async with queue.passing():
            await queue.more()
            queue.add("comes")
            await queue.more()
        queue.add("afterwards")
        await asyncio.sleep(0)
        return queue

    queue = asyncio.run(scenario())
    assert (queue.settled, queue.waiting) == (["waits", "comes"], ["afterwards"])


def test_nothing_passes_a_batch_that_moves():
    async def scenario():
        queue = Queue()
        queue.add("waits")
        async with queue.passing():
            await asyncio.sleep(0)
        return queue

    assert asyncio.run(scenario()).waiting == ["waits"]


def test_when_the_connection_is_lost_nothing_passes_any_more():
    async def scenario():
        queue = Queue()
        queue.lost = True
        queue.add("waits")

        async def applying():
            async with queue.passing():
                await queue.more()
                raise exceptions.OperationalError("lost")

        with pytest.raises(exceptions.OperationalError):
            await applying()
        return queue

    queue = asyncio.run(scenario())
    assert (queue.settled, queue.waiting) == ([], ["waits"])
