"""What the members of a chord cost a Redis beyond their results, in commands, so that the clock does not matter."""

from __future__ import annotations

import pytest
import redis
from drivers import DRIVERS, take
from test_chords_settled import Place, member

from celery.brokers.base import Settlement, Verdict

pytestmark = pytest.mark.needs(*DRIVERS["redis"])
MEMBERS = 50


@pytest.fixture
def place(private_redis):
    server = private_redis().url
    made = Place(server, server, "q")
    yield made
    made.app.close()


async def commands_of(place, receiver, batch):
    """How many commands a settlement runs, by their names, without what storing results takes."""
    with redis.Redis.from_url(place.urls[0]) as client:
        client.config_resetstat()
        assert await receiver.settle(batch) == []
        said = client.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): entry["calls"]
        for name, entry in said.items()
        if name not in ("cmdstat_set", "cmdstat_publish", "cmdstat_evalsha", "cmdstat_info", "cmdstat_config|resetstat")
    }


async def test_members_that_end_together_are_counted_by_commands_for_all_of_them(place):
    place.send(2 * MEMBERS)
    group_id = place.begin(2 * MEMBERS)
    async with place.receiver() as receiver:
        held = await take(receiver, 2 * MEMBERS)
        plain = [
            Settlement(delivery, Verdict.ACK, results=[place.backend.prepare_write(f"p{at}", at, "SUCCESS")])
            for at, delivery in enumerate(held[:MEMBERS])
        ]
        counted = [member(place, delivery, group_id, at) for at, delivery in enumerate(held[MEMBERS:])]
        await receiver.settle([plain.pop(), counted.pop()])  # what the script is loaded with
        as_results = await commands_of(place, receiver, plain)
        assert as_results == {"zrem": 1, "hdel": 1, "srem": 1}
        beyond = {"get": 3, "zcard": 1, "sadd": 1, "zadd": 1, "expire": 5}
        assert await commands_of(place, receiver, counted) == {**as_results, **beyond}
