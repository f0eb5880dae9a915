"""Which settlements pass a batch that is stuck, and when."""

import asyncio

import pytest

from celery import Celery, exceptions
from celery.brokers.base import Capabilities, Delivery, Publish, ResultWrite, Settlement, Verdict
from celery.wire.envelope import Envelope
from celery.worker.passing import Passing, bare
from celery.worker.request import Settler

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


class Broker:
    """Settles at once what it can, and the rest when it is allowed to."""

    capabilities = Capabilities(name="quick")
    settles_now = True
    counts_chords = True

    def __init__(self):
        self.at_once, self.in_turn = [], []
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()

    def settle_now(self, batch):
        self.at_once += batch
        return True

    async def settle(self, batch):
        self.asked.set()
        await self.allowed.wait()
        self.in_turn += batch
        return []


def settle(*batches, busy=False, shared=True):
    """What a broker was told at once, and what in turn, when a settler was given these batches."""

    async def scenario(settler):
        settler.receiver, settler.shared = broker, shared
        running = asyncio.create_task(settler.run())
        if busy:
            settler.add(busy)
            await asyncio.wait_for(broker.asked.wait(), 20)
        else:
            await asyncio.sleep(0)
        for batch in batches:
            settler.add(batch)
        at_once = list(broker.at_once)
        broker.allowed.set()
        await asyncio.wait_for(settler.drained(), 20)
        running.cancel()
        return at_once, broker.in_turn

    broker = Broker()
    with Celery("proj", broker="memory://", set_as_current=False) as app:
        return asyncio.run(scenario(Settler(app, lambda: None)))


RESULT = ResultWrite("an-id", "SUCCESS", b"{}")


def test_few_that_come_while_nothing_waits_are_settled_where_they_come():
    first, second = settlement(), settlement(results=(RESULT,))
    assert settle([first], [second]) == ([first, second], [])


def test_many_are_settled_in_their_turn():
    many = [settlement() for _ in range(5)]
    assert settle(many) == ([], many)


def test_none_is_settled_before_those_in_front_of_it():
    in_front, comes = settlement(results=(RESULT,)), settlement(results=(RESULT,))
    assert settle([comes], busy=[in_front] * 5) == ([], [*[in_front] * 5, comes])


def test_what_the_broker_does_not_store_is_settled_in_its_turn():
    telling = settlement(results=(RESULT,))
    assert settle([telling], shared=False)[0] == []
