"""How a settler is ended, and parts with what is away; and what a worker says that leaves something."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from celery import Celery, exceptions
from celery.brokers.base import Capabilities, Delivery, Verdict
from celery.wire.envelope import Envelope
from celery.worker.leaving import Leaving
from celery.worker.request import Settler


class Broker:
    """Takes a batch, and does not answer."""

    capabilities = Capabilities(name="silent", transactional=True)
    counts_chords = True

    def __init__(self):
        self.asked = asyncio.Event()

    async def settle(self, batch):
        self.asked.set()
        await asyncio.Event().wait()


@pytest.fixture
def settler():
    with Celery("proj", broker="memory://", set_as_current=False) as app:
        settler = Settler(app, lambda: None)
        settler.settlement(Delivery(Envelope({"id": "an-id"}, b""), object(), "q", "", "q"), Verdict.ACK)
        yield settler


async def begun(settler):
    """It waits for its broker."""
    settler.receiver = broker = Broker()
    settler.shared = True
    running = asyncio.create_task(settler.run())
    await asyncio.wait_for(broker.asked.wait(), 5)
    return running


async def ends(running):
    running.cancel()
    await asyncio.wait([running], timeout=5)
    return running.cancelled()


def test_it_parts_and_goes_on_until_it_is_ended(settler):
    async def main():
        running = await begun(settler)
        remains = await asyncio.wait_for(settler.part(), 5)
        assert [each.verdict for each in remains.kept] == [Verdict.ACK]
        assert not running.done()
        assert await ends(running)

    asyncio.run(main())


def test_who_parted_without_a_broker_can_be_ended_once_there_is_one(settler):
    async def main():
        remains = await asyncio.wait_for(settler.part(), 5)
        assert [each.verdict for each in remains.kept] == [Verdict.ACK]
        assert await ends(await begun(settler))

    asyncio.run(main())


def test_who_is_ended_while_it_parts_has_parted_and_can_be_ended_again(settler):
    async def main():
        running = await begun(settler)
        parting = settler.part()
        assert await ends(running)
        assert [each.verdict for each in (await asyncio.wait_for(parting, 5)).kept] == [Verdict.ACK]
        assert await ends(await begun(settler))

    asyncio.run(main())


def test_what_is_not_settled_when_no_broker_is_looked_for_any_more_is_told_and_counts_as_left(settler, caplog):
    async def main():
        consuming = asyncio.get_running_loop().create_future()
        consuming.set_exception(exceptions.OperationalError("no way to it"))
        assert await Leaving(settler, asyncio.Event()).settled(consuming)

    asyncio.run(main())
    assert "Not waiting any longer for the broker: no way to it" in caplog.text


def test_a_broker_is_told_of_a_hurried_stop_though_the_store_is_away():
    async def main():
        connected, told = asyncio.Event(), asyncio.Event()
        connected.set()
        leaving = Leaving(SimpleNamespace(away="the result store"), connected)
        leaving.hurried = True

        async def tell():
            told.set()

        await leaving.told(tell())
        assert told.is_set()

    asyncio.run(main())
